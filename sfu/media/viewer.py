"""How much one peer gets of the videos of others: which layers, and which not at all, as its page shows them and as its
way down carries them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sfu import bridge
from sfu.media.allocation import Wish, allocate
from sfu.media.downlink import Downlink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sfu.media.lastn import Video
    from sfu.media.leg import Leg
    from sfu.media.negotiation import Slot
    from sfu.media.peer import Peer
    from sfu.media.publication import Publication
    from sfu.media.rtp import ReportBlock

NOT_SPEAKING = "not_speaking"
"""Why a video is not forwarded: others spoke later than its publisher."""
HIDDEN = "hidden"
"""Likewise: the page does not show it."""
BANDWIDTH = "bandwidth"
"""Likewise: the way down does not carry it."""
SHOWN_HEIGHT = 720
"""Of a video of which the page has not said how large it shows it."""
PROBE_BACK = 8
"""The newest packets, which are sent again in turn for a probe."""


class Viewer:
    """A peer as a subscriber. `taken` is what its answers took, by the SSRC that has here."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.taken: dict[int, Publication] = {}
        self.down = Downlink()
        self._left_out: frozenset[Video] = frozenset()  # videos that are not forwarded to it, for those of others
        self._told: dict[Publication, str] = {}  # why it gets nothing of one, as it was last told
        self._view: Mapping[Video, int] | None = None  # heights of what its page shows; None until it says so
        self._viewed: set[Video] = set()  # what there was to show when it said so
        self.limit_bps: float | None = None  # what its way down allows, while more is wanted
        self._probed = 0
        self._allocated_s = 0.0

    def take(self, slots: Sequence[Slot], *, flows: bool) -> None:
        """Its answers took what these sections bring. `flows`: it can be sent that."""
        self.taken = {slot.track.ssrc: slot.track for slot in slots if slot.track is not None}
        if not flows:
            return
        for slot in slots:
            if (track := slot.track) is not None:
                track.add_leg(self._peer, NOT_SPEAKING if track.video in self._left_out else "")
                track.legs[self._peer.id].repair_ssrc = slot.repair_ssrc if slot.repairs else 0
                self._tell_paused(track)
        self.allocate(time.monotonic())

    def forget(self, track: Publication) -> None:
        """It is not brought this any more."""
        self.taken.pop(track.ssrc, None)
        self._told.pop(track, None)

    def leave_out(self, videos: frozenset[Video]) -> None:
        """These are not to be forwarded to it, until the next call; its own count for nothing."""
        if videos != self._left_out:
            self._left_out = videos
            for track in self.taken.values():
                self._pause(track, NOT_SPEAKING, track.video in videos)

    def view(self, heights: Mapping[Video, int], now_s: float) -> None:
        """What its page shows from now on, and how large. What it does not show is not forwarded to it."""
        self._view, self._viewed = heights, {track.video for track in self.taken.values()}
        self.allocate(now_s)

    def reported(self, block: ReportBlock, now_s: float) -> None:
        """What its client says of one stream."""
        taken = self.taken.get(block.ssrc)
        leg = None if taken is None else taken.legs.get(self._peer.id)
        if taken is not None and leg is not None:
            leg.reported(block, now_s)
            if taken.kind == "video" and self.down.loss(leg.delivery.loss or 0.0, now_s):
                self.allocate(now_s)

    def estimated(self, bps: float, now_s: float) -> None:
        """What its client takes its way down to carry (REMB)."""
        if self.down.remb(bps, now_s):
            self.allocate(now_s)

    def round_trip(self, seconds: float, sent_s: float, now_s: float) -> None:
        """What one took that `allocate` asked for then."""
        if self.down.round_trip(seconds, sent_s, now_s):
            self.allocate(now_s)

    def allocate(self, now_s: float) -> None:
        """Chooses what it gets of each video."""
        me, down = self._peer, self.down
        self.limit_bps = None
        videos = [p for p in self.taken.values() if p.kind == "video" and me.id in p.legs]
        if not videos or not (me.full or down.speaks):
            return
        legs = [p.legs[me.id] for p in videos]
        down.sent(sum(leg.sent_bytes for leg in legs) + me.again_bytes, now_s)
        passed_s, self._allocated_s = now_s - self._allocated_s, now_s
        if down.asks(now_s):
            me.agent.ask(now_s)
        if probe := down.probe_bytes(passed_s, now_s):
            self._probe(probe, legs, now_s)
        for p in videos:
            self._pause(p, HIDDEN, not self._height(p))
        rank = me.room.rank
        shown = [p for p in videos if self._height(p) and p.video not in self._left_out and not p.muted]
        shown.sort(key=lambda p: (-self._height(p), rank.get(p.video, len(rank))))
        next_bps = self._share(shown, now_s)
        if down.limited and next_bps > down.allowed_bps:
            self.limit_bps = down.allowed_bps
        down.want(next_bps, now_s, can_probe=any(leg.repair_ssrc for leg in legs))

    def _share(self, shown: list[Publication], now_s: float) -> float:
        """Carries out an allocation; returns what more would take."""
        me, down = self._peer, self.down
        wishes = [Wish(self._height(p), p.offered(now_s).layers, self._has(p)) for p in shown]
        chosen, next_bps = allocate(wishes, down.allowed_bps)
        for p, wish, rid in zip(shown, wishes, chosen, strict=True):
            if not wish.layers:
                continue
            # losses alone are no reason to show nothing; without REMB they are all that is known
            short = rid is None and down.limited and (down.jammed or not down.speaks)
            self._pause(p, BANDWIDTH, short)
            if not short and (p.simulcast or p.scalable):
                best = wish.layers[0].rid if rid is None else rid
                p.prefer(me.id, best, now=down.jammed and p.falls(me.id, best))
        return next_bps

    def _height(self, track: Publication) -> int:
        if self._view is None:
            return SHOWN_HEIGHT
        return self._view.get(track.video, 0 if track.video in self._viewed else SHOWN_HEIGHT)

    def _has(self, track: Publication) -> str | None:
        return None if track.legs[self._peer.id].pauses else track.layer_of(self._peer.id)

    def _pause(self, track: Publication, reason: str, paused: bool) -> None:
        """One reason more or less not to forward a video to it. It goes on once there is none."""
        leg = track.legs.get(self._peer.id)
        if leg is not None and paused != (reason in leg.pauses):  # mostly it is as it was
            (track.pause if paused else track.resume)(self._peer.id, reason)
            self._tell_paused(track)

    def _tell_paused(self, track: Publication) -> None:
        reason = track.paused(self._peer.id)
        if self._told.get(track, "") != reason:
            self._told[track] = reason
            self._peer.shared.emit(bridge.Paused(self._peer.id, track.publisher.id, track.source, reason))

    def tell_again(self) -> None:
        """Its client may not have heard what is paused."""
        for track, reason in self._told.items():
            if reason:
                self._peer.shared.emit(bridge.Paused(self._peer.id, track.publisher.id, track.source, reason))

    def _probe(self, n_bytes: int, legs: list[Leg], now_s: float) -> None:
        """Sends so much of what was sent lately once more."""
        found = [
            (leg, packet)
            for leg in legs
            if leg.repair_ssrc
            for back in range(PROBE_BACK)
            if (packet := leg.lately(back)) is not None
        ]
        while n_bytes > 0 and found:
            leg, packet = found[self._probed % len(found)]
            self._probed += 1
            self._peer.send_again(leg.again(packet, now_s))
            self._peer.shared.counters["packets_probe"] += 1
            n_bytes -= len(packet)
