"""Spatial layers inside one VP9 stream (SVC, RFC 9628): subscribers that should not get the larger ones get the stream
without them.

Each reduced stream is an RTP stream of its own: it has no gaps where packets are left out, and the marker is where a
picture now ends. All share the publisher's clock and keyframes, so a subscriber moves down at the beginning of any
picture, and up at that of any keyframe.
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
"""Spatial layers told apart at most, as many as browsers make; higher ones count as the third."""
_VP9 = codecs.VP9.payload_type
_UNLAYERED = headers.second_bytes(codec.payload_type for codec in codecs.CODECS["video"] if codec is not codecs.VP9)
_OTHER = vp9.Descriptor(False, False, False, False, 0, 0)
"""Stands for a packet that is truncated or of another codec: it goes to all subscribers."""

Numbered = tuple[int, int, vp9.Descriptor]
"""A packet's row, its number in the stream, and its descriptor."""


class ScalableStream(RtpStream):
    """A video stream as it came; once it has spatial layers, `lower` are the reduced streams, one fewer than there are
    layers."""

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
        self.heights: tuple[int, ...] = ()  # of the layers, as last told; 0 if unknown
        self._lower: list[LayerStream] = []
        self.short = _UNLAYERED
        # between this stream and its lower ones, by subscriber
        self._moving: dict[str, tuple[DownTrack[RtpStream], ScalableStream | LayerStream]] = {}

    @property
    def lower(self) -> list[LayerStream]:
        return self._lower

    def height(self, stream: RtpStream, usual: int) -> int:
        """Height in pixels of this stream or a lower one; if not told, derived from `usual`, the height of the
        whole."""
        at = stream.spatial if isinstance(stream, LayerStream) else LAYERS
        told = self.heights[min(at, len(self.heights) - 1)] if self.heights else 0
        return told or usual >> max(0, len(self._lower) - at)

    @property
    def flush_rank(self) -> int:
        if self._lower:
            return max([super().flush_rank, *(stream.flush_rank for stream in self._lower)])
        return super().flush_rank

    @property
    def watched(self) -> bool:
        return super().watched or any(stream.watched for stream in self._lower)

    def expect(self, down_track: DownTrack[RtpStream]) -> None:
        if down_track.stream.whole is self:
            self.move(down_track, self)
        else:
            super().expect(down_track)

    def expects(self, subscriber: str) -> bool:
        return super().expects(subscriber) or self.moves(subscriber, self)

    def forget(self, subscriber: str) -> None:
        super().forget(subscriber)
        self._moving.pop(subscriber, None)

    def move(self, down_track: DownTrack[RtpStream], target: ScalableStream | LayerStream) -> None:
        """Moves a subscriber between this stream and its lower ones as soon as possible."""
        self._moving[down_track.peer.id] = down_track, target
        if _goes_up(down_track, target):
            self.request_keyframe()

    def moves(self, subscriber: str, target: RtpStream) -> bool:
        return subscriber in self._moving and self._moving[subscriber][1] is target

    def close(self) -> None:
        super().close()
        self._moving.clear()
        for stream in self._lower:
            stream.close()

    def sender_report(self, report: rtcp.Rtcp) -> None:
        super().sender_report(report)
        for stream in self._lower:
            stream.sender_report(report)

    def _break(self) -> None:
        super()._break()
        for stream in self._lower:
            stream._break()

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
            for stream in self._lower:
                stream.take_late(rows, packet, spare, now_s)
            self._send_late(rows, i, now_s)

    def _read(self, rows: Rows, i: int) -> Numbered:
        packet = rows.row(i)
        return i, self._extended(packet), _descriptor(packet)

    def _split(self, rows: Rows, spare: Rows, packets: list[Numbered], now_s: float) -> None:
        """Passes a batch on in parts: layers appear and disappear, and subscribers move, only between two packets."""
        start = 0
        for at, (i, _, found) in enumerate(packets):
            count = now = len(self._lower)
            if found.structured or found.spatial > now or found is _OTHER:
                count = self._lower_from(rows.row(i), found)
            if count != now or (self._moving and found.starts_picture):
                self._pass_on(rows, spare, packets[start:at], now_s)
                for stream in self._lower:
                    stream.release(spare, packets[at], now_s)
                self._arrange(count, rows.row(i), packets[at], now_s)
                start = at
        self._pass_on(rows, spare, packets[start:], now_s)
        if any(_goes_up(down_track, target) for down_track, target in self._moving.values()):
            self.request_keyframe()

    def _lower_from(self, packet: memoryview, found: vp9.Descriptor) -> int:
        """How many lower streams there are from a packet on. There are fewer only from a keyframe on, or with another
        codec."""
        count = len(self._lower)
        if packet[1] & 0x7F != _VP9:
            return 0
        if found.structured and (told := _heights(packet, found)):
            self.heights = told
            count = max(len(told) - 1, 0 if found.starts_keyframe else count)
        return min(max(count, found.spatial), LAYERS - 1)

    def _arrange(self, count: int, packet: memoryview, numbered: Numbered, now_s: float) -> None:
        """From this packet on there are `count` lower streams; also moves the subscribers that can move here."""
        key, ts = starts_keyframe(packet), headers.ts_of(packet)
        _, number, found = numbered
        self.head = number
        for stream in self._lower:
            stream.reach(number)
        ended, self._lower = self._lower[count:], self._lower[:count]
        self._lower += [LayerStream(self, spatial, number) for spatial in range(len(self._lower), count)]
        self.short = NONE if self._lower else _UNLAYERED
        for down_track in [down_track for stream in ended for down_track in stream.down_tracks.values()]:
            self._hand_over(down_track, self, ts if key else None, now_s)
        for subscriber, (down_track, target) in list(self._moving.items()):
            if target in ended or target is down_track.stream:
                del self._moving[subscriber]
            elif found.starts_picture and (down_track.waiting or key or not _goes_up(down_track, target)):
                del self._moving[subscriber]
                self._hand_over(down_track, target, ts, now_s)
        for stream in ended:
            stream.close()

    @staticmethod
    def _hand_over(
        down_track: DownTrack[RtpStream], target: ScalableStream | LayerStream, ts: int | None, now_s: float
    ) -> None:
        """From the next packet on; `ts` is its timestamp if the subscriber can continue with it, else None."""
        waits = down_track.waiting
        down_track.stream.hand_over(down_track.peer.id, target)
        if not waits and ts is not None:
            down_track.resume(target.head, ts, now_s)

    def _pass_on(self, rows: Rows, spare: Rows, packets: list[Numbered], now_s: float) -> None:
        if packets:
            for stream in self._lower:  # first, as the whole stream pads its packets in place
                stream.take(rows, spare, packets, now_s)
            self.head = packets[-1][1] + 1
            self._send(rows, spare, [i for i, _, _ in packets], now_s)


