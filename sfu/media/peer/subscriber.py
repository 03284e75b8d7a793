"""A peer as subscriber: selects videos and layers by the page's view and the downlink's bitrate."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from sfu import bridge
from sfu.media.bandwidth.allocation import Step, Wish, allocate
from sfu.media.bandwidth.downlink import Downlink
from sfu.media.bandwidth.estimator import START_BPS, BandwidthEstimator
from sfu.media.bandwidth.lastn import Video
from sfu.media.bandwidth.send_side import SendSideEstimator
from sfu.media.bandwidth.sound import Redundancy
from sfu.media.peer.publication import Publication
from sfu.media.peer.room import Room
from sfu.media.peer.sections import Transceiver
from sfu.media.peer.shared import Shared
from sfu.media.rtp.rtcp import ReportBlock
from sfu.media.rtp.twcc import arrivals, report_number
from sfu.media.streams.down_track import DownTrack
from sfu.media.streams.pacer import Pacer
from sfu.media.transport.transport import Transport

NOT_SPEAKING = "not_speaking"
"""Why a video is not forwarded: others spoke more recently than its publisher."""
HIDDEN = "hidden"
"""Likewise: the page does not show it."""
BANDWIDTH = "bandwidth"
"""Likewise: the downlink does not carry it."""
ROUNDING = 1 + 1e-9
"""Exceeds the rounding error of adding bitrates in another order."""

_sent_bytes = attrgetter("sent_bytes")


class Tile(NamedTuple):
    """How large a page shows a video, in device pixels; a height of 0 is not at all, a width of 0 does not matter."""

    height: int
    width: int = 0


USUAL, NOWHERE = Tile(720), Tile(0)
"""USUAL is assumed until the page has told."""


class Settled(NamedTuple):
    """A video that gets all it wants. `shape` is that of its layer options; `at` is the index among them of the layer
    already forwarded, -1 if none."""

    publication: Publication
    down_track: DownTrack[Any]
    shape: object
    at: int


class Subscriber:
    """A peer as a subscriber. `subscriptions` are the publications that its answers accepted, by SSRC."""

    def __init__(self, peer: Transport, room: Room[Any], shared: Shared, *, full: bool) -> None:
        self._peer, self._room, self._shared, self._full = peer, room, shared, full
        self.subscriptions: dict[int, Publication] = {}
        self.down: Downlink = BandwidthEstimator()  # until its client gives transport-wide feedback
        self._report = -1  # the number of its last one, modulo 256
        self._sent: tuple[list[DownTrack[Any]], list[DownTrack[Any]]] = [], []  # videos and sound that it is sent
        self.pacer = Pacer(peer, shared.send_buffers.history, self._down_tracks, shared.counters)
        self._redundancy = Redundancy()
        self._left_out: frozenset[Video] = frozenset()  # videos not forwarded to it, in favour of others
        self._told: dict[Publication, str] = {}  # why one is paused, as last told to its client
        self._view: Mapping[Video, Tile] | None = None  # the videos that its page shows; None until told
        self._viewed: set[Video] = set()  # videos that there were when the page told
        self.limit_bps: float | None = None  # what its downlink allows, while more is wanted
        self._refused = 0
        self._settled: list[Settled] = []  # all videos, if nothing more is wanted until one changes

    def take(self, transceivers: Sequence[Transceiver[Publication]], *, flows: bool) -> None:
        """Its answers accepted what these transceivers carry. `flows`: its media path is up."""
        self.subscriptions = {
            transceiver.track.ssrc: transceiver.track for transceiver in transceivers if transceiver.track is not None
        }
        self._settled = []
        if not flows:
            return
        for transceiver in transceivers:
            if (publication := transceiver.track) is not None:
                publication.add_down_track(self._peer, NOT_SPEAKING if publication.video in self._left_out else "")
                down_track = publication.down_tracks[self._peer.id]
                down_track.rtx_ssrc = transceiver.rtx_ssrc if transceiver.repairs else 0
                if publication.kind == "video":
                    down_track.pacer = self.pacer
                self._tell_paused(publication)
        self.allocate(time.monotonic())

    def forget(self, publication: Publication) -> None:
        """This publication is no longer offered to it."""
        self.subscriptions.pop(publication.ssrc, None)
        self._settled = []
        self._told.pop(publication, None)

    def leave_out(self, videos: frozenset[Video]) -> None:
        """These videos are not forwarded to it until the next call; its own among them do not matter."""
        if videos != self._left_out:
            self._left_out, self._settled = videos, []
            for publication in self.subscriptions.values():
                self._pause(publication, NOT_SPEAKING, publication.video in videos)

    def view(self, tiles: Mapping[Video, Tile], now_s: float) -> None:
        """Takes what its page shows from now on, and how large. Videos that it does not show are not forwarded."""
        self._view, self._viewed = tiles, {publication.video for publication in self.subscriptions.values()}
        self._settled = []
        self.allocate(now_s)

    def reported(self, block: ReportBlock, now_s: float) -> None:
        """Takes a report block of its client about one stream."""
        publication = self.subscriptions.get(block.ssrc)
        down_track = None if publication is None else publication.down_tracks.get(self._peer.id)
        if publication is not None and down_track is not None:
            down_track.reported(block, now_s)
            if publication.kind == "video" and self.down.loss(down_track.delivery.loss or 0.0, now_s):
                self.allocate(now_s)

    def feedback(self, fci: bytes, now_s: float) -> None:
        """Takes its client's transport-wide feedback: which of the worker's video packets arrived, and when. Raises
        ValueError if it is truncated."""
        number, groups = report_number(fci), self._shared.send_buffers.history.match(*arrivals(fci))
        if self._report < 0:
            self.down = SendSideEstimator(max(START_BPS, self.down.allowed_bps))
        whole, self._report = number == (self._report + 1) & 0xFF, number
        self._count_sent(now_s)
        if self.down.acknowledged(groups, now_s, whole=whole):
            self.allocate(now_s)
        else:
            self._pace()

    def _count_sent(self, now_s: float) -> None:
        videos, sounds = self._sent
        video_bytes = sum(map(_sent_bytes, videos)) + self._peer.rtx_bytes
        self.down.sent(video_bytes, sum(map(_sent_bytes, sounds)), now_s)

    def estimated(self, bps: float, now_s: float) -> None:
        """Takes its client's estimate of the downlink (REMB)."""
        if self.down.remb(bps, now_s):
            self.allocate(now_s)

    def round_trip(self, seconds: float, sent_s: float, now_s: float) -> None:
        """Takes a round trip that `allocate` had measured from `sent_s` on."""
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
            self.pacer.probe_bps = 0.0  # nothing is left that could tell
            return
        self._fit_sound(down.estimate_bps if down.limited else math.inf, now_s)
        self._sent = (
            down_tracks,
            [p.down_tracks[me.id] for p in self.subscriptions.values() if p.kind == "audio" and me.id in p.down_tracks],
        )
        self._count_sent(now_s)
        if me.agent.refused != self._refused:
            self._refused = me.agent.refused
            if self._refused:  # else it is on another path
                down.refused(now_s)
        if down.asks(now_s):
            me.agent.measure_rtt(now_s)
        next_bps = self._choose(now_s) if spent_bps > down.allowed_bps else 0.0
        if down.limited and next_bps > down.allowed_bps:
            self.limit_bps = down.allowed_bps
        down.want(next_bps, now_s, can_probe=next_bps > 0 and any(down_track.rtx_ssrc for down_track in down_tracks))
        self._pace()

    def _pace(self) -> None:
        """The pace of its video, and of probes beside it, follows the estimate."""
        self.pacer.rate_bps = max(1.0, self.down.estimate_bps) if self.down.limited else 0.0
        self.pacer.probe_bps = self.down.probe_bps

    def _down_tracks(self) -> list[DownTrack[Any]]:
        return [p.down_tracks[self._peer.id] for p in self._videos()]

    def _fit_sound(self, estimate_bps: float, now_s: float) -> None:
        """Sound comes without redundancy while that would take much of what the downlink carries."""
        sounds = [p for p in self.subscriptions.values() if p.redundant]
        said = self._redundancy.plain
        if sounds and (self._redundancy.choose(sum(p.bytes for p in sounds), estimate_bps, now_s) or said):
            for p in sounds:  # also those that came since
                p.set_plain(self._peer.id, self._redundancy.plain)

    def _videos(self) -> list[Publication]:
        return [p for p in self.subscriptions.values() if p.kind == "video" and self._peer.id in p.down_tracks]

    def _spent(self, now_s: float) -> float:
        """Upper bound of the bitrate of its videos, if each gets all it wants; infinite if they have to be chosen
        anew."""
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
        """Allocates, and applies the result; returns the bitrate at which the next step up would fit, 0 if nothing more
        is wanted."""
        me, down, rank = self._peer, self.down, self._room.rank
        tiles = {p: self._tile(p) for p in self._videos()}
        for p, tile in tiles.items():
            self._pause(p, HIDDEN, not tile.height)
        shown = [p for p, tile in tiles.items() if tile.height and p.video not in self._left_out and not p.muted]
        shown.sort(key=lambda p: (-tiles[p].height, rank.get(p.video, len(rank))))
        wishes = {p: self._wish(p, tiles[p], now_s) for p in shown}
        chosen, next_bps, over = allocate(wishes.values(), down.allowed_bps)
        waits = False
        for (p, wish), step in zip(wishes.items(), chosen, strict=True):
            if step is not None and down.limited and p.needs_keyframe(me.id, step) and not p.may_rise(now_s):
                waits = True
                continue
            short = step is None and down.limited
            if not short and wish.layers:
                best = step or Step(wish.layers[0].rid)
                p.prefer(me.id, best, now=over and down.limited and p.falls(me.id, best.rid))
            self._pause(p, BANDWIDTH, short)
        self._settled = [] if next_bps or waits else self._settle(tiles, wishes, now_s)
        return next_bps

    def _wish(self, p: Publication, tile: Tile, now_s: float) -> Wish:
        layers, speaks = p.offered(now_s).layers, not self._room.rank.get(p.video, 1)
        shares = p.shares(now_s) if self.down.limited else ()
        return Wish(tile.height, layers, self._has(p), tile.width, speaks, shares)

    def _settle(self, videos: Iterable[Publication], wishes: Mapping[Publication, Wish], now_s: float) -> list[Settled]:
        """All that is wanted is allowed; once all of it also arrives, nothing has to be chosen again. Empty before
        that."""
        settled = []
        for p in videos:
            down_track, offer, wish, at = p.down_tracks[self._peer.id], p.offered(now_s), wishes.get(p), -1
            if wish is not None:
                at = wish.best()
                if down_track.stream is not p.layers[wish.layers[at].rid] or down_track.temporal is not None:
                    return []
            settled.append(Settled(p, down_track, offer.shape, at))
        return settled

    def _tile(self, publication: Publication) -> Tile:
        if self._view is None:
            return USUAL
        return self._view.get(publication.video, NOWHERE if publication.video in self._viewed else USUAL)

    def _has(self, publication: Publication) -> Step | None:
        return None if publication.down_tracks[self._peer.id].pauses else publication.step_of(self._peer.id)

    def _pause(self, publication: Publication, reason: str, paused: bool) -> None:
        """Adds or removes one reason not to forward a video. It continues once there is none."""
        down_track = publication.down_tracks.get(self._peer.id)
        if down_track is not None and paused != (reason in down_track.pauses):  # mostly nothing changes
            (publication.pause if paused else publication.resume)(self._peer.id, reason)
            self._tell_paused(publication)

    def _tell_paused(self, publication: Publication) -> None:
        reason = publication.paused(self._peer.id)
        if self._told.get(publication, "") != reason:
            self._told[publication] = reason
            self._shared.emit(bridge.Paused(self._peer.id, publication.publisher.id, publication.source, reason))

    def tell_again(self) -> None:
        """Repeats all pauses; the client may have missed them."""
        for publication, reason in self._told.items():
            if reason:
                self._shared.emit(bridge.Paused(self._peer.id, publication.publisher.id, publication.source, reason))
