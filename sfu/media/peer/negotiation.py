"""SDP negotiation with one peer: the timing and the text of offers, and the effects of answers.

The server offers; one offer is in flight at a time, and changes meanwhile go into the next. sections.py decides what
each section is for. Sections are reused, so the SDP is as long as the most tracks the room ever had at once.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from typing import Any, Protocol

from sfu import bridge
from sfu.errors import AnswerTimeout, BadAnswer, NoCommonCodec, NotAllowed, SfuError, UnexpectedAnswer
from sfu.media.peer import sdp
from sfu.media.peer.pace import Pace
from sfu.media.peer.publication import Publication
from sfu.media.peer.publisher import Publisher
from sfu.media.peer.room import Room
from sfu.media.peer.sections import Accepted, Began, Dropped, Ended, Planned, Refused, Sections, Transceiver
from sfu.media.peer.shared import Shared
from sfu.media.peer.subscriber import Subscriber
from sfu.media.rtp import codecs
from sfu.media.streams.ingress import RtpDemuxer
from sfu.media.transport.deadline import Deadline
from sfu.media.transport.ice import Agent
from sfu.media.transport.transport import Transport

OFFER_S, OFFERS = 0.35, 3
"""The interval between a peer's offers, and how many may follow at once after a pause. Each costs a browser some
milliseconds, and a room may change much faster. A new source takes one or two offers."""
RESTART_S = 2.0
"""The interval between two ICE restarts of a peer. Each costs an offer, and a path takes some round trips to find."""

SOURCES: tuple[tuple[str, codecs.Kind], ...] = (("microphone", "audio"), ("camera", "video"))
"""What whoever may publish is offered to send, with sections that last."""


class Owner(Protocol):
    """The peer that owns this negotiation (peer.py)."""

    id: str
    full: bool
    may_publish: bool
    may_subscribe: bool
    agent: Agent
    demuxer: RtpDemuxer
    shared: Shared
    publisher: Publisher
    subscriber: Subscriber

    def connect(self, answer: sdp.AnswerSdp) -> None:
        """The first answer has the client's ICE credentials and fingerprint."""

    def attach(self) -> None:
        """An answer accepted or refused tracks."""

    def fail(self, error: SfuError) -> None:
        """The peer's call is over."""


