"""A down track: one subscriber's view of an RTP stream, with its own offset of numbers. Pure: the clock is an argument.

A track has one sequence and one clock for all subscribers. A subscriber that is left out for a while (its buffer was
full, it was paused, it changes to another layer) goes on without a gap: from then on its numbers are the track's,
shifted. No number ever stands for two packets, since AES-GCM falls to a nonce used twice: packets from before a shift
never come after.
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
from sfu.media.transport.transport import Transport

SPANS = 8
"""Shifts remembered for retransmission; what was sent before them is too old to be asked for."""
NEAR_WRAP = 0xF000
"""No subscriber's numbers begin in the last 4,096 before the 16-bit wrap."""

_numbers = Struct("!HII")


class Feed(Protocol):
    """What a subscriber is on: a stream with numbers and a clock that all its subscribers share (rtp_stream.py)."""

    ssrc: int
    head: int
    packets: int
    bytes: int
    clock_rate: int
    last_ts: int
    last_s: float

    @property
    def stream(self) -> Feed: ...

    def recall(self, number: int) -> builtins.bytes | None: ...

    def last_picture(self) -> Picture | None: ...


F = TypeVar("F", bound=Feed)


class Span(NamedTuple):
    """From `first`, a number of the subscriber's own, on: packet n of it is packet n - shift of the track."""

    first: int
    track: Feed
    shift: int
    shift_ts: int
    shift_picture: int = 0
    shift_tl0: int = 0


