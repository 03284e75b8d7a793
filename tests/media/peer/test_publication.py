"""Layers through a worker, of a simulcast by rid or in one stream: one continuous stream to each subscriber."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from support.media_client import Client, LocalControl, local_worker, run, until

from sfu import bridge
from sfu.media.bandwidth.allocation import Step
from sfu.media.bandwidth.lastn import Video
from sfu.media.peer.publication import RELEASE_S, Publication
from sfu.media.peer.sdp import AnswerSection
from sfu.media.rtp import codecs, headers, rtcp, vp8
from sfu.media.streams.fanout import SendBuffers
from sfu.media.streams.rtp_stream import RtpStream

SSRC = {"q": 7001, "h": 7002, "f": 7003}


class Layer:
    """One layer of a publisher's camera, as browsers send it: named by MID and RID, numbers of its own."""

    def __init__(self, client: Client, rid: str, start: int) -> None:
        self.client, self.rid, self.ssrc = client, rid, SSRC[rid]
        self.seq, self.ts, self.picture, self.tl0 = start, start * 1000, start & 0x7FFF, start & 0xFF

    @property
    def names(self) -> bytes:
        return struct.pack("!HHBcBc4x", 0xBEDE, 2, codecs.MID_ID << 4, b"1", codecs.RID_ID << 4, self.rid.encode())

    async def begin(self) -> None:
        """A packet that is not forwarded, by which the others are offered this."""
        await self.client.send(struct.pack("!BBHII", 0x90, 111, self.seq, 0, self.ssrc) + self.names)

    async def send(self, text: bytes = b"", *, key: bool = False, named: bool = True) -> None:
        """One frame of one packet; `text` follows in it."""
        self.seq, self.picture = (self.seq + 1) & 0xFFFF, (self.picture + 1) & 0x7FFF
        self.ts, self.tl0 = (self.ts + 3000) & 0xFFFFFFFF, (self.tl0 + 1) & 0xFF
        head = struct.pack("!BBHII", 0x90 if named else 0x80, 0x80 | 96, self.seq, self.ts, self.ssrc)
        head += self.names if named else b""
        picture = struct.pack("!BBHB", 0x90, 0xC0, 0x8000 | self.picture, self.tl0)
        await self.client.send(head + picture + bytes([0 if key else 1]) + bytes(9) + self.rid.encode() + text)


class Got:
    """A packet as it arrived."""

    def __init__(self, data: bytes) -> None:
        _, _, self.seq, self.ts, self.ssrc = struct.unpack_from("!BBHII", data)
        found = vp8.vp8_picture(data, len(data))
        assert found is not None
        self.picture, self.tl0 = found.number, found.tl0
        padding = data[-1] if data[0] & 0x20 else 0
        self.text = data[headers.payload_offset(data, len(data)) + 15 : len(data) - padding].decode()


@asynccontextmanager
async def simulcast(control: LocalControl, **viewer: Any) -> AsyncIterator[tuple[Client, Client, dict[str, Layer]]]:
    a, b = Client(control, "a"), Client(control, "b")
    a.layers = ("q", "h", "f")
    for name, value in viewer.items():
        setattr(b, name, value)
    try:
        for client in (a, b):
            await client.start()
        layers = {rid: Layer(a, rid, start) for rid, start in (("q", 100), ("h", 40_000), ("f", 65_530))}
        await layers["q"].begin()
        camera = control.worker.peers["a"].published["camera"]
        await until(lambda: "b" in camera.down_tracks, "attached")
        yield a, b, layers
    finally:
        for client in (a, b):
            await client.aclose()


async def view(control: LocalControl, height: int) -> None:
    shown = [["a", "camera", height]] if height else []
    await control.send(bridge.View("b", shown))
    await until(lambda: control.worker.peers["b"].subscriber._view is not None, "the view came")


def test_the_offer_has_layers_for_those_who_know_them() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            offer = (await a.negotiate()).sdp
            assert "a=simulcast:recv q;h;f\r\n" in offer.split("m=")[2]
            assert "simulcast" not in offer.split("m=")[1]
            await control.send(bridge.Join("bare", "room", False, True, True))
            bare = await control.event(bridge.Offer, "bare")
            assert "simulcast" not in bare.sdp
            assert "a=rid" not in bare.sdp

    run(test)


