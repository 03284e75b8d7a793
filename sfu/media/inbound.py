"""A batch of datagrams from peers: decrypted, read, given their place in their tracks; then each track sends its share.

This is the part of the path that runs once a burst in Python, and once a packet where there is something odd about it;
what runs once a subscriber is in fanout.py.
"""

from __future__ import annotations

import socket
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby, repeat
from struct import Struct
from typing import TYPE_CHECKING

from sfu.media import rtp, sdp
from sfu.media.bitrate import TransportFeedback
from sfu.media.runs import gather
from sfu.media.srtp import READ_BATCH, ROW_BYTES, SEQUENCES, Context, Packet, Rows, unprotect

if TYPE_CHECKING:
    from sfu.media.forward import Track
    from sfu.media.udp import Route

_header = Struct("!BBHIIHHBHBI").unpack_from  # and an extension's first eight bytes
_numbers = Struct("!HII").pack_into
_u16_at, _u32_at = Struct("!H").unpack_from, Struct("!I").unpack_from
_u32 = Struct("!I").pack
_kinds = [sdp.PAYLOAD_KINDS.get(second & 0x7F) for second in range(256)]
_TRANSPORT_CC = sdp.TRANSPORT_CC_ID << 4 | 1  # its element's first byte: two bytes follow
_AUDIO_LEVEL = sdp.AUDIO_LEVEL_ID << 4  # likewise; one byte follows
_NAMES = frozenset({sdp.MID_ID, sdp.RID_ID, sdp.REPAIRED_RID_ID})
_EXACT = 0xFF0000FF  # of a word that is an element of two bytes and what follows, in either order of bytes
NAME_BYTES = 16
"""Our mids have one or two characters, our rids one."""
SEEN_S = 0.05
"""How often a route needs to hear that something came: what it decides by that takes seconds."""
OTHERS_RANK = 0
"""Of what is no track's own, beside Track.flush_rank: a retransmission is older than what else came."""

Names = dict[int, str]
"""What a packet says of its stream (RFC 8843 section 9.2, RFC 8852): MID, RID or repaired RID by the extension's id."""


class Inbound:
    """What a peer sends, from DTLS on. `on_rtcp` gets each authentic compound, `latch` an SSRC that no answer named,
    with its kind (None for retransmissions) and names."""

    __slots__ = ("context", "feedback", "feedback_ssrc", "latch", "on_rtcp", "repairs", "tracks")

    def __init__(
        self,
        tracks: dict[int, Track],
        on_rtcp: Callable[[bytes], None],
        latch: Callable[[int, str | None, Names], Track | None],
    ) -> None:
        self.tracks, self.on_rtcp, self.latch = tracks, on_rtcp, latch
        self.repairs: dict[int, Track] = {}  # by the SSRC of retransmissions
        self.context: Context | None = None
        self.feedback = TransportFeedback()
        self.feedback_ssrc = 0

    def hear(self, ssrc: int, level: int) -> None:
        """A packet's audio level: 7 bits of -dBov below one that claims a voice (RFC 6464 section 3)."""
        track = self.tracks.get(ssrc)
        if track is not None:
            track.levels_sum += level & 0x7F
            track.levels += 1


