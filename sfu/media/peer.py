"""One peer: its negotiation, its transport, its RTP and RTCP in and out.

The server offers; one offer is in flight at a time, and what changes meanwhile goes into the next. Sections are reused,
so the SDP is as long as the most tracks the room ever had at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from sfu import bridge
from sfu.errors import (
    AnswerTimeout,
    BadAnswer,
    BadSource,
    DtlsFailed,
    IceTimeout,
    MediaLost,
    NoCommonCodec,
    NotAllowed,
    SfuError,
    TooManyTracks,
    UnexpectedAnswer,
)
from sfu.media import rtp, sdp
from sfu.media.dtls import Certificate, Dtls
from sfu.media.fanout import Outbox
from sfu.media.ice import Agent, Path
from sfu.media.inbound import Inbound
from sfu.media.publication import Publication
from sfu.media.publisher import Publisher
from sfu.media.quality import Quality, Trouble
from sfu.media.room import Room
from sfu.media.srtp import Context, Packet
from sfu.media.udp import UdpPort
from sfu.media.viewer import Viewer

log = logging.getLogger("sfu.media")

SILENT_S = 30.0
"""Without a check or authentic media for this long the peer is gone (RFC 7675 section 5.1 uses the same time)."""
RESTART_S = 2.0
"""Between two restarts of a peer's ICE: each costs an offer, and a path needs some round trips to be found."""
"""AES-128-GCM first: the cheapest to encrypt, and as server OpenSSL picks by our order."""


@dataclass(slots=True)
class Shared:
    """What all peers of a worker share."""

    config: bridge.Configure
    udp: UdpPort
    certificate: Certificate
    emit: Callable[[bridge.Event], None]
    counters: Counter[str]
    outbox: Outbox
    candidates: list[str]
    out: Packet = field(default_factory=Packet)  # filled, encrypted and sent without a pause between


@dataclass(slots=True, eq=False)
class Slot:
    """One m-line of a peer. A receiving slot belongs to a source, a sending one to a track, in turn to several.

    `settled` is false from the moment a slot loses its use until an answer has seen it inactive; only then may it be
    used again, so that a browser never takes a new track for the old one.
    """

    kind: Literal["audio", "video"]
    receives: bool
    source: str | None = None
    track: Publication | None = None
    accepted: bool = False
    settled: bool = True
    repair_ssrc: int = 0  # of what is sent again in it
    repairs: bool = False  # the client takes that