@pytest.mark.parametrize("before", [0, 300])
def test_a_subscriber_goes_from_layer_to_layer_as_in_one_stream(before: int) -> None:
    """Upwards at a keyframe, and the smaller layer until then."""

    async def test() -> None:
        async with local_worker() as control, simulcast(control) as (_, b, layers):
            camera = control.worker.peers["a"].published["camera"]

            async def arrived(q: int, h: int) -> None:
                tracks = camera.layers
                await until(lambda: (tracks["q"].packets, tracks["h"].packets) == (before + q, h), "they came")

            await view(control, 180)
            for n in range(before):
                await layers["q"].send()
                if n % 20 == 19:
                    await until(lambda n=n: camera.layers["q"].packets == n + 1, "they came")
            got = []
            await layers["q"].send(key=True)
            await layers["h"].send(key=True)
            await layers["q"].send(named=False)
            await arrived(2, 1)
            await view(control, 360)
            await until(lambda: bool(camera.layers["h"]._coming), "the change is arranged")
            await layers["h"].send()
            await layers["q"].send()
            await arrived(3, 2)
            await layers["h"].send(key=True)
            await layers["h"].send()
            await layers["q"].send()
            await arrived(4, 4)
            await view(control, 180)
            await until(lambda: bool(camera.layers["q"]._coming), "the way back is arranged")
            await layers["h"].send()
            await arrived(4, 5)
            await layers["q"].send(key=True)
            await layers["q"].send(b" last")
            while not got or got[-1].text != "q last":
                got.append(Got(await b.raw_rtp()))
            got = got[-8:]
            assert [one.text for one in got] == ["q", "q", "q", "h", "h", "h", "q", "q last"]
            for one, after in pairwise(got):
                assert (after.seq - one.seq) & 0xFFFF == 1
                assert 0 < (after.ts - one.ts) & 0xFFFFFFFF < 90_000
                assert (after.picture - one.picture) & 0x7FFF == 1
                assert (after.tl0 - one.tl0) & 0xFF == 1
            assert {one.ssrc for one in got} == {camera.ssrc}

    run(test)


def test_what_was_lost_at_a_change_comes_again_in_the_same_numbers() -> None:
    """Nothing of the layer that was left: decoders go on at the keyframe."""

    async def test() -> None:
        async with local_worker() as control, simulcast(control, takes_repairs=True) as (_, b, layers):
            await view(control, 180)
            await layers["q"].send(key=True)
            await layers["q"].send()
            await view(control, 360)
            camera = control.worker.peers["a"].published["camera"]
            await until(lambda: bool(camera.layers["h"]._coming), "the change is arranged")
            await until(lambda: camera.layers["q"].packets == 2, "they came")
            await layers["h"].send(key=True)
            got: list[Got] = []
            while len(got) < 3:
                data = await b.raw_rtp()
                if headers.ssrc_of(data) == camera.ssrc:  # else it is of a probe
                    got.append(Got(data))
            assert [one.text for one in got] == ["q", "q", "h"]
            await b.send(rtcp.nack(camera.ssrc, [one.seq for one in got]))
            transceiver = next(s for s in control.worker.peers["b"].negotiation.accepted if s.track is camera)
            again: list[Got] = []
            while not again:
                data = await b.raw_rtp()
                if headers.ssrc_of(data) == transceiver.rtx_ssrc and not data[0] & 0x20:  # else it is of a probe
                    at = headers.payload_offset(data, len(data))
                    assert data[1] & 0x7F == 97
                    media = data[:1] + bytes([96]) + data[at : at + 2] + data[4:at] + data[at + 2 :]
                    again.append(Got(media))
            same = [(one.seq, one.ts, one.picture, one.tl0, one.text) for one in (again[0], got[2])]
            assert same[0] == same[1]
            await until(lambda: control.worker.counters["nack_left"] == 2, "the others are not sent again")

    run(test)


