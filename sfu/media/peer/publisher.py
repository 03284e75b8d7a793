"""A peer as publisher: its publications, the SSRCs that belong to them, and the feedback it gets."""

from __future__ import annotations

import logging
from typing import Any, Literal, NamedTuple, Protocol

from sfu import bridge
from sfu.media.bandwidth.intake import CEILINGS, Intake
from sfu.media.peer import sdp
from sfu.media.peer.publication import Publication
from sfu.media.peer.room import Room
from sfu.media.peer.shared import Shared
from sfu.media.rtp import codecs, rtcp
from sfu.media.streams.ingress import Names
from sfu.media.streams.receive_stream import TOO_MUCH
from sfu.media.streams.rtp_stream import RtpStream
from sfu.media.transport.transport import Transport

log = logging.getLogger("sfu.media")

REPORT_BLOCKS = 31
"""That a report can have (RFC 3550 section 6.4.1)."""


class Owner(Protocol):
    """Who hears of changes (peer.py)."""

    def tell_others(self) -> None:
        """What it publishes is another than before."""

    def renegotiate(self) -> None:
        """Its own next offer is to be another."""


class Place(NamedTuple):
    """What is sent under an SSRC: in the section with this mid the layer with this rid, empty for a single stream, or
    what is sent again of it."""

    mid: str
    rid: str
    repair: bool = False


class Publisher:
    """`by_ssrc` and `repairs` are its tracks by the SSRCs of media and of retransmissions; `muted` holds every source
    that it muted, published by now or not.

    Nobody hears of a source before a packet of it came (RFC 3264 section 5.1 has whoever answers `sendonly` send when
    it likes): until then nothing but its SSRCs is known, from the answer or from the packets of a source before it. A
    browser that stops and starts a source may send the same SSRCs again, and names a layer only until it was heard.
    """

    def __init__(self, peer: Transport, room: Room[Any], shared: Shared, owner: Owner) -> None:
        self._peer, self._room, self._shared, self._owner = peer, room, shared, owner
        self.published: dict[str, Publication] = {}  # by source
        self.by_ssrc: dict[int, RtpStream] = {}
        self.rtx: dict[int, RtpStream] = {}
        self.muted: set[str] = set()
        self._intakes = {kind: Intake(ceiling) for kind, ceiling in CEILINGS.items()}
        self._warned: set[str] = set()  # kinds
        self._places: dict[int, Place] = {}  # by SSRC, the last of each; kept when what is sent there ends
        self._mids: dict[str, str] = {}  # of the sections, by source

    # --- what it publishes -------------------------------------------------------------------------------------------

    def begin(self, source: str, kind: Literal["audio", "video"], said: sdp.AnswerSection) -> None:
        """An answer says that it sends this source from now on, or still."""
        rids, ssrcs = said.rids, said.ssrcs
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
                self._peer, source, kind, self._shared.send_buffers, rids, redundant=said.redundant
            )
            publication.set_muted(source in self.muted)
            publication.set_muted(self._intakes[kind].over, TOO_MUCH)
            if publication.simulcast:  # the last one of this source may have ended while nobody watched it
                self._tell_layers(publication)
        if publication.opus != said.opus:  # its encoder goes by our next offer, and so do the subscribers' decoders
            publication.opus = said.opus
            if publication.flows:
                self._owner.tell_others()
            self._owner.renegotiate()
        self._mids[source] = said.mid
        if not rids:  # the first line is the media's, a second one its retransmissions'
            for ssrc, repair in zip(ssrcs, (False, True)[: 1 + (kind == "video")], strict=False):
                self._know(ssrc, Place(said.mid, "", repair))
        for ssrc, place in self._places.items():
            if place.repair and place.mid == said.mid and place.rid in publication.streams:
                self.rtx[ssrc] = publication.streams[place.rid]

    def end(self, source: str) -> None:
        """It sends this source no more. Nothing happens if it did not."""
        publication = self.published.pop(source, None)
        if publication is None:
            return
        del self._mids[source]
        ended = publication.received
        self._take(publication)
        for known in (self.by_ssrc, self.rtx):
            for ssrc in [ssrc for ssrc, track in known.items() if track in ended]:
                del known[ssrc]
        publication.close()
        if publication.flows:
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

    @property
    def flows(self) -> bool:
        """Whether the others know of anything that it publishes."""
        return any(publication.flows for publication in self.published.values())

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
        self._shared.emit(bridge.Layers(self._peer.id, publication.source, tuple(publication.asked)))

    # --- whose an SSRC is --------------------------------------------------------------------------------------------

    def latch(self, ssrc: int, kind: str | None, names: Names) -> RtpStream | None:
        """An SSRC of which nothing came yet, of media or (`kind` None) of retransmissions: that of a layer, by its rid;
        one that an answer named or that was sent in this section before; or that of the one track of its kind of which
        nothing came and whose SSRC nobody named."""
        publication, place = self._find(ssrc, kind, names)
        if publication is None:
            return None
        track = publication.streams[place.rid]
        self._know(ssrc, place)
        if place.repair:
            self.rtx[ssrc] = track
            return track
        flowed = publication.flows
        if track.remote_ssrc not in (None, ssrc):
            track.restart()
        track.remote_ssrc = ssrc
        self.by_ssrc[ssrc] = track
        if not flowed:
            self._shared.emit(bridge.Track(self._peer.id, publication.source, publication.kind))
            self._owner.tell_others()
        return track

    def _find(self, ssrc: int, kind: str | None, names: Names) -> tuple[Publication | None, Place]:
        rid = names.get(codecs.REPAIRED_RID_ID if kind is None else codecs.RID_ID)
        known = self._places.get(ssrc)
        if rid is not None:
            mid = names.get(codecs.MID_ID)
            found = [p for p in self.published.values() if rid in p.streams and mid in (None, self._mids[p.source])]
        elif known is not None and known.repair == (kind is None):
            rid = known.rid
            found = [p for p in self.published.values() if rid in p.streams and known.mid == self._mids[p.source]]
        else:
            rid, named = "", {place.mid for place in self._places.values() if not place.repair}
            found = [
                p
                for p in self.published.values()
                if p.kind == kind and not p.simulcast and not p.flows and self._mids[p.source] not in named
            ]
        if len(found) != 1:
            return None, Place("", "")
        return found[0], Place(self._mids[found[0].source], rid, kind is None)

    def _know(self, ssrc: int, place: Place) -> None:
        """From now on this is sent there, and nothing else is."""
        if self._places.get(ssrc) != place:
            others = [ssrc, *(one for one, known in self._places.items() if known == place)]
            for by_ssrc in (self._places, self.by_ssrc, self.rtx):
                for one in others:
                    by_ssrc.pop(one, None)
            self._places[ssrc] = place

    # --- what it is told ---------------------------------------------------------------------------------------------

    def send_reports(self) -> None:
        """What came of its tracks."""
        tracks = [track for publication in self.published.values() for track in publication.received]
        blocks = [block for track in tracks if (block := track.report_block()) is not None]
        if blocks:
            self._peer.send_rtcp(rtcp.receiver_report(blocks[:REPORT_BLOCKS]))
