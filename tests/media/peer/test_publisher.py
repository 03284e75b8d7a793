from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from support.media_client import Client, LocalControl, clients, local_worker, received, rtp_packet, run, until

from sfu import bridge
from sfu.media.peer import sdp
from sfu.media.peer.negotiation import OFFER_S, OFFERS
from sfu.media.rtp import codecs
from sfu.media.transport.srtp import MAX_SSRCS

KEY = bytes([0x10, 0]) + bytes(9)  # the first packet of a VP8 keyframe


async def layer(client: Client, seq16: int, ssrc: int, payload: bytes, rid: str = "", mid: str = "1") -> None:
    """A packet of a layer, which says so or not."""
    names = b""
    if rid:
        names = struct.pack("!HHBcBc4x", 0xBEDE, 2, codecs.MID_ID << 4, mid.encode(), codecs.RID_ID << 4, rid.encode())
    head = struct.pack("!BBHII", 0x90 if names else 0x80, 0x80 | 96, seq16, seq16 * 3000, ssrc)
    await client.send(head + names + payload)


async def begins(client: Client, control: LocalControl, source: str = "camera") -> Any:
    """Waits until the client publishes this, and returns it."""
    published = control.worker.peers[client.id].published
    await until(lambda: source in published, f"{client.id} publishes {source}")
    return published[source]


def sections(offer: bridge.Offer | None) -> int:
    return 0 if offer is None else offer.sdp.count("\r\nm=")


# --- whose an SSRC is -------------------------------------------------------------------------------------------------


def test_a_camera_sends_its_first_layer_until_a_packet_has_come() -> None:
    """Nobody can want it before, and a browser that is told so sends nothing. Nor may what it was told of the source
    before it keep this one from beginning."""

    async def test() -> None:
        async with local_worker() as control:
            a = Client(control, "a", ("camera",))
            a.layers = ("q", "h", "f")
            await a.start()
            for turn in range(2):
                camera = await begins(a, control)
                assert (await control.event(bridge.Layers, "a")).active == ("q",)
                control.stats = {}
                await control.counted(lambda stats: stats)  # layers are chosen five times before each report
                assert not control.pending(bridge.Layers, "a")
                await layer(a, 100 * turn, 7001, KEY, "" if turn else "q")
                assert (await control.event(bridge.Layers, "a")).active == ()  # nobody watches
                assert camera.flows
                await control.send(bridge.Unpublish("a", "camera"))
                await until(lambda: not control.worker.peers["a"].published, "it ended")
                await control.send(bridge.Publish("a", "camera", "video"))
            await a.aclose()

    run(test)


@pytest.mark.parametrize("stops", ["unpublish", "inactive"])
def test_layers_that_begin_again_need_not_be_named_again(stops: str) -> None:
    """A browser names a layer until it hears that it arrived, and sends the same SSRCs when a source begins again."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "b") as (b,):
            a = Client(control, "a", ("camera",))
            a.layers = ("q", "h", "f")
            await a.start()
            for turn in range(3):
                camera = await begins(a, control)
                await layer(a, 100 * turn, 7001, KEY, "" if turn else "q")
                await until(lambda one=camera: "b" in one.down_tracks, "b is on it")
                await layer(a, 100 * turn + 1, 7001, KEY + b"%d" % turn)
                assert (await b.rtp()).payload.endswith(b"%d" % turn)
                a.publishes.clear()
                if stops == "unpublish":
                    await control.send(bridge.Unpublish("a", "camera"))
                else:
                    await control.send(bridge.Publish("a", "camera", "video"))  # anything that makes an offer
                await until(lambda: "camera" not in control.worker.peers["a"].published, "it has ended")
                await until(lambda: b.offer and not received(b.offer), "b is brought it no more")
                a.publishes.add("camera")
                await control.send(bridge.Publish("a", "camera", "video"))
            await a.aclose()

    run(test)


def test_an_ssrc_is_of_what_its_section_carries_now() -> None:
    """The browser uses the transceiver for another source, with the same SSRC."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "b") as (b,):
            a = Client(control, "a", ())
            await a.start()
            for source in ("screen", "screen-2"):
                a.ssrcs[source] = 9001
                a.publishes = {source}
                await control.send(bridge.Publish("a", source, "video"))
                await until(lambda one=source: b.offer and received(b.offer) == {("a", one)}, "b is brought it")
                a.begun.clear()
                a.first += 1
                await control.send(bridge.Unpublish("a", source))
                await until(lambda: b.offer and not received(b.offer), "b is brought it no more")
                await until(lambda one=source: a.offer and one not in a.offer.send.values(), "a knows")
            assert sections(a.offer) == 2 + 2 + 1, "one section, again and again"
            await a.aclose()

    run(test)