def test_hidden_videos_are_not_sent_and_their_layers_not_wanted() -> None:
    async def test() -> None:
        async with local_worker() as control, simulcast(control) as (_, b, layers):
            await view(control, 360)
            await layers["q"].send(key=True)
            await layers["h"].send(key=True)
            await b.raw_rtp()
            await control.send(bridge.View("b", []))
            paused = await control.event(bridge.Paused, "b")
            assert paused == bridge.Paused("b", "a", "camera", "hidden")
            wanted = await control.event(bridge.Layers, "a", RELEASE_S + 8)
            while wanted.active:
                wanted = await control.event(bridge.Layers, "a", RELEASE_S + 8)
            assert control.worker.peers["b"].subscriber._tile(control.worker.peers["a"].published["camera"]).height == 0
            await view(control, 180)
            assert (await control.event(bridge.Paused, "b")).reason == ""
            assert (await control.event(bridge.Layers, "a")).active

    run(test)


def test_names_decide_whose_an_ssrc_is() -> None:
    async def test() -> None:
        async with local_worker() as control, simulcast(control) as (_, _, layers):
            peer = control.worker.peers["a"]
            camera = peer.published["camera"]
            assert camera.video == Video("a", "camera")
            await layers["q"].send(key=True)
            await layers["f"].send(key=True)
            await until(lambda: camera.layers["f"].remote_ssrc == SSRC["f"], "latched")
            assert camera.layers["q"].remote_ssrc == SSRC["q"]
            assert camera.layers["h"].remote_ssrc is None
            unknown = control.worker.counters["packets_unknown"]
            layers["h"].rid = "x"
            await layers["h"].send(key=True)
            await until(lambda: control.worker.counters["packets_unknown"] == unknown + 1, "nobody's")
            assert set(peer.publisher.by_ssrc) >= {SSRC["q"], SSRC["f"]}
            assert SSRC["h"] not in peer.publisher.by_ssrc

    run(test)


# --- layers in one stream (SVC) ---------------------------------------------------------------------------------------


def test_an_offer_keeps_its_shape_while_only_bitrates_change() -> None:
    async def test() -> None:
        async with local_worker() as control, simulcast(control):
            camera, now_s = control.worker.peers["a"].published["camera"], time.monotonic()
            begun = camera.offered(now_s)
            assert camera.offered(now_s) is begun, "once a moment"
            camera.streams["q"].bytes += 20_000
            for later_s in (0.2, 0.4):
                camera.measure(now_s + later_s)
            camera.streams["q"].last_s = now_s
            faster = camera.offered(now_s + 0.4)
            assert faster.layers[0].bps != begun.layers[0].bps
            assert faster.shape is begun.shape
            camera.set_muted(True)
            assert camera.offered(now_s + 0.6).shape is not begun.shape

    run(test)


def test_layers_are_as_large_as_the_client_tells() -> None:
    """Those that it does not send are no choice; the others have their real sizes before a packet of them came."""

    async def test() -> None:
        async with local_worker() as control, simulcast(control):
            camera, now_s = control.worker.peers["a"].published["camera"], time.monotonic()
            assert [(layer.rid, layer.height) for layer in camera.offered(now_s).layers] == [
                ("q", 180), ("h", 360), ("f", 720),
            ]  # fmt: skip
            shape = camera.offered(now_s).shape
            small = (bridge.LayerSize("q", 320, 240, 150_000), bridge.LayerSize("h", 640, 480, 350_000))
            await control.send(bridge.Sizes("a", "camera", small))
            await until(lambda: len(camera.offered(time.monotonic()).layers) == 2, "the sizes are taken")
            offer = camera.offered(time.monotonic())
            assert [(layer.rid, layer.width, layer.height) for layer in offer.layers] == [
                ("q", 320, 240), ("h", 640, 480),
            ]  # fmt: skip
            assert offer.layers[1].bps == 350_000
            assert offer.shape is not shape
            await control.send(bridge.Sizes("a", "camera", ()))
            await until(lambda: len(camera.offered(time.monotonic()).layers) == 3, "it does not tell any more")

    run(test)


