"""Spatial layers against a slow model: whatever is lost, overtaken or left out, each subscriber decrypts a stream
without gaps of the layers that it is to have, whose pictures end with the marker."""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.variants import variants
from test_path import GCM, Subscriber, away_from_wrap, ends

from sfu.media.bandwidth.allocation import Step
from sfu.media.peer.publication import Publication
from sfu.media.rtp import headers
from sfu.media.rtp.numbering import HISTORY
from sfu.media.streams.fanout import SendBuffers
from sfu.media.streams.ingress import Ingress, RtpDemuxer
from sfu.media.streams.svc import LAYERS, ScalableStream
from sfu.media.transport import libc
from sfu.media.transport.gate import Route
from sfu.media.transport.ice import Agent
from sfu.media.transport.rows import READ_BATCH, ROW_BYTES, Rows
from sfu.media.transport.sockets import Endpoint
from sfu.media.transport.srtp import Context

MIDDLE, WHOLE = 1, LAYERS
SSRC = 4242


@dataclass(frozen=True)
class Sent:
    """A packet of the publisher; `ext` is its number without wrap, `last` is by spatial layer: whether no more of the
    picture follows in this one and those below it."""

    ext: int
    ts: int
    spatial: int
    begins: bool  # a picture
    key: bool  # a keyframe
    told: int  # of how many layers it tells, 0 for none
    ends: bool  # a layer frame
    marker: bool
    vp9: bool
    payload: bytes


@dataclass
class ModelDownTrack:
    level: int  # the largest spatial layer it gets; WHOLE for all
    floor: int
    next: int  # its next number
    wanted: int | None = None
    active: bool = True
    paused: bool = False
    held: int | None = None  # its own number for what is held back
    kept: dict[int, int] = field(default_factory=dict)  # its own numbers for those that have not come
    given: dict[int, tuple[int, int]] = field(default_factory=dict)  # what is behind its own numbers: number and level
    expected: dict[int, tuple[int, int]] = field(default_factory=dict)  # likewise, to come now

    def give(self, own: int, number: int) -> None:
        self.given[own] = self.expected[own] = number, self.level