class Forwarder:
    """One a worker."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._packet = Packet()
        self._spare = Rows(READ_BATCH + 1)  # and a packet that was held back (svc.py)
        self._gathered = Rows(READ_BATCH)

    def forward(self, rows: Rows, ids: Sequence[int], routes: list[Route]) -> None:
        """Each of the rows `ids`, at most READ_BATCH, is SRTP or SRTCP by its first byte, 1 to 1500 bytes long, and
        from its route's peer. What is of one stream goes on together, sound first."""
        now_s = time.monotonic()
        streams = list(zip(routes, map(rows.words[2].__getitem__, ids), strict=True))
        if streams.count(streams[0]) == len(ids):
            self._stream(rows, ids, routes[0], now_s)
            return
        groups: dict[Stream, list[int]] = {}
        at = 0
        for stream, group in groupby(streams):
            n = len(list(group))
            groups.setdefault(stream, []).extend(ids[at : at + n])
            at += n
        for stream in sorted(groups, key=_rank):
            self._stream(rows, groups[stream], stream[0], now_s)

    def _stream(self, rows: Rows, ids: Sequence[int], route: Route, now_s: float) -> None:
        done = self._burst(rows, ids, route, now_s)
        if done < len(ids):
            touched: list[Track] = []
            self._each(rows, ids[done:], route, touched, now_s)
            for track in touched:
                track.flush(rows, self._spare, now_s)

    def _burst(self, rows: Rows, ids: Sequence[int], route: Route, now_s: float) -> int:
        """Passes on one track's next packets, alike but for their numbers: what a video frame is, and a lone packet.
        Read by columns, which takes as long as one packet does. Returns how many of them it was."""
        inbound, start, n = route.agent.inbound, ids[0], len(ids)
        context = inbound.context
        if context is None:
            return 0
        first, second, seq16, _, ssrc, profile, words, element, number, after, last = _header(
            rows.view, start * ROW_BYTES
        )
        track = inbound.tracks.get(ssrc)
        if track is None or not track.accepts[second] or track.held or (seq16 + track.shift - track.head) & 0xFFFF:
            return 0
        extended = first & 0x1F
        if extended and (
            extended != 0x10 or profile != rtp.ONE_BYTE_PROFILE or element != _TRANSPORT_CC
            or not (words == 1 or (words == 2 and n == 1 and after == _AUDIO_LEVEL and not last & 0xFFFFFF))
        ):  # fmt: skip
            return 0
        numbers = [number]
        if n > 1:
            if ids[-1] - start >= n:
                gather(rows, self._gathered, ids)
                rows, start = self._gathered, 0
            if not _alike(rows, start, start + n, first, second, seq16):
                return 0
            if extended:
                numbers = [
                    _u16_at(rows.view, at)[0]
                    for at in range(start * ROW_BYTES + 17, (start + n) * ROW_BYTES, ROW_BYTES)
                ]
        pointers = iter(rows.pointers[start : start + n])
        if any(map(unprotect, repeat(context.handle), pointers, rows.length_pointers[start : start + n])):
            n -= 1 + len(list(pointers))  # `_each` finds the one that was refused again, and those behind it
            if not n:
                return 0
        end = start + n
        if now_s - route.seen_s > SEEN_S:
            route.seen(now_s)
        if extended:
            inbound.feedback.arrived(numbers[:n], int(now_s * 1e6))
            inbound.feedback_ssrc = ssrc
            rows.words[4][start:end] = array("I", (_send_time(now_s) if track.kind == "video" else bytes(4)) * n)
            if words == 2:
                inbound.hear(ssrc, last >> 24)
                rows.words[5][start] = 0
        track.number(rows, start, end, seq16)
        self._counters["packets_in"] += n
        track.forward(rows, start, end, self._spare, now_s)
        return n

    def _each(self, rows: Rows, ids: Sequence[int], route: Route, touched: list[Track], now_s: float) -> None:
        """Gives each packet its place in its track, whatever it is."""
        view, inbound = rows.view, route.agent.inbound
        context = inbound.context
        if context is None:
            return
        for i in ids:
            at = i * ROW_BYTES
            if 192 <= view[at + 1] <= 223:
                self._rtcp(inbound, context, rows.row(i), route, now_s)
                continue
            if unprotect(context.handle, rows.pointers[i], rows.length_pointers[i]):
                self._counters["srtp_refused"] += 1
                continue
            self._counters["packets_in"] += 1
            route.seen(now_s)
            second, ssrc = view[at + 1], _u32_at(view, at + 8)[0]
            names = self._extensions(inbound, rows.row(i), ssrc, now_s) if view[at] & 0x1F else {}
            track = inbound.tracks.get(ssrc)
            if track is None or not track.accepts[second]:
                track = self._unknown(inbound, context, ssrc, second, names)
                if track is None and _kinds[second] is None:
                    track = self._repair(rows, i, inbound, ssrc, second)
                if track is None:
                    continue
            if track.muted:
                continue
            number = track.place(_u16_at(view, at + 2)[0])
            if number < 0:
                self._counters["packets_late"] += 1
                continue
            ts = _u32_at(view, at + 4)[0]
            _numbers(view, at + 2, number & 0xFFFF, ts, track.ssrc)
            if not track.rows and not track.late:
                touched.append(track)
            if number + 1 == track.head:
                track.last_ts = ts
                track.rows.append(i)
            else:
                track.late.append(i)

    def _extensions(self, inbound: Inbound, packet: memoryview, ssrc: int, now_s: float) -> Names:
        """Takes out transport-wide numbers, since subscribers' browsers would answer another transport's as if they
        were ours, and names and audio levels, which no subscriber is offered. Returns the names."""
        # libsrtp has checked that the headers are whole
        names: Names = {}
        ours = True
        for extension, at, length in list(rtp.extensions(packet, len(packet))):
            if extension == sdp.TRANSPORT_CC_ID and length == 2:
                inbound.feedback.arrived([packet[at] << 8 | packet[at + 1]], int(now_s * 1e6))
                inbound.feedback_ssrc = ssrc
            elif extension == sdp.AUDIO_LEVEL_ID and length == 1:
                inbound.hear(ssrc, packet[at])
            elif extension in _NAMES and length <= NAME_BYTES:
                names[extension] = bytes(packet[at : at + length]).decode("latin-1")
            else:
                ours = False
                continue
            rtp.erase_extension(packet, at, length)
        if names and ours and _kinds[packet[1]] == "video" and packet[0] & 0x0F == 0 and packet[12] == 0xBE:
            packet[16:20] = _send_time(now_s)  # nothing else is left there
        return names

    def _unknown(self, inbound: Inbound, context: Context, ssrc: int, second: int, names: Names) -> Track | None:
        """The track of a packet whose SSRC or payload type is not what its track has."""
        if not context.admits(ssrc):
            self._counters["srtp_refused"] += 1
            return None
        kind = _kinds[second]
        if kind is None:
            if ssrc not in inbound.repairs and sdp.REPAIRED_RID_ID in names:
                inbound.latch(ssrc, None, names)
            return None
        track = inbound.tracks.get(ssrc) or inbound.latch(ssrc, kind, names)
        if track is not None and track.accepts[second]:
            return track
        self._counters["packets_unknown"] += 1
        return None

    def _repair(self, rows: Rows, i: int, inbound: Inbound, ssrc: int, second: int) -> Track | None:
        """Makes a retransmission (RFC 4588 section 4) that was asked for the packet it repeats. Others are probes."""
        track, payload_type = inbound.repairs.get(ssrc), sdp.REPAIRS.get(second & 0x7F)
        packet = rows.row(i)
        n, at = len(packet), rtp.payload_offset(packet, len(packet))
        padding = packet[n - 1] if packet[0] & 0x20 else 0
        if track is not None and payload_type is not None and at + 2 < n - padding:
            seq16 = packet[at] << 8 | packet[at + 1]
            if track.reception.asked(track.number_of(seq16)):
                packet[1] = second & 0x80 | payload_type
                rtp.set_seq16(packet, seq16)
                packet[at : n - 2] = bytes(packet[at + 2 :])
                rows.lengths[i] = n - 2
                self._counters["packets_repaired"] += 1
                return track
        self._counters["packets_ignored"] += 1
        return None

    def _rtcp(self, inbound: Inbound, context: Context, data: memoryview, route: Route, now_s: float) -> None:
        packet = self._packet
        packet.load(data, len(data))
        if not context.unprotect_rtcp(packet):
            self._counters["srtcp_refused"] += 1
            return
        route.seen(now_s)
        try:
            inbound.on_rtcp(bytes(packet.view[: packet.n]))
        except ValueError:
            self._counters["rtp_malformed"] += 1


