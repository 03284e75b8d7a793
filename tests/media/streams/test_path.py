"""The packet path against a slow model: whatever is lost, reordered, repeated, muted, switched or refused by the
kernel, every subscriber decrypts the stream that the model says, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pylibsrtp import Policy, Session
from support.media_client import until
from support.variants import variants

from sfu.buckets import TokenBucket
from sfu.media.rtp import codecs, headers
from sfu.media.rtp.numbering import HISTORY
from sfu.media.rtp.twcc import TransportFeedback
from sfu.media.streams.fanout import SendBuffers
from sfu.media.streams.ingress import Ingress, RtpDemuxer
from sfu.media.streams.pacer import Pacer
from sfu.media.streams.rtp_stream import RtpStream
from sfu.media.transport import libc
from sfu.media.transport.dtls import WINDOW
from sfu.media.transport.gate import Route
from sfu.media.transport.ice import Agent
from sfu.media.transport.rows import READ_BATCH, ROW_BYTES, Rows
from sfu.media.transport.sockets import CandidatePair, Endpoint, PortableReceiver, Receiver
from sfu.media.transport.srtp import Context, Packet
from sfu.media.transport.transport import RTX_BURST, RTX_PER_S

GCM, CM = Policy.SRTP_PROFILE_AEAD_AES_128_GCM, Policy.SRTP_PROFILE_AES128_CM_SHA1_80
KEY_BYTES = {GCM: 28, CM: 30}
TAG_BYTES = {GCM: 16, CM: 10}
PAYLOAD_TYPES = {"audio": 111, "video": 96}

linux = pytest.mark.skipif(libc.lib is None, reason="needs sendmmsg")
each_path = pytest.mark.parametrize("portable", [pytest.param(False, marks=linux), True])


def session(profile: int, ssrc_type: int, key: bytes) -> Session:
    policy = Policy(key=key, ssrc_type=ssrc_type, srtp_profile=profile)
    policy.allow_repeat_tx, policy.window_size = True, WINDOW
    return Session(policy)


def ends(profile: int) -> tuple[Session, Session]:
    """A sender and its receiver."""
    key = random.randbytes(KEY_BYTES[profile])
    return session(profile, Policy.SSRC_ANY_OUTBOUND, key), session(profile, Policy.SSRC_ANY_INBOUND, key)


@dataclass(frozen=True)
class Sent:
    """A packet of a publisher, `ext` its number without wrap."""

    ssrc: int
    ext: int
    ts: int
    key: bool
    payload: bytes


class Subscriber:
    """Stands where a Peer stands: a key, an address, and at the other end a client that decrypts."""

    def __init__(self, name: str, endpoint: Endpoint, profile: int, send_buffers: SendBuffers) -> None:
        self.id, self.endpoint = name, endpoint
        tx, self.session = ends(profile)
        self.context = Context(tx, TAG_BYTES[profile])
        self.socket = socket.socket(endpoint.socket.family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind((endpoint.address, 0))
        self.path = CandidatePair(endpoint, self.socket.getsockname())
        self.wire: dict[int, bytes] = {}  # by seq16, as first seen
        self.packet, self.rtx_budget = Packet(), TokenBucket(RTX_PER_S, RTX_BURST)

    def ready(self) -> tuple[Context, CandidatePair]:
        return self.context, self.path

    def send_rtp(self, data: bytes) -> None:
        self.packet.load(data, len(data))
        assert self.context.protect(self.packet)
        self.endpoint.send(self.packet.view[: self.packet.n], self.path.address)

    def send_rtx(self, data: bytes) -> None:
        self.send_rtp(data)

    def send_rtcp(self, data: bytes) -> None:
        pass

    def take(self) -> Iterator[tuple[int, int, bytes]]:
        """(ssrc, seq16, payload without padding) of all that arrived, of several tracks."""
        with contextlib.suppress(BlockingIOError):
            while True:
                plain = self.session.unprotect(self.socket.recv(2048))
                padding = plain[-1] if plain[0] & 0x20 else 0
                yield int.from_bytes(plain[8:12], "big"), headers.seq16_of(plain), plain[12 : len(plain) - padding]

    def receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """(ssrc, seq16, timestamp, payload without padding) of all that arrived. A number is one ciphertext for
        ever."""
        while True:
            try:
                data = self.socket.recv(2048)
            except BlockingIOError:
                return
            seq16 = int.from_bytes(data[2:4], "big")
            repeated = seq16 in self.wire
            assert self.wire.setdefault(seq16, data) == data, "one number stands for two packets"
            if repeated:
                yield int.from_bytes(data[8:12], "big"), seq16, -1, b""
                continue
            plain = self.session.unprotect(data)
            padding = plain[-1] if plain[0] & 0x20 else 0
            _, _, seq16, ts, ssrc = struct.unpack_from("!BBHII", plain)
            extension = plain[0] >> 4 & 1
            head, left = plain[12 : 12 + 4 * extension], plain[16 : 16 + 4 * extension]
            assert not extension or head == ERASED[:4]
            stamped = left[:1] == bytes([codecs.TRANSPORT_CC_ID << 4 | 1]) and plain[1] & 0x7F == 96
            assert not extension or stamped or left == ERASED[4:], "another transport's number"
            yield ssrc, seq16, ts, plain[12 + 8 * extension : len(plain) - padding]


ERASED = struct.pack("!HHI", 0xBEDE, 1, 0)


class Feedback(TransportFeedback):
    """Remembers which transport-wide numbers it was told of."""

    __slots__ = ("told",)

    def __init__(self) -> None:
        super().__init__()
        self.told: list[int] = []

    def arrived(self, seqs: Sequence[int], now_s: float) -> None:
        self.told += seqs
        super().arrived(seqs, now_s)


class Kernel:
    """sendmmsg with a buffer that is full now and then, and with or without segmentation."""

    def __init__(self, chance: random.Random, full: float, segments: bool) -> None:
        self.chance, self.full, self.segments = chance, full, segments
        self.refused: list[tuple[bytes, int]] = []  # address and sequence number of the first packet
        self._last: tuple[bytes, int] | None = None

    def sendmmsg(self, fd: int, messages: Any, n: int, flags: int) -> int:
        bad = next((i for i in range(n) if self._refuses(messages[i].msg_hdr, first=i == 0)), n)
        if bad:
            assert libc.ffi.dlopen(None).sendmmsg(fd, messages, bad, flags) == bad
            return bad
        libc.ffi.errno = errno.EINVAL if self._uncut(messages[0].msg_hdr) else errno.EAGAIN
        return -1

    def _uncut(self, header: Any) -> bool:
        return bool(header.msg_controllen) and not self.segments

    def _refuses(self, header: Any, first: bool) -> bool:
        if self._uncut(header):
            return True
        name = libc.ffi.buffer(libc.ffi.cast("char *", header.msg_name), 24)[:]
        row = libc.ffi.buffer(libc.ffi.cast("char *", header.msg_iov[0].iov_base), 4)[:]
        refusal = name, int.from_bytes(row[2:4], "big")
        if first and refusal == self._last:
            self._last = None  # tried once more, at once, as `_send_on` does
            return True
        if self.chance.random() >= self.full:
            return False
        self._last = refusal
        self.refused.append(refusal)
        return True


class Flaky:
    """A socket whose buffer is full now and then."""

    def __init__(self, real: socket.socket, chance: random.Random, full: float) -> None:
        self._real, self._chance, self._full = real, chance, full
        self.refused: list[tuple[bytes, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def sendto(self, data: Any, address: Any) -> int:
        if self._chance.random() < self._full:
            self.refused.append((libc.sockaddr(address).ljust(24, b"\0")[:24], int.from_bytes(data[2:4], "big")))
            raise BlockingIOError
        return self._real.sendto(data, address)


def away_from_wrap(seq16: int) -> int:
    """Who loses the first packets of a stream must not lose with them that it wrapped (RFC 3711 section 3.3.1)."""
    return seq16 - 0x8000 if seq16 >= 0xF000 else seq16


@dataclass
class ModelDownTrack:
    """What one subscriber has coming. Numbers as in the track, `shift` added."""

    floor: int
    shift: int = 0
    active: bool = True
    paused: bool = False
    next: int = 0
    expected: dict[int, Sent] = field(default_factory=dict)  # by own number

    def suspend(self, number: int) -> None:
        if self.active:
            self.active, self.next = False, number + self.shift


class Model:
    """The track as a table: every packet has a number or none, every subscriber some of the numbers."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.down_tracks: dict[str, ModelDownTrack] = {}
        self.sent: dict[int, Sent] = {}
        self.muted = self.started = False
        self.fresh = True  # a new stretch begins with the next packet that may begin one
        self.source = 0
        self.shift = self.first = self.head = 0

    def batch(
        self, packets: list[Sent], refused: Callable[[str, int], bool], remembered: Callable[[int], bool]
    ) -> None:
        """`remembered` are numbers that can still be sent to who begins with a packet that came late."""
        in_order, late = [], []
        for packet in packets:
            number = self.number(packet)
            if number >= 0:
                (in_order if number + 1 == self.head else late).append((number, packet))
        for number, packet in in_order:
            self.sent[number] = packet
            for name, down_track in self.down_tracks.items():
                self.deliver(name, down_track, number, packet, refused)
        for number, packet in late:
            for name, down_track in self.down_tracks.items():
                numbers = [number] if down_track.active and number >= down_track.floor else []
                if self.begins(down_track, number, packet):
                    numbers = [number, *(n for n in range(number + 1, self.head) if n in self.sent and remembered(n))]
                for own, one in [(n + down_track.shift, packet if n == number else self.sent[n]) for n in numbers]:
                    if not refused(name, own & 0xFFFF):
                        down_track.expected[own] = one
            self.sent[number] = packet

    def number(self, packet: Sent) -> int:
        if self.muted or packet.ssrc != self.source:
            return -1
        if self.fresh:
            self.head = self.head + 1 if self.started else (packet.ext & 0xFFFF) + 0x10000
            self.first = self.head if self.started else 0x10000
            self.started, self.fresh, self.shift = True, False, self.head - packet.ext
        number = packet.ext + self.shift
        if number < self.first or number < self.head - HISTORY:
            return -1
        self.head = max(self.head, number + 1)
        return number

    def begins(self, down_track: ModelDownTrack, number: int, packet: Sent) -> bool:
        """Whether a subscriber that waits goes on with this packet; then it does."""
        if down_track.active or down_track.paused or not (packet.key or self.kind == "audio"):
            return False
        down_track.active, down_track.shift, down_track.floor = True, down_track.next - number, number
        return True

    def deliver(
        self, name: str, down_track: ModelDownTrack, number: int, packet: Sent, refused: Callable[[str, int], bool]
    ) -> None:
        if not self.begins(down_track, number, packet) and not down_track.active:
            return
        if refused(name, (number + down_track.shift) & 0xFFFF):
            if self.kind == "video":
                down_track.suspend(number)
            return
        down_track.expected[number + down_track.shift] = packet