class DownTrack(Generic[F]):
    """Takes part in fans while `waiting` is false. Numbers are extended ones: they do not wrap."""

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
        "track",
        "waiting",
    )  # fmt: skip

    def __init__(self, peer: Transport, track: F) -> None:
        self.peer, self.track, self.ssrc = peer, track, track.ssrc
        self.answers = RetransmissionLimiter()
        self.rtx_ssrc = self.rtx_seq = 0  # of its retransmissions; no SSRC where they come under the same
        self.delivery = Delivery()
        self.segments = True  # the kernel cuts messages to this peer up
        # who loses packets before a wrap never learns of it, and decrypts nothing (RFC 3711 section 3.3.1)
        self.shift = -0x8000 if track.head & 0xFFFF >= NEAR_WRAP else 0
        self.shift_ts = self.shift_picture = self.shift_tl0 = 0
        self._picture: tuple[int, int] | None = None  # the last one's numbers before it changed tracks
        self.floor, self._next = track.head, track.head + self.shift
        self.waiting = False
        self.pauses: set[str] = set()  # reasons to leave it out; while there is one it does not resume
        self.dropped = 0
        # it may ask for what came while its answer was on the way, but not for numbers from before a wrap
        earlier = min(HISTORY, self._next & 0xFFFF)
        self.spans = [Span(self._next - earlier, track, self.shift, 0)]  # a deque of one takes 600 bytes more
        self._sent, self._base = 0, track.packets
        self._sent_bytes, self._base_bytes = 0, track.bytes
        self._resync = False
        self._clock_ts, self._clock_s = 0, 0.0

    @property
    def renumbered(self) -> bool:
        """Whether its headers differ from the track's."""
        return bool(self.shift or self.shift_ts or self.ssrc != self.track.ssrc)

    @property
    def packets(self) -> int:
        """Sent so far, retransmissions not counted."""
        return self._sent if self.waiting else self._sent + self.track.packets - self._base

    @property
    def sent_bytes(self) -> int:
        """Of the packets sent so far; a run that was cut short counts in full."""
        return self._sent_bytes if self.waiting else self._sent_bytes + self.track.bytes - self._base_bytes

    def reported(self, block: ReportBlock, now_s: float) -> None:
        """What the subscriber says of this track."""
        following = self._next if self.waiting else self.track.head + self.shift
        self.delivery.reported(block, self.track.clock_rate, Sent(self.packets, following, self.sent_bytes), now_s)

    def counted(self) -> Counted:
        """What is known of its way, for the subscriber's quality."""
        said = self.delivery
        return Counted(id(self), said.expected, said.lost, self.sent_bytes, said.jitter_s, said.round_trip_s)

    def renumber(self, packet: memoryview, at: int) -> None:
        """Writes this subscriber's numbers into a packet of the track, whose sequence number is at `at`."""
        seq16, ts, _ = _numbers.unpack_from(packet, at)
        _numbers.pack_into(packet, at, (seq16 + self.shift) & 0xFFFF, (ts + self.shift_ts) & 0xFFFFFFFF, self.ssrc)

    @property
    def pictured(self) -> bool:
        """Whether its pictures have other numbers than the track's."""
        return bool(self.shift_picture or self.shift_tl0)

    def suspend(self, ext: int, unsent: int = 0) -> None:
        """Packet `ext` of the track and later ones are not for it, `unsent` of those the track counts already."""
        if not self.waiting:
            self._sent += self.track.packets - self._base - unsent
            self._sent_bytes += self.track.bytes - self._base_bytes
            self._next, self.floor = ext + self.shift, ext
            self.waiting = True

    def follow(self, track: F) -> None:
        """Changes to another track (a layer), as a suspended subscriber of it; its timestamps go on by the time
        between, unless the two have one clock."""
        if track.stream is self.track.stream:
            self.floor = track.head
        elif not self._resync:
            self._resync = True
            self._clock_ts, self._clock_s = self.track.last_ts + self.shift_ts, self.track.last_s
            if (last := self.track.last_picture()) is not None:
                self._picture = last.number + self.shift_picture, last.tl0 + self.shift_tl0
        self.track = track

    def resume(self, ext: int, ts: int, now_s: float, picture: Picture | None = None) -> None:
        """Goes on with packet `ext` of its track, which must be one to begin with and not counted yet. `picture` has
        its VP8 numbers: a decoder takes those that go back for old."""
        if self._resync:
            if picture is not None and self._picture is not None:
                number, tl0 = self._picture
                self.shift_picture = (number + 1 - picture.number) & (0x7FFF if picture.wide else 0x7F)
                self.shift_tl0 = (tl0 + 1 - picture.tl0) & 0xFF
            elapsed = max(1, round((now_s - self._clock_s) * self.track.clock_rate))
            self.shift_ts = (self._clock_ts + elapsed - ts) & 0xFFFFFFFF
            self._resync = False
        else:
            self.dropped += ext - self.floor
        self.shift, self.floor = self._next - ext, ext
        self.spans.append(Span(self._next, self.track, self.shift, self.shift_ts, self.shift_picture, self.shift_tl0))
        del self.spans[:-SPANS]
        self._base, self._base_bytes = self.track.packets, self.track.bytes
        self.waiting = False

    def catch_up(self, ext: int) -> None:
        """Sends what it has of its track from packet `ext` on, which came before it could begin."""
        for number in range(ext, self.track.head):
            packet = self.find((number + self.shift) & 0xFFFF)
            if packet is not None:
                self._base, self._base_bytes = self._base - 1, self._base_bytes - len(packet)
                self.peer.send_rtp(packet)

    def uncount(self) -> None:
        """A packet that its track counts was from before its time."""
        self._base += 1

    def find(self, seq16: int) -> bytes | None:
        """What was sent to it under this number, as far as the track remembers."""
        following = self._next if self.waiting else self.track.head + self.shift
        number = following - ((following - seq16) & 0xFFFF)
        span = next((span for span in reversed(self.spans) if span.first <= number), None)
        found = span.track.recall(number - span.shift) if span is not None and number < following else None
        if span is None or found is None or not (span.shift or span.shift_ts or self.ssrc != span.track.ssrc):
            return found
        packet = bytearray(found)
        _, ts, _ = _numbers.unpack_from(found, 2)
        _numbers.pack_into(packet, 2, number & 0xFFFF, (ts + span.shift_ts) & 0xFFFFFFFF, self.ssrc)
        if span.shift_picture or span.shift_tl0:
            vp8.shift_picture(packet, len(packet), span.shift_picture, span.shift_tl0)
        return bytes(packet)

    def again(self, packet: bytes, now_s: float) -> bytes | bytearray:
        """A packet sent before as it is to be sent once more: a retransmission (RFC 4588) if it takes those, else the
        very same bytes, since two packets of one number may not differ."""
        payload_type = codecs.CODEC_RTX.get(packet[1] & 0x7F)
        if not self.rtx_ssrc or payload_type is None:
            self.delivery.resent += 1
            return packet
        self.rtx_seq = (self.rtx_seq + 1) & 0xFFFF
        again = headers.retransmission(packet, payload_type, self.rtx_ssrc, self.rtx_seq)
        first = next(headers.extensions(again, len(again)), None)
        if first is not None and (first[0], first[2]) == (codecs.ABS_SEND_TIME_ID, 3):
            again[first[1] : first[1] + 3] = (int(now_s * 262144) & 0xFFFFFF).to_bytes(3, "big")
        return again

    def lately(self, back: int) -> bytes | None:
        """The packet it was sent last but `back`, if it is still known."""
        following = self._next if self.waiting else self.track.head + self.shift
        return self.find((following - 1 - back) & 0xFFFF)