class Model:
    """The stream as a table: every packet has a number or none."""

    def __init__(self) -> None:
        self.down_tracks: dict[str, ModelDownTrack] = {}
        self.sent: dict[int, Sent] = {}
        self.muted = self.started = False
        self.fresh = True
        self.lower = 0
        self.shift = self.first = self.head = 0
        self.held: int | None = None  # the number of what those on MIDDLE have to come
        self.closing: set[int] = set()  # numbers of such that turned out to end a picture
        self.after = 0  # the number behind the newest one that was delivered

    def number(self, ext: int) -> int:
        if self.muted:
            return -1
        if self.fresh:
            self.head = self.head + 1 if self.started else (ext & 0xFFFF) + 0x10000
            self.first = self.head if self.started else 0x10000
            self.started, self.fresh, self.shift = True, False, self.head - ext
        number = ext + self.shift
        if number < self.first or number < self.head - HISTORY:
            return -1
        return number

    def batch(self, packets: list[Sent]) -> None:
        in_order, late = [], []
        for packet in packets:
            number = self.number(packet.ext)
            if number >= self.head:
                self.head = number + 1
                in_order.append((number, packet))
            elif number >= 0:
                late.append((number, packet))
        split = self.lower > 0 or self.shows([packet for _, packet in in_order])
        for number, packet in in_order:
            self.release(packet, number)
            if split:
                self.arrange(packet, number)
            self.sent[number] = packet
            middle = any(down_track.level == MIDDLE for down_track in self.down_tracks.values())
            if middle and packet.ends and packet.spatial < MIDDLE and not packet.marker:
                self.held = number
            for down_track in self.down_tracks.values():
                self.deliver(down_track, packet, number)
            self.after = number + 1
        for number, packet in late:
            self.sent[number] = packet
            for down_track in self.down_tracks.values():
                self.deliver_late(down_track, packet, number)

    def release(self, packet: Sent, number: int) -> None:
        """The end of a layer that may be a picture's, for those on MIDDLE, comes when the next packet has."""
        if self.held is not None:
            if self.after == number and packet.spatial > MIDDLE:
                self.closing.add(self.held)
            for down_track in self.down_tracks.values():
                if down_track.held is not None and down_track.active and down_track.level == MIDDLE:
                    down_track.give(down_track.held, self.held)
                down_track.held = None
            self.held = None

    def shows(self, packets: list[Sent]) -> bool:
        return bool(packets) and packets[0].vp9 and (packets[0].told > 1 or packets[-1].spatial > 0)

    def arrange(self, packet: Sent, number: int) -> None:
        if not packet.vp9:
            self.lower = 0
        else:
            if packet.told:
                self.lower = max(packet.told - 1, 0 if packet.key else self.lower)
            self.lower = min(max(self.lower, packet.spatial), LAYERS - 1)
        for down_track in self.down_tracks.values():
            if down_track.wanted is not None and self.lower <= down_track.wanted < WHOLE:
                down_track.wanted = None
            if self.lower <= down_track.level < WHOLE:
                self.move(down_track, WHOLE, number, packet.key)
            if down_track.wanted == down_track.level:
                down_track.wanted = None
            if down_track.wanted is None or not packet.begins:
                continue
            if down_track.wanted < down_track.level or packet.key or not down_track.active:
                self.move(down_track, down_track.wanted, number, packet.key or down_track.wanted < down_track.level)
                down_track.wanted = None

    def move(self, down_track: ModelDownTrack, level: int, number: int, begins: bool) -> None:
        """What is missing before this packet keeps its numbers, but is only sent to who asks."""
        if down_track.active:
            for missing in range(max(self.after, down_track.floor), number):
                down_track.given[down_track.next] = missing, down_track.level
                down_track.next += 1
            down_track.kept.clear()
            down_track.active = begins
        down_track.level, down_track.floor = level, number

    def deliver(self, down_track: ModelDownTrack, packet: Sent, number: int) -> None:
        if not down_track.active:
            if down_track.paused or not packet.key:
                return
            down_track.active, down_track.floor = True, number
            down_track.kept.clear()
        for lost in range(max(self.after, down_track.floor), number):
            down_track.kept[lost] = down_track.next
            down_track.given[down_track.next] = lost, down_track.level
            down_track.next += 1
        if packet.spatial <= down_track.level:
            self.hand(down_track, down_track.next, number)
            down_track.next += 1

    def hand(self, down_track: ModelDownTrack, own: int, number: int) -> None:
        if down_track.level == MIDDLE and self.held == number:
            down_track.held, down_track.given[own] = own, (number, MIDDLE)
        else:
            down_track.give(own, number)

    def deliver_late(self, down_track: ModelDownTrack, packet: Sent, number: int) -> None:
        if down_track.active:
            if number >= down_track.floor and number in down_track.kept:
                down_track.give(down_track.kept.pop(number), number)
        elif packet.key and not down_track.paused:
            down_track.active, down_track.floor = True, number
            down_track.kept.clear()
            for since in range(number, self.head):
                found = self.sent.get(since)
                if found is None:
                    down_track.kept[since] = down_track.next
                    down_track.given[down_track.next] = since, down_track.level
                    down_track.next += 1
                elif found.spatial <= down_track.level:
                    self.hand(down_track, down_track.next, since)
                    down_track.next += 1

    def marked(self, number: int, level: int) -> bool:
        """Whether a packet is to have the marker for those who get this level."""
        packet = self.sent[number]
        ending = packet.ends and packet.spatial == level
        return packet.marker or ending or (level == MIDDLE and number in self.closing)