class LayerStream(RtpStream):
    """A stream up to one of its spatial layers, from the packet with this number on."""

    __slots__ = ("_after", "_held", "_left_out", "_missing", "_whole", "spatial")

    def __init__(self, whole: ScalableStream, spatial: int, number: int) -> None:
        super().__init__(whole.publisher, whole.source, whole.kind, whole._send_buffers, whole.ssrc)
        self._whole, self.spatial = whole, spatial
        self._after, self._left_out = number, 0
        self.head = number
        self._held: bytes | None = None
        self._missing: dict[int, int] = {}  # own numbers of packets that have not come, by the whole stream's

    @property
    def whole(self) -> ScalableStream:
        return self._whole

    def expect(self, down_track: DownTrack[RtpStream]) -> None:
        if down_track.stream.whole is self._whole:
            self._whole.move(down_track, self)
        else:
            super().expect(down_track)

    def expects(self, subscriber: str) -> bool:
        return super().expects(subscriber) or self._whole.moves(subscriber, self)

    def request_keyframe(self) -> None:
        self._whole.request_keyframe()

    def reach(self, number: int) -> None:
        """The whole stream's next packet has this number. The layer of packets missing before it is unknown, so they
        keep a number here."""
        for missing in range(max(self._after, number - HISTORY), number):
            self._missing[missing] = missing - self._left_out
            if len(self._missing) > HISTORY:
                del self._missing[next(iter(self._missing))]
        self._after, self.head = number, number - self._left_out

    def take(self, rows: Rows, spare: Rows, packets: list[Numbered], now_s: float) -> None:
        """Sends the packets up to this layer. A packet that ends a smaller layer's frame is held until the next packet
        shows whether it also ends the picture, as encoders may leave any layer out of one. Decoders wait for that,
        too."""
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
            else:  # nobody gets it, but its bitrate must be known
                self.packets, self.bytes = self.packets + 1, self.bytes + rows.lengths[i]
            self._after = number + 1
        self.head = self._after - self._left_out
        self._pass_on(spare, lengths, now_s)
        if not used:
            self._lacks = NOTHING  # a subscriber that moves here got everything from another part

    def release(self, spare: Rows, following: Numbered, now_s: float) -> None:
        """Sends the held packet; `following` is the next one."""
        if self._held is not None:
            self._pass_on(spare, [self._put_held(spare, 0, following)], now_s)

    def _pass_on(self, spare: Rows, lengths: list[int], now_s: float) -> None:
        if lengths:
            self.last_s = now_s
            self._flush(spare, 0, lengths, now_s)

    def _put_held(self, spare: Rows, j: int, following: Numbered) -> int:
        """Puts the held packet into row j of `spare`; returns its length. It ended the picture if the rest belongs to
        larger layers; not if packets between are missing, which may belong here."""
        packet, self._held = self._held or b"", None
        row = spare.view[j * ROW_BYTES : j * ROW_BYTES + len(packet)]
        row[:] = packet
        _, number, found = following
        if number == self._after and found.spatial > self.spatial:
            row[1] |= 0x80
        return len(packet)

    def take_late(self, rows: Rows, packet: Numbered, spare: Rows, now_s: float) -> None:
        """Sends a packet that was missing. If it belongs to a larger layer, only padding is sent in its place, or
        subscribers would request it for ever."""
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


def _goes_up(down_track: DownTrack[RtpStream], target: ScalableStream | LayerStream) -> bool:
    stream = down_track.stream
    return isinstance(stream, LayerStream) and stream.spatial < target.spatial


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
    """Whether the first or last packet of a batch tells of layers: a picture ends with its largest layer."""
    if rows.seconds[first] & 0x7F != _VP9:
        return False
    found = _descriptor(rows.row(first))
    return bool(_descriptor(rows.row(last)).spatial or (found.structured and len(_heights(rows.row(first), found)) > 1))
