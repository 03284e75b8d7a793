"""One admitted peer: handles its messages, queues what it receives, ends cleanly.

A session outlives its WebSocket (calls/websocket.py): when the connection breaks, the peer stays in its room for
`hold_s`, its media flows, and a client that knows the session's secret may resume on another WebSocket. An error of a
peer costs it an `error` event or its own connection, never anybody else's. Tasks of other sessions call only `send`,
`post` and `end`, which neither wait nor raise.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TypeVar

import trio

from sfu import bridge, errors
from sfu.calls.admission import Entry
from sfu.calls.chat import now_ms
from sfu.calls.moderation import Moderation
from sfu.calls.registry import Calls
from sfu.calls.rooms import Peer
from sfu.calls.summary import observe
from sfu.calls.websocket import Link
from sfu.errors import SfuError, all_codes
from sfu.protocol.client_messages import (
    Answer,
    ChangeRoom,
    Chat,
    ClientMessage,
    EndCall,
    Hand,
    Leave,
    Moderate,
    Mute,
    Publish,
    Reaction,
    RestartIce,
    Unpublish,
    View,
    decode,
)
from sfu.protocol.server_messages import Bye, Error, Layers, Offer, Paused, Remote, ServerMessage, encode
from sfu.protocol.shared import CAMERA, MICROPHONE, Candidate, Kind
from sfu.store import records
from sfu.web.streams import PacedStream

log = logging.getLogger("sfu.session")

MAX_BAD_MESSAGES = 20
"""Frames that are no message of the protocol; after these the client is no client of it."""
REJOIN_CLOSE_CODES = frozenset({1001, 1011, 1012, 1013, 4408})
"""Ends that are not the client's doing, or that a second try may not meet again."""

_CODES = all_codes()
_T = TypeVar("_T")


