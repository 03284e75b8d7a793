"""A peer as subscriber: selects videos and layers by the page's view and the downlink's bitrate."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from sfu import bridge
from sfu.media.bandwidth.allocation import Wish, allocate
from sfu.media.bandwidth.estimator import BandwidthEstimator
from sfu.media.bandwidth.lastn import Video
from sfu.media.peer.publication import Publication
from sfu.media.peer.room import Room
from sfu.media.peer.sections import Transceiver
from sfu.media.peer.shared import Shared
from sfu.media.rtp.rtcp import ReportBlock
from sfu.media.streams.down_track import DownTrack
from sfu.media.transport.transport import Transport

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
ROUNDING = 1 + 1e-9
"""More than adding bitrates in another order makes of their sum."""

_sent_bytes = attrgetter("sent_bytes")


class Settled(NamedTuple):
    """A video of which it has all that it wants: of an offer of this shape the layer at `at`, or -1 if that is none."""

    publication: Publication
    down_track: DownTrack[Any]
    shape: object
    at: int


class Subscriber:
    """A peer as a subscriber. `taken` is what its answers took, by the SSRC that has here."""

    def __init__(self, peer: Transport, room: Room[Any], shared: Shared, *, full: bool) -> None:
        self._peer, self._room, self._shared, self._full = peer, room, shared, full
        self.subscriptions: dict[int, Publication] = {}
        self.down = BandwidthEstimator()
        self._left_out: frozenset[Video] = frozenset()  # videos that are not forwarded to it, for those of others
        self._told: dict[Publication, str] = {}  # why it gets nothing of one, as it was last told
        self._view: Mapping[Video, int] | None = None  # heights of what its page shows; None until it says so
        self._viewed: set[Video] = set()  # what there was to show when it said so
        self.limit_bps: float | None = None  # what its way down allows, while more is wanted
        self._probed = 0
        self._allocated_s = 0.0
        self._settled: list[Settled] = []  # every video, if nothing more is wanted until one changes

    def take(self, transceivers: Sequence[Transceiver], *, flows: bool) -> None:
        """Its answers took what these sections bring. `flows`: it can be sent that."""
        self.subscriptions = {
            transceiver.track.ssrc: transceiver.track for transceiver in transceivers if transceiver.track is not None
        }
        self._settled = []
        if not flows:
            return
        for transceiver in transceivers:
            if (track := transceiver.track) is not None:
                track.add_down_track(self._peer, NOT_SPEAKING if track.video in self._left_out else "")
                track.down_tracks[self._peer.id].rtx_ssrc = transceiver.rtx_ssrc if transceiver.repairs else 0
                self._tell_paused(track)
        self.allocate(time.monotonic())

    def forget(self, track: Publication) -> None:
        """It is not brought this any more."""
        self.subscriptions.pop(track.ssrc, None)
        self._settled = []
        self._told.pop(track, None)

    def leave_out(self, videos: frozenset[Video]) -> None:
        """These are not to be forwarded to it, until the next call; its own count for nothing."""
        if videos != self._left_out:
            self._left_out, self._settled = videos, []
            for track in self.subscriptions.values():
                self._pause(track, NOT_SPEAKING, track.video in videos)

    def view(self, heights: Mapping[Video, int], now_s: float) -> None:
        """What its page shows from now on, and how large. What it does not show is not forwarded to it."""
        self._view, self._viewed = heights, {track.video for track in self.subscriptions.values()}
        self._settled = []
        self.allocate(now_s)

    def reported(self, block: ReportBlock, now_s: float) -> None:
        """What its client says of one stream."""
        taken = self.subscriptions.get(block.ssrc)
        down_track = None if taken is None else taken.down_tracks.get(self._peer.id)
        if taken is not None and down_track is not None:
            down_track.reported(block, now_s)
            if taken.kind == "video" and self.down.loss(down_track.delivery.loss or 0.0, now_s):
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
        if not (self._full or down.speaks):
            return
        spent_bps = self._spent(now_s)
        down_tracks = [settled.down_track for settled in self._settled] or [
            p.down_tracks[me.id] for p in self._videos()
        ]
        if not down_tracks:
            return
        down.sent(sum(map(_sent_bytes, down_tracks)) + me.rtx_bytes, now_s)
        passed_s, self._allocated_s = now_s - self._allocated_s, now_s
        if down.asks(now_s):
            me.agent.measure_rtt(now_s)
        if probe := down.probe_bytes(passed_s, now_s):
            self._probe(probe, down_tracks, now_s)
        next_bps = self._choose(now_s) if spent_bps > down.allowed_bps else 0.0
        if down.limited and next_bps > down.allowed_bps:
            self.limit_bps = down.allowed_bps
        down.want(next_bps, now_s, can_probe=next_bps > 0 and any(down_track.rtx_ssrc for down_track in down_tracks))

    def _videos(self) -> list[Publication]:
        return [p for p in self.subscriptions.values() if p.kind == "video" and self._peer.id in p.down_tracks]

    def _spent(self, now_s: float) -> float:
        """At most so much is what it has, if that is all it wants; infinite where it is to be chosen anew."""
        me, spent_bps = self._peer.id, 0.0
        for publication, down_track, shape, at in self._settled:
            offer = publication.offered(now_s)
            if offer.shape is not shape or publication.down_tracks.get(me) is not down_track:
                self._settled = []
                break
            if at >= 0:
                spent_bps += offer.most_bps[at]
        return spent_bps * ROUNDING if self._settled else math.inf

    def _choose(self, now_s: float) -> float:
        """Carries out an allocation; returns what more would take."""
        me, down, rank = self._peer, self.down, self._room.rank
        heights = {p: self._height(p) for p in self._videos()}
        for p, height in heights.items():
            self._pause(p, HIDDEN, not height)
        shown = [p for p, height in heights.items() if height and p.video not in self._left_out and not p.muted]
        shown.sort(key=lambda p: (-heights[p], rank.get(p.video, len(rank))))
        wishes = {p: Wish(heights[p], p.offered(now_s).layers, self._has(p)) for p in shown}
        chosen, next_bps = allocate(wishes.values(), down.allowed_bps)
        for (p, wish), rid in zip(wishes.items(), chosen, strict=True):
            # losses alone are no reason to show nothing; without REMB they are all that is known
            short = rid is None and down.limited and (down.jammed or not down.speaks)
            self._pause(p, BANDWIDTH, short)
            if not short and (p.simulcast or p.scalable):
                best = wish.layers[0].rid if rid is None else rid
                p.prefer(me.id, best, now=down.jammed and p.falls(me.id, best))
        self._settled = [] if next_bps else self._settle(heights, wishes, now_s)
        return next_bps

    def _settle(self, videos: Iterable[Publication], wishes: Mapping[Publication, Wish], now_s: float) -> list[Settled]:
        """All that is wanted is allowed, so nothing is to be chosen again once it has come too."""
        settled = []
        for p in videos:
            down_track, offer, wish, at = p.down_tracks[self._peer.id], p.offered(now_s), wishes.get(p), -1
            if wish is not None:
                at = wish.best()
                if down_track.track is not p.layers[wish.layers[at].rid]:
                    return []
            settled.append(Settled(p, down_track, offer.shape, at))
        return settled

    def _height(self, track: Publication) -> int:
        if self._view is None:
            return SHOWN_HEIGHT
        return self._view.get(track.video, 0 if track.video in self._viewed else SHOWN_HEIGHT)

    def _has(self, track: Publication) -> str | None:
        return None if track.down_tracks[self._peer.id].pauses else track.layer_of(self._peer.id)

    def _pause(self, track: Publication, reason: str, paused: bool) -> None:
        """One reason more or less not to forward a video to it. It goes on once there is none."""
        down_track = track.down_tracks.get(self._peer.id)
        if down_track is not None and paused != (reason in down_track.pauses):  # mostly it is as it was
            (track.pause if paused else track.resume)(self._peer.id, reason)
            self._tell_paused(track)

    def _tell_paused(self, track: Publication) -> None:
        reason = track.paused(self._peer.id)
        if self._told.get(track, "") != reason:
            self._told[track] = reason
            self._shared.emit(bridge.Paused(self._peer.id, track.publisher.id, track.source, reason))

    def tell_again(self) -> None:
        """Its client may not have heard what is paused."""
        for track, reason in self._told.items():
            if reason:
                self._shared.emit(bridge.Paused(self._peer.id, track.publisher.id, track.source, reason))

    def _probe(self, n_bytes: int, down_tracks: list[DownTrack[Any]], now_s: float) -> None:
        """Sends so much of what was sent lately once more."""
        found = [
            (down_track, packet)
            for down_track in down_tracks
            if down_track.rtx_ssrc
            for back in range(PROBE_BACK)
            if (packet := down_track.lately(back)) is not None
        ]
        while n_bytes > 0 and found:
            down_track, packet = found[self._probed % len(found)]
            self._probed += 1
            self._peer.send_rtx(down_track.again(packet, now_s))
            self._shared.counters["packets_probe"] += 1
            n_bytes -= len(packet)
