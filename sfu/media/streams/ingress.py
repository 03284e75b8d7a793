"""Incoming packets: a batch of datagrams is decrypted, parsed and handed to its RTP streams, which then forward it.

This part of the path runs once per burst in Python, and once per packet only for unusual packets; what runs once per
subscriber is in fanout.py. The fast path uses few of the interpreter's functions, again and again: after a pause, each
costs the time to fetch its code (docs/performance.md).
"""

from __future__ import annotations

import time
from collections import ChainMap
from collections.abc import Callable, Sequence
from operator import add, itemgetter
from struct import Struct
from typing import TYPE_CHECKING, Any

from sfu.media.rtp import codecs, headers
from sfu.media.rtp.twcc import TransportFeedback
from sfu.media.streams.gso import gather
from sfu.media.streams.send_history import NO_NUMBER, WORDS, SendHistory
from sfu.media.transport.rows import READ_BATCH, ROW_BYTES, Rows
from sfu.media.transport.srtp import Context, Packet, unprotect

if TYPE_CHECKING:
    from sfu.media.streams.rtp_stream import RtpStream
    from sfu.media.transport.gate import Route

HEAD = "!BBHIIIBHBI"
"""Fields of a packet: the header's first and second byte, sequence number, timestamp and SSRC; the extension's profile
and length, the first byte and the two value bytes of its first element, the first byte of the next one, and four more.
Without an extension the latter are payload."""

_head, _heads = Struct(HEAD).unpack_from, Struct(f"{HEAD}{ROW_BYTES - 24}x").iter_unpack
_numbers, _ssrc, _fixed = Struct("!HII").pack_into, Struct("!I").pack_into, Struct("!III").pack_into
_u16_at, _u32_at = Struct("!H").unpack_from, Struct("!I").unpack_from
_kinds = [codecs.PAYLOAD_KINDS.get(second & 0x7F) for second in range(256)]
_TRANSPORT_CC = codecs.TRANSPORT_CC_ID << 4 | 1  # its element's first byte: two bytes follow
_AUDIO_LEVEL = codecs.AUDIO_LEVEL_ID << 4  # likewise; one byte follows
_NAMES = frozenset({codecs.MID_ID, codecs.RID_ID, codecs.REPAIRED_RID_ID})
_VERSION, _RTP, _EXTENDED = 0xC0, 0x80, 0x90  # of the first byte
_NO_PADDING = 0xDF
_ONE_WORD, _TWO_WORDS = headers.ONE_BYTE_PROFILE << 16 | 1, headers.ONE_BYTE_PROFILE << 16 | 2
_FIRST = [tuple(range(n)) for n in range(READ_BATCH + 1)]
"""The first n rows."""
_SSRC_AT = [*range(8, READ_BATCH * ROW_BYTES, ROW_BYTES)]
"""Offset of the SSRC in each row."""
NAME_BYTES = 16
"""Longest MID or RID that is read: the server's MIDs have one or two characters, its RIDs one."""
SEEN_S = 0.05
"""How often a route needs to know that packets come: what it decides by that takes seconds."""
OTHERS_RANK = 0
"""For packets of no known stream, compared with RtpStream.flush_rank: a retransmission is older than the rest of the
batch."""

Names = dict[int, str]
"""What a packet says about its stream (RFC 8843 section 9.2, RFC 8852): MID, RID or repaired RID by extension id."""


class RtpDemuxer:
    """Assigns a peer's packets to its streams, once DTLS is up. `on_rtcp` gets each authentic compound; `latch` gets an
    SSRC that no answer named, with its kind (None for RTX) and names."""

    __slots__ = ("context", "feedback", "feedback_ssrc", "latch", "on_rtcp", "rtx", "streams")

    def __init__(
        self,
        streams: dict[int, RtpStream],
        on_rtcp: Callable[[bytes], None],
        latch: Callable[[int, str | None, Names], RtpStream | None],
        rtx: dict[int, RtpStream] | None = None,
    ) -> None:
        self.streams, self.on_rtcp, self.latch = streams, on_rtcp, latch
        self.rtx = {} if rtx is None else rtx  # by RTX SSRC
        self.context: Context | None = None
        self.feedback = TransportFeedback()
        self.feedback_ssrc = 0

    def open(self, context: Context | None) -> None:
        """DTLS is up: `context` decrypts from now on, and never drops the SSRCs of known streams."""
        self.context = context
        if context is not None:
            context.live = ChainMap[int, Any](self.streams, self.rtx)

    def close(self) -> None:
        """Packets that arrive from now on are dropped."""
        self.context = None

    def hear(self, ssrc: int, level: int) -> None:
        """Takes a packet's audio level: 7 bits of -dBov, below a bit for voice activity (RFC 6464 section 3)."""
        stream = self.streams.get(ssrc)
        if stream is not None:
            stream.levels_sum += level & 0x7F
            stream.levels += 1


