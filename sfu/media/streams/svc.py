"""Spatial layers inside one VP9 stream (SVC, RFC 9628): subscribers that should not get the larger ones get the stream
without them.

What remains are streams of their own: without gaps where packets are left out, and with the marker where a picture now
ends. All of them have the publisher's clock and keyframes, so a subscriber goes down at the beginning of any picture
and up at that of any keyframe.
"""

from __future__ import annotations

from typing import Literal

from sfu.media.rtp import codecs, headers, rtcp, vp9
from sfu.media.rtp.keyframe import starts_keyframe
from sfu.media.rtp.numbering import HISTORY
from sfu.media.streams.down_track import DownTrack
from sfu.media.streams.fanout import SendBuffers
from sfu.media.streams.receive_stream import NOTHING
from sfu.media.streams.rtp_stream import NONE, RtpStream
from sfu.media.transport.rows import ROW_BYTES, Rows
from sfu.media.transport.transport import Transport

LAYERS = 3
"""Told apart at most, as many as browsers make; those above count as the third."""
_VP9 = codecs.VP9.payload_type
_UNLAYERED = headers.second_bytes(codec.payload_type for codec in codecs.CODECS["video"] if codec is not codecs.VP9)
_OTHER = vp9.Descriptor(False, False, False, False, 0, 0)
"""Of a packet that is cut short or of another codec: it goes to all."""

Numbered = tuple[int, int, vp9.Descriptor]
"""A packet's row, its number in the stream, and what it says of itself."""


