"""Pacing in virtual time: a stream, a pacer, and a link with a queue; the client decodes as libwebrtc does."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.virtual_time import run_at_once

from sfu.buckets import TokenBucket
from sfu.media.rtp import codecs, headers, rtcp, vp8
from sfu.media.streams.fanout import SendBuffers
from sfu.media.streams.pacer import PADDING_BYTES, QUEUE_S, Pacer
from sfu.media.streams.retransmission import HISTORY_S, SHARE, SHARE_BYTES, SHARE_S
from sfu.media.streams.rtp_stream import RtpStream
from sfu.media.transport.rows import READ_BATCH, ROW_BYTES, Rows
from sfu.media.transport.transport import RTX_BURST, RTX_PER_S

L1T3 = [(0, False), (2, True), (1, True), (2, False), (0, False), (2, False), (1, False), (2, False)]
"""Temporal layer and sync bit of libvpx's pictures with three layers."""
PICTURE_S = 1 / 15
PACKET = 1000
RTX_SSRC = 99


class Publisher:
    id = "publisher"

    def __init__(self) -> None:
        self.asked = 0  # keyframe requests

    def ready(self) -> bool:
        return True

    def send_rtcp(self, data: bytes) -> None:
        for packet in rtcp.rtcp_packets(data):
            self.asked += packet.type == rtcp.RTCP_PSFB


@dataclass
class Arrival:
    at_s: float
    data: bytes

    @property
    def seq16(self) -> int:
        return headers.seq16_of(self.data)


class Peer:
    """Behind a link that carries `link_bps` and queues for `queue_s`; everything by default."""

    id = "peer"

    def __init__(self, link_bps: float = 1e12, queue_s: float = 1e9) -> None:
        self.link_bps, self.queue_s, self._free_s = link_bps, queue_s, 0.0
        self.media: list[Arrival] = []
        self.again: list[Arrival] = []
        self.lost = 0
        self.rtx_budget = TokenBucket(RTX_PER_S, RTX_BURST)

    def ready(self) -> tuple[Any, Any]:
        return None, None

    def send_rtp(self, data: bytes | bytearray) -> None:
        self._send(self.media, data)

    def send_rtx(self, data: bytes | bytearray) -> None:
        self._send(self.again, data)

    def _send(self, arrivals: list[Arrival], data: bytes | bytearray) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._free_s - now_s > self.queue_s:
            self.lost += 1
            return
        self._free_s = max(self._free_s, now_s) + len(data) * 8 / self.link_bps
        arrivals.append(Arrival(self._free_s, bytes(data)))