class Ingress:
    """One per worker."""

    def __init__(self, counters: dict[str, int], history: SendHistory) -> None:
        self._counters, self._history = counters, history
        self._packet = Packet()
        self._spare = Rows(READ_BATCH + 1)  # one more for a held packet (svc.py)
        self._gathered = Rows(READ_BATCH)

    def forward(self, rows: Rows, routes: list[Route[RtpDemuxer] | None]) -> Sequence[int]:
        """Forwards a batch: the first len(routes) rows, at most READ_BATCH, with the route of each row's sender. The
        packets of one stream go together, audio first. Returns the rows that are not a peer's media."""
        now_s, n = time.monotonic(), len(routes)
        if n == 1:
            return self._burst(rows, (0,), [_head(rows.view)], routes[0], now_s)
        heads = list(_heads(rows.view[: n * ROW_BYTES]))
        ssrcs = list(map(_ssrc_of, heads))
        if routes.count(routes[0]) == n == ssrcs.count(ssrcs[0]):
            return self._burst(rows, _FIRST[n], heads, routes[0], now_s)
        flows: dict[Flow, list[int]] = {}
        for i, flow in enumerate(zip(routes, ssrcs, strict=True)):
            flows.setdefault(flow, []).append(i)
        others: list[int] = []
        for flow in sorted(flows, key=_rank):
            ids = flows[flow]
            others += self._burst(rows, ids, [heads[i] for i in ids], flow[0], now_s)
        return others

    def _burst(
        self, rows: Rows, ids: Sequence[int], heads: list[Head], route: Route[RtpDemuxer] | None, now_s: float
    ) -> Sequence[int]:
        """Forwards the packets of one stream. If they are the next ones of a known stream and differ only in their
        numbers, as a video frame or a lone packet does, they take the fast path, where common fields are checked only
        once."""
        if route is None:
            return ids
        demuxer, n = route.demuxer, len(ids)
        first, second, seq16, ts, ssrc, block, element, number, after, last = heads[0]
        stream, context, extended = demuxer.streams.get(ssrc), demuxer.context, first & _NO_PADDING != _RTP
        if (
            stream is None or context is None or seq16 != stream.expected or not stream.short[second]
            or (extended and (first & _NO_PADDING != _EXTENDED or element != _TRANSPORT_CC or (
                block != _ONE_WORD
                and (block != _TWO_WORDS or n > 1 or after != _AUDIO_LEVEL or last & 0xFFFFFF)
            )))
            or (n > 1 and not _alike(heads, extended))
        ):  # fmt: skip
            return self._each(rows, ids, route, now_s)
        start = ids[0]
        if ids[-1] - start >= n:
            gather(rows, self._gathered, ids)
            rows, start = self._gathered, 0
        pointers = iter(rows.pointers[start : start + n])
        if any(map(unprotect, [context.handle] * n, pointers, rows.length_pointers[start : start + n])):
            n -= 1 + len(list(pointers))  # the refused packet and those after it take the slow path
        end = start + n
        if n:
            lengths = rows.lengths[start:end].tolist()
            if now_s - route.seen_s > SEEN_S:
                route.seen(now_s)
            if extended:
                demuxer.feedback.arrived((number,) if n == 1 else list(map(_number_of, heads[:n])), now_s)
                demuxer.feedback_ssrc = ssrc
                if stream.kind == "video":
                    history = self._history
                    first = history.next
                    history.next, number = first + n, first & 0xFFFF
                    history.bursts[number] = first, now_s, lengths
                else:
                    number = NO_NUMBER
                if n == 1:
                    _fixed(rows.view, _SSRC_AT[start], stream.ssrc, block, WORDS[number])
                else:
                    any(
                        map(
                            _fixed,
                            [rows.view] * n,
                            _SSRC_AT[start:end],
                            [stream.ssrc] * n,
                            [block] * n,
                            WORDS[number : number + n],
                        )
                    )
                if block == _TWO_WORDS:
                    demuxer.hear(ssrc, last >> 24)
                    rows.view[_SSRC_AT[start] + 12] = 0
            else:
                any(map(_ssrc, [rows.view] * n, _SSRC_AT[start:end], [stream.ssrc] * n))
            self._counters["packets_in"] += n
            stream.forward(rows, start, lengths, ts if n == 1 else heads[n - 1][_TIME], now_s)
        return self._each(rows, range(end, start + len(ids)), route, now_s) if n < len(ids) else ()

    def _each(self, rows: Rows, ids: Sequence[int], route: Route[RtpDemuxer], now_s: float) -> Sequence[int]:
        """The slow path: puts each packet in its place in its stream; then each stream sends its packets."""
        view, demuxer, context = rows.view, route.demuxer, route.demuxer.context
        others: list[int] = []
        touched: list[RtpStream] = []
        authentic = 0
        for i in ids:
            at = i * ROW_BYTES
            if view[at] & _VERSION != _RTP:
                others.append(i)
                continue
            if context is None:
                continue
            if 192 <= view[at + 1] <= 223:
                self._rtcp(demuxer, context, rows.row(i), route, now_s)
                continue
            if unprotect(context.handle, rows.pointers[i], rows.length_pointers[i]):
                self._counters["srtp_refused"] += 1
                continue
            authentic += 1
            route.seen(now_s)
            stream = self._stream_of(rows, i, demuxer, context, now_s)
            if stream is None:
                continue
            if stream.muted:
                stream.refused += 1
                stream.refused_bytes += rows.lengths[i]
                continue
            number = stream.place(_u16_at(view, at + 2)[0])
            if number < 0:
                self._counters["packets_late"] += 1
                continue
            ts = _u32_at(view, at + 4)[0]
            _numbers(view, at + 2, number & 0xFFFF, ts, stream.ssrc)
            if stream.kind == "video":
                self._history.write(rows.row(i), now_s)
            if not stream.rows and not stream.late:
                touched.append(stream)
            if number + 1 == stream.head:
                stream.last_ts = ts
                stream.rows.append(i)
            else:
                stream.late.append(i)
        if authentic:
            self._counters["packets_in"] += authentic
            self._counters["packets_long_way"] += authentic
        for stream in touched:
            stream.flush(rows, self._spare, now_s)
        return others

    def _stream_of(self, rows: Rows, i: int, demuxer: RtpDemuxer, context: Context, now_s: float) -> RtpStream | None:
        """The stream of a packet, which may be RTX; None if there is none. Reads and erases its extensions."""
        packet = rows.row(i)
        second, ssrc = packet[1], _u32_at(packet, 8)[0]
        names = self._extensions(demuxer, packet, ssrc, now_s) if packet[0] & 0x1F else {}
        stream = demuxer.streams.get(ssrc)
        if stream is None or not stream.accepts[second]:
            stream = self._unknown(demuxer, context, ssrc, second, names)
            if stream is None and _kinds[second] is None:
                stream = self._repair(rows, i, demuxer, ssrc, second)
        return stream

    def _extensions(self, demuxer: RtpDemuxer, packet: memoryview, ssrc: int, now_s: float) -> Names:
        """Erases transport-wide numbers, since subscribers' browsers would take another transport's for the server's,
        and also names and audio levels, which subscribers are not offered. Returns the names."""
        # libsrtp has checked that the headers are whole
        names: Names = {}
        ours: list[tuple[int, int]] = []
        others = False
        for extension, at, length in headers.extensions(packet, len(packet)):
            if extension == codecs.TRANSPORT_CC_ID and length == 2:
                demuxer.feedback.arrived([packet[at] << 8 | packet[at + 1]], now_s)
                demuxer.feedback_ssrc = ssrc
            elif extension == codecs.AUDIO_LEVEL_ID and length == 1:
                demuxer.hear(ssrc, packet[at])
            elif extension in _NAMES and length <= NAME_BYTES:
                names[extension] = bytes(packet[at : at + length]).decode("latin-1")
            else:
                others = True
                continue
            ours.append((at, length))
        if names and not others:  # the same in one step
            headers.erase_extensions(packet)
        else:
            for at, length in ours:
                headers.erase_extension(packet, at, length)
        return names

    def _unknown(self, demuxer: RtpDemuxer, context: Context, ssrc: int, second: int, names: Names) -> RtpStream | None:
        """The stream of a packet whose SSRC is unknown, or whose stream does not accept its payload type; None if there
        is none."""
        if not context.admits(ssrc):
            self._counters["srtp_refused"] += 1
            return None
        kind = _kinds[second]
        if kind is None:
            if ssrc not in demuxer.rtx and codecs.REPAIRED_RID_ID in names:
                demuxer.latch(ssrc, None, names)
            return None
        stream = demuxer.streams.get(ssrc) or demuxer.latch(ssrc, kind, names)
        if stream is not None and stream.accepts[second]:
            return stream
        self._counters["packets_unknown"] += 1
        return None

    def _repair(self, rows: Rows, i: int, demuxer: RtpDemuxer, ssrc: int, second: int) -> RtpStream | None:
        """Turns requested RTX (RFC 4588 section 4) into the packet that it repeats and returns its stream. Other RTX is
        a probe: None."""
        stream, payload_type = demuxer.rtx.get(ssrc), codecs.RTX_OF.get(second & 0x7F)
        packet = rows.row(i)
        n, at = len(packet), headers.payload_offset(packet, len(packet))
        padding = packet[n - 1] if packet[0] & 0x20 else 0
        if stream is not None and payload_type is not None and at + 2 < n - padding:
            seq16 = packet[at] << 8 | packet[at + 1]
            if stream.reception.asked(stream.number_of(seq16)):
                packet[1] = second & 0x80 | payload_type
                headers.set_seq16(packet, seq16)
                packet[at : n - 2] = bytes(packet[at + 2 :])
                rows.lengths[i] = n - 2
                self._counters["packets_repaired"] += 1
                return stream
        self._counters["packets_ignored"] += 1
        return None

    def _rtcp(
        self, demuxer: RtpDemuxer, context: Context, data: memoryview, route: Route[RtpDemuxer], now_s: float
    ) -> None:
        packet = self._packet
        packet.load(data, len(data))
        if not context.unprotect_rtcp(packet):
            self._counters["srtcp_refused"] += 1
            return
        route.seen(now_s)
        try:
            demuxer.on_rtcp(bytes(packet.view[: packet.n]))
        except ValueError:
            self._counters["rtp_malformed"] += 1


