"""A batch of datagrams from peers: decrypted, read, given their place in their tracks; then each track sends its share.

This is the part of the path that runs once a packet in Python; what runs once a subscriber is in fanout.py.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable
from itertools import repeat
from operator import attrgetter
from struct import Struct
from typing import TYPE_CHECKING

from sfu.media import rtp, sdp
from sfu.media.bitrate import TransportFeedback
from sfu.media.srtp import ROW_BYTES, Context, Packet, Rows, unprotect

if TYPE_CHECKING:
    from sfu.media.forward import Track
    from sfu.media.udp import Route

_header = Struct("!BBHIIHHBBB").unpack_from  # and as much of an extension as transport-wide numbers take
_numbers = Struct("!HII").pack_into
_seq16 = Struct("!H").pack_into
_u32 = Struct("!I").pack
_kinds = [sdp.PAYLOAD_KINDS.get(second & 0x7F) for second in range(256)]
_TRANSPORT_CC = sdp.TRANSPORT_CC_ID << 4 | 1  # its element's first byte: two bytes follow
_AUDIO_LEVEL = sdp.AUDIO_LEVEL_ID << 4  # likewise; one byte follows
_NAMES = frozenset({sdp.MID_ID, sdp.RID_ID, sdp.REPAIRED_RID_ID})
_flush_rank = attrgetter("flush_rank")
NAME_BYTES = 16
"""Our mids have one or two characters, our rids one."""
_LITTLE_ENDIAN = sys.byteorder == "little"


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

    def __init__(self, counters: Counter[str], spare_rows: int) -> None:
        self._counters = counters
        self._packet = Packet()
        self._spare = Rows(spare_rows + 1)  # and a packet that was held back (svc.py)
        self._send_time = (
            b""  # an element with the batch's time in 6.18 bits of seconds, where subscribers estimate by it
        )

    def forward(self, rows: Rows, ids: list[int], routes: list[Route]) -> None:
        """Each of the rows `ids` is SRTP or SRTCP by its first byte, 1 to 1500 bytes long, and from its route's
        peer."""
        now_s = time.monotonic()
        self._send_time = _u32(sdp.ABS_SEND_TIME_ID << 28 | 2 << 24 | int(now_s * 262144) & 0xFFFFFF)
        touched: list[Track] = []
        if len(ids) > 1 and routes.count(routes[0]) == len(ids) and (done := self._burst(rows, ids, routes[0], now_s)):
            touched.append(done[0])
            ids, routes = ids[done[1] :], routes[done[1] :]
        if ids:
            self._each(rows, ids, routes, touched, now_s)
        if len(touched) > 1:
            touched.sort(key=_flush_rank)
        for track in touched:
            track.flush(rows, self._spare, now_s)

    def _burst(self, rows: Rows, ids: list[int], route: Route, now_s: float) -> tuple[Track, int] | None:
        """What a video frame looks like: one track's next packets, alike but for their numbers. Read by columns, which
        costs a fifth of what it costs one by one. Returns the track and how many of them are done."""
        inbound, start, n = route.agent.inbound, ids[0], len(ids)
        context = inbound.context
        end = start + n
        if context is None or ids[-1] != end - 1 or not _LITTLE_ENDIAN:
            return None
        first, second, seq16, _, ssrc, profile, words, element, _, _ = _header(rows.view, start * ROW_BYTES)
        track = inbound.tracks.get(ssrc)
        if track is None or not track.accepts[second] or track.held or (seq16 + track.shift - track.head) & 0xFFFF:
            return None
        heads, ssrcs = rows.words[0][start:end].tolist(), rows.words[2][start:end].tolist()
        if ssrcs.count(ssrcs[0]) != n or len({head & 0x7FFF for head in heads}) != 1:
            return None
        if [head >> 8 & 0xFF00 | head >> 24 for head in heads] != list(range(seq16, seq16 + n)):
            return None
        numbers: list[int] = []
        if first & 0x1F:
            profiles, numbers = rows.words[3][start:end].tolist(), rows.words[4][start:end].tolist()
            if first & 0x1F != 0x10 or profile != rtp.ONE_BYTE_PROFILE or words != 1 or element != _TRANSPORT_CC:
                return None
            if profiles.count(profiles[0]) != n or len({number & 0xFF for number in numbers}) != 1:
                return None
        done = 0
        for failed in map(unprotect, repeat(context.handle), rows.pointers[start:end], rows.length_pointers[start:end]):
            if failed:
                break  # `_each` finds it again, and those behind it
            done += 1
        if not done:
            return None
        end = start + done
        route.seen(now_s)
        if numbers:
            now_us = int(now_s * 1e6)
            for number in numbers[:done]:
                inbound.feedback.arrived(number & 0xFF00 | number >> 16 & 0xFF, now_us)
            inbound.feedback_ssrc = ssrc
            rows.words[4][start:end] = array("I", (self._send_time if track.kind == "video" else bytes(4)) * done)
        if track.shift & 0xFFFF:
            for i in range(start, end):
                _seq16(rows.view, i * ROW_BYTES + 2, (seq16 + i - start + track.shift) & 0xFFFF)
        rows.words[2][start:end] = array("I", track.ssrc.to_bytes(4, "big")) * done
        track.last_ts = int.from_bytes(rows.view[(end - 1) * ROW_BYTES + 4 : (end - 1) * ROW_BYTES + 8], "big")
        track.head += done
        track.rows = ids[:done]
        self._counters["packets_in"] += done
        return track, done

    def _each(self, rows: Rows, ids: list[int], routes: list[Route], touched: list[Track], now_s: float) -> None:
        view, pointers, length_pointers = rows.view, rows.pointers, rows.length_pointers
        authentic = refused = 0
        for i, route in zip(ids, routes, strict=True):
            at, inbound = i * ROW_BYTES, route.agent.inbound
            context = inbound.context
            if context is None:
                continue
            if 192 <= view[at + 1] <= 223:
                self._rtcp(inbound, context, rows.row(i), route, now_s)
                continue
            if unprotect(context.handle, pointers[i], length_pointers[i]):
                refused += 1
                continue
            authentic += 1
            if route.seen_s != now_s:
                route.seen(now_s)
            first, second, seq16, ts, ssrc, profile, words, element, high, low = _header(view, at)
            names: Names = {}
            if first & 0x1F:
                if element == _TRANSPORT_CC and words == 1 and profile == rtp.ONE_BYTE_PROFILE and first & 0x1F == 0x10:
                    inbound.feedback.arrived(high << 8 | low, int(now_s * 1e6))
                    inbound.feedback_ssrc = ssrc
                    view[at + 16 : at + 20] = self._send_time if _kinds[second] == "video" else b"\0\0\0\0"
                elif (
                    words == 2 and element == _TRANSPORT_CC and view[at + 19] == _AUDIO_LEVEL
                    and profile == rtp.ONE_BYTE_PROFILE and first & 0x1F == 0x10
                ):  # fmt: skip
                    inbound.feedback.arrived(high << 8 | low, int(now_s * 1e6))
                    inbound.feedback_ssrc = ssrc
                    inbound.hear(ssrc, view[at + 20])
                    view[at + 16 : at + 24] = b"\0\0\0\0\0\0\0\0"
                else:
                    names = self._extensions(inbound, rows.row(i), ssrc, now_s)
            track = inbound.tracks.get(ssrc)
            if track is None or not track.accepts[second]:
                track = self._unknown(inbound, context, ssrc, second, names)
                if track is None and _kinds[second] is None:
                    track = self._repair(rows, i, inbound, ssrc, second)
                if track is None:
                    continue
                seq16 = view[at + 2] << 8 | view[at + 3]
            number = track.head
            if track.held or (seq16 + track.shift - number) & 0xFFFF:
                if track.muted:
                    continue
                number = track.place(seq16)
                if number < 0:
                    self._counters["packets_late"] += 1
                    continue
            else:
                track.head = number + 1
            _numbers(view, at + 2, number & 0xFFFF, ts, track.ssrc)
            if not track.rows and not track.late:
                touched.append(track)
            if number + 1 == track.head:
                track.last_ts = ts
                track.rows.append(i)
            else:
                track.late.append(i)
        self._counters["packets_in"] += authentic
        if refused:
            self._counters["srtp_refused"] += refused

    def _extensions(self, inbound: Inbound, packet: memoryview, ssrc: int, now_s: float) -> Names:
        """Takes out transport-wide numbers, since subscribers' browsers would answer another transport's as if they
        were ours, and names and audio levels, which no subscriber is offered. Returns the names."""
        # libsrtp has checked that the headers are whole
        names: Names = {}
        ours = True
        for extension, at, length in list(rtp.extensions(packet, len(packet))):
            if extension == sdp.TRANSPORT_CC_ID and length == 2:
                inbound.feedback.arrived(packet[at] << 8 | packet[at + 1], int(now_s * 1e6))
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
            packet[16:20] = self._send_time  # nothing else is left there
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