class Scene:
    """A publisher, its track, subscribers of both families and both ciphers, and the model beside them."""

    def __init__(
        self, kind: str, portable: bool, chance: random.Random, full: float, segments: bool, start: int
    ) -> None:
        self.numbered, self.forged = chance.random() < 0.5, chance.choice([0.0, 0.05])
        if full or self.forged:
            start &= (
                0x7FFF  # who loses all before the first wrap decrypts nothing after it; browsers begin below it, too
            )
        self.chance, self.counters = chance, Counter[str]()
        self.kind, self.full = kind, full
        self.endpoints = [Endpoint(host, 0, self.counters, portable=portable) for host in ("127.0.0.1", "::1")]
        self.kernels: list[Any] = [Kernel(chance, full, segments)]
        if portable:
            self.kernels = [Flaky(endpoint.socket, chance, full) for endpoint in self.endpoints]
            for endpoint, flaky in zip(self.endpoints, self.kernels, strict=True):
                endpoint.socket = flaky
        self.send_buffers = SendBuffers(self.counters)
        self.ingress = Ingress(self.counters, self.send_buffers.history)
        self.rows = Rows(READ_BATCH)
        self.publisher, rx = ends(GCM)
        self.subscribers: dict[str, Subscriber] = {}
        self.tracks: dict[int, RtpStream] = {}
        host: Any = Subscriber("publisher", self.endpoints[0], GCM, self.send_buffers)
        self.host = host
        self.track = RtpStream(host, "camera", kind, self.send_buffers)  # type: ignore[arg-type]
        self.model = Model(kind)
        demuxer = RtpDemuxer(self.tracks, lambda data: None, lambda ssrc, kind: None)
        demuxer.context = Context(rx)
        demuxer.feedback = self.feedback = Feedback()
        self.route = Route(Agent(lambda path: None), host.path, demuxer)
        self.names = itertools.count()
        self.any_refused = False
        self.ext, self.ts = start, 0xFFFFF000
        self.history: list[Sent] = []
        self.track.remote_ssrc = self.model.source = chance.randrange(1, 1 << 32)
        self.tracks[self.model.source] = self.track

    def join(self) -> None:
        name = f"s{next(self.names)}"
        profile = self.chance.choice([GCM, GCM, CM])
        subscriber: Any = Subscriber(name, self.chance.choice(self.endpoints), profile, self.send_buffers)
        self.subscribers[name] = subscriber
        self.track.add_down_track(subscriber)
        down_track = self.track.down_tracks[name]
        if not self.full:
            down_track.pacer = Pacer(subscriber, self.send_buffers.history, lambda: [down_track], self.counters)
        head = self.model.head
        self.model.down_tracks[name] = ModelDownTrack(head, away_from_wrap(head & 0xFFFF) - (head & 0xFFFF))

    def leave(self) -> None:
        if self.subscribers:
            name, subscriber = self.subscribers.popitem()
            self.track.remove_down_track(subscriber)  # type: ignore[arg-type]
            self.check(name, subscriber)
            subscriber.socket.close()
            del self.model.down_tracks[name]

    def pace(self) -> None:
        """Some are paced from now on, or no longer; at a rate that holds nothing up."""
        for down_track in list(self.track.down_tracks.values())[:2]:
            if self.kind == "video" and down_track.pacer is not None:
                down_track.pacer.rate_bps = 0.0 if down_track.pacer.rate_bps else 1e10

    def mute(self, muted: bool) -> None:
        self.track.set_muted(muted)
        if self.model.muted != muted:
            self.model.muted, self.model.fresh = muted, True

    def pause(self) -> None:
        for name in list(self.subscribers)[:1]:
            for reason in ("one", "other", "one"):
                self.track.pause(name, reason)
            self.model.down_tracks[name].suspend(self.model.head)
            self.model.down_tracks[name].paused = True

    def resume(self) -> None:
        for name, down_track in self.model.down_tracks.items():
            if down_track.paused:
                assert self.track.paused(name)
                self.track.resume(name, "one")
                assert self.track.paused(name) == "other"
                self.track.resume(name, "other")
                assert self.track.paused(name) == ""
                down_track.paused = False

    def produce(self, n: int, same_size: bool) -> None:
        """New packets of the publisher, some of which `send` may lose, repeat or mix up."""
        size = self.chance.randrange(20, 1150)
        self.ts += 3000
        keyframe = self.chance.random() < 0.5
        for i in range(n):
            key = keyframe and i == 0  # a run that is refused takes with it a keyframe that begins within it
            length = size + (self.chance.randrange(2) if same_size else self.chance.randrange(-18, 150))
            start = (0x10, 0 if key else 1) if self.kind == "video" else (0, 0)
            payload = bytes(start) + self.chance.randbytes(length)
            self.history.append(Sent(self.model.source, self.ext, self.ts & 0xFFFFFFFF, key, payload))
            self.ext += 1

    def send(self, n: int, same_size: bool, mess: float) -> None:
        before = len(self.history)
        self.produce(n, same_size)
        packets = self.history[before:]
        for i in range(len(packets)):
            if self.chance.random() < mess:
                what = self.chance.randrange(4)
                if what == 0:
                    packets[i] = packets[self.chance.randrange(i + 1)]  # lost, and another one repeated
                elif what == 1:
                    j = self.chance.randrange(len(packets))
                    packets[i], packets[j] = packets[j], packets[i]
                elif what == 2:
                    packets[i] = self.chance.choice(self.history)  # from long ago
                else:
                    del packets[i:]
                    break
        self.deliver(packets[:READ_BATCH])

    def deliver(self, packets: list[Sent]) -> None:
        seen = self.__dict__.setdefault("seen", set())
        top = self.__dict__.setdefault("top", {})
        accepted = []
        self.feedback.told.clear()
        for i, packet in enumerate(packets):
            data = self.protect(packet)
            if self.chance.random() < self.forged:
                self.rows.view[i * ROW_BYTES : i * ROW_BYTES + len(data)] = data[:-1] + bytes([data[-1] ^ 1])
                self.rows.lengths[i] = len(data)
                continue
            self.rows.view[i * ROW_BYTES : i * ROW_BYTES + len(data)] = data
            self.rows.lengths[i] = len(data)
            if (packet.ssrc, packet.ext) not in seen and packet.ext > top.get(packet.ssrc, -1) - 1024:
                accepted.append(packet)
                seen.add((packet.ssrc, packet.ext))
                top[packet.ssrc] = max(top.get(packet.ssrc, -1), packet.ext)
        for kernel in self.kernels:
            kernel.refused.clear()
        if packets:
            assert not self.ingress.forward(self.rows, [self.route] * len(packets))
        assert sorted(self.feedback.told) == sorted(p.ext + 7 & 0xFFFF for p in accepted if self.numbered)
        self.any_refused = any(kernel.refused for kernel in self.kernels)
        self.model.batch(accepted, self.refused, lambda number: self.track.recall(number) is not None)
        for name, subscriber in self.subscribers.items():
            self.check(name, subscriber)

    def protect(self, packet: Sent) -> bytes:
        cache = self.__dict__.setdefault("cache", {})
        if (packet.ssrc, packet.ext) not in cache:
            first, payload_type = 0x90 if self.numbered else 0x80, PAYLOAD_TYPES[self.kind]
            wire = struct.pack("!BBHII", first, payload_type, packet.ext & 0xFFFF, packet.ts, packet.ssrc)
            if self.numbered:
                element = codecs.TRANSPORT_CC_ID << 4 | 1
                wire += struct.pack("!HHBHB", 0xBEDE, 1, element, packet.ext + 7 & 0xFFFF, 0)
            cache[packet.ssrc, packet.ext] = self.publisher.protect(wire + packet.payload)
        return cache[packet.ssrc, packet.ext]

    def refused(self, name: str, seq16: int) -> bool:
        """Whether the kernel refused it; each refusal counts once, since the number goes to the packet after it."""
        address = libc.sockaddr(self.subscribers[name].path.address).ljust(24, b"\0")[:24]
        for kernel in self.kernels:
            if (address, seq16) in kernel.refused:
                kernel.refused.remove((address, seq16))
                return True
        return False

    def check(self, name: str, subscriber: Subscriber) -> None:
        down_track = self.model.down_tracks[name]
        got = {seq16: (ssrc, ts, payload) for ssrc, seq16, ts, payload in subscriber.receive() if ts >= 0}
        expected = {number & 0xFFFF: packet for number, packet in down_track.expected.items()}
        down_track.expected.clear()
        if self.kind == "audio" and self.any_refused:
            expected = {seq16: packet for seq16, packet in expected.items() if seq16 in got}  # what follows went, too
        assert got.keys() == expected.keys()
        shifts = set()
        for seq16, (ssrc, ts, payload) in got.items():
            assert ssrc == self.track.ssrc
            assert payload == expected[seq16].payload
            shifts.add((ts - expected[seq16].ts) & 0xFFFFFFFF)
        assert len(shifts) <= 1, "one clock for all packets of a batch"

    def nack(self) -> None:
        for name, subscriber in self.subscribers.items():
            asked = list(subscriber.wire)[-20:]
            before = self.counters["nack_answered"]
            self.track.retransmit(name, asked, asyncio.get_running_loop().time())
            again = [seq16 for _, seq16, ts, _ in subscriber.receive() if ts < 0]
            if isinstance(self.kernels[0], Kernel):
                assert len(again) == self.counters["nack_answered"] - before
            assert set(again) <= set(asked)  # `receive` has compared the bytes

    def close(self) -> None:
        self.track.close()
        for closing in [*self.endpoints, *self.subscribers.values(), self.host]:
            closing.socket.close()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 40), st.booleans(), st.sampled_from([0.0, 0.0, 0.1, 0.6])),
        st.tuples(st.sampled_from(["join", "leave", "pause", "resume", "nack", "pace"])),
        st.tuples(st.just("mute"), st.booleans()),
    ),
    min_size=5,
    max_size=25,
)