class ScalableStream(RtpStream):
    """A stream as it came, and once it has spatial layers, `lower`: one track less than there are layers."""

    __slots__ = ("_lower", "_moving", "heights")
    spatial = LAYERS

    def __init__(
        self,
        publisher: Transport,
        source: str,
        kind: Literal["audio", "video"],
        send_buffers: SendBuffers,
        ssrc: int = 0,
    ) -> None:
        super().__init__(publisher, source, kind, send_buffers, ssrc)
        self.heights: tuple[int, ...] = ()  # of the layers, as last told; 0 where not
        self._lower: list[LayerTrack] = []
        self.short = _UNLAYERED
        self._moving: dict[
            str, tuple[DownTrack[RtpStream], ScalableStream | LayerTrack]
        ] = {}  # from one of us to another

    @property
    def lower(self) -> list[LayerTrack]:
        return self._lower

    def height(self, track: RtpStream, usual: int) -> int:
        """Lines of one of us, of `usual` lines of all if that was not told."""
        at = track.spatial if isinstance(track, LayerTrack) else LAYERS
        told = self.heights[min(at, len(self.heights) - 1)] if self.heights else 0
        return told or usual >> max(0, len(self._lower) - at)

    @property
    def flush_rank(self) -> int:
        if self._lower:
            return max([super().flush_rank, *(track.flush_rank for track in self._lower)])
        return super().flush_rank

    @property
    def watched(self) -> bool:
        return super().watched or any(track.watched for track in self._lower)

    def expect(self, down_track: DownTrack[RtpStream]) -> None:
        if down_track.track.stream is self:
            self.move(down_track, self)
        else:
            super().expect(down_track)

    def expects(self, subscriber: str) -> bool:
        return super().expects(subscriber) or self.moves(subscriber, self)

    def forget(self, subscriber: str) -> None:
        super().forget(subscriber)
        self._moving.pop(subscriber, None)

    def move(self, down_track: DownTrack[RtpStream], target: ScalableStream | LayerTrack) -> None:
        """The subscriber of one of us changes to another one as soon as that can be."""
        self._moving[down_track.peer.id] = down_track, target
        if _goes_up(down_track, target):
            self.request_keyframe()

    def moves(self, subscriber: str, target: RtpStream) -> bool:
        return subscriber in self._moving and self._moving[subscriber][1] is target

    def close(self) -> None:
        super().close()
        self._moving.clear()
        for track in self._lower:
            track.close()

    def sender_report(self, report: rtcp.Rtcp) -> None:
        super().sender_report(report)
        for track in self._lower:
            track.sender_report(report)

    def _break(self) -> None:
        super()._break()
        for track in self._lower:
            track._break()

    # --- packets -----------------------------------------------------------------------------------------------------

    def flush(self, rows: Rows, spare: Rows, now_s: float) -> None:
        ids, late = self.rows, self.late
        if not self._lower and not (ids and _shows_layers(rows, ids[0], ids[-1])):
            super().flush(rows, spare, now_s)
            return
        self.rows, self.late, self.last_s = [], [], now_s
        if ids:
            self.reception.burst(self.last_ts, now_s)
            self._split(rows, spare, [self._read(rows, i) for i in ids], now_s)
        for i in late:
            packet = self._read(rows, i)
            for track in self._lower:
                track.take_late(rows, packet, spare, now_s)
            self._send_late(rows, i, now_s)

    def _read(self, rows: Rows, i: int) -> Numbered:
        packet = rows.row(i)
        return i, self._extended(packet), _descriptor(packet)

    def _split(self, rows: Rows, spare: Rows, packets: list[Numbered], now_s: float) -> None:
        """Passes a batch on in parts: layers come and go, and subscribers move, only between two packets."""
        start = 0
        for at, (i, _, found) in enumerate(packets):
            count = now = len(self._lower)
            if found.structured or found.spatial > now or found is _OTHER:
                count = self._lower_from(rows.row(i), found)
            if count != now or (self._moving and found.starts_picture):
                self._pass_on(rows, spare, packets[start:at], now_s)
                for track in self._lower:
                    track.release(spare, packets[at], now_s)
                self._arrange(count, rows.row(i), packets[at], now_s)
                start = at
        self._pass_on(rows, spare, packets[start:], now_s)
        if any(_goes_up(down_track, target) for down_track, target in self._moving.values()):
            self.request_keyframe()

    def _lower_from(self, packet: memoryview, found: vp9.Descriptor) -> int:
        """How many lower tracks there are to be from a packet on. There are fewer only from a keyframe on, or in
        another codec."""
        count = len(self._lower)
        if packet[1] & 0x7F != _VP9:
            return 0
        if found.structured and (told := _heights(packet, found)):
            self.heights = told
            count = max(len(told) - 1, 0 if found.starts_keyframe else count)
        return min(max(count, found.spatial), LAYERS - 1)

    def _arrange(self, count: int, packet: memoryview, numbered: Numbered, now_s: float) -> None:
        """From this packet on there are `count` lower tracks; and those move whose time it is."""
        key, ts = starts_keyframe(packet), headers.ts_of(packet)
        _, number, found = numbered
        self.head = number
        for track in self._lower:
            track.reach(number)
        ended, self._lower = self._lower[count:], self._lower[:count]
        self._lower += [LayerTrack(self, spatial, number) for spatial in range(len(self._lower), count)]
        self.short = NONE if self._lower else _UNLAYERED
        for down_track in [down_track for track in ended for down_track in track.down_tracks.values()]:
            self._hand_over(down_track, self, ts if key else None, now_s)
        for subscriber, (down_track, target) in list(self._moving.items()):
            if target in ended or target is down_track.track:
                del self._moving[subscriber]
            elif found.starts_picture and (down_track.waiting or key or not _goes_up(down_track, target)):
                del self._moving[subscriber]
                self._hand_over(down_track, target, ts, now_s)
        for track in ended:
            track.close()

    @staticmethod
    def _hand_over(
        down_track: DownTrack[RtpStream], target: ScalableStream | LayerTrack, ts: int | None, now_s: float
    ) -> None:
        """From the next packet on, which has this timestamp if the subscriber can go on with it."""
        waits = down_track.waiting
        down_track.track.hand_over(down_track.peer.id, target)
        if not waits and ts is not None:
            down_track.resume(target.head, ts, now_s)

    def _pass_on(self, rows: Rows, spare: Rows, packets: list[Numbered], now_s: float) -> None:
        if packets:
            for track in self._lower:  # first, as the other pads what it sends
                track.take(rows, spare, packets, now_s)
            self.head = packets[-1][1] + 1
            self._send(rows, spare, [i for i, _, _ in packets], now_s)