class Scene:
    def __init__(self, chance: random.Random, start: int, portable: bool) -> None:
        self.chance, self.ext, self.ts = chance, start, 0xFFFF0000
        counters = Counter[str]()
        self.endpoint = Endpoint("127.0.0.1", 0, counters, portable=portable)
        send_buffers = SendBuffers(counters)
        self.ingress, self.rows = Ingress(counters, send_buffers.history), Rows(READ_BATCH)
        self.sender, receiver = ends(GCM)
        self.send_buffers = send_buffers
        self.host: Any = Subscriber("publisher", self.endpoint, GCM, send_buffers)
        self.publication = Publication(self.host, "camera", "video", send_buffers)
        self.track = self.publication.streams[""]
        assert isinstance(self.track, ScalableStream)
        self.track.remote_ssrc = SSRC
        demuxer = RtpDemuxer({SSRC: self.track}, lambda data: None, lambda ssrc, kind, names: None)
        demuxer.context = Context(receiver)
        self.route = Route(Agent(lambda path: None), self.host.path, demuxer)
        self.subscribers: dict[str, Any] = {}
        self.model = Model()
        self.waiting: list[Sent] = []  # made and not sent yet
        self.seen: set[int] = set()
        self.lost: list[Sent] = []
        self.layers, self.kept_ts = 3, {}

    # --- what is done ------------------------------------------------------------------------------------------------

    def join(self) -> None:
        name = f"s{len(self.subscribers)}"
        self.subscribers[name] = subscriber = Subscriber(name, self.endpoint, GCM, self.send_buffers)
        self.publication.add_down_track(subscriber)  # type: ignore[arg-type]
        head = self.publication.down_tracks[name].stream.head
        level = 0 if self.model.lower else WHOLE
        self.model.down_tracks[name] = ModelDownTrack(level, self.model.head, away_from_wrap(head & 0xFFFF))

    def prefer(self, who: int, level: int, now: bool) -> None:
        if self.subscribers:
            name = list(self.subscribers)[who % len(self.subscribers)]
            layers = list(self.publication.layers)
            self.publication.prefer(name, Step(layers[level % len(layers)]), now=now)
            down_track, wanted = self.model.down_tracks[name], level % len(layers)
            wanted = WHOLE if wanted == len(layers) - 1 else wanted
            down_track.wanted = None if wanted == down_track.level else wanted

    def pause(self) -> None:
        for name in list(self.subscribers)[:1]:
            self.publication.pause(name, "one")
            down_track = self.model.down_tracks[name]
            down_track.active, down_track.paused = False, True

    def resume(self) -> None:
        for name, down_track in self.model.down_tracks.items():
            if down_track.paused:
                self.publication.resume(name, "one")
                down_track.paused = False

    def mute(self, muted: bool) -> None:
        self.publication.set_muted(muted)
        if self.model.muted != muted:
            self.model.muted, self.model.fresh = muted, True

    def pictures(self, n: int, keys: float, layers: int, codec: str) -> None:
        """The publisher makes some more."""
        self.ts += 90_000
        for i in range(n):
            self.ts += 3000
            key = self.chance.random() < keys or (i == 0 and layers != self.layers)
            if key:
                self.layers = layers
            told = self.layers if codec == "VP9" and key else 0
            made = list(range(self.layers if codec == "VP9" else 1))
            if not key and len(made) > 1 and self.chance.random() < 0.5:
                del made[self.chance.randrange(len(made))]
            for spatial in made:
                size = self.chance.randrange(1, 6)
                for k in range(size):
                    first = spatial == 0 and k == 0
                    end = k == size - 1
                    self.waiting.append(
                        Sent(
                            self.ext, self.ts & 0xFFFFFFFF, spatial, first, first and key, told * first, end,
                            end and spatial == made[-1], codec == "VP9",
                            self.payload(key, spatial, k == 0, end, told * first, codec),
                        )
                    )  # fmt: skip
                    self.ext += 1

    def payload(self, key: bool, spatial: int, begins: bool, end: bool, told: int, codec: str) -> bytes:
        junk = self.chance.randbytes(self.chance.randrange(10, 900))
        if codec == "VP8":
            return bytes([0x10 if begins else 0, 0 if key and begins else 1]) + bytes(8) + junk
        first = 0xB0 | 0x40 * (not key) | 0x08 * begins | 0x04 * end | 0x02 * bool(told)
        descriptor = bytes([first, 0x80, 7, spatial << 1]) + b"\x02" * (not key)
        if told:
            descriptor += bytes([(told - 1) << 5 | 0x10]) + b"".join(
                struct.pack("!HH", 320 << k, 180 << k) for k in range(told)
            )
        return descriptor + junk

    def send(self, n: int, mess: float) -> None:
        """Some of what was made arrives as one batch."""
        packets, self.waiting = self.waiting[:n], self.waiting[n:]
        arriving = []
        for packet in packets:
            if self.chance.random() >= mess:
                arriving.append(packet)
            else:
                self.lost.append(packet)  # for now
        while self.lost and self.chance.random() < 0.3:
            arriving.insert(self.chance.randrange(len(arriving) + 1), self.lost.pop(0))
        arriving = arriving[:READ_BATCH]
        for i, packet in enumerate(arriving):
            head = struct.pack(
                "!BBHII", 0x80, 0x80 * packet.marker | (98 if packet.vp9 else 96), packet.ext & 0xFFFF, packet.ts, SSRC
            )
            data = self.sender.protect(head + packet.payload)
            self.rows.view[i * ROW_BYTES : i * ROW_BYTES + len(data)] = data
            self.rows.lengths[i] = len(data)
        if arriving:
            self.ingress.forward(self.rows, [self.route] * len(arriving))
            self.model.batch(arriving)
            assert len(self.track.lower) == self.model.lower
        for name in self.subscribers:
            self.check(name)

    def everything(self) -> None:
        while self.waiting:
            self.send(40, 0.0)

    # --- what comes of it --------------------------------------------------------------------------------------------

    def read(self, subscriber: Any) -> dict[int, tuple[bool, int, bytes]]:
        """Marker, timestamp and payload without padding by seq16."""
        got = {}
        while True:
            try:
                data = subscriber.socket.recv(2048)
            except BlockingIOError:
                return got
            seq16 = headers.seq16_of(data)
            if seq16 in subscriber.wire:
                assert subscriber.wire[seq16] == data, "one number stands for two packets"
                continue
            subscriber.wire[seq16] = data
            plain = subscriber.session.unprotect(data)
            padding = plain[-1] if plain[0] & 0x20 else 0
            _, second, _, ts, ssrc = struct.unpack_from("!BBHII", plain)
            assert ssrc == self.track.ssrc
            got[seq16] = bool(second & 0x80), ts, plain[12 : len(plain) - padding]

    def check(self, name: str) -> None:
        down_track = self.model.down_tracks[name]
        self.compare(name, self.read(self.subscribers[name]), down_track.expected)
        down_track.expected.clear()

    def compare(self, name: str, got: dict[int, tuple[bool, int, bytes]], expected: dict[int, tuple[int, int]]) -> None:
        assert sorted(got) == sorted(own & 0xFFFF for own in expected)
        for own, (number, level) in expected.items():
            marker, ts, payload = got[own & 0xFFFF]
            packet = self.model.sent[number]
            assert ts == packet.ts, "one clock"
            if packet.spatial <= level:
                assert payload == packet.payload
                assert marker == self.model.marked(number, level)
            else:
                assert (payload, marker) == (b"", False)

    def nack(self) -> None:
        """What never came is asked for: some of it is there by now. What came is as it was."""
        for name, down_track in self.model.down_tracks.items():
            subscriber = self.subscribers[name]
            mine = [own for own in down_track.given if own & 0xFFFF not in subscriber.wire]
            self.publication.retransmit(name, [own & 0xFFFF for own in mine[-20:]], 0.0)
            got = self.read(subscriber)
            self.compare(name, got, {own: down_track.given[own] for own in mine if own & 0xFFFF in got})
            self.publication.retransmit(name, list(subscriber.wire)[-20:], 0.0)
            assert self.read(subscriber) == {}

    def follows(self) -> None:
        """Whether each stream is one that a decoder can follow: no numbers left out, up only with a keyframe, down only
        with a picture."""
        for down_track in self.model.down_tracks.values():
            owns = sorted(down_track.given)
            assert all(after == own + 1 for own, after in pairwise(owns))
            for (_, before), (number, level) in pairwise(down_track.given[own] for own in owns):
                if level != before:
                    packet = self.model.sent[number]
                    assert packet.key or (packet.begins and level < before)

    def close(self) -> None:
        self.publication.close()
        for closing in [self.endpoint, self.host, *self.subscribers.values()]:
            closing.socket.close()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("pictures"), st.integers(1, 4), st.sampled_from([0.0, 0.0, 0.5]),
            st.sampled_from([3, 3, 3, 2, 1, 4]), st.sampled_from(["VP9", "VP9", "VP9", "VP9", "VP8"]),
        ),
        st.tuples(st.just("send"), st.integers(1, 40), st.sampled_from([0.0, 0.0, 0.1, 0.4])),
        st.tuples(st.just("send"), st.integers(1, 40), st.sampled_from([0.0, 0.0, 0.1, 0.4])),
        st.tuples(st.just("prefer"), st.integers(0, 3), st.integers(0, 2), st.booleans()),
        st.tuples(st.sampled_from(["join", "pause", "resume", "nack", "everything"])),
        st.tuples(st.just("mute"), st.booleans()),
    ),
    min_size=5,
    max_size=40,
)  # fmt: skip


@pytest.mark.parametrize("start", [0xFFD0, *variants(1, 0x7FF0)])
@given(operations=OPERATIONS, seed=st.integers(0, 1 << 30))
@settings(max_examples=60, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_every_subscriber_gets_what_the_model_says(start: int, operations: list[Any], seed: int) -> None:
    async def play() -> None:
        scene = Scene(random.Random(seed), start, portable=libc.lib is None)
        try:
            scene.pictures(2, 1.0, 3, "VP9")
            scene.send(100, 0.0)
            for _ in range(3):
                scene.join()
            for name, *arguments in operations:
                getattr(scene, name)(*arguments)
            scene.mute(False)
            scene.everything()
            scene.nack()
            scene.follows()
        finally:
            scene.close()

    asyncio.run(play())