class Scene:
    """One subscriber of one simulated VP8 encoder; `rate_bps` is what its pacer is told."""

    def __init__(self, rate_bps: float, peer: Peer) -> None:
        self.counters, self.rows, self.spare = Counter[str](), Rows(READ_BATCH), Rows(READ_BATCH + 1)
        self.peer, self.publisher = peer, Publisher()
        self.buffers = SendBuffers(self.counters)
        self.stream = self.make_stream(1)
        me: Any = peer
        self.stream.add_down_track(me)
        self.down_track = self.stream.down_tracks[peer.id]
        self.down_track.rtx_ssrc = RTX_SSRC
        self.pacer = Pacer(me, self.buffers.history, lambda: [self.down_track], self.counters, lambda: self.now_s)
        self.down_track.pacer = self.pacer
        self.pacer.rate_bps = rate_bps
        self.seq16, self.number, self.tl0, self.at, self.ts = 0, 0, 0, 0, 0

    def make_stream(self, ssrc: int) -> RtpStream:
        host: Any = self.publisher
        stream = RtpStream(host, "camera", "video", self.buffers, 7)
        stream.remote_ssrc = ssrc
        return stream

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def encode(self, n_bytes: int, *, key: bool = False) -> list[bytes]:
        """The packets of the next picture; their payload names it."""
        self.at = 0 if key else self.at
        layer, sync = L1T3[self.at % len(L1T3)]
        self.at, self.number, self.ts = self.at + 1, self.number + 1, self.ts + 6000
        self.tl0 += layer == 0
        packets, n = [], max(1, round(n_bytes / PACKET))
        for i in range(n):
            descriptor = struct.pack(
                "!BBHBB", 0x90 if i == 0 else 0x80, 0xE0, 0x8000 | self.number & 0x7FFF, self.tl0 & 0xFF,
                layer << 6 | sync << 5,
            )  # fmt: skip
            head = struct.pack(
                "!BBHIIHHI", 0x90, 0x80 * (i == n - 1) | 96, self.seq16, self.ts & 0xFFFFFFFF, 1, 0xBEDE, 1, 0
            )
            payload = descriptor + bytes([0 if key else 1]) + struct.pack("!IBBB", self.number, key, layer, sync)
            packets.append((head + payload).ljust(min(PACKET, max(n_bytes, 60)), b"?"))
            self.seq16 = self.seq16 + 1 & 0xFFFF
        return packets

    def arrive(self, packets: Sequence[bytes], stream: RtpStream | None = None) -> None:
        """Packets come from the publisher, as Ingress puts them into their stream."""
        stream = stream or self.stream
        for at in range(0, len(packets), READ_BATCH):
            for i, packet in enumerate(packets[at : at + READ_BATCH]):
                row = self.rows.view[i * ROW_BYTES : (i + 1) * ROW_BYTES]
                row[: len(packet)] = packet
                self.rows.lengths[i] = len(packet)
                number = stream.place(headers.seq16_of(packet))
                if number < 0:
                    continue
                headers.set_seq16(row, number & 0xFFFF)
                headers.set_ssrc(row, stream.ssrc)
                if number + 1 == stream.head:
                    stream.last_ts = headers.ts_of(packet)
                    stream.rows.append(i)
                else:
                    stream.late.append(i)
            stream.flush(self.rows, self.spare, self.now_s)

    async def run(self, seconds: float, bps: float) -> None:
        """Pictures of this bitrate, the odd ones of the highest layer."""
        for _ in range(round(seconds / PICTURE_S)):
            self.arrive(self.encode(round(bps * PICTURE_S / 8)))
            await asyncio.sleep(PICTURE_S)

    def nack(self, *seqs: int) -> None:
        self.stream.retransmit(self.peer.id, seqs, self.now_s)


def play(work: Callable[[], Awaitable[None]]) -> None:
    async def played() -> None:
        await work()

    run_at_once(played())


class Decoder:
    """Takes packets as libwebrtc does (modules/video_coding/rtp_vp8_ref_finder.cc): a picture of a higher layer waits
    for pictures whose ids are missing, unless it refers to the lowest layer only. `shown` are encoded numbers."""

    def __init__(self, arrivals: list[Arrival]) -> None:
        self.shown: list[int] = []
        by_seq = {one.seq16: one.data for one in arrivals}
        pictures: dict[int, list[bytes]] = {}
        for seq16 in sorted(by_seq):
            pictures.setdefault(headers.ts_of(by_seq[seq16]), []).append(by_seq[seq16])
        last, tl0, seq16 = -1, -1, None
        have: dict[int, int] = {}
        for packets in pictures.values():
            found = vp8.vp8_picture(packets[0], len(packets[0]))
            assert found is not None
            at = found.at + 5
            number, key, layer, sync = struct.unpack_from("!IBBB", packets[0], at)
            seqs = [headers.seq16_of(one) for one in packets]
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
            assert seq16 is None or seqs[0] == seq16 + 1, "a gap in the sequence numbers"
            seq16 = seqs[-1]
            assert packets[0][found.at - 2] & 0x10, "a picture without its beginning"
            if not packets[-1][1] & 0x80:
                last = -1
                continue  # taken back in the middle: the next one is a keyframe
            assert found.temporal == layer
            if key:
                have = dict.fromkeys(range(4), found.number)
            else:
                assert last >= 0, "a picture was cut, and no keyframe follows"
                assert found.number == last + 1, "a gap in the picture ids"
                assert found.tl0 == tl0 + (layer == 0), "a gap in TL0PICIDX"
                needs = [0] if sync or layer == 0 else range(layer + 1)
                assert all(on in have for on in needs), f"picture {number} refers to what was left out"
            have[layer] = found.number
            last, tl0 = found.number, found.tl0
            self.shown.append(number)


