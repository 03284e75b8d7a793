"""Redundant audio (RED, RFC 2198): forwarded unchanged to subscribers that support it, stripped to plain Opus for
the others.
"""

from __future__ import annotations

from typing import Literal

from sfu.media.rtp import codecs, headers, rtcp
from sfu.media.streams.fanout import SendBuffers
from sfu.media.streams.rtp_stream import NONE, RtpStream
from sfu.media.transport.rows import ROW_BYTES, Rows
from sfu.media.transport.transport import Transport

ACCEPTS = headers.second_bytes([codecs.RED.payload_type, codecs.OPUS.payload_type])
"""Both, as an encoder sends plain Opus where two blocks would be too large."""


class PlainStream(RtpStream):
    """The same sound without redundancy, with the numbers and the clock of the whole."""

    __slots__ = ("_whole",)

    def __init__(self, whole: RtpStream, publisher: Transport, send_buffers: SendBuffers) -> None:
        super().__init__(publisher, whole.source, whole.kind, send_buffers, whole.ssrc)
        self._whole = whole

    @property
    def whole(self) -> RtpStream:
        return self._whole


class RedundantStream(RtpStream):
    """Forwards RED as it came. `plain` is another stream with the same numbers, but with packets, sizes and a history
    of its own, so that each subscriber is resent the very bytes that it was sent."""

    __slots__ = ("plain",)

    def __init__(
        self, publisher: Transport, source: str, kind: Literal["audio", "video"], send_buffers: SendBuffers, ssrc: int
    ) -> None:
        super().__init__(publisher, source, kind, send_buffers, ssrc)
        self.accepts, self.short = ACCEPTS, NONE
        self.plain = PlainStream(self, publisher, send_buffers)

    def for_subscriber(self, peer: Transport) -> RtpStream:
        return self if peer.hears_redundant else self.plain

    def set_plain(self, subscriber: str, plain: bool) -> None:
        """Moves a subscriber that supports RED to plain Opus, which takes half as much, or back. Its numbers go on, and
        each packet is resent in the form in which it was sent."""
        former, other = (self, self.plain) if plain else (self.plain, self)
        down_track = former.down_tracks.get(subscriber)
        if down_track is not None and down_track.peer.hears_redundant:
            former.hand_over(subscriber, other)

    def down_tracks_changed(self) -> None:
        super().down_tracks_changed()
        self.plain.down_tracks_changed()

    def close(self) -> None:
        super().close()
        self.plain.close()

    def sender_report(self, report: rtcp.Rtcp) -> None:
        super().sender_report(report)
        self.plain.sender_report(report)

    def flush(self, rows: Rows, spare: Rows, now_s: float) -> None:
        plain = self.plain
        plain.head, plain.last_ts = self.head, self.last_ts
        for ids, stripped in ((self.rows, plain.rows), (self.late, plain.late)):
            ids[:] = [i for i in ids if self._read(rows, i, spare, stripped)]
        plain.flush(spare, spare, now_s)  # first, as the other pads its packets in place and needs the spare rows
        super().flush(rows, spare, now_s)

    def _read(self, rows: Rows, i: int, spare: Rows, stripped: list[int]) -> bool:
        """Strips a packet into the next spare row if a subscriber wants plain Opus. False if the packet is malformed;
        to subscribers it is then lost."""
        packet = rows.row(i)
        payload = start = 0
        if packet[1] & 0x7F == codecs.RED.payload_type:
            try:
                payload, start = headers.primary_block(packet, len(packet), codecs.OPUS.payload_type)
            except ValueError:
                self._counters["rtp_malformed"] += 1
                return False
        if self.plain.down_tracks:
            j = len(self.plain.rows) + len(self.plain.late)
            row, n = spare.view[j * ROW_BYTES : (j + 1) * ROW_BYTES], len(packet) - start + payload
            row[:payload], row[payload:n] = packet[:payload], packet[start:]
            if start:
                row[1] = packet[1] & 0x80 | codecs.OPUS.payload_type
            spare.lengths[j] = n
            stripped.append(j)
        return True
