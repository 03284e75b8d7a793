"""A peer as a publisher: what it sends, whose every SSRC is, and what it is told of how that arrives."""

from __future__ import annotations

import logging
from typing import Any, Literal, Protocol

from sfu import bridge
from sfu.media import rtp, sdp
from sfu.media.forward import Track
from sfu.media.inbound import Names
from sfu.media.intake import CEILINGS, Intake
from sfu.media.publication import Publication
from sfu.media.room import Room
from sfu.media.shared import Shared
from sfu.media.transport import Transport
from sfu.media.upstream import TOO_MUCH

log = logging.getLogger("sfu.media")

REPORT_BLOCKS = 31
"""That a report can have (RFC 3550 section 6.4.1)."""


class Owner(Protocol):
    """Who hears of changes (peer.py)."""

    def tell_others(self) -> None:
        """What it publishes is another than before."""

    def renegotiate(self) -> None:
        """Its own next offer is to be another."""

    def source_of(self, mid: str) -> str | None:
        """What it publishes in the section with this mid."""


class Publisher:
    """`by_ssrc` and `repairs` are its tracks by the SSRCs of media and of retransmissions; `muted` holds every source
    that it muted, published by now or not."""

    def __init__(self, peer: Transport, room: Room[Any], shared: Shared, owner: Owner) -> None:
        self._peer, self._room, self._shared, self._owner = peer, room, shared, owner
        self.published: dict[str, Publication] = {}  # by source
        self.by_ssrc: dict[int, Track] = {}
        self.repairs: dict[int, Track] = {}
        self.muted: set[str] = set()
        self._intakes = {kind: Intake(ceiling) for kind, ceiling in CEILINGS.items()}
        self._warned: set[str] = set()  # kinds

    # --- what it publishes -------------------------------------------------------------------------------------------

    def begin(self, source: str, kind: Literal["audio", "video"], said: sdp.AnswerSection) -> None:
        """An answer says that it sends this source from now on, or still."""
        peer, rids, ssrcs = self._peer, said.rids, said.ssrcs
        publication = self.published.get(source)
        if publication is not None and (
            (not rids and ssrcs and publication.received[0].remote_ssrc not in (None, ssrcs[0]))
            or (rids or ("",)) != tuple(publication.streams)
            or said.redundant != publication.redundant
        ):
            self.end(source)  # another stream, with numbers and times of its own
            publication = None
        if publication is None:
            publication = self.published[source] = Publication(
                peer, source, kind, self._shared.outbox, rids, redundant=said.redundant
            )
            publication.set_muted(source in self.muted)
            publication.set_muted(self._intakes[kind].over, TOO_MUCH)
            self._shared.emit(bridge.Track(peer.id, source, kind))
            self._owner.tell_others()
        if publication.opus != said.opus:  # its encoder goes by our next offer, and so do the subscribers' decoders
            publication.opus = said.opus
            self._owner.tell_others()
            self._owner.renegotiate()
        if ssrcs and not rids:  # the first line is the media's, a second one its retransmissions'
            self._bind(ssrcs[0], publication.received[0])
            if kind == "video" and len(ssrcs) > 1:
                self.repairs[ssrcs[1]] = publication.received[0]

    def end(self, source: str) -> None:
        """It sends this source no more. Nothing happens if it did not."""
        publication = self.published.pop(source, None)
        if publication is None:
            return
        ended = publication.received
        self._take(publication)
        for known in (self.by_ssrc, self.repairs):
            for ssrc in [ssrc for ssrc, track in known.items() if track in ended]:
                del known[ssrc]
        publication.close()
        self._shared.emit(bridge.TrackEnded(self._peer.id, source))
        self._owner.tell_others()

    def mute(self, source: str, muted: bool) -> None:
        (self.muted.add if muted else self.muted.discard)(source)
        if source in self.published:
            self.published[source].set_muted(muted)
            self._room.arrange()

    def bound(self, now_s: float) -> None:
        """Now and then: nothing of a kind is forwarded while more of it comes than anybody has a use for."""
        for publication in self.published.values():
            self._take(publication)
        for kind, intake in self._intakes.items():
            if intake.judge(now_s):
                self._set_over(kind, intake.over)

    def _take(self, publication: Publication) -> None:
        for track in publication.received:
            self._intakes[publication.kind].came(*track.take_came())

    def _set_over(self, kind: str, over: bool) -> None:
        for publication in self.published.values():
            if publication.kind == kind:
                publication.set_muted(over, TOO_MUCH)
        self._room.arrange()
        if over and kind not in self._warned:  # once: who goes up and down would fill the log
            self._warned.add(kind)
            log.warning("publisher_sends_too_much peer=%s kind=%s", self._peer.id, kind)

    def ask_layers(self, now_s: float) -> None:
        """Tells the client which layers of its simulcasts anybody wants, when that changes."""
        for publication in self.published.values():
            if publication.kind == "video":
                publication.measure(now_s)
            if publication.simulcast and publication.ask(now_s):
                self._tell_layers(publication)

    def tell_again(self) -> None:
        """Its client may not have heard which layers are wanted."""
        for publication in self.published.values():
            if publication.simulcast:
                self._tell_layers(publication)

    def _tell_layers(self, publication: Publication) -> None:
        self._shared.emit(bridge.Layers(self._peer.id, publication.source, list(publication.asked)))

    # --- whose an SSRC is --------------------------------------------------------------------------------------------

    def latch(self, ssrc: int, kind: str | None, names: Names) -> Track | None:
        """An SSRC that no answer named, of media or (`kind` None) of retransmissions: a layer's, by its rid, or that of
        the one track of its kind that still has none."""
        rid = names.get(sdp.REPAIRED_RID_ID if kind is None else sdp.RID_ID)
        if rid is not None:
            track = self._layer(names.get(sdp.MID_ID), rid)
            if track is not None and kind is None:
                self.repairs[ssrc] = track
            elif track is not None:
                self._bind(ssrc, track)
            return track
        waiting = [
            publication.received[0]
            for publication in self.published.values()
            if publication.kind == kind and not publication.simulcast and publication.received[0].remote_ssrc is None
        ]
        if len(waiting) != 1:
            return None
        self._bind(ssrc, waiting[0])
        return waiting[0]

    def _bind(self, ssrc: int, track: Track) -> None:
        if track.remote_ssrc not in (None, ssrc):
            self.by_ssrc.pop(track.remote_ssrc, None)
            track.restart()
        track.remote_ssrc = ssrc
        self.by_ssrc[ssrc] = track

    def _layer(self, mid: str | None, rid: str) -> Track | None:
        """A layer by its rid, of the section with this mid; of the only simulcast if it was not named."""
        found = [publication for publication in self.published.values() if rid in publication.streams]
        if mid is not None:
            source = self._owner.source_of(mid)
            found = [publication for publication in found if publication.source == source]
        return found[0].streams[rid] if len(found) == 1 else None

    # --- what it is told ---------------------------------------------------------------------------------------------

    def send_reports(self) -> None:
        """What came of its tracks."""
        tracks = [track for publication in self.published.values() for track in publication.received]
        blocks = [block for track in tracks if (block := track.report_block()) is not None]
        if blocks:
            self._peer.send_rtcp(rtp.receiver_report(blocks[:REPORT_BLOCKS]))
