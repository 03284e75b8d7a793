"""A down track whose packets are paced: they are copied, numbered for this subscriber alone, and wait for its pacer.

It stands where a send group stands (fanout.py), with a single subscriber. Because its packets get numbers of their own
anyway, pictures can be left out here without a gap in sequence numbers and VP8 picture ids: those of the temporal
layers above the one that the subscriber is to have, and those for which the queue has no room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from sfu.media.rtp import codecs, headers, vp8
from sfu.media.rtp.keyframe import starts_keyframe
from sfu.media.rtp.numbering import HISTORY
from sfu.media.streams.down_track import DownTrack, Failure, Feed, Span
from sfu.media.streams.pacer import Entry, Pacer
from sfu.media.streams.retransmission import HISTORY_BYTES, HISTORY_S, PACKET_BYTES
from sfu.media.streams.temporal import TOP, TemporalFilter
from sfu.media.transport.rows import ROW_BYTES

PICTURES = 64
"""Pictures of which is remembered whether they passed, for their packets that come late."""


class Place(NamedTuple):
    """What turns a packet's numbers into the subscriber's: of packets, and of VP8 pictures."""

    shift: int
    shift_picture: int


class PacedTrack:
    """From the first packet of a stream that is paced for a down track until it leaves the stream or the pacer.
    Remembers what it sent, under the subscriber's numbers."""

    __slots__ = (
        "_after", "_entered", "_filter", "_first", "_forgotten", "_left_out", "_missing", "_n_bytes", "_pacer",
        "_passes", "_pictures", "_sent", "_times", "_ts", "down_track", "ssrc", "stream",
    )  # fmt: skip

    def __init__(self, down_track: DownTrack[Any], pacer: Pacer) -> None:
        self.down_track, self._pacer = down_track, pacer
        self.stream: Feed = down_track.stream
        self.ssrc = down_track.ssrc
        self._first = 0  # the stream's packet with which it began
        self._after = -1  # the stream's next packet, if none is lost; -1 before the first
        self._entered = Place(down_track.shift, down_track.shift_picture)
        self._filter, self._left_out = TemporalFilter(), False
        self._ts, self._passes = -1, True  # of the current picture
        self._pictures: dict[int, bool] = {}  # whether it passed, by timestamp
        self._missing: dict[int, Place] = {}  # by the stream's number
        self._sent: dict[int, bytes] = {}
        self._times = deque[tuple[float, int]]()
        self._n_bytes, self._forgotten = 0, -1

    @property
    def stays(self) -> bool:
        """Whether its packets are to be paced, or must be until nothing waits that they could overtake."""
        down_track = self.down_track
        return bool(wants_pace(down_track, self._pacer) or not self._filter.whole)

    def leave(self) -> None:
        """The subscriber continues in a send group."""
        down_track = self.down_track
        down_track.paced = None
        if self._after >= 0:
            down_track.remember(self._after)
            if self._left_out:  # late packets would get numbers that others have
                down_track.floor = max(down_track.floor, self._after)

    # --- packets of the stream ----------------------------------------------------------------------------------------

    def forward(self, source: memoryview, lengths: list[int]) -> Sequence[Failure]:
        """Takes the packets in the rows of `source`, `lengths` bytes each. The rows are not changed."""
        now_s = self.stream.last_s
        for j, n in enumerate(lengths):
            if not self._take(source[j * ROW_BYTES : j * ROW_BYTES + n], now_s):
                self.down_track.uncount(sum(lengths[j:]), 0)
                return (Failure(self.down_track, j),)
        if not self.stays:
            self.stream.down_tracks_changed()
        return ()

    def _take(self, packet: memoryview, now_s: float) -> bool:
        """False if the packet belongs to a picture for which there is no room."""
        down_track, ext, ts = self.down_track, self._number_of(packet), headers.ts_of(packet)
        if ext < self._after:
            self._take_late(ext, packet, now_s)
            return True
        self._skip_to(ext)
        if ts != self._ts and not self._begin(packet, ts):
            return False
        if self._passes:
            self._put(packet, ext, Place(down_track.shift, down_track.shift_picture), now_s, late=False)
        else:
            down_track.uncount(len(packet))
            down_track.shift -= 1
            self._left_out = True
        return True

    def _number_of(self, packet: memoryview) -> int:
        """The stream's number of a packet."""
        seq16 = headers.seq16_of(packet)
        if self._after < 0:
            head = self.stream.head
            self._first = self._after = head - ((head - seq16) & 0xFFFF)
            self.down_track.add_span(Span(self._first + self._entered.shift, self, 0, 0))
        return self._after + ((seq16 - self._after + 0x8000) & 0xFFFF) - 0x8000

    def _skip_to(self, ext: int) -> None:
        """The publisher's packets before `ext` are missing. What picture they belong to is not known, so they keep
        numbers."""
        place = Place(self.down_track.shift, self.down_track.shift_picture)
        for missing in range(max(self._after, ext - HISTORY), ext):
            self._missing[missing] = place
            if len(self._missing) > HISTORY:
                del self._missing[next(iter(self._missing))]
        self._after = ext + 1

    def _begin(self, packet: memoryview, ts: int) -> bool:
        """Decides about a picture. False if there is no room for it."""
        down_track, pacer = self.down_track, self._pacer
        key, picture = starts_keyframe(packet), vp8.picture_of(packet)
        if pacer.is_full(keyframe=key):
            return False
        most = TOP if down_track.temporal is None else down_track.temporal
        if pacer.crowded:
            most = 0
        self._ts, self._passes = ts, self._filter.passes(picture, key=key, most=most)
        self._pictures[ts] = self._passes
        if len(self._pictures) > PICTURES:
            del self._pictures[next(iter(self._pictures))]
        if not self._passes:
            down_track.shift_picture -= 1
        return True

    def _take_late(self, ext: int, packet: memoryview, now_s: float) -> None:
        """A packet that others overtook. In place of one of a picture that is left out only padding is sent, or the
        subscriber would request it for ever."""
        place = self._missing.pop(ext, None) if ext >= self._first else self._entered
        passes = self._pictures.get(headers.ts_of(packet))
        if place is None:
            self.down_track.uncount(len(packet))
            return
        if passes is None:
            passes = self._filter.decodes(vp8.picture_of(packet))
        if not passes:
            blank = headers.blank(packet)
            self.down_track.uncount(len(packet) - len(blank), 0)
            packet = memoryview(blank)
        self._put(packet, ext, place, now_s, late=True)

    def _put(self, source: memoryview, ext: int, place: Place, now_s: float, *, late: bool) -> None:
        down_track, packet, number = self.down_track, bytearray(source), ext + place.shift
        down_track.number(packet, number, down_track.shift_ts)
        if (place.shift_picture or down_track.shift_tl0) and packet[1] & 0x7F == codecs.VP8.payload_type:
            vp8.shift_picture(packet, len(packet), place.shift_picture, down_track.shift_tl0)
        down_track.queued += 1
        down_track.queued_bytes += len(packet)
        self._pacer.put(Entry(self, number, packet, late), now_s)

    # --- packets of the subscriber ------------------------------------------------------------------------------------

    def send(self, number: int, packet: bytearray, now_s: float) -> None:
        """The pacer lets a packet go."""
        down_track = self.down_track
        down_track.queued -= 1
        down_track.queued_bytes -= len(packet)
        self._pacer.history.write(packet, now_s)
        data = self._sent[number] = bytes(packet)
        self._times.append((now_s, number))
        self._n_bytes += len(data) + PACKET_BYTES
        while self._n_bytes > HISTORY_BYTES or now_s - self._times[0][0] > HISTORY_S:
            _, old = self._times.popleft()
            self._n_bytes -= len(self._sent.pop(old)) + PACKET_BYTES
            self._forgotten = max(self._forgotten, old)
        down_track.peer.send_rtp(data)

    @property
    def whole(self) -> Feed:
        return self.stream.whole

    def recall(self, number: int) -> bytes | None:
        """The packet that was sent under the subscriber's number, if that was recently."""
        return self._sent.get(number)

    def forgot(self, number: int) -> bool:
        """Whether a packet under this number was sent too long ago to be remembered."""
        return number <= self._forgotten

    def forget(self) -> None:
        self._forgotten = max(self._sent, default=self._forgotten)
        self._sent, self._times, self._n_bytes = {}, deque(), 0


def wants_pace(down_track: DownTrack[Any], pacer: Pacer) -> bool:
    """Whether packets of a down track are to be paced. Waiting ones must not be overtaken."""
    return bool(pacer.rate_bps or down_track.queued or down_track.temporal is not None)


def pace(down_track: DownTrack[Any], *, late: bool) -> PacedTrack | None:
    """What paces a down track; None if it belongs into a send group. `late`: for a packet that others overtook, so
    that pacing cannot begin with it."""
    paced, pacer = down_track.paced, down_track.pacer
    if isinstance(paced, PacedTrack):
        if paced.stays:
            return paced
        paced.leave()
    if late or not isinstance(pacer, Pacer) or not wants_pace(down_track, pacer):
        return None
    earlier = [span.stream for span in down_track.spans if isinstance(span.stream, PacedTrack)]
    for older in earlier[:-1]:  # who is limited again and again takes no more memory than others
        older.forget()
    down_track.paced = made = PacedTrack(down_track, pacer)
    return made