class Peer:
    """Created by Join, ended by `close` (Leave, a failure, or the worker's end)."""

    def __init__(self, join: bridge.Join, room: Room, shared: Shared) -> None:
        self.id, self.full = join.peer, join.full
        self.may_publish, self.may_subscribe = join.publish, join.subscribe
        self.room, self.shared = room, shared
        self.publisher, self.viewer = Publisher(self), Viewer(self)
        self.published = self.publisher.published
        self.again_bytes = 0  # of packets sent once more
        self.shows = sdp.VIDEO_TYPES  # the payload types of video it can receive, as far as its answers tell
        self.hears_redundant: bool | None = None  # whether it takes RED; None until an answer took any sound
        self._types = room.video_types  # what it may send, as it was last offered
        self._inbound = Inbound(self.publisher.by_ssrc, self._on_rtcp, self.publisher.latch)
        self._inbound.repairs = self.publisher.repairs
        self.agent = Agent(self._inbound, self._on_path, self.viewer.round_trip)
        self.quality = Quality()
        self._slots: list[Slot] = []
        self._dtls: Dtls | None = None
        self._fingerprints: tuple[tuple[str, str], ...] = ()
        self._tx: Context | None = None
        self._session, self._version = secrets.randbits(53), 0
        self._offered: list[tuple[sdp.Section, Publication | None]] | None = None  # in flight
        self._offer_event: bridge.Offer | None = None  # the one in flight
        self._held = False  # its client can be told nothing now
        self._restarting: asyncio.TimerHandle | None = None
        self._restarted_s = -math.inf
        self._renew = False  # the next offer is to have new ICE credentials
        self._dirty = self._scheduled = self._closed = False
        self._deadline: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        if self.may_publish:
            self._slots = [Slot("audio", True, source="microphone"), Slot("video", True, source="camera")]
        shared.udp.register(self.agent)
        room.peers[self.id] = self
        room.arrange()
        self.changed()

    # --- negotiation -------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Something the next offer must show changed. Any number of calls in a row make one offer."""
        if self._offered is not None or self._held:
            self._dirty = True
        elif not self._scheduled and not self._closed:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._offer)

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
        """Its client cannot be told anything, or can again: then it is told anew what the last may not have reached."""
        self._held = held
        if self._deadline is not None:
            self._deadline.cancel()
        if held:
            return
        if self._offered is not None:
            self._tell_offer()
        elif self._dirty:
            self.changed()
        self.viewer.tell_again()
        self.publisher.tell_again()

    def publish(self, source: str, kind: Literal["audio", "video"]) -> None:
        """One more slot to receive in, or another try at one the client left inactive."""
        if not self.may_publish:
            raise NotAllowed("This peer may not publish.")
        slot = self._receiving(source)
        if slot is None:
            if sum(s.receives and s.source is not None for s in self._slots) >= self.shared.config.max_tracks:
                raise TooManyTracks(f"A peer may publish {self.shared.config.max_tracks} tracks.")
            slot = self._free_slot(kind, receives=True)
            slot.source = source
        elif slot.kind != kind:
            raise BadSource(f"The source {source!r} is {slot.kind}.")
        self.changed()

    def unpublish(self, source: str) -> None:
        slot = self._receiving(source)
        if slot is None:
            raise BadSource
        self.publisher.end(source)
        self.publisher.muted.discard(source)
        if self._slots.index(slot) > 1:  # microphone and camera keep their places
            slot.source, slot.settled = None, False
        self.changed()

    def mute(self, source: str, muted: bool) -> None:
        known = self.publisher.muted
        (known.add if muted else known.discard)(source)
        if source in self.published:
            self.published[source].set_muted(muted)
            self.room.arrange()

    def _receiving(self, source: str) -> Slot | None:
        return next((s for s in self._slots if s.receives and s.source == source), None)

    def _free_slot(self, kind: Literal["audio", "video"], *, receives: bool) -> Slot:
        for slot in self._slots:
            unused = slot.source is None and slot.track is None
            if unused and slot.settled and slot.kind == kind and slot.receives == receives:
                return slot
        self._slots.append(Slot(kind, receives))
        return self._slots[-1]

    def _subscribe(self) -> None:
        """Makes the sending slots hold the room's tracks, all but our own."""
        wanted = {
            track: None
            for peer in self.room.peers.values()
            if peer is not self and self.may_subscribe
            for track in peer.published.values()
        }
        for slot in self._slots:
            if slot.track is not None and slot.track not in wanted:
                slot.track.remove_leg(self)
                self.viewer.forget(slot.track)
                slot.track, slot.accepted, slot.settled = None, False, False
            elif slot.track is not None:
                del wanted[slot.track]
        for track in wanted:
            slot = self._free_slot(track.kind, receives=False)
            slot.track = track
            slot.repair_ssrc = secrets.randbelow(0xFFFFFFFE) + 1 if self.full and track.kind == "video" else 0

    def _offer(self) -> None:
        self._scheduled, self._dirty = False, self._held
        if self._closed or self._held:
            return
        self._subscribe()
        self._types = self.room.video_types
        if not self._slots:
            return  # a listener in an empty room: an offer without sections has no answer
        self._version += 1
        if self._renew:
            self._renew = False
            self.shared.udp.forget(self.agent.restart())
            self.shared.udp.register(self.agent)
        self._offered = [(self._section(slot), slot.track) for slot in self._slots]
        transport = sdp.Transport(
            self.agent.ufrag,
            self.agent.pwd,
            self._local_fingerprint(),
            self.shared.candidates,
            bundled=bool(self._fingerprints),
        )
        text = sdp.build_offer(self._session, self._version, transport, [section for section, _ in self._offered])
        send = {str(mid): s.source for mid, s in enumerate(self._slots) if s.source is not None}
        receive = {str(mid): [s.track.publisher.id, s.track.source] for mid, s in enumerate(self._slots) if s.track}
        self._offer_event = bridge.Offer(self.id, text, send, receive)
        self._tell_offer()

    def _tell_offer(self) -> None:
        assert self._offer_event is not None
        self.shared.emit(self._offer_event)
        self._deadline = self._later(self.shared.config.answer_s, AnswerTimeout())

    def _section(self, slot: Slot) -> sdp.Section:
        red = self.full and slot.kind == "audio"
        if slot.receives:
            own = self.published.get(slot.source or "")
            opus = sdp.Opus() if own is None else own.opus
            direction: sdp.Direction = "recvonly" if slot.source is not None else "inactive"
            simulcast = self.full and slot.kind == "video"
            return sdp.Section(slot.kind, direction, None, opus, self._types, simulcast, red)
        if slot.track is None:
            return sdp.Section(slot.kind, "inactive", redundant=red)
        publisher = slot.track.publisher.id
        stream = sdp.Stream(slot.track.ssrc, publisher, f"{publisher}-{slot.track.source}", slot.repair_ssrc)
        return sdp.Section(slot.kind, "sendonly", stream, slot.track.opus, redundant=red)

    def _local_fingerprint(self) -> str:
        return next(f.value for f in self.shared.certificate.getFingerprints() if f.algorithm == "sha-256")

    def answer(self, text: str) -> None:
        """Applies the client's answer. Raises UnexpectedAnswer or BadAnswer; the offer then stays in flight."""
        if self._offered is None:
            raise UnexpectedAnswer
        answer = sdp.parse_answer(text, [section for section, _ in self._offered])
        if self._fingerprints and answer.fingerprints != self._fingerprints:
            raise BadAnswer("The fingerprint changed within a session.")
        self.agent.answered(answer.ice)
        offered, self._offered = self._offered, None
        if self._deadline is not None:
            self._deadline.cancel()
        for slot, said, (section, track) in zip(self._slots, answer.sections, offered, strict=False):
            self._settle(slot, said, section, track)
        self._learn_codecs(answer, offered)
        if not self._fingerprints:
            self._fingerprints = answer.fingerprints
            self._start(self._connect(answer))
        self._attach()
        if self._dirty:
            self.changed()

    def _learn_codecs(self, answer: sdp.AnswerSdp, offered: list[tuple[sdp.Section, Publication | None]]) -> None:
        """What it can show decides what the others may send. Whoever cannot show what they all can send is told."""
        before, self.shows = self.shows, sdp.VIDEO_TYPES
        for said, (section, _) in zip(answer.sections, offered, strict=True):
            if section.kind == "video" and section.direction == "sendonly":
                self.shows &= said.types
        if self.shows != before:
            if sdp.VP8.payload_type not in self.shows:
                error = NoCommonCodec()
                self.shared.emit(bridge.Refused(self.id, error.code, str(error)))
            self.room.check_codecs()

    def check_codecs(self, types: frozenset[int]) -> None:
        """Offers anew if this peer sends video and may do so in other codecs than it was offered."""
        if self._types != types and any(track.kind == "video" for track in self.published.values()):
            self.changed()

    def _settle(self, slot: Slot, said: sdp.AnswerSection, section: sdp.Section, track: Publication | None) -> None:
        """One section of an answer; `section` and `track` are what was offered, the slot may have moved on since."""
        if section.direction == "inactive":
            slot.settled = True
        elif not slot.receives:
            slot.accepted = said.receives and slot.track is track
            slot.repairs = said.repairs
            if slot.accepted and slot.kind == "audio" and self.hears_redundant is None:
                self.hears_redundant = said.redundant  # for good: what was sent under a number may not come otherwise
            if slot.track is not None and not slot.accepted:
                slot.track.remove_leg(self)
        elif slot.source is not None:
            if said.sends:
                self.publisher.begin(slot.source, slot.kind, said)
            else:
                self.publisher.end(slot.source)

    def tell_others(self) -> None:
        """What it publishes is another than before."""
        self.room.arrange()
        for peer in self.room.peers.values():
            if peer is not self and peer.may_subscribe:
                peer.changed()

    def _attach(self) -> None:
        """Media flows to this peer once its answer took a track and its DTLS is up, whichever comes last."""
        self.viewer.take([slot for slot in self._slots if slot.accepted], flows=self._tx is not None)

    def source_of(self, mid: str) -> str | None:
        """What the section with this mid is to receive."""
        return self._slots[int(mid)].source if mid.isdecimal() and int(mid) < len(self._slots) else None

    # --- transport ---------------------------------------------------------------------------------------------------

    async def _connect(self, answer: sdp.AnswerSdp) -> None:
        """ICE, then DTLS, each with its deadline; afterwards media flows. What fails ends the peer."""
        config = self.shared.config
        try:
            await asyncio.wait_for(self.agent.connected.wait(), config.ice_s)
        except TimeoutError:
            self._fail(IceTimeout())
            return
        self._dtls = dtls = Dtls(self.agent, self.shared.certificate, client=answer.setup != "active")
        if not await dtls.handshake(answer.fingerprints, config.dtls_s) or self._closed:
            self._fail(DtlsFailed())
            return
        dtls.on("statechange", self._dtls_changed)
        self._inbound.context, self._tx = dtls.incoming, dtls.outgoing
        assert self.agent.selected is not None
        self.shared.emit(bridge.Connected(self.id, str(self.agent.selected.address[0])))
        self._attach()

    def _dtls_changed(self) -> None:
        if self._dtls is not None and self._dtls.ended:
            self._fail(MediaLost("The client closed its media connection."))

    def _on_path(self, path: Path) -> None:
        self.shared.counters["paths_selected"] += 1
        for slot in self._slots:
            if slot.track is not None:
                slot.track.legs_changed()
        for track in self.published.values():  # what was lost on the old path, the others' requests included
            for layer in track.received:
                layer.request_keyframe()

    def check_liveness(self, now_s: float) -> None:
        if self._tx is not None and now_s - self.agent.last_seen_s > SILENT_S:
            self._fail(MediaLost())

    def _later(self, delay_s: float, error: SfuError) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay_s, self._fail, error)

    def _fail(self, error: SfuError) -> None:
        if not self._closed:
            self.shared.emit(bridge.Failed(self.id, error.code, str(error)))
            self.close()

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("media_task_failed peer=%s error=%r", self.id, error, exc_info=error)
            self._fail(SfuError())

    def close(self) -> None:
        """Everything of this peer ends; its room forgets it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        del self.room.peers[self.id]
        self.room.speakers.leave(self.id)
        self.room.check_codecs()
        for slot in self._slots:
            if slot.track is not None:
                slot.track.remove_leg(self)
        for track in self.published.values():
            track.close()
        self.published.clear()
        self.tell_others()
        self._inbound.context = self._tx = None
        if self._deadline is not None:
            self._deadline.cancel()
        for task in self._tasks:
            task.cancel()
        if self._dtls is not None:
            self._dtls.remove_all_listeners()
            goodbye = asyncio.get_running_loop().create_task(self._dtls.stop())
            goodbye.add_done_callback(lambda _: self.agent.close())
        else:
            self.agent.close()
        self.shared.udp.unregister(self.agent)

    # --- media in ----------------------------------------------------------------------------------------------------

    def _on_rtcp(self, data: bytes) -> None:
        """Raises ValueError where the compound is cut; what came before it counted."""
        for packet in rtp.rtcp_packets(data):
            for block in rtp.report_blocks(packet):
                self.viewer.reported(block, time.monotonic())
            if packet.type == rtp.RTCP_SR and len(packet.body) >= 4:
                track = self.publisher.by_ssrc.get(int.from_bytes(packet.body[:4], "big"))
                if track is not None:
                    track.sender_report(packet)
            elif packet.type == rtp.RTCP_RTPFB and packet.format == rtp.RTPFB_NACK:
                self.shared.counters["nack_received"] += 1
                taken = self.viewer.taken.get(rtp.feedback_media_ssrc(packet))
                if taken is not None:
                    taken.resend(self.id, rtp.nacked(packet), time.monotonic())
            elif (bps := rtp.remb(packet)) is not None:
                self.viewer.estimated(bps, time.monotonic())
            elif packet.type == rtp.RTCP_PSFB and packet.format in (rtp.PSFB_PLI, rtp.PSFB_FIR):
                self.shared.counters["pli_received"] += 1
                asked = rtp.fir_ssrcs(packet) if packet.format == rtp.PSFB_FIR else [rtp.feedback_media_ssrc(packet)]
                for ssrc in asked:
                    if (taken := self.viewer.taken.get(ssrc)) is not None and not taken.paused(self.id):
                        taken.request_keyframe(self.id)

    # --- media out ---------------------------------------------------------------------------------------------------

    def downlink(self) -> tuple[Context, Path] | None:
        """How to encrypt and where to send what goes to this peer, while its media flows."""
        if self._tx is None or self.agent.selected is None:
            return None
        return self._tx, self.agent.selected

    def send_again(self, data: bytes | bytearray) -> None:
        """One packet that was sent before, once more."""
        self.again_bytes += len(data)
        self.send_rtp(data)

    def send_rtp(self, data: bytes | bytearray) -> None:
        """Encrypts and sends one packet; before DTLS is up and after the end it does nothing."""
        if self._tx is None or self.agent.selected is None:
            return
        out, path = self.shared.out, self.agent.selected
        out.load(memoryview(data), len(data))
        if self._tx.protect(out):
            self.shared.counters["packets_out"] += 1
            path.endpoint.send(out.view[: out.n], path.address)
        else:
            self.shared.counters["protect_failed"] += 1

    def send_rtcp(self, data: bytes) -> None:
        if self._tx is None or self.agent.selected is None:
            return
        out, path = self.shared.out, self.agent.selected
        out.load(data, len(data))
        if self._tx.protect_rtcp(out):
            path.endpoint.send(out.view[: out.n], path.address)
        else:
            self.shared.counters["protect_failed"] += 1

    def measure(self, now_s: float) -> None:
        """Brings `quality` up to date, from what its own tracks and its legs of others' counted."""
        legs = [leg for track in self.viewer.taken.values() if (leg := track.legs.get(self.id)) is not None]
        tracks = [track for publication in self.published.values() for track in publication.received]
        up, down = [track.counted() for track in tracks], [leg.counted() for leg in legs]
        self.quality.update(up, down, now_s, self.viewer.limit_bps)

    def tell_quality(self, uploads: list[Trouble], now_s: float) -> None:
        """`uploads` is what is wrong with those of the room."""
        if self._closed:
            return
        quality = self.quality
        quality.blame(self.id, uploads, now_s)
        up, down, cause = quality.described(quality.up), quality.described(quality.down), quality.telling.cause
        told = None if cause is None else cause.described()
        self.shared.emit(
            bridge.Quality(self.id, quality.score, up, down, told, quality.up.n_bytes, quality.down.n_bytes)
        )

    @property
    def numbers_packets(self) -> bool:
        """Whether this publisher wants transport-wide feedback."""
        return bool(self._inbound.feedback_ssrc)

    def send_feedback(self) -> None:
        """Transport-wide feedback for what arrived since the last call, if anything did."""
        inbound = self._inbound
        if inbound.feedback.pending:
            self.send_rtcp(rtp.transport_feedback(inbound.feedback.report(), inbound.feedback_ssrc))
