"""One admitted peer: a nursery with a reader, a writer, the media's events and a keepalive, and an end that is clean.

What a peer does wrong costs it an `error` event or its own connection, never anybody else's. Others' tasks only ever
call `send`, `post` and `end`, which neither wait nor raise.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from sfu import bridge, errors, messages
from sfu.admission import Entry
from sfu.chat import now_ms
from sfu.edge import PacedStream
from sfu.errors import SfuError, all_codes
from sfu.lobby import Door
from sfu.refusals import TokenExpired
from sfu.rooms import Peer
from sfu.store import records

if TYPE_CHECKING:
    from sfu.signaling import Signaling

log = logging.getLogger("sfu.session")

OUTBOX = 256
"""Messages waiting for a client; past it the client is a slow consumer."""
INBOX = 256
"""Events of the media worker waiting for a peer's task; past it the peer is a slow consumer."""
MAX_PARTS = 4096
"""Parts of one unfinished message: trio-websocket bounds their size but not their number, and they may be empty."""
MAX_BAD_MESSAGES = 20
"""Frames that are no message of the protocol; after these the client is no client of it."""
NOTICE_S = 60.0
"""How long before its token expires a client hears of it."""
CLOSE_S = 2.0
"""For the last messages to be written, and again for the client to answer the close frame."""
REJOIN_CLOSE_CODES = frozenset({1001, 1011, 1012, 1013, 4408})
"""Ends that are not the client's doing, or that a second try may not meet again."""

_CODES = all_codes()