def test_sizes_told_before_the_source_begins_count() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = Client(control, "a")
            a.layers = ("q", "h", "f")
            await a.start()
            try:
                peer = control.worker.peers["a"]
                await control.send(bridge.Sizes("a", "camera", (bridge.LayerSize("q", 320, 180, 150_000),)))
                peer.publisher.end("camera")
                peer.publisher.begin(
                    "camera", "video", AnswerSection("1", "video", True, False, (), rids=("q", "h", "f"))
                )
                assert [layer.height for layer in peer.published["camera"].offered(time.monotonic()).layers] == [180]
            finally:
                await a.aclose()

    run(test)


def test_a_subscriber_has_what_temporal_layers_it_is_to_have() -> None:
    """At once on its layer and on the way down, on the way up only when it is there."""

    async def test() -> None:
        async with local_worker() as control, simulcast(control) as (_, b, layers):
            camera = control.worker.peers["a"].published["camera"]
            down_track = camera.down_tracks["b"]
            await layers["q"].send(key=True)
            await b.raw_rtp()
            camera.prefer("b", Step("q", 0), now=False)
            assert (down_track.stream, down_track.temporal) == (camera.streams["q"], 0)
            camera.prefer("b", Step("h", 1), now=False)
            assert (down_track.stream, down_track.temporal) == (camera.streams["q"], 0)
            assert camera.step_of("b") == Step("h", 1)
            await layers["h"].begin()
            await layers["h"].send(key=True)
            await until(lambda: down_track.stream is camera.streams["h"], "b is on the larger layer")
            camera.prefer("b", Step("h", 1), now=False)
            assert down_track.temporal == 1
            camera.prefer("b", Step("q"), now=True)
            assert (down_track.stream, down_track.temporal) == (camera.streams["q"], None)

    run(test)


def test_smaller_layers_stay_on_where_the_uplink_is_narrow() -> None:
    """The encoder can fall to them, instead of drawing a large picture with a small layer's bitrate."""

    async def test() -> None:
        camera = Publication(
            SimpleNamespace(id="a", ready=lambda: None, send_rtcp=lambda data: None),
            "camera",
            "video",
            SendBuffers({}),
            ("q", "h", "f"),
        )  # type: ignore[arg-type]
        sizes = {"q": (320, 180, 150_000), "h": (640, 360, 350_000), "f": (1280, 720, 1_700_000)}
        camera.tell_sizes([bridge.LayerSize(rid, *size) for rid, size in sizes.items()])
        subscriber: Any = SimpleNamespace(id="b", agent=None, ready=lambda: None, rtx_budget=None)
        camera.streams["f"].remote_ssrc = 1
        camera.add_down_track(subscriber)
        camera.prefer("b", Step("f"), now=False)
        now_s = 100.0

        def flow(bps: float, seconds: float, lost: int = 0) -> None:
            nonlocal now_s
            for _ in range(round(seconds * 5)):
                now_s += 0.2
                camera.streams["f"].packets += 20 - lost
                for number in range(lost):
                    camera.streams["f"].reception.skipped(number, number + 1, now_s)
                camera.streams["f"].bytes += round(bps * 0.2 / 8)
                camera.streams["f"].last_s = now_s
                camera.measure(now_s)
                camera.ask(now_s)

        flow(1.6e6, 20)
        assert camera.asked == ("f",)
        flow(200e3, 10)
        assert camera.asked == ("q", "h", "f")
        flow(1.6e6, 20)
        assert camera.asked == ("f",)
        flow(200e3, 10, lost=2)
        assert camera.asked == ("f",), "it is slow because much is lost"

    run(test)


def test_narrow_subscribers_have_keyframes_requested_together() -> None:
    camera = Publication(SimpleNamespace(id="a"), "camera", "video", SendBuffers({}))  # type: ignore[arg-type]
    assert camera.may_rise(100.0)
    assert camera.may_rise(100.2), "with the first one"
    assert not camera.may_rise(100.4)
    assert not camera.may_rise(101.9)
    assert camera.may_rise(102.1)


