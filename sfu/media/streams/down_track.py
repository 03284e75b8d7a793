"""A down track: one subscriber's view of an RTP stream, with its own offset of numbers. Pure: the clock is an argument.

A stream has one sequence and one clock for all subscribers. A subscriber that is left out for a while (its kernel
buffer was full, it was paused, it switches layers) continues without a gap: from then on its numbers are the stream's
plus a shift. No number ever stands for two packets, since a nonce used twice breaks AES-GCM; so packets from before a
shift are never sent after it.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from struct import Struct
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from sfu.media.rtp import codecs, headers, vp8
from sfu.media.rtp.numbering import HISTORY
from sfu.media.rtp.rtcp import ReportBlock
from sfu.media.rtp.vp8 import Picture
from sfu.media.streams.counted import Counted
from sfu.media.streams.delivery import Delivery, Sent
from sfu.media.streams.retransmission import RetransmissionLimiter
from sfu.media.streams.send_history import SendHistory
from sfu.media.transport.transport import Transport

SPANS = 8
"""Spans remembered for retransmission; what was sent before them is too old to be requested."""
NEAR_WRAP = 0xF000
"""No subscriber's numbers begin in the last 4,096 before the 16-bit wrap."""

_numbers = Struct("!HII")
_padded = Struct("!BBHIIII")


class Memory(Protocol):
    """Remembers packets that were sent."""

    ssrc: int

    @property
    def whole(self) -> Feed: ...

    def recall(self, number: int) -> builtins.bytes | None: ...

    def forgot(self, number: int) -> bool: ...


class Feed(Memory, Protocol):
    """The stream that a down track is on, with numbers and a clock that all its subscribers share (rtp_stream.py)."""

    head: int
    packets: int
    bytes: int
    clock_rate: int
    last_ts: int
    last_s: float

    def last_picture(self) -> Picture | None: ...

    def down_tracks_changed(self) -> None: ...


class Queued(Protocol):
    """A packet that waits for a pacer."""

    @property
    def number(self) -> int: ...

    @property
    def packet(self) -> bytearray: ...

    @property
    def late(self) -> bool: ...


class Pace(Protocol):
    """When packets leave to one peer (pacer.py)."""

    rate_bps: float

    def repeat(
        self, down_track: DownTrack[Any], packet: builtins.bytes, now_s: float, *, twice: bool = False
    ) -> bool: ...

    def drop(self, down_track: DownTrack[Any]) -> Sequence[Queued]: ...


F = TypeVar("F", bound=Feed)


class Span(NamedTuple):
    """From the subscriber's own number `first` on, its packet n is packet n - shift of what `stream` remembers."""

    first: int
    stream: Memory
    shift: int
    shift_ts: int
    shift_picture: int = 0
    shift_tl0: int = 0


class Failure(NamedTuple):
    """`down_track` got only the first `sent` packets of a run, because the kernel's buffer or its pacer's queue is
    full; or it got all, but the kernel refused to segment its message, and its next send group must take that into
    account."""

    down_track: DownTrack[Any]
    sent: int


