"""One peer: its transport, and its RTP and RTCP in and out. negotiation.py, publisher.py and subscriber.py decide what
goes to whom.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from sfu import bridge
from sfu.errors import DtlsFailed, IceTimeout, MediaLost, SfuError
from sfu.media.bandwidth.lastn import Video
from sfu.media.peer import sdp
from sfu.media.peer.negotiation import Negotiation
from sfu.media.peer.publication import Publication
from sfu.media.peer.publisher import Publisher
from sfu.media.peer.quality import Quality, Trouble
from sfu.media.peer.room import Room
from sfu.media.peer.rtcp_reader import RtcpReader
from sfu.media.peer.shared import Shared
from sfu.media.peer.subscriber import Subscriber
from sfu.media.rtp import codecs, rtcp
from sfu.media.streams.ingress import RtpDemuxer
from sfu.media.transport.deadline import within
from sfu.media.transport.dtls import Dtls
from sfu.media.transport.ice import Agent
from sfu.media.transport.sockets import CandidatePair
from sfu.media.transport.transport import Transport

log = logging.getLogger("sfu.media")

LOST_S = 7.0
"""After this long without a packet the others in the room are told. Firefox checks consent every 4 to 6 seconds
(RFC 7675 section 5.1), and sends nothing else if it has nothing to send."""
SILENT_S = 30.0
"""Without a check or authentic media for this long the peer is gone (RFC 7675 section 5.1 uses the same time)."""

UNREACHED_S = 5.0
"""How long after its answer a peer may be without a media path before the control plane is told. Finding a path takes
less than a second where there is one, so this leaves time to read about it before the timeouts end the peer."""


class Peer(Transport):
    """Created by Join, started by `enter`, ended by `close` (Leave, a failure, or the worker's end). `close` ends, in
    this order: its place in the room, negotiation, its down tracks, its publications, media, DTLS, ICE, its ufrags."""

    def __init__(self, join: bridge.Join, room: Room[Peer], shared: Shared) -> None:
        agent = Agent(self._on_path, lambda *times: self.subscriber.round_trip(*times), shared.udp.mark)
        super().__init__(join.peer, agent, shared.out, shared.counters)
        self.full = join.full
        self.may_publish, self.may_subscribe = join.publish, join.subscribe
        self.room, self.shared = room, shared
        self.publisher = Publisher(self, room, shared, self)
        self.subscriber = Subscriber(self, room, shared, full=self.full)
        self.negotiation = Negotiation(self, self, room)
        rtcp = RtcpReader(self.id, self.publisher, self.subscriber, shared.counters)
        self.demuxer = RtpDemuxer(self.publisher.by_ssrc, rtcp.read, self.publisher.latch, self.publisher.rtx)
        self.quality = Quality()
        self._dtls: Dtls | None = None
        self._closed = False
        self._unreached: asyncio.TimerHandle | None = None
        self._lost = False
        self._tasks: set[asyncio.Task[None]] = set()

    def enter(self) -> None:
        """Called once: makes the peer reachable, adds it to its room, and has its first offer sent."""
        self.shared.udp.register(self.agent, self.demuxer)
        self.room.peers[self.id] = self
        self.room.arrange()
        self.negotiation.changed()

    @property
    def published(self) -> dict[str, Publication]:
        """By source."""
        return self.publisher.published

    def hold(self, held: bool) -> None:
        """Its client cannot be told anything, or can again: then whatever may not have reached it is repeated."""
        self.negotiation.hold(held)
        if not held:
            self.subscriber.tell_again()
            self.publisher.tell_again()

    def permit(self, publish: bool, subscribe: bool) -> None:
        """What it may do from now on. What it sends or gets without permission ends now, not with its next answer."""
        if self.may_publish != publish:
            self.may_publish = publish
            self.negotiation.permit_publishing(publish)
        if self.may_subscribe != subscribe:
            self.may_subscribe = subscribe
            if not subscribe:
                for publication in self.negotiation.subscribed:
                    publication.remove_down_track(self)
                self.subscriber.take([], flows=self.outgoing is not None)
            self.negotiation.changed()

    def tell_others(self) -> None:
        """Its publications have changed: the other peers get offers."""
        self.room.arrange()
        for peer in self.room.peers.values():
            if peer is not self and peer.may_subscribe:
                peer.negotiation.changed()

    def renegotiate(self) -> None:
        """Its own next offer must show a change."""
        self.negotiation.changed()

    # --- for its room ------------------------------------------------------------------------------------------------

    @property
    def shows(self) -> frozenset[int]:
        """Video payload types that it can show. A peer without a media path yet restricts nobody."""
        return codecs.VIDEO_TYPES if self.outgoing is None else self.negotiation.shows

    def check_codecs(self, types: frozenset[int]) -> None:
        self.negotiation.check_codecs(types)

    def leave_out(self, videos: frozenset[Video]) -> None:
        self.subscriber.leave_out(videos)

    # --- transport ---------------------------------------------------------------------------------------------------

    def connect(self, answer: sdp.AnswerSdp) -> None:
        """The first answer has come: starts ICE and DTLS."""
        self._unreached = asyncio.get_running_loop().call_later(UNREACHED_S, self._tell_unreached)
        self._start(self._connect(answer))

    def _tell_unreached(self) -> None:
        """Tells the control plane, once, that there is no media path yet."""
        if self._unreached is not None:
            self._forget_unreached()
            shared = self.shared
            heard = self.agent.last_seen_s > 0
            shared.emit(bridge.Unreached(self.id, heard, shared.advertised, shared.udp.port))

    def attach(self) -> None:
        """An answer was applied, or DTLS is up: media flows to this peer after the later of the two."""
        self.subscriber.take(self.negotiation.accepted, flows=self.outgoing is not None)

    async def _connect(self, answer: sdp.AnswerSdp) -> None:
        """Waits for ICE, then does DTLS, each with its deadline; then media flows. A failure ends the peer."""
        config = self.shared.config
        try:
            async with within(config.ice_s):
                await self.agent.connected.wait()
        except TimeoutError:
            self._tell_unreached()
            self.fail(IceTimeout())
            return
        self._dtls = dtls = Dtls(self.agent, self.shared.certificate, client=answer.setup != "active")
        if not await dtls.handshake(answer.fingerprints, config.dtls_s) or self._closed:
            self.fail(DtlsFailed())
            return
        self._forget_unreached()
        dtls.on("statechange", self._dtls_changed)
        self.demuxer.open(dtls.incoming)
        self.outgoing = dtls.outgoing
        self.room.check_codecs()  # the codecs that it can show count from now on
        assert self.agent.selected is not None
        address = str(self.agent.selected.address[0])
        self.shared.emit(bridge.Connected(self.id, address, self.agent.transport))
        self.attach()

    def _forget_unreached(self) -> None:
        if self._unreached is not None:
            self._unreached.cancel()
            self._unreached = None

    def _dtls_changed(self) -> None:
        if self._dtls is not None and self._dtls.ended:
            self.fail(MediaLost("The client closed its media connection."))

    def _on_path(self, path: CandidatePair) -> None:
        self.shared.counters["paths_selected"] += 1
        # packets may have been lost on the old path, both ways, and so may other peers' keyframe requests
        for publication in self.negotiation.subscribed:
            publication.down_tracks_changed()
            publication.request_keyframe(self.id)
        for publication in self.published.values():
            for stream in publication.received:
                stream.request_keyframe()

    def check_liveness(self, now_s: float) -> None:
        """Ends a peer that has been silent for long; before that, tells that its connection is lost, or is back."""
        silent_s = now_s - self.agent.last_seen_s
        if self.outgoing is None:
            return
        if silent_s > SILENT_S:
            self.fail(MediaLost())
        elif (lost := silent_s > LOST_S) != self._lost:
            self._lost = lost
            self.shared.emit(bridge.Lost(self.id, lost))

    def slept(self, pause_s: float) -> None:
        """This process was stopped for `pause_s`, which does not count as silence of the peer."""
        self.agent.last_seen_s = min(self.agent.last_seen_s + pause_s, time.monotonic())

    def fail(self, error: SfuError) -> None:
        """Ends the peer and tells the control plane why."""
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
            self.fail(SfuError())

    def close(self) -> None:
        """Ends everything of this peer; its room forgets it. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._forget_unreached()
        del self.room.peers[self.id]
        self.room.speakers.leave(self.id)
        self.room.check_codecs()
        self.negotiation.close()
        for publication in self.negotiation.subscribed:
            publication.remove_down_track(self)
        flowed = self.publisher.flows
        for publication in self.published.values():
            publication.close()
        self.published.clear()
        if flowed:
            self.tell_others()
        self.demuxer.close()
        self.outgoing = None
        for task in self._tasks:
            task.cancel()
        if self._dtls is not None:
            self._dtls.remove_all_listeners()
            goodbye = asyncio.get_running_loop().create_task(self._dtls.stop())
            goodbye.add_done_callback(lambda _: self.agent.close())
        else:
            self.agent.close()
        self.shared.udp.unregister(self.agent)

    # --- quality and feedback ----------------------------------------------------------------------------------------

    def measure(self, now_s: float) -> None:
        """Updates `quality` from the counters of its own streams and of its down tracks."""
        down_tracks = [
            down_track
            for publication in self.subscriber.subscriptions.values()
            if (down_track := publication.down_tracks.get(self.id)) is not None
        ]
        streams = [stream for publication in self.published.values() for stream in publication.received]
        up, down = [stream.counted() for stream in streams], [down_track.counted() for down_track in down_tracks]
        self.quality.update(up, down, now_s, self.subscriber.limit_bps)

    def tell_quality(self, uploads: list[Trouble], now_s: float) -> None:
        """`uploads` are the troubles of all uplinks in the room."""
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
        """Whether this publisher numbers its packets, and so wants transport-wide feedback."""
        return bool(self.demuxer.feedback_ssrc)

    def send_feedback(self) -> None:
        """Transport-wide feedback for what arrived since the last call, if anything did."""
        demuxer = self.demuxer
        if demuxer.feedback_ssrc and (fci := demuxer.feedback.report()):  # 0: it numbers no packets
            self.send_rtcp(rtcp.transport_feedback(fci, demuxer.feedback_ssrc))
