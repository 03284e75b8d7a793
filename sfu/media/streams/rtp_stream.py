"""An RTP stream: assigns outgoing numbers to a publisher's packets and forwards them. Nothing is decoded.

A stream has one outgoing SSRC, sequence and clock for all its subscribers, so all get the same bytes until encryption:
packets are rewritten once, where they were received, and leave in runs (fanout.py).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Literal

from sfu.media.rtp import codecs, headers, rtcp
from sfu.media.rtp.keyframe import starts_keyframe
from sfu.media.rtp.vp8 import Picture, picture_of
from sfu.media.streams.answers import answer
from sfu.media.streams.down_track import DownTrack, Failure
from sfu.media.streams.fanout import SendBuffers, SendGroup, send_groups
from sfu.media.streams.gso import gather, take_batch
from sfu.media.streams.paced import PacedTrack
from sfu.media.streams.receive_stream import BROKEN, ReceiveStream
from sfu.media.streams.retransmission import RetransmissionBuffer
from sfu.media.streams.temporal import temporal_shares
from sfu.media.transport.rows import ROW_BYTES, SEQUENCES, Rows
from sfu.media.transport.transport import Transport

ACCEPTS = {kind: headers.second_bytes(codec.payload_type for codec in codecs) for kind, codecs in codecs.CODECS.items()}
NONE = headers.second_bytes(())
LAYERED_S = 1.0
"""How often it is looked at which temporal layers a stream has, if anybody wants to know."""
REPORT_S = 1.0
"""A stream's sender reports are passed on to its subscribers at most once in this time. Chromium sends seven a second
for a large picture, and a hostile peer 44 in one datagram."""

_ts_of = Struct("!I").unpack_from


class RtpStream(ReceiveStream):
    """One RTP stream of a publisher: all packets of a source, or one simulcast layer of it (publication.py)."""

    __slots__ = (
        "_coming",
        "_history",
        "_layered_s",
        "_report",
        "_reported_s",
        "_send_buffers",
        "_send_groups",
        "_shares",
        "_waiting",
        "accepts",
        "down_tracks",
        "last_s",
        "last_ts",
        "late",
        "rows",
        "short",
        "source",
        "ssrc",
    )  # fmt: skip

    def __init__(
        self,
        publisher: Transport,
        source: str,
        kind: Literal["audio", "video"],
        send_buffers: SendBuffers,
        ssrc: int = 0,
    ) -> None:
        super().__init__(publisher, kind, send_buffers.counters)
        self.source = source
        self.accepts = self.short = ACCEPTS[kind]  # by a packet's second byte: accepted at all, and on the fast path
        self.ssrc = ssrc or secrets.randbelow(0xFFFFFFFE) + 1
        self.down_tracks: dict[str, DownTrack[RtpStream]] = {}  # by subscribing peer's id
        self.last_ts, self.last_s = 0, 0.0
        self.rows: list[int] = []  # of the current batch, in order
        self.late: list[int] = []  # of the current batch, overtaken by others
        self._send_buffers = send_buffers
        self._send_groups: list[SendGroup | PacedTrack] | None = None
        self._waiting: list[DownTrack[RtpStream]] = []
        # down tracks of other streams that will switch to this one, by subscriber
        self._coming: dict[str, DownTrack[RtpStream]] = {}
        self._history = RetransmissionBuffer()
        self._report: rtcp.Rtcp | None = None  # the last one passed on
        self._reported_s = -REPORT_S
        self._shares: tuple[float, ...] = (1.0,)
        self._layered_s = -LAYERED_S

    # --- subscribers --------------------------------------------------------------------------------------------------

    @property
    def whole(self) -> RtpStream:
        """The stream that this is a part of (svc.py); all parts have one clock, and keyframes at the same time."""
        return self

    @property
    def lower(self) -> Sequence[RtpStream]:
        """The parts of this stream without its larger layers, the smallest first."""
        return ()

    def for_subscriber(self, peer: Transport) -> RtpStream:
        """The form of this stream that a subscriber can play."""
        return self

    def add_down_track(self, peer: Transport, pause: str = "") -> None:
        """Adds a down track for a peer whose answer accepted this stream, and requests a keyframe so that a picture
        appears at once. With a reason to `pause`, it waits for `resume`."""
        if peer.id in self.down_tracks:
            return
        self.down_tracks[peer.id] = DownTrack(peer, self)
        self.down_tracks_changed()
        if pause:
            self.pause(peer.id, pause)
            return
        self.request_keyframe()
        if self._report is not None:  # audio and video must be in sync before the next one comes
            self._tell_times(self.down_tracks[peer.id], self._report)

    def remove_down_track(self, peer: Transport) -> None:
        if (down_track := self.down_tracks.pop(peer.id, None)) is not None:
            down_track.suspend(self.head)
            down_track.take_back()
            self.down_tracks_changed()

    def paused(self, subscriber: str) -> str:
        """A reason why a subscriber is paused, empty if there is none."""
        down_track = self.down_tracks.get(subscriber)
        return min(down_track.pauses, default="") if down_track is not None else ""

    def pause(self, subscriber: str, reason: str) -> None:
        """Leaves a subscriber out, to which that looks as if nothing was sent, until `resume` has removed every
        reason."""
        down_track = self.down_tracks[subscriber]
        if reason not in down_track.pauses:
            down_track.suspend(self.head)
            down_track.take_back()
            down_track.pauses.add(reason)
            self.down_tracks_changed()

    def resume(self, subscriber: str, reason: str) -> None:
        """Removes a reason; after the last one the subscriber continues at the next keyframe."""
        down_track = self.down_tracks[subscriber]
        if reason in down_track.pauses:
            down_track.pauses.remove(reason)
            if not down_track.pauses:
                self.down_tracks_changed()
                self.request_keyframe()

    def switch(self, subscriber: str, stream: RtpStream) -> None:
        """Switches a subscriber to another stream (a layer) that continues this one at its next keyframe; nothing is
        sent until then."""
        down_track = self.down_tracks[subscriber]
        self.hand_over(subscriber, stream)
        down_track.take_back()
        stream.request_keyframe()

    def hand_over(self, subscriber: str, stream: RtpStream) -> None:
        down_track = self.down_tracks.pop(subscriber)
        down_track.suspend(self.head)
        down_track.follow(stream)
        stream.down_tracks[subscriber] = down_track
        self.down_tracks_changed()
        stream.down_tracks_changed()

    def expect(self, down_track: DownTrack[RtpStream]) -> None:
        """A subscriber of another stream (a layer) switches to this one at its next keyframe, and gets the other one
        until then."""
        self._coming[down_track.peer.id] = down_track
        self.request_keyframe()

    def expects(self, subscriber: str) -> bool:
        return subscriber in self._coming

    def forget(self, subscriber: str) -> None:
        """Revokes `expect`."""
        self._coming.pop(subscriber, None)

    @property
    def flush_rank(self) -> int:
        """Order within a batch: audio first, and a stream to which a down track will switch after the one from which it
        does."""
        return 0 if self.kind == "audio" else 2 if self._coming else 1

    @property
    def watched(self) -> bool:
        return bool(self._coming) or any(not down_track.pauses for down_track in self.down_tracks.values())

    def down_tracks_changed(self) -> None:
        """The subscribers, their addresses or their keys have changed: their messages must be prepared anew."""
        self._send_groups = None

    def restart(self) -> None:
        super().restart()
        self._report = None  # it belongs to other numbers

    def close(self) -> None:
        super().close()
        self.down_tracks.clear()
        self._coming.clear()
        self.down_tracks_changed()

    # --- packets ------------------------------------------------------------------------------------------------------

    def forward(self, rows: Rows, start: int, lengths: list[int], ts: int, now_s: float) -> None:
        """Renumbers and sends the next packets, of these lengths, which are adjacent in `rows` from `start` on; `ts` is
        the timestamp of the last one."""
        n, number = len(lengths), self.head
        if self.shift & 0xFFFF:
            first = number & 0xFFFF
            rows.seqs[start : start + n] = SEQUENCES[first : first + n]
        self.head = number + n
        self.expected = (self.expected + n) & 0xFFFF
        if ts != self.last_ts:
            self.reception.burst(ts, now_s)
        self.last_ts, self.last_s = ts, now_s
        self._flush(rows, start, lengths, now_s, number)

    def flush(self, rows: Rows, spare: Rows, now_s: float) -> None:
        """Sends the rows collected from a batch; `spare` takes copies of rows that are not adjacent."""
        self.last_s = now_s
        ids, late = self.rows, self.late
        if ids:
            self.rows = []
            self.reception.burst(self.last_ts, now_s)
            self._send(rows, spare, ids, now_s)
        if late:
            self.late = []
            for i in late:
                self._send_late(rows, i, now_s)

    def _send(self, rows: Rows, spare: Rows, ids: list[int], now_s: float) -> None:
        start, n = ids[0], len(ids)
        if ids[-1] - start >= n:
            gather(rows, spare, ids)
            rows, start = spare, 0
        self._flush(rows, start, rows.lengths[start : start + n].tolist(), now_s)

    def _flush(self, rows: Rows, at: int, lengths: list[int], now_s: float, number: int = -1) -> None:
        """Sends adjacent packets in order, from row `at` on, in runs; a packet at which a subscriber begins also begins
        a run. With the first packet's `number`, none may be missing between them."""
        while lengths:
            if self._send_groups is None:
                self._prepare()
            n = len(lengths)
            if self._waiting or self._coming or self._lacks:
                begin = self._find_beginning(rows, at, n)
                if begin == 0:
                    self._resume_down_tracks(rows.row(at), now_s)
                elif begin > 0:
                    n = begin
                elif self._waiting or self._coming or self._lacks == BROKEN:
                    self.request_keyframe()
            run = lengths if len(lengths) == 1 else take_batch(rows, at, lengths[:n])
            n = len(run)
            source = rows.view[at * ROW_BYTES : (at + n) * ROW_BYTES]
            if number < 0:
                first = self._extended(source)
                span = self._extended(source[(n - 1) * ROW_BYTES :]) - first + 1
            else:
                first, span, number = number, n, number + n
            self._count(first, span, source, run)
            for group in self._send_groups if self._send_groups is not None else self._prepare():
                if failures := group.forward(source, run):
                    self._failed(failures, source, n)
            lengths, at = lengths[n:], at + n

    def _failed(self, failures: Sequence[Failure], source: memoryview, n: int) -> None:
        """Handles subscribers that got less than all of a run, or whose messages the kernel would not segment."""
        self.down_tracks_changed()
        for down_track, sent in failures:
            if sent < n and self.kind == "video":
                down_track.suspend(self._extended(source[sent * ROW_BYTES :]), n - sent)
                self.request_keyframe()

    def _count(self, number: int, span: int, source: memoryview, lengths: list[int]) -> None:
        n = len(lengths)
        self.packets += n
        self.bytes += lengths[0] * (n - 1) + lengths[-1]
        self._history.store(number, span, source, lengths, self.last_s)

    def _send_late(self, rows: Rows, i: int, now_s: float) -> None:
        """Sends a packet that others overtook to the subscribers that had begun before it. One that can begin with it
        is also sent what came since."""
        source, lengths = rows.view[i * ROW_BYTES : (i + 1) * ROW_BYTES], [rows.lengths[i]]
        number, beginning = self._extended(source), []
        if self._send_groups is None:
            self._prepare()
        if (self._waiting or self._coming or self._lacks) and self._find_beginning(rows, i, 1) == 0:
            self._resume_down_tracks(rows.row(i), now_s)
            beginning = self._waiting
        self._count(number, 1, source, lengths)
        taking = []
        for down_track in self.down_tracks.values():
            if not down_track.waiting and down_track.floor <= number:
                taking.append(down_track)
            elif not down_track.waiting:
                down_track.uncount(lengths[0])
        for group in send_groups(self._send_buffers, taking, late=True):
            group.forward(source, lengths)
        for down_track in beginning:
            down_track.catch_up(number + 1)

    def _find_beginning(self, rows: Rows, at: int, n: int) -> int:
        """Index of the first of n packets that a subscriber may begin with, or -1."""
        if self.kind == "audio":
            return 0
        return next((i for i in range(n) if starts_keyframe(rows.row(at + i))), -1)

    def _resume_down_tracks(self, packet: memoryview, now_s: float) -> None:
        number, ts = self._extended(packet), int(_ts_of(packet, 4)[0])
        picture = picture_of(packet)
        self._has_keyframe()
        coming, self._coming = self._coming, {}
        for subscriber, down_track in coming.items():
            down_track.stream.hand_over(subscriber, self)
            if not down_track.pauses:
                self._waiting.append(down_track)
        for down_track in self._waiting:
            down_track.take_back()
            down_track.resume(number, ts, now_s, picture)
        if self._waiting:
            self.down_tracks_changed()

    def last_picture(self) -> Picture | None:
        """The VP8 numbers of the packet sent last."""
        packet = self.recall(self.head - 1)
        return None if packet is None else picture_of(packet)

    @property
    def temporal(self) -> int:
        """How many temporal layers its last second shows; 1 if it has none."""
        return len(self.temporal_shares)

    @property
    def temporal_shares(self) -> tuple[float, ...]:
        """The parts of its bitrate up to each of its temporal layers, the lowest first; the last one is 1."""
        if self.last_s - self._layered_s >= LAYERED_S:
            self._layered_s, self._shares = self.last_s, temporal_shares(self._history.since(self.last_s - LAYERED_S))
        return self._shares

    def _prepare(self) -> list[SendGroup | PacedTrack]:
        self._waiting = [
            down_track for down_track in self.down_tracks.values() if down_track.waiting and not down_track.pauses
        ]
        self._send_groups = send_groups(
            self._send_buffers, [down_track for down_track in self.down_tracks.values() if not down_track.waiting]
        )
        return self._send_groups

    # --- RTCP ---------------------------------------------------------------------------------------------------------

    def recall(self, number: int) -> bytes | None:
        """The packet that was sent under this number, if that was recently."""
        return self._history.find(number)

    def forgot(self, number: int) -> bool:
        """Whether the packet with this number was sent too long ago to be remembered."""
        return self._history.forgot(number)

    def retransmit(self, subscriber: str, seqs: Iterable[int], now_s: float) -> None:
        """Answers a subscriber's NACK. For what is no longer remembered it needs a keyframe."""
        down_track = self.down_tracks.get(subscriber)
        if down_track is not None:
            forgotten = answer(down_track, seqs, self._send_buffers.history, self._counters, now_s)
            if forgotten and not down_track.pauses:
                self.request_keyframe()

    def sender_report(self, report: rtcp.Rtcp) -> None:
        """Passes on a publisher's sender report, at most once per REPORT_S: any of them relates its clocks. Raises
        ValueError if it is truncated."""
        ntp, now_s = headers.ntp_of(report), asyncio.get_running_loop().time()
        self.reception.sender_report(ntp, now_s)
        if now_s < self._reported_s + REPORT_S:
            self._counters["sender_reports_spared"] += 1
            return
        self._report, self._reported_s = report, now_s
        for down_track in self.down_tracks.values():
            if not down_track.waiting:
                self._tell_times(down_track, report)

    def _tell_times(self, down_track: DownTrack[RtpStream], report: rtcp.Rtcp) -> None:
        down_track.peer.send_rtcp(rtcp.sender_report(report, down_track.ssrc, self.publisher.id, down_track.shift_ts))
        down_track.delivery.sender_report(headers.ntp_of(report) >> 16 & 0xFFFFFFFF, asyncio.get_running_loop().time())