class Negotiation:
    """The negotiation of one peer. It calls its peer back: `connect` with the first answer, `attach` after every
    answer, and `fail` when an answer stays out.

    `shows` are the payload types of video that the client can decode, as far as its answers tell.
    """

    def __init__(self, peer: Owner, transport: Transport, room: Room[Any]) -> None:
        self._peer, self._transport, self._room = peer, transport, room
        self.shows = codecs.VIDEO_TYPES
        self.sections = Sections[Publication](SOURCES if peer.may_publish else (), self._new_rtx_ssrc)
        self._types = room.video_types  # the video payload types that the peer was last offered to send
        self._fingerprints: tuple[tuple[str, str], ...] = ()
        self._session, self._version = secrets.randbits(53), 0
        self._offered: list[sdp.Section] = []
        self._offer_event: bridge.Offer | None = None  # the last offer
        self._held = False  # the client cannot be told anything now
        self._restarting: asyncio.TimerHandle | None = None
        self._restarted_s = -math.inf
        self._renew = False  # the next offer gets new ICE credentials
        self._dirty = self._closed = False
        self._pace = Pace(OFFER_S, OFFERS)
        self._next: asyncio.Handle | None = None  # the next offer, if one is due
        self._deadline: Deadline | None = None

    @property
    def subscribed(self) -> list[Publication]:
        """The tracks that the sections bring to the peer."""
        return [transceiver.track for transceiver in self.sections.transceivers if transceiver.track is not None]

    @property
    def accepted(self) -> list[Transceiver[Publication]]:
        """The sections whose tracks the answers accepted, of what the peer may receive."""
        may = self._peer.may_subscribe
        return [transceiver for transceiver in self.sections.transceivers if transceiver.accepted and may]

    # --- what it publishes -------------------------------------------------------------------------------------------

    def publish(self, source: str, kind: codecs.Kind) -> None:
        """Offers one more section to receive in, or once more the one that the client left inactive."""
        if not self._peer.may_publish:
            raise NotAllowed("This peer may not publish.")
        self.sections.claim(source, kind, self._peer.shared.config.max_tracks)
        self.changed()

    def unpublish(self, source: str) -> None:
        """Ends a source and gives its section back. Raises BadSource if the source has no section."""
        self.sections.release(source)
        self._peer.publisher.end(source)
        self._peer.publisher.muted.discard(source)
        self.changed()

    def permit_publishing(self, may: bool) -> None:
        """Offers to send what whoever may publish can always send; or ends all that it sends, now. How microphone and
        camera are muted is kept for the time when it may publish again."""
        if may:
            self.sections.open(SOURCES)
        else:
            self.sections.shut()
            for source in list(self._peer.publisher.published):
                self._peer.publisher.end(source)
            self._peer.publisher.muted &= {source for source, _ in SOURCES}
        self.changed()

    # --- offers ------------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Schedules an offer. Calls in a row lead to one offer, and offers in a row are spaced (pace.py)."""
        if self.sections.in_flight or self._held:
            self._dirty = True
        elif self._next is None and not self._closed:
            loop = asyncio.get_running_loop()
            wait_s = self._pace.wait_s(loop.time())
            self._next = loop.call_later(wait_s, self._offer) if wait_s else loop.call_soon(self._offer)

    def restart_ice(self) -> None:
        """Offers new ICE credentials, at the earliest RESTART_S after the last restart. No request is lost."""
        if self._restarting is None:
            loop = asyncio.get_running_loop()
            wait_s = max(0.0, self._restarted_s + RESTART_S - loop.time())
            self._restarting = loop.call_later(wait_s, self._restart_ice)

    def _restart_ice(self) -> None:
        self._restarting, self._restarted_s = None, asyncio.get_running_loop().time()
        self._renew = True
        self.changed()

    def hold(self, held: bool) -> None:
        """`held`: the client cannot be told anything. Afterwards the offer in flight is sent again, as it may not have
        arrived."""
        self._held = held
        if self._deadline is not None:
            self._deadline.cancel()
        if held:
            return
        if self.sections.in_flight:
            self._tell_offer()
        elif self._dirty:
            self.changed()
        self._tell_candidates()

    def _tell_candidates(self) -> None:
        """Tells the addresses that have come up since the last offer was made."""
        told = self._offer_event.sdp if self._offer_event is not None else ""
        for line in self._peer.shared.candidates if told else ():
            if line not in told:
                self._peer.shared.emit(bridge.Candidate(self._peer.id, line, "0"))

    def close(self) -> None:
        """Stops all timers; nothing is offered any more."""
        self._closed = True
        for timer in (self._deadline, self._next, self._restarting):
            if timer is not None:
                timer.cancel()

    def _offer(self) -> None:
        self._next, self._dirty = None, self._held
        if self._closed or self._held:
            return
        agent, shared = self._peer.agent, self._peer.shared
        planned, dropped = self.sections.plan(self._wanted())
        self._drop(dropped)
        self._types = self._room.video_types
        if not planned:
            return  # a listener in an empty room: an offer without sections has no answer
        self._version += 1
        self._pace.done(asyncio.get_running_loop().time())
        if self._renew:
            self._renew = False
            shared.udp.forget(agent.restart())
            shared.udp.register(agent, self._peer.demuxer)
        self._offered = [self._section(section) for section in planned]
        fingerprint, bundled = self._local_fingerprint(), bool(self._fingerprints)
        transport = sdp.Transport(agent.ufrag, agent.pwd, fingerprint, shared.candidates, bundled=bundled)
        text = sdp.build_offer(self._session, self._version, transport, self._offered)
        send = {str(mid): section.source for mid, section in enumerate(planned) if section.source is not None}
        receive = {
            str(mid): bridge.Origin(section.track.publisher.id, section.track.source)
            for mid, section in enumerate(planned)
            if section.track is not None
        }
        self._offer_event = bridge.Offer(self._peer.id, text, send, receive)
        self._tell_offer()

    def _wanted(self) -> list[Publication]:
        """All tracks of the room but the peer's own."""
        me = self._peer
        if not me.may_subscribe:
            return []
        others = (peer for peer in self._room.peers.values() if peer.id != me.id)
        return [track for peer in others for track in peer.published.values() if track.flows]

    def _drop(self, dropped: list[Dropped[Publication]]) -> None:
        for gone in dropped:
            gone.track.remove_down_track(self._transport)
            self._peer.subscriber.forget(gone.track)
            if self._transport.outgoing is not None:  # for good: a track that begins again has another SSRC
                for ssrc in filter(None, (gone.track.ssrc, gone.rtx_ssrc)):
                    self._transport.outgoing.forget(ssrc)

    def _new_rtx_ssrc(self, track: Publication) -> int:
        """0 for audio and bare clients, whose packets are sent again under their own SSRC."""
        return secrets.randbelow(0xFFFFFFFE) + 1 if self._peer.full and track.kind == "video" else 0

    def _section(self, planned: Planned[Publication]) -> sdp.Section:
        """A planned section as SDP describes it."""
        kind, direction, track = planned.kind, planned.direction, planned.track
        red = self._peer.full and kind == "audio"
        if planned.receives:
            own = self._peer.publisher.published.get(planned.source or "")
            opus = sdp.Opus() if own is None else own.opus
            simulcast = self._peer.full and kind == "video"
            return sdp.Section(kind, direction, None, opus, self._types, simulcast, red)
        if track is None:
            return sdp.Section(kind, direction, redundant=red)
        publisher = track.publisher.id
        stream = sdp.Stream(track.ssrc, publisher, f"{publisher}-{track.source}", planned.rtx_ssrc)
        return sdp.Section(kind, direction, stream, track.opus, redundant=red)

    def _local_fingerprint(self) -> str:
        return next(f.value for f in self._peer.shared.certificate.getFingerprints() if f.algorithm == "sha-256")

    def _tell_offer(self) -> None:
        assert self._offer_event is not None
        self._peer.shared.emit(self._offer_event)
        answer_s = self._peer.shared.config.answer_s
        self._deadline = Deadline(answer_s, lambda: self._peer.fail(AnswerTimeout()))

    # --- answers -----------------------------------------------------------------------------------------------------

    def answer(self, text: str) -> None:
        """Applies the client's answer. Raises UnexpectedAnswer or BadAnswer; the offer then stays in flight."""
        if not self.sections.in_flight:
            raise UnexpectedAnswer
        answer = sdp.parse_answer(text, self._offered)
        if self._fingerprints and answer.fingerprints != self._fingerprints:
            raise BadAnswer("The fingerprint changed within a session.")
        if not self._fingerprints and answer.ice is None:
            raise BadAnswer("The answer has no a=ice-ufrag and a=ice-pwd.")
        self._peer.agent.answered(answer.ice)
        if self._deadline is not None:
            self._deadline.cancel()
        for effect in self.sections.settle(answer.sections):
            match effect:
                case Began(source, kind, said):
                    self._peer.publisher.begin(source, kind, said)
                case Ended(source):
                    self._peer.publisher.end(source)
                case Accepted(track, said):
                    if track.kind == "audio":
                        self._transport.learn_redundancy(said.redundant)
                case Refused(track):
                    track.remove_down_track(self._transport)
        self._learn_codecs(answer)
        if not self._fingerprints:
            self._fingerprints = answer.fingerprints
            self._peer.connect(answer)
        self._peer.attach()
        if self._dirty:
            self.changed()

    def _learn_codecs(self, answer: sdp.AnswerSdp) -> None:
        """The codecs that the client can decode limit what the others may send. A client that lacks one that every
        browser can send is told."""
        before, self.shows = self.shows, codecs.VIDEO_TYPES
        for said, section in zip(answer.sections, self._offered, strict=True):
            if section.kind == "video" and section.direction == "sendonly":
                self.shows &= said.types
        if self.shows != before:
            if codecs.VP8.payload_type not in self.shows:
                error = NoCommonCodec()
                self._peer.shared.emit(bridge.Refused(self._peer.id, error.code, str(error)))
            self._room.check_codecs()

    def check_codecs(self, types: frozenset[int]) -> None:
        """Offers anew if the peer publishes video and may now send other codecs than it was offered."""
        if self._types != types and any(track.kind == "video" for track in self._peer.publisher.published.values()):
            self.changed()