def test_a_layer_may_come_with_another_ssrc_any_number_of_times() -> None:
    """libsrtp has a bounded number of streams; those that ended give their places back."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "b") as (b,):
            a = Client(control, "a", ("camera",))
            a.layers = ("q", "h", "f")
            await a.start()
            camera = await begins(a, control)
            await layer(a, 1, 7001, KEY, "q")
            await until(lambda: "b" in camera.down_tracks, "b is on it")
            for ssrc in range(7002, 7002 + 2 * MAX_SSRCS):
                await layer(a, 1, ssrc, KEY + b"%d" % ssrc, "q")
                assert (await b.rtp()).payload.endswith(b"%d" % ssrc)
            assert list(control.worker.peers["a"].publisher.by_ssrc) == [7001 + 2 * MAX_SSRCS]
            assert not control.worker.counters["srtp_refused"]
            await a.aclose()

    run(test)


# --- who hears of it --------------------------------------------------------------------------------------------------


def test_strangers_change_nobodys_sdp() -> None:
    """They answer that they send a lot, and have no media path; or they have one, and send nothing."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            before = a.offer
            strangers = [Client(control, f"stranger {i}") for i in range(12)]
            for stranger in strangers:
                stranger.shows = "96" if stranger is not strangers[0] else stranger.shows
                stranger.publishes = {"microphone", "camera", *(f"screen-{i}" for i in range(6))}
                await stranger.join()
                for i in range(6):
                    await control.send(bridge.Publish(stranger.id, f"screen-{i}", "video"))
                await stranger.negotiate()
                assert set(control.worker.peers[stranger.id].published) == stranger.publishes
            await strangers[0].connect()
            for stranger in strangers:
                await stranger.leave()
            b.publishes.add("screen")
            await control.send(bridge.Publish("b", "screen", "video"))
            await until(lambda: a.offer is not before, "a real one begins")
            assert before is not None
            assert a.offer is not None
            assert received(a.offer) == {("b", "microphone"), ("b", "camera"), ("b", "screen")}
            assert sections(a.offer) == sections(before) + 1
            versions = [int(offer.sdp.split()[3]) for offer in (before, a.offer)]
            assert versions[1] == versions[0] + 1, "offers between the two"
            told = {event.peer for event in control.seen if isinstance(event, bridge.Track | bridge.TrackEnded)}
            assert told == {"a", "b"}

    run(test)


def test_listeners_that_answer_sendonly_publish_nothing() -> None:
    """Some libraries write it into every answer, with no SSRC, as there is no track."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a") as (a,):
            for _ in range(2):
                await control.event(bridge.Track, "a")
            listeners = [Client(control, f"listener {i}") for i in range(20)]
            for listener in listeners:
                listener.names_ssrcs = False
                await listener.start()
            for listener in listeners:
                await listener.takes_from("a")
                assert sections(listener.offer) == 4
            assert sections(a.offer) == 2
            offers = [event.peer for event in control.seen if isinstance(event, bridge.Offer)]
            assert {offers.count(listener.id) for listener in listeners} == {1}
            for listener in listeners:
                await listener.aclose()

    run(test)


def test_a_source_that_falls_silent_or_is_muted_keeps_its_section() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "b") as (b,):
            a = Client(control, "a")
            await control.send(bridge.Join("a", "room", True, True, True))
            await control.send(bridge.Mute("a", "microphone", True))
            await a.negotiate()
            await a.connect()
            await a.begin()
            await until(lambda: b.offer and len(received(b.offer)) == 2, "muted from the start, and there")
            await control.send(bridge.Mute("a", "camera", True))
            await control.send(bridge.Publish("b", "screen", "video"))  # anything that makes an offer
            await until(lambda: b.offer and "screen" in b.offer.send.values(), "b is offered something else")
            assert b.offer is not None
            assert len(received(b.offer)) == 2
            await a.aclose()

    run(test)


def test_a_room_that_changes_fast_makes_few_offers() -> None:
    """The first at once; then what changes meanwhile is in the next."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            loop = asyncio.get_running_loop()
            began_s, before = loop.time(), len([e for e in control.seen if e == b.offer])
            before = sum(isinstance(event, bridge.Offer) and event.peer == "b" for event in control.seen)
            peer = control.worker.peers["a"]
            said = sdp.AnswerSection("9", "video", sends=True, receives=False, ssrcs=())
            for ssrc in range(5000, 5100):
                peer.publisher.begin("screen", "video", said)
                peer.publisher.latch(ssrc, "video", {})
                await asyncio.sleep(0.01)  # so that there is time for more offers than there may be
                peer.publisher.end("screen")
            offers = sum(isinstance(event, bridge.Offer) and event.peer == "b" for event in control.seen) - before
            assert 1 <= offers <= OFFERS + (loop.time() - began_s) / OFFER_S
            assert a.id in b.sources()
            await a.send(rtp_packet(1, a.ssrcs["camera"], b"still"))
            assert (await b.rtp()).payload == b"still"

    run(test)