class Session:
    """One admitted peer. `end` says why it is over, once; `run` sees to it that it is. `record` is the store's, `entry`
    how it came in."""

    def __init__(self, hub: Calls, moderation: Moderation, peer: Peer, entry: Entry, record: records.Session) -> None:
        self.peer, self.entry, self.record, self._may = peer, entry, record, entry.permissions
        self.resumes = 0
        self._hub, self._config, self._moderation = hub, hub.config, moderation
        self._link: Link | None = None  # None while it is held
        self._ended = False
        self._error: SfuError | None = None  # why it ended; None if it left by itself
        self._scope = trio.CancelScope()
        self._overdue: SfuError = errors.MediaUnavailable()  # what it means when the scope's deadline has come
        self._offered = False
        self._bucket = _Bucket(hub.config.messages_per_s, hub.config.messages_burst)
        self._bad_messages = self._candidates = 0
        both: dict[str, Kind] = {MICROPHONE: "audio", CAMERA: "video"}
        self._sources = both if self._may.publish else {}

    @property
    def code(self) -> str:
        return "left" if self._error is None else self._error.code

    def end(self, error: SfuError | None) -> None:
        """Ends this peer, from whichever task; None if it left by itself. The first reason wins."""
        if not self._ended:
            self._ended, self._error = True, error
            self._scope.cancel()

    def tell(self, message: ServerMessage) -> None:
        """Queues one message, if the client knows its kind."""
        if self.peer.takes(message):
            self.send(encode(message, full=self.peer.full))

    def send(self, text: str) -> None:
        """Queues one frame. While the peer is held it is dropped: a resumed link begins with the whole state."""
        if self._link is not None:
            self._link.send(text)

    def post(self, event: bridge.Event) -> None:
        """Acts on an event of the media worker."""
        if not self._ended:
            self._guard(self._on_event, event)

    def mute(self, source: str, muted: bool) -> None:
        """What a muted source still sends is forwarded to nobody. Raises BadSource."""
        self._check_source(source)
        self._command(bridge.Mute(self.peer.id, source, muted))
        self._hub.deliver(self._hub.rooms.mute(self.peer, source, muted))

    async def run(self) -> None:
        """Stays until the peer has ended, then sees to it that it has left its room and is told."""
        try:
            with self._scope:
                await trio.sleep_forever()
            self.end(self._overdue)  # unless it has ended for another reason
        finally:
            self.end(SfuError())  # only one that was cancelled comes here without an end
            self._hub.forget(self)
            self.tell(bye(self._error))
            if self._link is not None:
                self._link.end(self._error)

    # --- its link -----------------------------------------------------------------------------------------------------

    def connect(self, stream: PacedStream) -> Link:
        """The link on `stream` is this peer's from now on; one that it had before is closed."""
        before, self._link = self._link, Link(self._config, stream, self)
        if before is not None:
            before.send(encode(bye(errors.Replaced())))
            before.end(errors.Replaced())
        return self._link

    def resume(self, stream: PacedStream) -> Link:
        """The same, for a client that proved to know the secret. Raises RateLimited; then nothing has changed."""
        if not self._pays():
            raise errors.RateLimited
        link = self.connect(stream)
        self._scope.deadline = math.inf
        self.resumes += 1
        self._hub.deliver(self._hub.rooms.welcome(self.peer, now_ms(), resumed=True))
        self._hub.tell_lobby(self)
        return link

    def opened(self) -> None:
        peer = self.peer
        if self.resumes:
            self._command(bridge.Hold(peer.id, False))
        else:
            self._scope.deadline = trio.current_time() + self._config.join_s  # until the first offer
            self._command(bridge.Join(peer.id, peer.room.key, peer.full, self._may.publish, self._may.subscribe))

    def broken(self) -> None:
        """The peer is held, if it has something to come back to and the means to."""
        link, self._link = self._link, None
        if link is not None:
            link.end(errors.Unresponsive())
        if not (self._offered and self.peer.full):
            self.end(None)
        elif not self._ended:
            self._scope.deadline, self._overdue = trio.current_time() + self._config.hold_s, errors.Unresponsive()
            self._command(bridge.Hold(self.peer.id, True))
            log.info("held room=%r peer=%s", self.peer.room.key, self.peer.id)

    def receive(self, frame: str | bytes) -> None:
        if self._ended:
            return
        if self._pays():
            self._guard(self._receive, frame)
        else:
            self.end(errors.RateLimited())

    def _guard(self, act: Callable[[_T], None], what: _T) -> None:
        """A fault of ours ends this peer only."""
        try:
            act(what)
        except Exception:
            log.exception("peer_failed room=%r peer=%s", self.peer.room.key, self.peer.id)
            self.end(SfuError())

    def _pays(self) -> bool:
        """For one frame, or for one more link."""
        return not self._config.limits or self._bucket.take(trio.current_time())

    # --- from the client ----------------------------------------------------------------------------------------------

    def _receive(self, frame: str | bytes) -> None:
        try:
            self._carry_out(frame)
        except SfuError as error:
            self._refuse(error)

    def _carry_out(self, frame: str | bytes) -> None:
        """Raises the SfuError that is the client's fault."""
        if isinstance(frame, bytes):
            raise errors.BadMessage("Messages are text frames.")
        message: ClientMessage | SfuError
        try:
            message = decode(frame)
        except SfuError as error:
            message = error
        if len(frame.encode()) > self._config.message_bytes and not isinstance(message, Answer):
            self.end(errors.MessageTooLarge())
        elif isinstance(message, SfuError):
            raise message
        else:
            self._handle(message)

    def _refuse(self, error: SfuError) -> None:
        self._hub.counters.add("sfu_errors_total", code=error.code)
        self.tell(Error(error.code, str(error)))
        self._bad_messages += error.close_code == errors.BadMessage.close_code
        if self._bad_messages > MAX_BAD_MESSAGES:
            self.end(error)

    def _handle(self, message: ClientMessage) -> None:
        peer, hub = self.peer, self._hub
        match message:
            case Answer(_, sdp):
                self._command(bridge.Answer(peer.id, sdp))
            case Candidate():
                self._count_candidate()
            case Publish(source, kind):
                self._publish(source, kind)
            case Unpublish(source):
                self._check_source(source)
                if source not in (MICROPHONE, CAMERA):  # those keep their places in the offer
                    del self._sources[source]
                peer.muted.discard(source)
                self._command(bridge.Unpublish(peer.id, source))
            case Mute(source, muted):
                self.mute(source, muted)
            case View(videos):
                shown = (bridge.Shown(video.peer, video.source, video.height) for video in videos)
                self._command(bridge.View(peer.id, tuple(shown)))
            case Chat(text):
                if not self._may.chat:
                    raise errors.NotAllowed("Your token does not let you write in the chat.")
                hub.deliver(hub.chat.say(self.entry, peer, text))
            case RestartIce():
                self._command(bridge.RestartIce(peer.id))
            case Hand(raised):
                hub.deliver(hub.rooms.hand(peer, now_ms() if raised else 0))
            case Reaction(reaction):
                hub.deliver(hub.rooms.react(peer, reaction))
            case Moderate() | ChangeRoom() | EndCall():
                self._moderation.carry_out(self, message)
            case Leave():
                self.end(None)

    def _count_candidate(self) -> None:
        """Counts and drops it: the server is ICE-lite (RFC 8445, 2.5) and learns a peer's address from the peer's own
        authenticated checks. Probing addresses that peers name would make it knock on other people's doors."""
        self._candidates += 1
        if self._candidates == self._config.max_candidates + 1:
            raise errors.TooManyCandidates(f"A peer may send {self._config.max_candidates} candidates.")

    def _publish(self, source: str, kind: Kind) -> None:
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

    def _on_event(self, event: bridge.Event) -> None:
        peer, hub = self.peer, self._hub
        match event:
            case bridge.Quality():  # first, as most events are such
                observe(event, hub.counters)
                hub.deliver(hub.rooms.measured(peer, event))
            case bridge.Offer(_, sdp, send, receive):
                if not self._offered:
                    self._offered, self._scope.deadline = True, math.inf
                if self._link is not None:
                    self._link.admit(sdp.count("\nm=") * self._config.section_bytes)
                remotes = {mid: Remote(*origin) for mid, origin in receive.items()}
                self.tell(Offer("offer", sdp, send, remotes))
            case bridge.Candidate(_, candidate, mid):
                self.tell(Candidate(candidate, mid))
            case bridge.Track(_, source, kind):
                hub.deliver(hub.rooms.track(peer, source, kind))
            case bridge.TrackEnded(_, source):
                hub.deliver(hub.rooms.track_ended(peer, source))
            case bridge.Paused(_, publisher, source, reason):
                self.tell(Paused(publisher, source, reason or None))
            case bridge.Layers(_, source, active):
                self.tell(Layers(source, active))
            case bridge.Refused(_, code, message):
                self._refuse(_CODES.get(code, SfuError)(message))
            case bridge.Failed(_, code, message):
                self.end(_CODES.get(code, SfuError)(message))
            case bridge.Connected(_, address):
                log.info("connected room=%r peer=%s address=%s", peer.room.key, peer.id, address)


class _Bucket:
    """`rate` a second on average, `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at_s = burst, trio.current_time()

    def take(self, now_s: float) -> bool:
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._rate) - 1
        self._at_s = now_s
        return self._left >= 0


def bye(error: SfuError | None) -> Bye:
    """The last event for a client that ends with `error`, or by itself."""
    if error is None:
        return Bye("left", "You left the room.", rejoin=False)
    return Bye(error.code, str(error), rejoin=error.close_code in REJOIN_CLOSE_CODES)