class LayerTrack(RtpStream):
    """What a stream has up to a spatial layer, from the packet with this number on."""

    __slots__ = ("_after", "_held", "_left_out", "_missing", "_stream", "spatial")

    def __init__(self, stream: ScalableStream, spatial: int, number: int) -> None:
        super().__init__(stream.publisher, stream.source, stream.kind, stream._outbox, stream.ssrc)
        self._stream, self.spatial = stream, spatial
        self._after, self._left_out = number, 0
        self.head = number
        self._held: bytes | None = None
        self._missing: dict[int, int] = {}  # our numbers for those of the stream that have not come, the oldest first

    @property
    def stream(self) -> ScalableStream:
        return self._stream

    def expect(self, down_track: DownTrack[RtpStream]) -> None:
        if down_track.track.stream is self._stream:
            self._stream.move(down_track, self)
        else:
            super().expect(down_track)

    def expects(self, subscriber: str) -> bool:
        return super().expects(subscriber) or self._stream.moves(subscriber, self)

    def request_keyframe(self) -> None:
        self._stream.request_keyframe()

    def reach(self, number: int) -> None:
        """The stream's next packet is this one. Nobody knows which layer those are of that are missing before it: they
        keep a number here."""
        for missing in range(max(self._after, number - HISTORY), number):
            self._missing[missing] = missing - self._left_out
            if len(self._missing) > HISTORY:
                del self._missing[next(iter(self._missing))]
        self._after, self.head = number, number - self._left_out

    def take(self, rows: Rows, spare: Rows, packets: list[Numbered], now_s: float) -> None:
        """Encoders may leave any layer out of a picture, so whether one that is not our last ends it for us is known
        when the next packet has come. Decoders wait for that, too."""
        used = bool(self.down_tracks or self._coming)
        lengths: list[int] = []
        for i, number, found in packets:
            if self._held is not None:
                lengths.append(self._put_held(spare, len(lengths), (i, number, found)))
            if number != self._after:
                self.reach(number)
            if found.spatial > self.spatial:
                self._left_out += 1
            elif used:
                packet = self._copy(rows.row(i), spare, len(lengths), number - self._left_out, found)
                self.last_ts = headers.ts_of(packet)
                if found.ends and not packet[1] & 0x80:
                    self._held = bytes(packet)
                else:
                    lengths.append(len(packet))
            else:  # nobody gets it, but everybody is to know what it takes
                self.packets, self.bytes = self.packets + 1, self.bytes + rows.lengths[i]
            self._after = number + 1
        self.head = self._after - self._left_out
        self._pass_on(spare, lengths, now_s)
        if not used:
            self._lacks = NOTHING  # who comes here has been shown all by another of us

    def release(self, spare: Rows, following: Numbered, now_s: float) -> None:
        """Sends what is held, as this is the next packet."""
        if self._held is not None:
            self._pass_on(spare, [self._put_held(spare, 0, following)], now_s)

    def _pass_on(self, spare: Rows, lengths: list[int], now_s: float) -> None:
        if lengths:
            self.last_s = now_s
            self._flush(spare, 0, lengths, now_s)

    def _put_held(self, spare: Rows, j: int, following: Numbered) -> int:
        """Into a row to spare; returns its length. It ended the picture if the rest of that is for others; not if
        something is missing between them, which may be for us."""
        packet, self._held = self._held or b"", None
        row = spare.view[j * ROW_BYTES : j * ROW_BYTES + len(packet)]
        row[:] = packet
        _, number, found = following
        if number == self._after and found.spatial > self.spatial:
            row[1] |= 0x80
        return len(packet)

    def take_late(self, rows: Rows, packet: Numbered, spare: Rows, now_s: float) -> None:
        """What was missing; where it turns out to be of a larger layer, only padding in its place, or subscribers would
        ask for it for ever."""
        i, number, found = packet
        own = self._missing.pop(number, None)
        if own is not None:
            copy = self._copy(rows.row(i), spare, 0, own, found)
            if found.spatial > self.spatial:
                at = headers.payload_offset(copy, len(copy))
                copy[0], copy[1], copy[at] = copy[0] | 0x20, copy[1] & 0x7F, 1
                spare.lengths[0] = at + 1
            self.last_s = now_s
            self._send_late(spare, 0, now_s)

    def _copy(self, packet: memoryview, spare: Rows, j: int, own: int, found: vp9.Descriptor) -> memoryview:
        copy = spare.view[j * ROW_BYTES : j * ROW_BYTES + len(packet)]
        copy[:] = packet
        spare.lengths[j] = len(packet)
        headers.set_seq16(copy, own & 0xFFFF)
        if found.ends and found.spatial == self.spatial:
            copy[1] |= 0x80
        return copy


def _goes_up(down_track: DownTrack[RtpStream], target: ScalableStream | LayerTrack) -> bool:
    track = down_track.track
    return isinstance(track, LayerTrack) and track.spatial < target.spatial


def _descriptor(packet: memoryview) -> vp9.Descriptor:
    try:
        if packet[1] & 0x7F == _VP9:
            return vp9.read(packet, headers.payload_offset(packet, len(packet)))
    except (IndexError, ValueError):
        pass
    return _OTHER


def _heights(packet: memoryview, found: vp9.Descriptor) -> tuple[int, ...]:
    try:
        return vp9.heights(packet, headers.payload_offset(packet, len(packet)), found)
    except IndexError:
        return ()


def _shows_layers(rows: Rows, first: int, last: int) -> bool:
    """Whether a batch's first packet or its last one tells of layers: a picture ends with the largest."""
    if rows.seconds[first] & 0x7F != _VP9:
        return False
    found = _descriptor(rows.row(first))
    return bool(_descriptor(rows.row(last)).spatial or (found.structured and len(_heights(rows.row(first), found)) > 1))
