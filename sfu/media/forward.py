"""A publisher's packet becomes its subscribers' packets. Nothing here is decoded.

A track has one outgoing SSRC and one numbering for all its subscribers, and timestamps pass through, so what every
subscriber gets is the same bytes until encryption.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from sfu.media import rtp
from sfu.media.keyframe import KeyframeRequests
from sfu.media.nack import Budget, History

if TYPE_CHECKING:
    from sfu.media.peer import Peer
    from sfu.media.srtp import Packet


class Leg:
    """One subscriber of a track, from its answer on."""

    __slots__ = ("peer", "resends")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.resends = Budget()


class Numbering:
    """A track's outgoing sequence numbers: the publisher's, without what it sent while muted.

    A gap of 32,768 numbers looks to SRTP like a step back (RFC 3711 section 3.3.1) and stops the stream, and 65,536
    packets on, numbers come again: two packets encrypted under one number give both away.
    """

    __slots__ = ("_first_ext", "_gap", "_last_ext", "_shift")

    def __init__(self) -> None:
        self._last_ext: int | None = None  # highest number sent
        self._first_ext = -0x10000  # nothing older is sent
        self._shift = 0
        self._gap = False

    def leave_gap(self) -> None:
        """The next packet gets the last one's number plus 2, whatever its own: the one left out tells decoders that
        something is missing."""
        self._gap = self._last_ext is not None

    def outgoing(self, seq16: int) -> int | None:
        """The number to send a packet under; None if it is from before the gap, where its number is taken."""
        if self._last_ext is None:
            self._last_ext = seq16
        if self._gap:
            self._gap = False
            self._first_ext = self._last_ext + 2
            self._shift = self._first_ext - seq16
        ext = self._last_ext + ((seq16 + self._shift - self._last_ext + 0x8000) & 0xFFFF) - 0x8000
        if ext < self._first_ext:
            return None
        self._last_ext = max(self._last_ext, ext)
        return ext & 0xFFFF


class Track:
    """What a peer publishes from one source. Owned by the publisher; ends with its section or its peer."""

    def __init__(self, publisher: Peer, source: str, kind: Literal["audio", "video"], counters: Counter[str]) -> None:
        self.publisher, self.source, self.kind = publisher, source, kind
        self.ssrc = secrets.randbelow(0xFFFFFFFE) + 1
        self.remote_ssrc: int | None = None
        self.muted = False
        self.legs: dict[str, Leg] = {}  # by subscribing peer's id
        self._counters = counters
        self._numbering = Numbering()
        self._history = History() if kind == "video" else None
        self._keyframes = KeyframeRequests()
        self._timer: asyncio.TimerHandle | None = None

    def add_leg(self, peer: Peer) -> None:
        """The peer's answer takes this track. Asks for a keyframe if that is new, so that a picture appears at once."""
        if peer.id not in self.legs:
            self.legs[peer.id] = Leg(peer)
            self.request_keyframe()

    def remove_leg(self, peer: Peer) -> None:
        self.legs.pop(peer.id, None)

    def set_muted(self, muted: bool) -> None:
        """A muted track is not forwarded, whatever the publisher sends. Unmuting leaves decoders with a gap, so it asks
        for a keyframe."""
        if self.muted and not muted:
            self.muted = False
            self._numbering.leave_gap()
            self.request_keyframe()
        self.muted = muted

    def forward(self, packet: Packet) -> None:
        """One decrypted RTP packet of this track, changed in place and sent to every leg."""
        if self.muted:
            return
        view, n = packet.view, packet.n
        seq16 = self._numbering.outgoing(rtp.seq16_of(view))
        if seq16 is None:
            self._counters["packets_late"] += 1
            return
        rtp.set_seq16(view, seq16)
        rtp.set_ssrc(view, self.ssrc)
        data = bytes(view[:n])
        if self._history is not None:
            self._history.store(seq16, data)
        for leg in self.legs.values():
            leg.peer.send_rtp(data)

    def sender_report(self, report: rtp.Rtcp) -> None:
        """Passes a publisher's sender report on; raises ValueError if it is cut."""
        compound = rtp.sender_report(report, self.ssrc, self.publisher.id)
        for leg in self.legs.values():
            leg.peer.send_rtcp(compound)

    def resend(self, subscriber: str, seqs: Iterable[int], now_s: float) -> None:
        """Answers a subscriber's NACK on the same SSRC, with the very bytes sent before. What is gone costs its budget
        too, and past it the rest is left."""
        leg = self.legs.get(subscriber)
        if leg is None or self._history is None:
            return
        for seq16 in seqs:
            if not leg.resends.take(now_s):
                self._counters["nack_over_budget"] += 1
                return
            data = self._history.find(seq16)
            if data is None:
                self._counters["nack_missed"] += 1
            else:
                self._counters["nack_answered"] += 1
                leg.peer.send_rtp(data)

    def request_keyframe(self) -> None:
        """For any subscriber, as often as it likes; the publisher hears it as seldom as `keyframe` says."""
        if self.kind != "video" or self.muted:
            return
        loop = asyncio.get_running_loop()
        wait_ms = self._keyframes.request(loop.time() * 1e3)
        if wait_ms == 0:
            self._ask()
        elif wait_ms > 0:
            self._timer = loop.call_later(wait_ms / 1e3, self._ask)

    def _ask(self) -> None:
        if self.remote_ssrc is None:
            # nothing has arrived yet; the first packet of a stream is a keyframe's
            self._keyframes = KeyframeRequests()
        elif self._keyframes.due(asyncio.get_running_loop().time() * 1e3):
            self._counters["pli_sent"] += 1
            self.publisher.send_rtcp(rtp.pli(self.remote_ssrc))
        else:  # the timer ran a moment early
            self._timer = asyncio.get_running_loop().call_later(0.005, self._ask)

    def close(self) -> None:
        self.legs.clear()
        if self._timer is not None:
            self._timer.cancel()
