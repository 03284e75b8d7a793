"""A peer as publisher: its publications, their SSRCs, and the feedback it gets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
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
"""The most that a report can have (RFC 3550 section 6.4.1)."""


class Owner(Protocol):
    """The peer that is told of changes (implemented in peer.py)."""

    def tell_others(self) -> None:
        """The peer's publications have changed."""

    def renegotiate(self) -> None:
        """The peer's own next offer must change."""


class Place(NamedTuple):
    """What an SSRC carries: in the section with this mid, the layer with this rid (empty for a single stream), or its
    RTX."""

    mid: str
    rid: str
    repair: bool = False


class Publisher:
    """`by_ssrc` and `rtx` are its streams by the SSRCs of media and of RTX; `muted` holds every source that it muted,
    published yet or not.

    Other peers do not learn of a source before its first packet, as a peer that answers `sendonly` may begin to send at
    any time (RFC 3264 section 5.1). Until then only its SSRCs are known, from the answer or from the packets of an
    earlier source. A browser that stops and restarts a source may send the same SSRCs again, and sends a layer's RID
    only until it has been received.
    """

    def __init__(self, peer: Transport, room: Room[Any], shared: Shared, owner: Owner) -> None:
        self._peer, self._room, self._shared, self._owner = peer, room, shared, owner
        self.published: dict[str, Publication] = {}  # by source
        self.by_ssrc: dict[int, RtpStream] = {}
        self.rtx: dict[int, RtpStream] = {}
        self.muted: set[str] = set()
        self._sizes: dict[str, Sequence[bridge.LayerSize]] = {}  # of the layers of a source, as the client told
        self._intakes = {kind: Intake(ceiling) for kind, ceiling in CEILINGS.items()}
        self._warned: set[str] = set()  # kinds
        self._places: dict[int, Place] = {}  # by SSRC, the last place of each; kept when a source ends
        self._mids: dict[str, str] = {}  # by source

    # --- what it publishes -------------------------------------------------------------------------------------------

    def begin(self, source: str, kind: Literal["audio", "video"], said: sdp.AnswerSection) -> None:
        """According to an answer, the peer sends this source from now on, or still does."""
        rids, ssrcs = said.rids, said.ssrcs
        publication = self.published.get(source)
        if publication is not None and (
            (not rids and ssrcs and publication.received[0].remote_ssrc not in (None, ssrcs[0]))
            or (rids or ("",)) != tuple(publication.streams)
            or said.redundant != publication.redundant
        ):
            self.end(source)  # another stream, with its own numbers and timestamps
            publication = None
        if publication is None:
            publication = self.published[source] = Publication(
                self._peer, source, kind, self._shared.send_buffers, rids, redundant=said.redundant
            )
            publication.set_muted(source in self.muted)
            publication.tell_sizes(self._sizes.get(source, ()))
            publication.set_muted(self._intakes[kind].over, TOO_MUCH)
            if publication.simulcast:  # an earlier one of this source may have ended unwatched
                self._tell_layers(publication)
        if publication.opus != said.opus:  # its encoder follows our next offer, and so do the subscribers' decoders
            publication.opus = said.opus
            if publication.flows:
                self._owner.tell_others()
            self._owner.renegotiate()
        self._mids[source] = said.mid
        if not rids:  # the first line is the media's, a second one its RTX's
            for ssrc, repair in zip(ssrcs, (False, True)[: 1 + (kind == "video")], strict=False):
                self._know(ssrc, Place(said.mid, "", repair))
        for ssrc, place in self._places.items():
            if place.repair and place.mid == said.mid and place.rid in publication.streams:
                self.rtx[ssrc] = publication.streams[place.rid]

    def end(self, source: str) -> None:
        """The peer no longer sends this source. Does nothing if it did not."""
        publication = self.published.pop(source, None)
        if publication is None:
            return
        del self._mids[source]
        ended = publication.received
        self._take(publication)
        for known in (self.by_ssrc, self.rtx):
            for ssrc in [ssrc for ssrc, stream in known.items() if stream in ended]:
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

    def tell_sizes(self, source: str, sizes: Sequence[bridge.LayerSize]) -> None:
        """Takes which layers of a source the client sends, published yet or not, and how large; none: it does not
        tell."""
        if sizes:
            self._sizes[source] = sizes
        else:
            self._sizes.pop(source, None)
        if source in self.published:
            self.published[source].tell_sizes(sizes)

    def bound(self, now_s: float) -> None:
        """Called periodically: nothing of a kind is forwarded while the peer sends more of it than anybody can use."""
        for publication in self.published.values():
            self._take(publication)
        for kind, intake in self._intakes.items():
            if intake.judge(now_s):
                self._set_over(kind, intake.over)

    def _take(self, publication: Publication) -> None:
        for stream in publication.received:
            self._intakes[publication.kind].came(*stream.take_came())

    def _set_over(self, kind: str, over: bool) -> None:
        for publication in self.published.values():
            if publication.kind == kind:
                publication.set_muted(over, TOO_MUCH)
        self._room.arrange()
        if over and kind not in self._warned:  # once: a peer that goes up and down would fill the log
            self._warned.add(kind)
            log.warning("publisher_sends_too_much peer=%s kind=%s", self._peer.id, kind)

    @property
    def flows(self) -> bool:
        """Whether other peers know of any of its publications."""
        return any(publication.flows for publication in self.published.values())

    def ask_layers(self, now_s: float) -> None:
        """Tells the client which simulcast layers anybody wants, when that changes."""
        for publication in self.published.values():
            if publication.kind == "video":
                publication.measure(now_s)
            if publication.simulcast and publication.ask(now_s):
                self._tell_layers(publication)

    def tell_again(self) -> None:
        """Repeats the wanted layers; the client may have missed them."""
        for publication in self.published.values():
            if publication.simulcast:
                self._tell_layers(publication)

    def _tell_layers(self, publication: Publication) -> None:
        self._shared.emit(bridge.Layers(self._peer.id, publication.source, tuple(publication.asked)))

    # --- SSRCs -------------------------------------------------------------------------------------------------------

    def latch(self, ssrc: int, kind: str | None, names: Names) -> RtpStream | None:
        """Finds the stream of an SSRC from which nothing has come yet, of media or (`kind` None) of RTX. It is that of
        the layer that the RID names; else the one for which an answer or an earlier packet used this SSRC in this
        section; else the only one of its kind from which nothing has come and whose SSRC no answer named."""
        publication, place = self._find(ssrc, kind, names)
        if publication is None:
            return None
        stream = publication.streams[place.rid]
        self._know(ssrc, place)
        if place.repair:
            self.rtx[ssrc] = stream
            return stream
        flowed = publication.flows
        if stream.remote_ssrc not in (None, ssrc):
            stream.restart()
        stream.remote_ssrc = ssrc
        self.by_ssrc[ssrc] = stream
        if not flowed:
            self._shared.emit(bridge.Track(self._peer.id, publication.source, publication.kind))
            self._owner.tell_others()
        return stream

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
        """From now on this SSRC carries this, and no other SSRC does."""
        if self._places.get(ssrc) != place:
            others = [ssrc, *(one for one, known in self._places.items() if known == place)]
            for by_ssrc in (self._places, self.by_ssrc, self.rtx):
                for one in others:
                    by_ssrc.pop(one, None)
            self._places[ssrc] = place

    # --- reports -----------------------------------------------------------------------------------------------------

    def send_reports(self) -> None:
        """Sends a receiver report about its streams."""
        streams = [stream for publication in self.published.values() for stream in publication.received]
        blocks = [block for stream in streams if (block := stream.report_block()) is not None]
        if blocks:
            self._peer.send_rtcp(rtcp.receiver_report(blocks[:REPORT_BLOCKS]))