class Scalable:
    """A publisher's camera as VP9 with spatial layers, a packet each, or as VP8, under the rid `q` if it has any."""

    def __init__(self, client: Client) -> None:
        self.client, self.ssrc = client, SSRC["q"] if client.layers else client.ssrcs["camera"]
        self.seq, self.ts = 100, 9000

    async def send(self, layers: int = 3, *, key: bool = False, vp8: bool = False) -> None:
        """One picture."""
        self.ts += 3000
        names = b""
        if self.client.layers:
            names = struct.pack(
                "!HHBcBcBBBB", 0xBEDE, 2, codecs.MID_ID << 4, b"1", codecs.RID_ID << 4, b"q", 0, 0, 0, 0
            )
        for spatial in range(1 if vp8 else layers):
            self.seq += 1
            marker = 0x80 * (vp8 or spatial == layers - 1)
            head = struct.pack(
                "!BBHII", 0x90 if names else 0x80, marker | (96 if vp8 else 98), self.seq, self.ts, self.ssrc
            )
            payload = bytes([0x10, 0 if key else 1]) + bytes(8)
            if not vp8:
                told = key and not spatial
                payload = bytes([0x3C | 0x40 * (not key) | 0x02 * told, spatial << 1]) + b"\x02" * (not key)
                payload += bytes([(layers - 1) << 5 | 0x10]) * told
                payload += b"".join(struct.pack("!HH", 320 << k, 180 << k) for k in range(layers)) * told
            await self.client.send(head + names + payload + f"layer {spatial}".encode())


class Part(NamedTuple):
    """A packet of a picture as it arrived."""

    seq: int
    ts: int
    marker: bool
    text: str


async def parts(client: Client, n: int) -> list[Part]:
    found = []
    while len(found) < n:
        data = await client.raw_rtp()
        _, second, seq, ts, _ = struct.unpack_from("!BBHII", data)
        end = len(data) - (data[-1] if data[0] & 0x20 else 0)
        found.append(Part(seq, ts, bool(second & 0x80), data[end - 7 : end].decode()))
    return found


@asynccontextmanager
async def scalable(control: LocalControl, *rids: str) -> AsyncIterator[tuple[Client, Client, Scalable]]:
    a, b = Client(control, "a"), Client(control, "b")
    a.layers = rids
    try:
        for client in (a, b):
            await client.start()
        if rids:
            await Layer(a, rids[0], 0).begin()
        await until(lambda: "b" in control.worker.peers["a"].published["camera"].down_tracks, "attached")
        yield a, b, Scalable(a)
    finally:
        for client in (a, b):
            await client.aclose()


def offered(control: LocalControl) -> list[tuple[str, int]]:
    camera = control.worker.peers["a"].published["camera"]
    return [(layer.rid, layer.height) for layer in camera.offered(time.monotonic()).layers]


async def wants(control: LocalControl, layer: str) -> None:
    camera = control.worker.peers["a"].published["camera"]
    await until(lambda: camera.step_of("b").rid == layer, f"b is to have {layer}")


@pytest.mark.parametrize("rids", [(), ("q", "h", "f")])
def test_a_subscriber_gets_the_layers_of_a_stream_that_it_shows(rids: tuple[str, ...]) -> None:
    """Down with any picture, up with a keyframe, and what remains of a picture ends with the marker."""

    async def test() -> None:
        async with local_worker() as control, scalable(control, *rids) as (_, b, alice):
            camera, rid = control.worker.peers["a"].published["camera"], "q" if rids else ""
            await view(control, 720)
            await alice.send(key=True)
            assert await parts(b, 3)
            await until(lambda: len(offered(control)) == 3, "the other rids are silent")
            assert offered(control) == [(f"{rid}0", 180), (f"{rid}1", 360), (rid, 720)]
            await alice.send()
            got = await parts(b, 3)
            down_track = camera.down_tracks["b"]
            for height, before in ((360, 3), (180, 2)):
                await view(control, height)
                await wants(control, f"{rid}{before - 2}")
                await alice.send()
                got += await parts(b, before - 1)
                assert down_track.stream is camera.layers[f"{rid}{before - 2}"]
            await view(control, 720)
            await wants(control, rid)
            await alice.send()
            await alice.send(key=True)
            got += await parts(b, 4)
            await b.send(rtcp.nack(camera.ssrc, [part.seq for part in got[-6:]]))
            await until(lambda: control.worker.counters["nack_answered"] == 6, "all of it is there once more")
            pictures = [[part.text for part in got if part.ts == ts] for ts in sorted({part.ts for part in got})]
            assert [len(picture) for picture in pictures] == [3, 2, 1, 1, 3]
            assert all(picture == [f"layer {k}" for k in range(len(picture))] for picture in pictures)
            assert [part.marker for part in got] == [k == len(p) - 1 for p in pictures for k in range(len(p))]
            assert [(after.seq - part.seq) & 0xFFFF for part, after in pairwise(got)] == [1] * (len(got) - 1)

    run(test)