# --- how fast ---------------------------------------------------------------------------------------------------------


def test_a_large_picture_does_not_overflow_the_queue_of_the_link() -> None:
    async def test() -> None:
        peer = Peer(link_bps=400e3, queue_s=0.1)
        scene = Scene(rate_bps=370e3, peer=peer)
        scene.arrive(scene.encode(15_000, key=True))
        assert len(peer.media) < 4, "the rest waits"
        await asyncio.sleep(0.5)
        assert (len(peer.media), peer.lost) == (15, 0)
        assert peer.media[-1].at_s - 1000.0 < 15_000 * 8 / 400e3 * 1.25
        Decoder(peer.media)

    play(test)


def test_unpaced_it_would() -> None:
    async def test() -> None:
        peer = Peer(link_bps=400e3, queue_s=0.1)
        scene = Scene(rate_bps=100e6, peer=peer)
        scene.arrive(scene.encode(15_000, key=True))
        await asyncio.sleep(0.5)
        assert peer.lost > 5

    play(test)


@pytest.mark.parametrize("rate_bps", [150e3, 300e3, 600e3, 1.5e6, 4e6])
def test_what_fits_waits_for_less_than_a_picture(rate_bps: float) -> None:
    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps, peer)
        scene.arrive(scene.encode(1000, key=True))
        sent = []
        for _ in range(60):
            packets = scene.encode(round(0.85 * rate_bps * PICTURE_S / 8))
            sent += [scene.now_s] * len(packets)
            scene.arrive(packets)
            await asyncio.sleep(PICTURE_S)
        await asyncio.sleep(0.2)
        waited = [one.at_s - at_s for one, at_s in zip(peer.media[1:], sent, strict=True)]
        assert max(waited) < 1.2 * PICTURE_S
        assert scene.publisher.asked == 1  # by the subscriber that came

    play(test)


def test_a_keyframe_leaves_within_some_200_ms() -> None:
    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps=1.5e6, peer=peer)
        scene.arrive(scene.encode(80_000, key=True))
        await asyncio.sleep(0.3)
        assert len(peer.media) == 80
        assert 0.15 < peer.media[-1].at_s - 1000.0 < 0.25

    play(test)


# --- what is left out -------------------------------------------------------------------------------------------------


def test_past_the_queue_pictures_go_until_a_keyframe() -> None:
    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps=300e3, peer=peer)
        scene.arrive(scene.encode(8_000, key=True))
        asked = scene.publisher.asked
        sent: dict[int, float] = {}
        for _ in range(45):
            packets = scene.encode(40_000)
            sent |= {scene.number: scene.now_s}
            scene.arrive(packets)
            await asyncio.sleep(PICTURE_S)
        assert scene.publisher.asked > asked
        assert scene.down_track.waiting
        scene.pacer.rate_bps = 600e3
        scene.arrive(scene.encode(12_000, key=True))
        sent |= {scene.number: scene.now_s}
        keyframe = scene.number
        await asyncio.sleep(1.0)
        await scene.run(1.0, 300e3)
        assert not scene.down_track.waiting
        shown = Decoder(peer.media).shown
        assert keyframe in shown
        assert shown[-1] == scene.number
        for one in peer.media:
            found = vp8.vp8_picture(one.data, len(one.data))
            assert found is not None
            (number,) = struct.unpack_from("!I", one.data, found.at + 5)
            assert one.at_s - sent.get(number, one.at_s) < QUEUE_S + 0.6

    play(test)