Head = tuple[int, ...]
Flow = tuple["Route[RtpDemuxer] | None", int]
"""The key by which a batch is split: the packets of one peer, or of an unknown sender, with one SSRC."""

_TIME, _SSRC, _NUMBER = 3, 4, 7
_ssrc_of, _number_of = itemgetter(_SSRC), itemgetter(_NUMBER)


def _rank(flow: Flow) -> int:
    route, ssrc = flow
    stream = None if route is None else route.demuxer.streams.get(ssrc)
    return stream.flush_rank if stream is not None else OTHERS_RANK


def _alike(heads: list[Head], extended: bool) -> bool:
    """Whether packets are consecutive and differ only in sequence number, timestamp, marker, and the values of
    extension elements."""
    firsts, seconds, seqs, _, _, blocks, elements, _, _, _ = zip(*heads)  # noqa: B905 -- a keyword costs as much again
    n, seq16, second = len(seqs), seqs[0], seconds[0]
    return (
        # `tuple(...)` would begin with room for ten, and the interpreter keeps 2,000 of each length it cuts them to
        seqs == (*map(add, [seq16] * n, _FIRST[n]),)
        and firsts.count(firsts[0]) == n
        and seconds.count(second) + seconds.count(second ^ 0x80) == n
        and (not extended or blocks.count(blocks[0]) == n == elements.count(elements[0]))
    )
