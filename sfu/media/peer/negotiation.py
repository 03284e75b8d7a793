"""SDP negotiation with one peer: its sections, the offers, and the effect of its answers.

The server offers; one offer is in flight at a time, and what changes meanwhile goes into the next. Sections are reused,
so the SDP is as long as the most tracks the room ever had at once.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from typing import Any, Literal, Protocol

from sfu import bridge
from sfu.errors import (
    AnswerTimeout,
    BadAnswer,
    BadSource,
    NoCommonCodec,
    NotAllowed,
    SfuError,
    TooManyTracks,
    UnexpectedAnswer,
)
from sfu.media.peer import sdp
from sfu.media.peer.pace import Pace
from sfu.media.peer.publication import Publication
from sfu.media.peer.publisher import Publisher
from sfu.media.peer.room import Room
from sfu.media.peer.sections import Transceiver
from sfu.media.peer.shared import Shared
from sfu.media.peer.subscriber import Subscriber
from sfu.media.rtp import codecs
from sfu.media.streams.ingress import RtpDemuxer
from sfu.media.transport.deadline import Deadline
from sfu.media.transport.ice import Agent
from sfu.media.transport.transport import Transport

OFFER_S, OFFERS = 0.35, 3
"""Between a peer's offers, and how many may come without that when there were none for a while: each takes its browser
some milliseconds, and its room may change much faster. A source that begins makes one or two."""
RESTART_S = 2.0
"""Between two restarts of a peer's ICE: each costs an offer, and a path needs some round trips to be found."""


class Owner(Protocol):
    """Whose negotiation it is (peer.py)."""

    id: str
    full: bool
    may_publish: bool
    may_subscribe: bool
    hears_redundant: bool | None
    agent: Agent
    demuxer: RtpDemuxer
    shared: Shared
    publisher: Publisher
    subscriber: Subscriber

    def connect(self, answer: sdp.AnswerSdp) -> None:
        """Its client said how it can be reached and who it is."""

    def attach(self) -> None:
        """An answer took or left tracks."""

    def fail(self, error: SfuError) -> None:
        """Its call is over."""