def test_what_waits_is_taken_back_when_the_subscriber_leaves_the_layer() -> None:
    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps=200e3, peer=peer)
        scene.arrive(scene.encode(20_000, key=True))
        sent = len(peer.media)
        assert scene.down_track.packets == sent
        assert scene.down_track.sent_bytes == sum(len(one.data) for one in peer.media)
        other = scene.make_stream(2)
        scene.stream.switch(peer.id, other)
        await asyncio.sleep(1.0)
        assert len(peer.media) == sent, "nothing of the layer that was left"
        assert scene.down_track.packets == sent
        scene.arrive(scene.encode(5_000, key=True), other)
        await asyncio.sleep(1.0)
        assert [one.seq16 for one in peer.media] == list(range(peer.media[0].seq16, peer.media[0].seq16 + sent + 5))
        assert scene.down_track.packets == sent + 5
        assert scene.down_track.sent_bytes == sum(len(one.data) for one in peer.media)
        other.retransmit(peer.id, [peer.media[0].seq16], scene.now_s)
        assert not peer.again, "nor again"
        assert scene.counters["nack_left"] == 1

    play(test)


def test_only_the_last_two_stretches_are_remembered() -> None:
    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps=5e6, peer=peer)
        streams = [scene.stream, *(scene.make_stream(ssrc) for ssrc in (2, 3, 4))]
        for before, stream in zip([None, *streams], streams, strict=False):
            if before is not None:
                before.switch(peer.id, stream)
            scene.arrive(scene.encode(3_000, key=True), stream)
            await asyncio.sleep(0.1)
        found = [scene.down_track.find(one.seq16) for one in peer.media]
        assert found == [None] * 6 + [one.data for one in peer.media[6:]]
        assert len(peer.media) == 12
        assert not scene.down_track.waiting

    play(test)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, 0, 1, 2]), st.integers(1, 12), st.integers(500, 6_000), st.sampled_from([0, 0, 1])
        ),
        max_size=12,
    ),
    st.sampled_from([250e3, 600e3, 2e6]),
)
def test_whatever_is_left_out_the_rest_can_be_decoded(
    steps: list[tuple[int | None, int, int, int]], rate_bps: float
) -> None:
    """Without gaps in sequence numbers and picture ids, through temporal layers and a crowded queue."""

    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps, peer)
        scene.arrive(scene.encode(3000, key=True))
        for temporal, pictures, n_bytes, key in steps:
            scene.down_track.temporal = temporal
            for i in range(pictures):
                scene.arrive(scene.encode(n_bytes, key=bool(key and i == 0)))
                await asyncio.sleep(PICTURE_S)
        scene.down_track.temporal = None
        await asyncio.sleep(2.0)
        scene.arrive(scene.encode(2000, key=True))
        first = scene.number
        await scene.run(1.0, 0.5 * rate_bps)
        await asyncio.sleep(0.5)
        shown = Decoder(peer.media).shown
        assert [number for number in shown if number >= first] == list(range(first, scene.number + 1))
        assert scene.down_track.packets == len(peer.media)
        assert scene.down_track.sent_bytes == sum(len(one.data) for one in peer.media)

    play(test)


@pytest.mark.parametrize("temporal", [0, 1])
def test_a_lower_frame_rate(temporal: int) -> None:
    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps=1e6, peer=peer)
        scene.down_track.temporal = temporal
        scene.arrive(scene.encode(1000, key=True))
        await scene.run(4.0, 300e3)
        assert len(Decoder(peer.media).shown) == 61 // (4, 2)[temporal] + 1
        assert scene.stream.temporal == 3
        assert scene.stream.temporal_shares == pytest.approx((0.25, 0.5, 1.0), abs=0.07)

    play(test)


