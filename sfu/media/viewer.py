"""How much one peer gets of the videos of others: which layers, and which not at all, as its page shows them and as its
way down carries them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfu.media.allocation import Wish, allocate
from sfu.media.downlink import Downlink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sfu.media.lastn import Video
    from sfu.media.leg import Leg
    from sfu.media.peer import Peer
    from sfu.media.publication import Publication

HIDDEN = "hidden"
"""Why a video is not forwarded: the page does not show it."""
BANDWIDTH = "bandwidth"
"""Likewise: the way down does not carry it."""
SHOWN_HEIGHT = 720
"""Of a video of which the page has not said how large it shows it."""
PROBE_BACK = 8
"""The newest packets, which are sent again in turn for a probe."""


class Viewer:
    """A peer as a subscriber. `taken` is what its answers took, by SSRC; it is the peer's."""

    def __init__(self, peer: Peer, taken: Mapping[int, Publication]) -> None:
        self.down = Downlink()
        self._peer, self._taken = peer, taken
        self._view: Mapping[Video, int] | None = None  # heights of what its page shows; None until it says so
        self._viewed: set[Video] = set()  # what there was to show when it said so
        self.limit_bps: float | None = None  # what its way down allows, while more is wanted
        self._probed = 0
        self._allocated_s = 0.0

    def view(self, heights: Mapping[Video, int], now_s: float) -> None:
        """What its page shows from now on, and how large. What it does not show is not forwarded to it."""
        self._view, self._viewed = heights, {track.video for track in self._taken.values()}
        self.allocate(now_s)

    def allocate(self, now_s: float) -> None:
        """Chooses what it gets of each video."""
        me, down = self._peer, self.down
        self.limit_bps = None
        videos = [p for p in self._taken.values() if p.kind == "video" and me.id in p.legs]
        if not videos or not (me.full or down.speaks):
            return
        legs = [p.legs[me.id] for p in videos]
        down.sent(sum(leg.sent_bytes for leg in legs) + me.again_bytes, now_s)
        passed_s, self._allocated_s = now_s - self._allocated_s, now_s
        if probe := down.probe_bytes(passed_s, now_s):
            self._probe(probe, legs, now_s)
        for p in videos:
            me.pause(p, HIDDEN, not self._height(p))
        rank = me.room.rank
        shown = [p for p in videos if self._height(p) and p.video not in me.left_out and not p.muted]
        shown.sort(key=lambda p: (-self._height(p), rank.get(p.video, len(rank))))
        next_bps = self._share(shown, now_s)
        if down.limited and next_bps > down.allowed_bps:
            self.limit_bps = down.allowed_bps
        down.want(next_bps, now_s, can_probe=any(leg.repair_ssrc for leg in legs))

    def _share(self, shown: list[Publication], now_s: float) -> float:
        """Carries out an allocation; returns what more would take."""
        me, down = self._peer, self.down
        wishes = [Wish(self._height(p), p.offered(now_s), self._has(p)) for p in shown]
        chosen, next_bps = allocate(wishes, down.allowed_bps)
        for p, wish, rid in zip(shown, wishes, chosen, strict=True):
            if not wish.layers:
                continue
            short = rid is None and down.limited
            me.pause(p, BANDWIDTH, short)
            if p.simulcast and not short:
                smallest = wish.layers[0].rid
                p.prefer(me.id, rid or smallest, now=down.limited and p.falls(me.id, rid or smallest))
        return next_bps

    def _height(self, track: Publication) -> int:
        if self._view is None:
            return SHOWN_HEIGHT
        return self._view.get(track.video, 0 if track.video in self._viewed else SHOWN_HEIGHT)

    def _has(self, track: Publication) -> str | None:
        return None if track.legs[self._peer.id].pauses else track.layer_of(self._peer.id)

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