class Session:
    """One admitted peer. `end` says why it is over, once; `run` sees to it that it is. `record` is the store's, `entry`
    how it came in."""

    def __init__(self, hub: Signaling, peer: Peer, stream: PacedStream, entry: Entry, record: records.Session) -> None:
        self.peer, self.entry, self.record, self._may = peer, entry, record, entry.permissions
        self._seconds_left = hub.admission.seconds_left(entry)
        self._ended = False
        self._error: SfuError | None = None  # why it ended; None if it left by itself
        self._hub, self._config, self._stream = hub, hub.config, stream
        self._scope = trio.CancelScope()
        self._outbox, self._texts = trio.open_memory_channel[str](OUTBOX)
        self._inbox, self._events = trio.open_memory_channel[bridge.Event](INBOX)
        self._cut = False  # the stream may hold half a frame: nothing can follow it
        self._bucket = _Bucket(hub.config.messages_per_s, hub.config.messages_burst)
        self._bad_messages = self._candidates = 0
        both: dict[str, messages.Kind] = {messages.MICROPHONE: "audio", messages.CAMERA: "video"}
        self._sources = both if self._may.publish else {}

    @property
    def code(self) -> str:
        return "left" if self._error is None else self._error.code

    def end(self, error: SfuError | None) -> None:
        """Ends this peer, from whichever task; None if it left by itself. The first reason wins."""
        if not self._ended:
            self._ended, self._error = True, error
            self._scope.cancel()

    def tell(self, message: messages.ServerMessage) -> None:
        """Queues one message, if the client knows its kind."""
        if self.peer.takes(message):
            self.send(messages.encode(message, full=self.peer.full))

    def send(self, text: str) -> None:
        """Queues one frame; too many waiting end the peer."""
        try:
            self._outbox.send_nowait(text)
        except trio.WouldBlock:
            self.end(errors.SlowConsumer())
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            pass  # it has had its bye

    def post(self, event: bridge.Event) -> None:
        """Queues an event of the media worker for this peer's task; too many waiting end the peer."""
        try:
            self._inbox.send_nowait(event)
        except trio.WouldBlock:
            self.end(errors.SlowConsumer())

    def mute(self, source: str, muted: bool) -> None:
        """What a muted source still sends is forwarded to nobody. Raises BadSource."""
        self._check_source(source)
        self._command(bridge.Mute(self.peer.id, source, muted))
        self._hub.deliver(self._hub.rooms.mute(self.peer, source, muted))

    async def run(self, door: Door) -> None:
        """Answers the handshake and stays until the peer has ended, left its room and been told."""
        peer = self.peer
        try:
            with trio.fail_after(self._config.join_s):
                ws = await door.accept()
            join = bridge.Join(peer.id, peer.room.key, peer.full, self._may.publish, self._may.subscribe)
            self._hub.workers.send(peer.room.worker, join)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, ws)
                await self._converse(ws)
                self._hub.forget(self)
                self.tell(bye(self._error))
                self._outbox.close()
                nursery.cancel_scope.deadline = trio.current_time() + CLOSE_S
            if not self._cut:
                with trio.move_on_after(CLOSE_S):
                    await ws.aclose(1000 if self._error is None else self._error.close_code, str(self._error or ""))
        except* (ConnectionClosed, trio.TooSlowError):
            self.end(None)  # the handshake could not be answered
        except* Exception:
            log.exception("peer_failed room=%r peer=%s", self.peer.room.key, self.peer.id)
            self.end(SfuError())
        finally:
            self.end(SfuError())  # only one that was cancelled comes here without an end
            self._hub.forget(self)

    async def _converse(self, ws: WebSocketConnection) -> None:
        """Reads, follows and keeps alive until `end`. A fault of ours ends this peer only."""
        try:
            self._scope.deadline = trio.current_time() + self._config.join_s  # until the first offer
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for task in (self._read, self._follow_media, self._keep_alive):
                        nursery.start_soon(task, ws)
                    if self._seconds_left is not None:
                        nursery.start_soon(self._expire, self._seconds_left)
            self.end(errors.MediaUnavailable())  # unless it has ended for another reason
        except* ConnectionClosed:
            too_large = ws.closed is not None and ws.closed.code == errors.MessageTooLarge.close_code
            self.end(errors.MessageTooLarge() if too_large else None)
        except* Exception:
            log.exception("peer_failed room=%r peer=%s", self.peer.room.key, self.peer.id)
            self.end(SfuError())

    # --- the four tasks -----------------------------------------------------------------------------------------------

    async def _read(self, ws: WebSocketConnection) -> None:
        """Waits for nothing but the next frame, so that pongs are never stuck behind it."""
        while True:
            frame = await ws.get_message()
            if self._config.limits and not self._bucket.take(trio.current_time()):
                return self.end(errors.RateLimited())
            try:
                self._receive(frame)
            except SfuError as error:
                self._refuse(error)

    async def _write(self, ws: WebSocketConnection) -> None:
        """Outlives the others to bring what they queued last. A send that is cancelled leaves half a frame."""
        try:
            async for text in self._texts:
                self._cut = True
                with trio.fail_after(self._config.send_s):
                    await ws.send_message(text)
                self._cut = False
        except ConnectionClosed:
            self.end(None)
        except trio.TooSlowError:
            self.end(errors.SlowConsumer())

    async def _follow_media(self, ws: WebSocketConnection) -> None:
        async for event in self._events:
            self._on_event(event, ws)

    async def _keep_alive(self, ws: WebSocketConnection) -> None:
        while True:
            await trio.sleep(self._config.ping_s)
            with trio.move_on_after(self._config.pong_s) as scope:
                await ws.ping()
            if scope.cancelled_caught:
                return self.end(errors.Unresponsive())
            if len(ws._message_parts) > MAX_PARTS:  # private, as below
                return self.end(errors.MessageTooLarge("The message came in too many parts."))

    async def _expire(self, seconds_left: float) -> None:
        await trio.sleep(seconds_left - min(seconds_left, NOTICE_S))
        self.tell(messages.Expiring(math.ceil(min(seconds_left, NOTICE_S))))
        await trio.sleep(min(seconds_left, NOTICE_S))
        self.end(TokenExpired())

    # --- from the client ----------------------------------------------------------------------------------------------

    def _receive(self, frame: str | bytes) -> None:
        """Carries out one frame. Raises the SfuError that is the client's fault."""
        if isinstance(frame, bytes):
            raise errors.BadMessage("Messages are text frames.")
        message: messages.ClientMessage | SfuError
        try:
            message = messages.decode(frame)
        except SfuError as error:
            message = error
        if len(frame.encode()) > self._config.message_bytes and not isinstance(message, messages.Answer):
            self.end(errors.MessageTooLarge())
        elif isinstance(message, SfuError):
            raise message
        else:
            self._handle(message)

    def _refuse(self, error: SfuError) -> None:
        self._hub.counters.add("sfu_errors_total", code=error.code)
        self.tell(messages.Error(error.code, str(error)))
        self._bad_messages += error.close_code == errors.BadMessage.close_code
        if self._bad_messages > MAX_BAD_MESSAGES:
            self.end(error)

    def _handle(self, message: messages.ClientMessage) -> None:
        peer, hub = self.peer, self._hub
        match message:
            case messages.Answer(_, sdp):
                self._command(bridge.Answer(peer.id, sdp))
            case messages.Candidate():
                self._count_candidate()
            case messages.Publish(source, kind):
                self._publish(source, kind)
            case messages.Unpublish(source):
                self._check_source(source)
                if source not in (messages.MICROPHONE, messages.CAMERA):  # those keep their places in the offer
                    del self._sources[source]
                peer.muted.discard(source)
                self._command(bridge.Unpublish(peer.id, source))
            case messages.Mute(source, muted):
                self.mute(source, muted)
            case messages.Chat(text):
                if not self._may.chat:
                    raise errors.NotAllowed("Your token does not let you write in the chat.")
                hub.deliver(hub.chat.say(self.entry, peer, text))
            case messages.Hand(raised):
                hub.deliver(hub.rooms.hand(peer, now_ms() if raised else 0))
            case messages.Reaction(reaction):
                hub.deliver(hub.rooms.react(peer, reaction))
            case messages.Moderate() | messages.ChangeRoom() | messages.EndCall():
                hub.moderation.carry_out(self, message)
            case messages.Leave():
                self.end(None)

    def _count_candidate(self) -> None:
        """Counts and drops it: the server is ICE-lite (RFC 8445, 2.5) and learns a peer's address from the peer's own
        authenticated checks. Probing addresses that peers name would make it knock on other people's doors."""
        self._candidates += 1
        if self._candidates == self._config.max_candidates + 1:
            raise errors.TooManyCandidates(f"A peer may send {self._config.max_candidates} candidates.")

    def _publish(self, source: str, kind: messages.Kind) -> None:
        """A source already known is another try at it, such as a camera plugged in later."""
        if not self._may.publish:
            raise errors.NotAllowed("Your token does not let you send sound or pictures.")
        if self._sources.get(source, kind) != kind:
            raise errors.BadSource(f"The source {source!r} is {self._sources[source]}.")
        if self._config.limits and source not in self._sources and len(self._sources) >= self._config.max_tracks:
            raise errors.TooManyTracks(f"A peer may publish {self._config.max_tracks} tracks.")
        self._sources[source] = kind
        self._command(bridge.Publish(self.peer.id, source, kind))

    def _check_source(self, source: str) -> None:
        if source not in self._sources:
            raise errors.BadSource

    def _command(self, command: bridge.Command) -> None:
        self._hub.workers.send(self.peer.room.worker, command)

    # --- from the media worker ----------------------------------------------------------------------------------------

    def _on_event(self, event: bridge.Event, ws: WebSocketConnection) -> None:
        peer, hub = self.peer, self._hub
        match event:
            case bridge.Offer(_, sdp, send, receive):
                self._scope.deadline = math.inf
                self._admit_answer(ws, sdp)
                remotes = {mid: messages.Remote(*remote) for mid, remote in receive.items()}
                self.tell(messages.Offer("offer", sdp, send, remotes))
            case bridge.Candidate(_, candidate, mid):
                self.tell(messages.Candidate(candidate, mid))
            case bridge.Track(_, source, kind):
                hub.deliver(hub.rooms.track(peer, source, kind))
            case bridge.TrackEnded(_, source):
                hub.deliver(hub.rooms.track_ended(peer, source))
            case bridge.Paused(_, publisher, source, reason):
                self.tell(messages.Paused(publisher, source, reason or None))
            case bridge.Refused(_, code, message):
                self._refuse(_CODES.get(code, SfuError)(message))
            case bridge.Failed(_, code, message):
                self.end(_CODES.get(code, SfuError)(message))
            case bridge.Connected(_, address):
                log.info("connected room=%r peer=%s address=%s", peer.room.key, peer.id, address)

    def _admit_answer(self, ws: WebSocketConnection, offer: str) -> None:
        """Lets a frame as large as the answer to `offer` may be through the reading pace and the limit on messages.

        The limit is a private attribute of trio-websocket, read anew for each frame; a test holds it to that.
        """
        answer_bytes = offer.count("\nm=") * self._config.section_bytes
        ws._max_message_size = max(self._config.message_bytes, answer_bytes)
        self._stream.credit(answer_bytes)


class _Bucket:
    """`rate` a second on average, `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at_s = burst, trio.current_time()

    def take(self, now_s: float) -> bool:
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._rate) - 1
        self._at_s = now_s
        return self._left >= 0


def bye(error: SfuError | None) -> messages.Bye:
    """The last event for a client that ends with `error`, or by itself."""
    if error is None:
        return messages.Bye("left", "You left the room.", rejoin=False)
    return messages.Bye(error.code, str(error), rejoin=error.close_code in REJOIN_CLOSE_CODES)