def test_a_lower_frame_rate_on_a_downlink_that_is_not_limited() -> None:
    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps=0.0, peer=peer)
        scene.down_track.temporal = 0
        scene.arrive(scene.encode(80_000, key=True))
        assert len(peer.media) == 80, "nothing waits"
        await scene.run(1.0, 8e6)
        assert len(Decoder(peer.media).shown) == 1 + 15 // 4

    play(test)


def test_late_packets_of_the_publisher_fill_their_gaps() -> None:
    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps=2e6, peer=peer)
        scene.down_track.temporal = 1
        scene.arrive(scene.encode(1000, key=True))
        late = []
        for n in range(40):
            packets = scene.encode(3000)
            lost = packets.pop(n % 3)
            scene.arrive(packets)
            await asyncio.sleep(PICTURE_S)
            late.append(lost)
            if len(late) > 2:
                scene.arrive([late.pop(0)])
        scene.arrive(late)
        await asyncio.sleep(0.1)
        arrived = sorted({one.seq16 for one in peer.media})
        assert len(arrived) == len(peer.media), "a number stands for two packets"
        assert arrived == list(range(arrived[0], arrived[0] + len(arrived))), "a gap for ever"
        layers = Counter(
            one.data[headers.payload_offset(one.data, len(one.data)) + 5] >> 6
            for one in peer.media
            if not one.data[0] & 0x20
        )
        assert layers[0] >= 31
        assert layers[2] == 0

    play(test)


# --- once more --------------------------------------------------------------------------------------------------------


def test_retransmissions_take_a_quarter_and_the_newest_go_first() -> None:
    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps=400e3, peer=peer)
        scene.arrive(scene.encode(5_000, key=True))
        await scene.run(1.0, 350e3)
        before_s = scene.now_s
        for _ in range(20):
            scene.nack(*[one.seq16 for one in peer.media[-40:]])
            await asyncio.sleep(0.1)
        spent = sum(len(one.data) for one in peer.again)
        most = max(SHARE * 400e3 / 8 * SHARE_S, SHARE_BYTES) + SHARE * 400e3 / 8 * (scene.now_s - before_s)
        assert 0.8 * most < spent <= most
        first = [original(one.data) for one in peer.again[:3]]
        assert first == sorted(first, reverse=True)
        assert first[0] == peer.media[-1].seq16
        assert scene.counters["nack_over_budget"] > 0

    play(test)


@pytest.mark.parametrize(("rate_bps", "fraction", "copies"), [(0.0, 0, 1), (0.0, 40, 2), (400e3, 40, 1), (0.0, 200, 1)])
def test_where_much_is_lost_what_is_sent_again_goes_twice(rate_bps: float, fraction: int, copies: int) -> None:
    """`fraction` of 256 packets, as a receiver report has it. A third try would be too late for a picture."""

    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps=400e3, peer=peer)
        scene.arrive(scene.encode(5_000, key=True))
        await scene.run(0.5, 350e3)
        scene.pacer.rate_bps = rate_bps
        scene.down_track.delivery.loss = fraction / 256
        scene.nack(scene.stream.head - 2 & 0xFFFF)
        await asyncio.sleep(0.2)
        assert [original(one.data) for one in peer.again] == [scene.stream.head - 2 & 0xFFFF] * copies

    play(test)


def test_a_downlink_that_becomes_narrow_is_not_flooded() -> None:
    """Before anybody knows: most of 2.4 Mbps gets lost on 400 kbps, and all of that is asked for again and again."""

    async def test() -> None:
        peer = Peer(link_bps=400e3, queue_s=0.1)
        scene = Scene(rate_bps=0.0, peer=peer)
        scene.down_track.temporal = 3  # all pictures, but through the pacer
        scene.arrive(scene.encode(1000, key=True))
        for _ in range(30):
            scene.arrive(scene.encode(round(2.4e6 * PICTURE_S / 8)))
            scene.nack(*[scene.stream.head - back & 0xFFFF for back in range(200, 0, -1)])
            await asyncio.sleep(PICTURE_S)
        offered = (len(peer.media) + len(peer.again) + peer.lost) * PACKET * 8 / 2.0
        assert offered < 1.45 * 2.4e6

    play(test)