@each_path
@pytest.mark.parametrize("start", [0, 0xFFD0, *variants(1, 0x7FF0, 0xFFFF)])
@given(
    kind=st.sampled_from(["video", "video", "audio"]),
    operations=OPERATIONS,
    seed=st.integers(0, 1 << 30),
    full=st.sampled_from([0.0, 0.0, 0.05]),
    segments=st.sampled_from([True, True, False]),
)
@settings(max_examples=15, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_every_subscriber_gets_what_the_model_says(
    portable: bool, start: int, kind: str, operations: list[Any], seed: int, full: float, segments: bool
) -> None:
    async def play() -> None:
        scene = Scene(kind, portable, random.Random(seed), full, segments, start)
        before = libc.sendmmsg
        libc.sendmmsg = before if portable else scene.kernels[0].sendmmsg
        try:
            for _ in range(4):
                scene.join()
            for name, *arguments in operations:
                getattr(scene, name)(*arguments)
            scene.mute(False)
            scene.send(20, True, 0.0)
        finally:
            libc.sendmmsg = before
            scene.close()

    asyncio.run(play())


@each_path
@given(
    batches=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=READ_BATCH), min_size=1, max_size=6),
    start=st.sampled_from([1, 0x7FF0, 0xFFD0]),
    forged=st.sampled_from([0.0, 0.0, 0.05]),
    seed=st.integers(0, 1 << 30),
)
@settings(max_examples=25, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_streams_that_share_a_batch_are_told_apart(
    portable: bool, batches: list[list[int]], start: int, forged: float, seed: int
) -> None:
    """A camera and a microphone of one publisher, and another's camera under the first one's SSRC, in any order: what
    of each is authentic comes, in its order, and sound before pictures."""

    async def play() -> None:
        chance = random.Random(seed)
        scene = Scene("video", portable, chance, 0.0, True, start)
        scene.join()
        (subscriber,) = scene.subscribers.values()
        sender, rx = ends(GCM)
        another = RtpDemuxer({}, lambda data: None, lambda ssrc, kind, names: None)
        another.context = Context(rx)
        tracks = [scene.track]
        for tracks_of, ssrc, kind in ((another.streams, scene.model.source, "video"), (scene.tracks, 77, "audio")):
            track = RtpStream(scene.host, "more", kind, scene.send_buffers)  # type: ignore[arg-type]
            track.remote_ssrc = ssrc
            track.add_down_track(subscriber)  # type: ignore[arg-type]
            tracks_of[ssrc] = track
            tracks.append(track)
        routes = [scene.route, Route(Agent(lambda path: None), scene.host.path, another), scene.route]
        seqs = [start] * 3
        for batch in batches:
            sent: list[list[tuple[int, bytes]]] = [[], [], []]
            for i, which in enumerate(batch):
                payload = bytes([0x10, 0]) + chance.randbytes(chance.choice([500, 500, 501, 700]))
                head = struct.pack(
                    "!BBHII", 0x80, (96, 96, 111)[which], seqs[which] & 0xFFFF, 1, tracks[which].remote_ssrc or 0
                )
                data = (sender if which == 1 else scene.publisher).protect(head + payload)
                if chance.random() < forged:
                    data = data[:-1] + bytes([data[-1] ^ 1])
                else:
                    sent[which].append((seqs[which] & 0xFFFF, payload))
                seqs[which] += 1
                scene.rows.view[i * ROW_BYTES : i * ROW_BYTES + len(data)] = data
                scene.rows.lengths[i] = len(data)
            assert not scene.ingress.forward(scene.rows, [routes[which] for which in batch])
            by_track = {track.ssrc: i for i, track in enumerate(tracks)}
            got = [(by_track[ssrc], seq16, payload) for ssrc, seq16, payload in subscriber.take()]
            for which in range(3):
                assert [(seq16, payload) for i, seq16, payload in got if i == which] == sent[which]
            assert [i == 2 for i, _, _ in got] == sorted((i == 2 for i, _, _ in got), reverse=True)
        for track in tracks[1:]:
            track.close()
        scene.close()

    asyncio.run(play())


@each_path
def test_a_subscriber_changes_tracks_without_a_gap(portable: bool) -> None:
    """As with layers: another source's numbers and times go on where the first one's stopped, at its next keyframe."""

    async def play() -> None:
        scene = Scene("video", portable, random.Random(1), 0.0, True, 500)
        scene.join()
        ((name, subscriber),) = scene.subscribers.items()
        other = RtpStream(scene.host, "screen", "video", scene.send_buffers)
        other.remote_ssrc = 77
        scene.tracks[77] = other
        got: list[tuple[int, int, int, bytes]] = []

        def arrive(ssrc: int, ext: int, ts: int, key: bool, text: bytes) -> None:
            payload = bytes([0x10, 0 if key else 1]) + text
            wire = struct.pack("!BBHII", 0x80, 96, ext, ts, ssrc) + payload
            data = scene.publisher.protect(wire)
            scene.rows.view[: len(data)] = data
            scene.rows.lengths[0] = len(data)
            scene.ingress.forward(scene.rows, [scene.route])
            got.extend(subscriber.receive())

        for step in range(3):
            arrive(scene.model.source, 500 + step, 9000 + step, False, b"first  ")
        scene.track.switch(name, other)
        arrive(scene.model.source, 503, 9003, False, b"not taken")
        arrive(77, 40_000, 70, False, b"no keyframe")
        arrive(77, 40_001, 71, True, b"second ")
        arrive(77, 40_002, 72, False, b"second ")
        assert [payload[2:] for *_, payload in got] == [b"first  "] * 3 + [b"second "] * 2
        assert [(ssrc, seq16) for ssrc, seq16, _, _ in got] == [(scene.track.ssrc, 500 + i) for i in range(5)]
        times = [ts for _, _, ts, _ in got]
        assert 9002 < times[3] < 9002 + 90_000
        assert times[4] == times[3] + 1
        other.retransmit(name, [502, 503, 504], 0.0)
        # compared to the byte; what came before the keyframe is of no use to it any more
        assert [seq16 for _, seq16, ts, _ in subscriber.receive() if ts < 0] == [504, 503]
        other.close()
        scene.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("profile", "block", "left", "level", "numbered"),
    [
        ("bede", "51 abcd 10 9e 000000", "00 0000 00 00 000000", -30, True),  # Chromium's layout
        ("bede", "10 1e 0000", "00 00 0000", -30, False),  # without transport-wide numbers
        ("bede", "51 abcd 00", "00 0000 00", None, True),  # without levels
        ("bede", "10 ff 51 abcd 000000", "00 00 00 0000 000000", -127, True),
        ("bede", "51 abcd 10 80 220203", "00 0000 00 00 220203", 0, True),  # something else, and cut short
        ("bede", "51 abcd 22 010203 10 01 000000", "00 0000 22 010203 00 00 000000", -1, True),
        ("bede", "51 abcd 11 0101 0000", "00 0000 11 0101 0000", None, True),  # two bytes are no level
        ("1000", "01 01 9e 05 02 abcd 00", "00 00 00 00 00 0000 00", -30, True),
        ("1234", "51 abcd 10 9e 000000", "51 abcd 10 9e 000000", None, False),  # no elements of ours
    ],
)
def test_audio_levels_are_heard_and_no_subscriber_gets_them(
    profile: str, block: str, left: str, level: int | None, numbered: bool
) -> None:
    async def play() -> None:
        scene = Scene("audio", True, random.Random(1), 0.0, True, 500)
        scene.join()
        (subscriber,) = scene.subscribers.values()
        data = bytes.fromhex(block)
        for seq16 in (500, 501):  # the first of a stream, and one that comes in its turn
            head = struct.pack("!BBHII", 0x90, 111, seq16, 960, scene.model.source)
            head += bytes.fromhex(profile) + struct.pack("!H", len(data) // 4)
            wire = scene.publisher.protect(head + data + b"voice")
            scene.rows.view[: len(wire)] = wire
            scene.rows.lengths[0] = len(wire)
            scene.ingress.forward(scene.rows, [scene.route])
            got = subscriber.session.unprotect(subscriber.socket.recv(2048))
            assert got[12:] == head[12:] + bytes.fromhex(left) + b"voice"
        assert scene.track.take_level() == level
        assert scene.track.take_level() is None
        assert bool(scene.route.demuxer.feedback.report()) == numbered
        scene.close()

    asyncio.run(play())


def test_a_level_is_the_mean_of_those_since_the_last_one() -> None:
    async def play() -> None:
        scene = Scene("audio", True, random.Random(1), 0.0, True, 500)
        for level in (10, 20, 0x80 | 60):
            scene.route.demuxer.hear(scene.model.source, level)
            scene.route.demuxer.hear(4242, 127)  # of no track
        assert scene.track.take_level() == -30
        scene.close()

    asyncio.run(play())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@each_path
def test_a_batch_is_told_apart(portable: bool, family: int) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    endpoint = Endpoint(host, 0, Counter(), portable=portable)
    receiver = PortableReceiver() if portable else Receiver(family)
    senders = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(3)]
    try:
        for i in range(30):
            senders[i % 3].sendto(bytes([i]) * (i + 1), endpoint.socket.getsockname())
        assert receiver.receive(endpoint) == 30
        routes = {receiver.key(i): Route(cast("Agent", None), cast("CandidatePair", None), None) for i in range(2)}
        known = [*routes.values(), None]  # the third is a stranger
        assert receiver.senders(30, routes) == [known[i % 3] for i in range(30)]
        for i in range(30):
            assert bytes(receiver.rows.row(i)) == bytes([i]) * (i + 1)
            assert receiver.key(i) == receiver.key(i % 3)
            assert receiver.address(i)[1] == senders[i % 3].getsockname()[1]
            assert receiver.address(i)[0] == host
        assert receiver.receive(endpoint) <= 0
        for of_one in (1, 5):
            for _ in range(of_one):
                senders[1].sendto(b"x", endpoint.socket.getsockname())
            assert receiver.receive(endpoint) == of_one
            assert receiver.senders(of_one, routes) == [known[1]] * of_one
    finally:
        for sock in (*senders, endpoint.socket):
            sock.close()