class DownTrack(Generic[F]):
    """Belongs to a send group while `waiting` is false. Numbers are extended and do not wrap."""

    __slots__ = (
        "_base",
        "_base_bytes",
        "_clock_s",
        "_clock_ts",
        "_next",
        "_picture",
        "_resync",
        "_sent",
        "_sent_bytes",
        "answers",
        "delivery",
        "dropped",
        "floor",
        "paced",
        "pacer",
        "pauses",
        "peer",
        "queued",
        "queued_bytes",
        "rtx_seq",
        "rtx_ssrc",
        "segments",
        "shift",
        "shift_picture",
        "shift_tl0",
        "shift_ts",
        "spans",
        "ssrc",
        "stream",
        "temporal",
        "waiting",
    )  # fmt: skip

    def __init__(self, peer: Transport, stream: F) -> None:
        self.peer, self.stream, self.ssrc = peer, stream, stream.ssrc
        self.answers = RetransmissionLimiter()
        self.rtx_ssrc = self.rtx_seq = 0  # of its RTX; SSRC 0 if packets are resent under their own
        self.delivery = Delivery()
        self.segments = True  # the kernel may segment messages to this peer
        # a subscriber that loses the packets before a wrap misses it, and decrypts nothing (RFC 3711 section 3.3.1)
        self.shift = -0x8000 if stream.head & 0xFFFF >= NEAR_WRAP else 0
        self.shift_ts = self.shift_picture = self.shift_tl0 = 0
        self._picture: tuple[int, int] | None = None  # picture ID and TL0PICIDX before it switched streams
        self.floor, self._next = stream.head, stream.head + self.shift
        self.waiting = False
        self.pacer: Pace | None = None
        self.paced: Memory | None = None  # its part of the pacer (paced.py), while it is paced
        self.queued = self.queued_bytes = 0  # packets that wait for the pacer
        self.temporal: int | None = None  # highest temporal layer that it is to have; None: all
        self.pauses: set[str] = set()  # reasons to leave it out; it does not resume while there are any
        self.dropped = 0
        # it may request packets that came while its answer was on the way, but none from before a wrap
        earlier = min(HISTORY, self._next & 0xFFFF)
        self.spans = [Span(self._next - earlier, stream, self.shift, 0)]  # a deque would take 600 bytes more
        self._sent, self._base = 0, stream.packets
        self._sent_bytes, self._base_bytes = 0, stream.bytes
        self._resync = False
        self._clock_ts, self._clock_s = 0, 0.0

    @property
    def renumbered(self) -> bool:
        """Whether its headers differ from the stream's."""
        return bool(self.shift or self.shift_ts or self.ssrc != self.stream.ssrc)

    @property
    def packets(self) -> int:
        """Packets sent so far, without retransmissions."""
        return (self._sent if self.waiting else self._sent + self.stream.packets - self._base) - self.queued

    @property
    def sent_bytes(self) -> int:
        """Bytes of the packets sent so far; a run that was cut short counts in full."""
        taken = self._sent_bytes if self.waiting else self._sent_bytes + self.stream.bytes - self._base_bytes
        return taken - self.queued_bytes

    @property
    def _following(self) -> int:
        """Its next packet's number, if none is lost on the way here."""
        return self._next if self.waiting else self.stream.head + self.shift

    def reported(self, block: ReportBlock, now_s: float) -> None:
        """Takes a report block of the subscriber about this down track."""
        sent = Sent(self.packets, self._following - self.queued, self.sent_bytes)
        self.delivery.reported(block, self.stream.clock_rate, sent, now_s)

    def counted(self) -> Counted:
        """Counters of this down track, for the subscriber's quality."""
        said = self.delivery
        return Counted(id(self), said.expected, said.lost, self.sent_bytes, said.jitter_s, said.round_trip_s)

    def renumber(self, packet: memoryview, at: int) -> None:
        """Writes this subscriber's numbers into a packet of the stream; `at` is the offset of its sequence number."""
        seq16, ts, _ = _numbers.unpack_from(packet, at)
        _numbers.pack_into(packet, at, (seq16 + self.shift) & 0xFFFF, (ts + self.shift_ts) & 0xFFFFFFFF, self.ssrc)

    def number(self, packet: bytearray, number: int, shift_ts: int) -> None:
        """Writes this subscriber's numbers into a packet that is to be its packet `number`."""
        _, ts, _ = _numbers.unpack_from(packet, 2)
        _numbers.pack_into(packet, 2, number & 0xFFFF, (ts + shift_ts) & 0xFFFFFFFF, self.ssrc)

    @property
    def pictured(self) -> bool:
        """Whether its VP8 picture numbers differ from the stream's."""
        return bool(self.shift_picture or self.shift_tl0)

    def suspend(self, ext: int, unsent: int = 0) -> None:
        """Leaves out packet `ext` of the stream and later ones; `unsent` of these are already counted by the stream."""
        if not self.waiting:
            self._sent += self.stream.packets - self._base - unsent
            self._sent_bytes += self.stream.bytes - self._base_bytes
            self._next, self.floor = ext + self.shift, ext
            self.waiting = True

    def follow(self, stream: F) -> None:
        """Switches the suspended down track to another stream (a layer). Its timestamps continue after the time that
        has passed, unless the two streams share a clock."""
        if stream.whole is self.stream.whole:
            self.floor = stream.head
        elif not self._resync:
            self._resync = True
            self._clock_ts, self._clock_s = self.stream.last_ts + self.shift_ts, self.stream.last_s
            if (last := self.stream.last_picture()) is not None:
                self._picture = last.number + self.shift_picture, last.tl0 + self.shift_tl0
        self.stream = stream

    def resume(self, ext: int, ts: int, now_s: float, picture: Picture | None = None) -> None:
        """Continues with packet `ext` of its stream, which must be one to begin with and not counted yet. `picture` has
        the packet's VP8 numbers; they are shifted to continue, as decoders take pictures whose numbers go back for
        old."""
        if self._resync:
            if picture is not None and self._picture is not None:
                number, tl0 = self._picture
                self.shift_picture = (number + 1 - picture.number) & (0x7FFF if picture.wide else 0x7F)
                self.shift_tl0 = (tl0 + 1 - picture.tl0) & 0xFF
            elapsed = max(1, round((now_s - self._clock_s) * self.stream.clock_rate))
            self.shift_ts = (self._clock_ts + elapsed - ts) & 0xFFFFFFFF
            self._resync = False
        else:
            self.dropped += ext - self.floor
        self.shift, self.floor = self._next - ext, ext
        self.paced = None
        self.remember(ext)
        self._base, self._base_bytes = self.stream.packets, self.stream.bytes
        self.waiting = False

    def catch_up(self, ext: int) -> None:
        """Sends the packets of its stream from `ext` on, which came before it could begin."""
        for number in range(ext, self.stream.head):
            packet = self.find((number + self.shift) & 0xFFFF)
            if packet is not None:
                self._base, self._base_bytes = self._base - 1, self._base_bytes - len(packet)
                self.peer.send_rtp(packet)

    def remember(self, ext: int) -> None:
        """From packet `ext` of its stream on, the stream remembers what it was sent."""
        shifts = self.shift, self.shift_ts, self.shift_picture, self.shift_tl0
        self.add_span(Span(ext + self.shift, self.stream, *shifts))

    def add_span(self, span: Span) -> None:
        self.spans.append(span)
        del self.spans[:-SPANS]

    def uncount(self, n_bytes: int, packets: int = 1) -> None:
        """Leaves out of the count packets of the stream that it is not sent."""
        self._base += packets
        self._base_bytes += n_bytes

    def take_back(self) -> None:
        """Takes back what waits for its pacer, while it is suspended. Those numbers are free again."""
        if self.pacer is None or not self.queued:
            return
        for entry in self.pacer.drop(self):
            self._sent -= 1
            self._sent_bytes -= len(entry.packet)
            if not entry.late:
                self._next = min(self._next, entry.number)
        self.queued = self.queued_bytes = 0

    def find(self, seq16: int) -> bytes | None:
        """The packet that the subscriber was sent under this number, if that is still remembered."""
        number, span = self._sent_as(seq16)
        found = span.stream.recall(number - span.shift) if span is not None else None
        if span is None or found is None or not (span.shift or span.shift_ts or self.ssrc != span.stream.ssrc):
            return found
        packet = bytearray(found)
        self.number(packet, number, span.shift_ts)
        if span.shift_picture or span.shift_tl0:
            vp8.shift_picture(packet, len(packet), span.shift_picture, span.shift_tl0)
        return bytes(packet)

    def _sent_as(self, seq16: int) -> tuple[int, Span | None]:
        """The extended form of a number, and what remembers it; None if nothing was sent under it."""
        following = self._following
        number = following - ((following - seq16) & 0xFFFF)
        if number == following:
            return number, None
        return number, next((span for span in reversed(self.spans) if span.first <= number), None)

    def left(self, seq16: int) -> bool:
        """Whether the packet under this number belongs to a layer that was left for another with keyframes of its
        own."""
        _, span = self._sent_as(seq16)
        return span is not None and span.stream.whole is not self.stream.whole

    def forgot(self, seq16: int) -> bool:
        """Whether the packet under this number was sent too long ago to be remembered."""
        number, span = self._sent_as(seq16)
        late = self._following - number < 0x8000  # else it was never sent
        return late and span is not None and span.stream.forgot(number - span.shift)

    def again(self, packet: bytes, history: SendHistory, now_s: float) -> bytes | bytearray:
        """A sent packet as it is to be sent once more: as RTX (RFC 4588) if the subscriber supports that, else the very
        same bytes, since two packets with one number may not differ."""
        payload_type = codecs.CODEC_RTX.get(packet[1] & 0x7F)
        if not self.rtx_ssrc or payload_type is None:
            self.delivery.resent += 1
            return packet
        self.rtx_seq = (self.rtx_seq + 1) & 0xFFFF
        again = headers.retransmission(packet, payload_type, self.rtx_ssrc, self.rtx_seq)
        history.write(again, now_s)
        return again

    def lately(self, back: int) -> bytes | None:
        """The packet that it was sent last, or `back` packets earlier, if the stream still remembers it."""
        return self.find((self._following - self.queued - 1 - back) & 0xFFFF)

    def padding(self, n: int, history: SendHistory, now_s: float) -> bytearray:
        """A packet of `n` bytes of padding on its RTX SSRC, for a probe where nothing can be repeated (RFC 3550
        section 5.1)."""
        self.rtx_seq = (self.rtx_seq + 1) & 0xFFFF
        last = self.lately(0)
        payload_type = codecs.CODEC_RTX.get(codecs.VP8.payload_type if last is None else last[1] & 0x7F, 0)
        ts = (self.stream.last_ts + self.shift_ts) & 0xFFFFFFFF
        extension = headers.ONE_BYTE_PROFILE << 16 | 1, 0
        packet = bytearray(_padded.pack(0xB0, payload_type, self.rtx_seq, ts, self.rtx_ssrc, *extension))
        packet += bytes(n - 1) + bytes([n])
        history.write(packet, now_s)
        return packet