def original(data: bytes) -> int:
    """The sequence number in an RTX packet (RFC 4588 section 4)."""
    at = headers.payload_offset(data, len(data))
    return data[at] << 8 | data[at + 1]


def test_what_cannot_be_sent_again_needs_a_keyframe() -> None:
    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps=1e6, peer=peer)
        scene.arrive(scene.encode(1000, key=True))
        await scene.run(HISTORY_S + 2.0, 200e3)
        asked, first = scene.publisher.asked, peer.media[0].seq16
        scene.nack(first + 1000)  # never sent
        assert scene.publisher.asked == asked
        scene.nack(first)
        assert scene.publisher.asked == asked + 1
        assert scene.counters["nack_answered"] == 0

    play(test)


def test_a_request_that_comes_again_is_answered_after_a_round_trip() -> None:
    """Chromium repeats a NACK each 100 ms as long as it does not know the round trip, here 300 ms."""

    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps=1e6, peer=peer)
        scene.arrive(scene.encode(1000, key=True))
        scene.down_track.delivery.round_trip_s = 0.31
        for _ in range(4):
            scene.nack(peer.media[0].seq16)
            await asyncio.sleep(0.1)
        assert len(peer.again) == 2, "the second answer goes out for the request that follows the first one's loss"

    play(test)


# --- probes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_probe_is_steady_and_ends(repeatable: bool) -> None:
    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps=300e3, peer=peer)
        if repeatable:
            scene.arrive(scene.encode(8_000, key=True))
            await asyncio.sleep(0.5)
        begun_s = scene.now_s
        scene.pacer.probe_bps = 400e3
        await asyncio.sleep(1.0)
        scene.pacer.probe_bps = 0.0
        await asyncio.sleep(1.0)
        for i in range(10):
            part = [one for one in peer.again if 0 <= one.at_s - begun_s - i / 10 < 0.1]
            assert 400e3 / 80 - PACKET * 1.3 <= sum(len(one.data) for one in part) <= 400e3 / 80 + PACKET * 1.3
        assert all(headers.ssrc_of(one.data) == RTX_SSRC for one in peer.again)
        assert max(one.at_s for one in peer.again) <= begun_s + 1.01
        seqs = [one.seq16 for one in peer.again]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        for one in peer.again:
            element, number = struct.unpack_from("!BH", one.data, 16)
            assert element == codecs.TRANSPORT_CC_ID << 4 | 1
            ((sent_s, n_bytes, _, _),) = scene.buffers.history.match([number], [0])
            assert (sent_s, n_bytes) == (pytest.approx(one.at_s), len(one.data))
            if not repeatable:
                assert one.data[0] & 0x20
                assert one.data[-1] == len(one.data) - 20 == PADDING_BYTES

    play(test)


def test_a_peer_that_is_gone_is_probed_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps=300e3, peer=peer)
        scene.pacer.probe_bps = 400e3
        await asyncio.sleep(0.1)
        monkeypatch.setattr(peer, "ready", lambda: None)
        await asyncio.sleep(1.0)
        assert scene.pacer._timer is None
        assert scene.pacer.probe_bps == 0.0

    play(test)


def test_paced_packets_have_the_numbers_and_times_at_which_they_leave() -> None:
    async def test() -> None:
        peer = Peer()
        scene = Scene(rate_bps=300e3, peer=peer)
        scene.arrive(scene.encode(15_000, key=True))
        await asyncio.sleep(1.0)
        for one in peer.media:
            element, number = struct.unpack_from("!BH", one.data, 16)
            assert element == codecs.TRANSPORT_CC_ID << 4 | 1
            ((sent_s, n_bytes, _, _),) = scene.buffers.history.match([number], [0])
            assert (sent_s, n_bytes) == (pytest.approx(one.at_s), len(one.data))

    play(test)
