"""A down track: one subscriber's view of an RTP stream, with its own offset of numbers. Pure: the clock is an argument.

A stream has one sequence and one clock for all subscribers. A subscriber that is left out for a while (its kernel
buffer was full, it was paused, it switches layers) continues without a gap: from then on its numbers are the stream's
plus a shift. No number ever stands for two packets, since a nonce used twice breaks AES-GCM; so packets from before a
shift are never sent after it.
"""

from __future__ import annotations

import builtins
from struct import Struct
from typing import Generic, NamedTuple, Protocol, TypeVar

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


class Feed(Protocol):
    """The stream that a down track is on, with numbers and a clock that all its subscribers share (rtp_stream.py)."""

    ssrc: int
    head: int
    packets: int
    bytes: int
    clock_rate: int
    last_ts: int
    last_s: float

    @property
    def whole(self) -> Feed: ...

    def recall(self, number: int) -> builtins.bytes | None: ...

    def last_picture(self) -> Picture | None: ...


F = TypeVar("F", bound=Feed)


class Span(NamedTuple):
    """From the subscriber's own number `first` on, its packet n is packet n - shift of the stream."""

    first: int
    stream: Feed
    shift: int
    shift_ts: int
    shift_picture: int = 0
    shift_tl0: int = 0


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
        "pauses",
        "peer",
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
        return self._sent if self.waiting else self._sent + self.stream.packets - self._base

    @property
    def sent_bytes(self) -> int:
        """Bytes of the packets sent so far; a run that was cut short counts in full."""
        return self._sent_bytes if self.waiting else self._sent_bytes + self.stream.bytes - self._base_bytes

    def reported(self, block: ReportBlock, now_s: float) -> None:
        """Takes a report block of the subscriber about this down track."""
        following = self._next if self.waiting else self.stream.head + self.shift
        self.delivery.reported(block, self.stream.clock_rate, Sent(self.packets, following, self.sent_bytes), now_s)

    def counted(self) -> Counted:
        """Counters of this down track, for the subscriber's quality."""
        said = self.delivery
        return Counted(id(self), said.expected, said.lost, self.sent_bytes, said.jitter_s, said.round_trip_s)

    def renumber(self, packet: memoryview, at: int) -> None:
        """Writes this subscriber's numbers into a packet of the stream; `at` is the offset of its sequence number."""
        seq16, ts, _ = _numbers.unpack_from(packet, at)
        _numbers.pack_into(packet, at, (seq16 + self.shift) & 0xFFFF, (ts + self.shift_ts) & 0xFFFFFFFF, self.ssrc)

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
        self.spans.append(Span(self._next, self.stream, self.shift, self.shift_ts, self.shift_picture, self.shift_tl0))
        del self.spans[:-SPANS]
        self._base, self._base_bytes = self.stream.packets, self.stream.bytes
        self.waiting = False

    def catch_up(self, ext: int) -> None:
        """Sends the packets of its stream from `ext` on, which came before it could begin."""
        for number in range(ext, self.stream.head):
            packet = self.find((number + self.shift) & 0xFFFF)
            if packet is not None:
                self._base, self._base_bytes = self._base - 1, self._base_bytes - len(packet)
                self.peer.send_rtp(packet)

    def uncount(self) -> None:
        """Leaves out of the count a packet of the stream that precedes this down track's beginning."""
        self._base += 1

    def find(self, seq16: int) -> bytes | None:
        """The packet that the subscriber was sent under this number, if the stream still remembers it."""
        following = self._next if self.waiting else self.stream.head + self.shift
        number = following - ((following - seq16) & 0xFFFF)
        span = next((span for span in reversed(self.spans) if span.first <= number), None)
        found = span.stream.recall(number - span.shift) if span is not None and number < following else None
        if span is None or found is None or not (span.shift or span.shift_ts or self.ssrc != span.stream.ssrc):
            return found
        packet = bytearray(found)
        _, ts, _ = _numbers.unpack_from(found, 2)
        _numbers.pack_into(packet, 2, number & 0xFFFF, (ts + span.shift_ts) & 0xFFFFFFFF, self.ssrc)
        if span.shift_picture or span.shift_tl0:
            vp8.shift_picture(packet, len(packet), span.shift_picture, span.shift_tl0)
        return bytes(packet)

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
        following = self._next if self.waiting else self.stream.head + self.shift
        return self.find((following - 1 - back) & 0xFFFF)