class Negotiation:
    """What comes of it is its peer's to do: `connect` by the first answer, `attach` what answers took, `fail` without
    one."""

    def __init__(self, peer: Owner, transport: Transport, room: Room[Any]) -> None:
        self._peer, self._transport, self._room = peer, transport, room
        self.shows = codecs.VIDEO_TYPES  # the payload types of video it can receive, as far as its answers tell
        self._types = room.video_types  # what it may send, as it was last offered
        self._transceivers: list[Transceiver] = []
        if peer.may_publish:
            self._transceivers = [
                Transceiver("audio", True, source="microphone"),
                Transceiver("video", True, source="camera"),
            ]
        self._fingerprints: tuple[tuple[str, str], ...] = ()
        self._session, self._version = secrets.randbits(53), 0
        self._shown = 0  # how many sections its client knows
        self._offered: list[tuple[sdp.Section, Publication | None]] | None = None  # in flight
        self._offer_event: bridge.Offer | None = None  # the one in flight
        self._held = False  # its client can be told nothing now
        self._restarting: asyncio.TimerHandle | None = None
        self._restarted_s = -math.inf
        self._renew = False  # the next offer is to have new ICE credentials
        self._dirty = self._closed = False
        self._pace = Pace(OFFER_S, OFFERS)
        self._next: asyncio.Handle | None = None  # the next offer, if one is due
        self._deadline: Deadline | None = None

    @property
    def subscribed(self) -> list[Publication]:
        """The tracks that its sections are to bring to it."""
        return [transceiver.track for transceiver in self._transceivers if transceiver.track is not None]

    @property
    def accepted(self) -> list[Transceiver]:
        """The sections whose tracks its answers took."""
        return [transceiver for transceiver in self._transceivers if transceiver.accepted]

    # --- what it publishes -------------------------------------------------------------------------------------------

    def publish(self, source: str, kind: Literal["audio", "video"]) -> None:
        """One more transceiver to receive in, or another try at one the client left inactive."""
        if not self._peer.may_publish:
            raise NotAllowed("This peer may not publish.")
        transceiver, most = self._receiving(source), self._peer.shared.config.max_tracks
        if transceiver is None:
            if sum(s.receives and s.source is not None for s in self._transceivers) >= most:
                raise TooManyTracks(f"A peer may publish {most} tracks.")
            transceiver = self._free_transceiver(kind, receives=True)
            transceiver.source = source
        elif transceiver.kind != kind:
            raise BadSource(f"The source {source!r} is {transceiver.kind}.")
        self.changed()

    def unpublish(self, source: str) -> None:
        transceiver = self._receiving(source)
        if transceiver is None:
            raise BadSource
        self._peer.publisher.end(source)
        self._peer.publisher.muted.discard(source)
        if self._transceivers.index(transceiver) > 1:  # microphone and camera keep their places
            transceiver.source, transceiver.settled = None, self._transceivers.index(transceiver) >= self._shown
        self.changed()

    def _receiving(self, source: str) -> Transceiver | None:
        return next((s for s in self._transceivers if s.receives and s.source == source), None)

    def _free_transceiver(self, kind: Literal["audio", "video"], *, receives: bool) -> Transceiver:
        for transceiver in self._transceivers:
            unused = transceiver.source is None and transceiver.track is None
            if unused and transceiver.settled and transceiver.kind == kind and transceiver.receives == receives:
                return transceiver
        self._transceivers.append(Transceiver(kind, receives))
        return self._transceivers[-1]

    # --- offers ------------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Something the next offer must show changed. Any number of calls in a row make one offer, and any number of
        offers in a row are spaced (pace.py)."""
        if self._offered is not None or self._held:
            self._dirty = True
        elif self._next is None and not self._closed:
            loop = asyncio.get_running_loop()
            wait_s = self._pace.wait_s(loop.time())
            self._next = loop.call_later(wait_s, self._offer) if wait_s else loop.call_soon(self._offer)

    def restart_ice(self) -> None:
        """An offer with new credentials, RESTART_S after the last such at the earliest; none is left unanswered."""
        if self._restarting is None:
            wait_s = max(0.0, self._restarted_s + RESTART_S - time.monotonic())
            self._restarting = asyncio.get_running_loop().call_later(wait_s, self._restart_ice)

    def _restart_ice(self) -> None:
        self._restarting, self._restarted_s = None, time.monotonic()
        self._renew = True
        self.changed()

    def hold(self, held: bool) -> None:
        """Its client cannot be told anything, or can again: then of the offer that may not have reached it."""
        self._held = held
        if self._deadline is not None:
            self._deadline.cancel()
        if held:
            return
        if self._offered is not None:
            self._tell_offer()
        elif self._dirty:
            self.changed()

    def close(self) -> None:
        """Nothing is offered any more."""
        self._closed = True
        for timer in (self._deadline, self._next, self._restarting):
            if timer is not None:
                timer.cancel()

    def _offer(self) -> None:
        self._next, self._dirty = None, self._held
        if self._closed or self._held:
            return
        agent, shared = self._peer.agent, self._peer.shared
        self._subscribe()
        self._types = self._room.video_types
        if not self._transceivers:
            return  # a listener in an empty room: an offer without sections has no answer
        self._version += 1
        self._pace.done(asyncio.get_running_loop().time())
        if self._renew:
            self._renew = False
            shared.udp.forget(agent.restart())
            shared.udp.register(agent, self._peer.demuxer)
        self._offered = [(self._section(transceiver), transceiver.track) for transceiver in self._transceivers]
        self._shown = len(self._transceivers)
        fingerprint, bundled = self._local_fingerprint(), bool(self._fingerprints)
        transport = sdp.Transport(agent.ufrag, agent.pwd, fingerprint, shared.candidates, bundled=bundled)
        text = sdp.build_offer(self._session, self._version, transport, [section for section, _ in self._offered])
        send = {str(mid): s.source for mid, s in enumerate(self._transceivers) if s.source is not None}
        receive = {
            str(mid): bridge.Origin(s.track.publisher.id, s.track.source)
            for mid, s in enumerate(self._transceivers)
            if s.track
        }
        self._offer_event = bridge.Offer(self._peer.id, text, send, receive)
        self._tell_offer()

    def _subscribe(self) -> None:
        """Makes the sending transceivers hold the room's tracks, all but our own."""
        me = self._peer
        wanted = {
            track: None
            for peer in self._room.peers.values()
            if peer.id != me.id and me.may_subscribe
            for track in peer.published.values()
            if track.flows
        }
        for transceiver in self._transceivers:
            if transceiver.track is not None and transceiver.track not in wanted:
                transceiver.track.remove_down_track(self._transport)
                me.subscriber.forget(transceiver.track)
                if self._transport.outgoing is not None:  # for good: what begins again has another SSRC
                    for ssrc in filter(None, (transceiver.track.ssrc, transceiver.rtx_ssrc)):
                        self._transport.outgoing.forget(ssrc)
                transceiver.track, transceiver.accepted, transceiver.settled = None, False, False
            elif transceiver.track is not None:
                del wanted[transceiver.track]
        for track in wanted:
            transceiver = self._free_transceiver(track.kind, receives=False)
            transceiver.track = track
            transceiver.rtx_ssrc = secrets.randbelow(0xFFFFFFFE) + 1 if me.full and track.kind == "video" else 0

    def _section(self, transceiver: Transceiver) -> sdp.Section:
        red = self._peer.full and transceiver.kind == "audio"
        if transceiver.receives:
            own = self._peer.publisher.published.get(transceiver.source or "")
            opus = sdp.Opus() if own is None else own.opus
            direction: codecs.Direction = "recvonly" if transceiver.source is not None else "inactive"
            simulcast = self._peer.full and transceiver.kind == "video"
            return sdp.Section(transceiver.kind, direction, None, opus, self._types, simulcast, red)
        if transceiver.track is None:
            return sdp.Section(transceiver.kind, "inactive", redundant=red)
        publisher = transceiver.track.publisher.id
        stream = sdp.Stream(
            transceiver.track.ssrc, publisher, f"{publisher}-{transceiver.track.source}", transceiver.rtx_ssrc
        )
        return sdp.Section(transceiver.kind, "sendonly", stream, transceiver.track.opus, redundant=red)

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
        if self._offered is None:
            raise UnexpectedAnswer
        answer = sdp.parse_answer(text, [section for section, _ in self._offered])
        if self._fingerprints and answer.fingerprints != self._fingerprints:
            raise BadAnswer("The fingerprint changed within a session.")
        self._peer.agent.answered(answer.ice)
        offered, self._offered = self._offered, None
        if self._deadline is not None:
            self._deadline.cancel()
        for transceiver, said, (section, track) in zip(self._transceivers, answer.sections, offered, strict=False):
            self._settle(transceiver, said, section, track)
        self._learn_codecs(answer, offered)
        if not self._fingerprints:
            self._fingerprints = answer.fingerprints
            self._peer.connect(answer)
        self._peer.attach()
        if self._dirty:
            self.changed()

    def _settle(
        self, transceiver: Transceiver, said: sdp.AnswerSection, section: sdp.Section, track: Publication | None
    ) -> None:
        """One section of an answer. `section` and `track` were offered; the transceiver may have changed since."""
        if section.direction == "inactive":
            transceiver.settled = True
        elif not transceiver.receives:
            transceiver.accepted = said.receives and transceiver.track is track
            transceiver.repairs = said.repairs
            if transceiver.accepted and transceiver.kind == "audio" and self._peer.hears_redundant is None:
                self._peer.hears_redundant = (
                    said.redundant
                )  # for good: what was sent under a number may not come otherwise
            if transceiver.track is not None and not transceiver.accepted:
                transceiver.track.remove_down_track(self._transport)
        elif transceiver.source is not None:
            if said.sends:
                self._peer.publisher.begin(transceiver.source, transceiver.kind, said)
            else:
                self._peer.publisher.end(transceiver.source)

    def _learn_codecs(self, answer: sdp.AnswerSdp, offered: list[tuple[sdp.Section, Publication | None]]) -> None:
        """What it can show decides what the others may send. Whoever cannot show what they all can send is told."""
        before, self.shows = self.shows, codecs.VIDEO_TYPES
        for said, (section, _) in zip(answer.sections, offered, strict=True):
            if section.kind == "video" and section.direction == "sendonly":
                self.shows &= said.types
        if self.shows != before:
            if codecs.VP8.payload_type not in self.shows:
                error = NoCommonCodec()
                self._peer.shared.emit(bridge.Refused(self._peer.id, error.code, str(error)))
            self._room.check_codecs()

    def check_codecs(self, types: frozenset[int]) -> None:
        """Offers anew if this peer sends video and may do so in other codecs than it was offered."""
        if self._types != types and any(track.kind == "video" for track in self._peer.publisher.published.values()):
            self.changed()