def test_who_is_no_longer_paced_gets_first_what_waits() -> None:
    async def play() -> None:
        scene = Scene("video", False, random.Random(1), 0.0, True, 500)
        scene.join()
        (subscriber,), (down_track,) = scene.subscribers.values(), scene.track.down_tracks.values()
        got: list[int] = []

        def arrive(n: int, size: int) -> None:
            for _ in range(n):
                wire = struct.pack("!BBHII", 0x80, 96, scene.ext & 0xFFFF, scene.ext * 3000, scene.model.source)
                data = scene.publisher.protect(wire + bytes([0x10, 0 if scene.ext == 500 else 1]) + bytes(size))
                scene.rows.view[: len(data)] = data
                scene.rows.lengths[0] = len(data)
                scene.ext += 1
                scene.ingress.forward(scene.rows, [scene.route])
            got.extend(seq16 for _, seq16, _, _ in subscriber.receive())

        arrive(3, 1000)
        assert down_track.pacer is not None
        assert down_track.paced is None
        down_track.pacer.rate_bps = 500e3
        arrive(15, 1000)
        down_track.pacer.rate_bps = 0.0
        arrive(3, 100)
        assert down_track.paced is not None
        assert down_track.queued > 3
        await until(lambda: not down_track.queued, "nothing waits")
        arrive(1, 100)
        arrive(1, 100)
        assert down_track.paced is None
        assert got == list(range(500, 523))
        assert down_track.packets == 23
        scene.close()

    asyncio.run(play())