Stream = tuple["Route", int]
"""A batch's packets of one peer and SSRC, the word that holds it as it lies in memory."""


def _rank(stream: Stream) -> int:
    route, word = stream
    track = route.agent.inbound.tracks.get(socket.ntohl(word))
    return track.flush_rank if track is not None else OTHERS_RANK


def _send_time(now_s: float) -> bytes:
    """The element by which subscribers estimate their way: 6.18 bits of seconds."""
    return _u32(sdp.ABS_SEND_TIME_ID << 28 | 2 << 24 | int(now_s * 262144) & 0xFFFFFF)


def _alike(rows: Rows, start: int, end: int, first: int, second: int, seq16: int) -> bool:
    """Whether packets follow each other and differ in nothing but number, time and marker, or an extension's
    elements."""
    n = end - start
    if rows.seqs[start:end] != SEQUENCES[seq16 : seq16 + n] or rows.firsts[start:end].tolist().count(first) < n:
        return False
    if not {second, second ^ 0x80}.issuperset(rows.seconds[start:end].tolist()):
        return False
    if not first & 0x10:
        return True
    lengths, elements = rows.words[3][start:end].tolist(), rows.words[4][start:end].tolist()
    return lengths.count(lengths[0]) == n and len({element & _EXACT for element in elements}) == 1