def test_layers_in_a_stream_are_not_paused_one_by_one() -> None:
    """What was asked of the publisher before stays; nothing is, when nobody watches."""

    async def test() -> None:
        async with local_worker() as control, scalable(control, "q", "h", "f") as (_, b, alice):
            camera, told = control.worker.peers["a"].published["camera"], []
            await view(control, 720)
            asked = set(camera.asked)
            for step in range(60):
                await alice.send(key=step % 10 == 0)
                await asyncio.sleep(0.1)  # the time a layer is let go in passes
                if step == 10:
                    asked = set(camera.asked)
                    await view(control, 180)
                    told.append(camera.asked)
            assert len(await parts(b, 60)) == 60
            assert set(camera.asked) == asked
            await control.send(bridge.View("b", []))
            await until(lambda: camera.asked == (), "nobody watches", RELEASE_S + 8)
            await view(control, 180)
            await until(lambda: set(camera.asked) == asked, "as before")

    run(test)


@pytest.mark.parametrize("rids", [(), ("q", "h", "f")])
def test_layers_in_a_stream_end_with_it(rids: tuple[str, ...]) -> None:
    async def test() -> None:
        async with local_worker() as control, scalable(control, *rids) as (_, b, alice):
            camera, rid = control.worker.peers["a"].published["camera"], "q" if rids else ""
            await view(control, 180)
            await alice.send(key=True)
            await until(lambda: camera.scalable, "layers show")
            await wants(control, f"{rid}0")
            await alice.send()
            await until(lambda: camera.down_tracks["b"].stream is camera.layers[f"{rid}0"], "it has the smallest")
            before = (await parts(b, 4))[-1]
            await alice.send(vp8=True, key=True)
            await alice.send(vp8=True)
            got = await parts(b, 2)
            assert [part.seq - before.seq for part in got] == [1, 2]
            assert [part.ts - before.ts for part in got] == [3000, 6000]
            assert not camera.scalable
            assert camera.down_tracks["b"].stream is camera.streams[rid]
            assert [name for name, _ in offered(control)] == list(rids or ("",))
            await alice.send(2, key=True)
            assert [(part.text, part.marker) for part in await parts(b, 1)] == [("layer 0", False)]
            assert [height for _, height in offered(control)][:2] == [180, 360]

    run(test)


def test_shares_of_temporal_layers_are_known_before_and_measured_after(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    monkeypatch.setattr(RtpStream, "temporal_shares", property(lambda stream: found.get(stream, (1.0,))))
    camera = Publication(SimpleNamespace(id="a"), "camera", "video", SendBuffers({}), ("q", "h"))  # type: ignore[arg-type]

    def shares(now_s: float) -> list[Any]:
        camera.offered(now_s)
        return camera.shares(now_s)

    assert shares(10.0) == [(1.0,)] * 2
    found[camera.streams["q"]] = (0.5, 0.7, 1.0)
    assert shares(10.5) == [(1.0,)] * 2, "once a second"
    first, other = shares(11.5)
    assert first == pytest.approx((0.42, 0.62, 1.0))
    assert other == (0.4, 0.6, 1.0), "as many as the others, though nothing of it came"
    for now_s in range(13, 60):
        first, other = shares(float(now_s))
    assert first == pytest.approx((0.5, 0.7, 1.0), abs=0.001)
    screen = Publication(SimpleNamespace(id="a"), "screen", "video", SendBuffers({}), ("q", "h"))  # type: ignore[arg-type]
    assert screen.shares(10.0) == []
