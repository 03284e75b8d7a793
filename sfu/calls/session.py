"""One admitted peer: handles its messages, queues messages for it, and ends it cleanly.

A session outlives its WebSocket (calls/websocket.py): after the connection breaks, the peer stays in its room for
`hold_s`, its media continues, and a client that knows the session's secret may resume on another WebSocket. An error of
a peer results in an `error` event or ends its own session, and never affects other peers. Tasks of other sessions
use only the methods of registry.Seat.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TypeVar

import trio

from sfu import bridge, errors
from sfu.buckets import TokenBucket
from sfu.calls.admission import Entry, changes_of
from sfu.calls.chat import now_ms
from sfu.calls.drops import Drops
from sfu.calls.media import Media
from sfu.calls.moderation import Moderation
from sfu.calls.registry import Calls
from sfu.calls.rooms import Peer
from sfu.calls.summary import observe
from sfu.calls.websocket import Link
from sfu.errors import SfuError, all_codes
from sfu.logs import line, quoted, request_id
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
    Sizes,
    Spotlight,
    Unpublish,
    View,
    decode,
)
from sfu.protocol.server_messages import (
    Asked,
    Bye,
    Error,
    HandRaised,
    Layers,
    Muted,
    Offer,
    Paused,
    Remote,
    ServerMessage,
    encode,
)
from sfu.protocol.shared import Candidate
from sfu.store import records
from sfu.web.streams import PacedStream

log = logging.getLogger("sfu.session")

MAX_BAD_MESSAGES = 20
"""Most invalid messages from one peer; the next one ends the session."""
AWAY_S = 5.0
"""How long the seat of a page that went away is kept: enough for a reload, and no longer, as most pages are closed."""
UNLOAD_S = 4.0
"""Time from the end of a page's media to that of its WebSocket, if the page goes away. Busy machines take seconds."""
RACE_S = 5.0
"""Of the pages that return with one ticket within this time, such as restored copies of a tab, one gets the seat."""

_CODES = all_codes()
_T = TypeVar("_T")


class Session:
    """One admitted peer. `end` sets the reason why it ends, once; `run` then cleans up.

    `record` is its session in the store, `entry` the identity and permissions it was admitted with.
    """

    def __init__(self, hub: Calls, moderation: Moderation, peer: Peer, entry: Entry, record: records.Session) -> None:
        self.peer, self.entry, self.record = peer, entry, record
        self.drops = Drops(record.drops)
        self._hub, self._config, self._moderation = hub, hub.config, moderation
        self._link: Link | None = None  # None while the peer is held, waiting for a resume
        self._ended, self._bad_messages = False, 0
        self._error: SfuError | None = None  # why it ended; None if it left by itself
        self._scope = trio.CancelScope()
        self._overdue: SfuError = errors.MediaUnavailable()  # the reason to end if the scope's deadline expires
        self._returned_s = -math.inf if entry.continues is None else trio.current_time()
        self.had_media = False
        self.path: dict[str, str] = {}
        self.changes = changes_of(record)
        self.who = {"room": quoted(peer.room.key), "peer": peer.id, "name": quoted(peer.name), "session": record.id}
        self.who["request_id"] = request_id()
        self._media = Media(hub.workers, hub.config, peer)
        self._insisted: dict[tuple[type, str], Asked | Muted] = {}
        self._bucket = TokenBucket(hub.config.messages_per_s, hub.config.messages_burst)

    @property
    def error(self) -> SfuError | None:
        return self._error

    @property
    def connected(self) -> bool:
        return self._link is not None

    def end(self, error: SfuError | None) -> None:
        """Ends this peer; None if it left by itself. The first reason wins. May be called from any task."""
        if not self._ended:
            self._ended, self._error = True, error
            self._scope.cancel()

    def tell(self, message: ServerMessage) -> None:
        """Queues one message, if the client knows its event."""
        if self.peer.takes(message):
            self.send(encode(message, full=self.peer.full))

    def insist(self, message: Asked | Muted) -> None:
        """Tells what the client is to do with a source, and again after each resume until it says something about that
        source: the message may not have arrived."""
        self._insisted[type(message), message.source] = message
        self.tell(message)

    def _heard_of(self, source: str) -> None:
        self._insisted = {key: message for key, message in self._insisted.items() if message.source != source}

    def send(self, text: str) -> None:
        """Queues one frame. While the peer is held, frames are dropped: a resumed link begins with the whole state."""
        if self._link is not None:
            self._link.send(text)

    def post(self, event: bridge.Event) -> None:
        """Acts on an event of the media worker."""
        if isinstance(event, bridge.Gone):
            if self._media.gone():
                self._await_offer()
        elif not (self._ended or self._media.leaving):
            self._guard(self._on_event, event)

    def permit(self) -> None:
        """The peer's permissions have changed: the media follows."""
        self._media.permit()

    def mute(self, source: str, muted: bool) -> None:
        """Mutes or unmutes a source. The media worker forwards nothing of a muted one. Raises BadSource."""
        self._media.mute(source, muted)
        self._hub.deliver(self._hub.rooms.mute(self.peer, source, muted))

    async def run(self) -> None:
        """Waits until the peer ends, then removes it from its room and sends its client `bye`."""
        try:
            with self._scope:
                await trio.sleep_forever()
            self.end(self._overdue)  # has no effect if it ended for another reason
        finally:
            self.end(SfuError())  # has an effect only if this task was cancelled
            self._guard(self._hub.forget, self)
            self.tell(Bye.of(self._error))
            if self._link is not None:
                self._link.end(self._error)

    # --- its link -----------------------------------------------------------------------------------------------------

    def connect(self, stream: PacedStream) -> Link:
        """Makes `stream` the link of this peer and closes its previous link, if any."""
        before, self._link = self._link, Link(self._config, stream, self)
        if before is not None:
            before.send(encode(Bye.of(errors.Replaced())))
            before.end(errors.Replaced())
        return self._link

    def resume(self, stream: PacedStream) -> Link:
        """Like `connect`, for a client that proved to know the secret.

        Raises RateLimited, or SessionGone if its media has ended; then nothing has changed.
        """
        if not self._media.joined:
            raise errors.SessionGone
        if not self._pays():
            raise errors.RateLimited
        self._hub.arrivals.tell(self.peer.room)  # the whole state, which follows, has them
        link = self.connect(stream)
        self._scope.deadline = math.inf
        self.drops.came_back(errors.Unresponsive.code)
        self._hub.deliver(self._hub.rooms.welcome(self.peer, now_ms(), resumed=True))
        self._hub.tell_drain(self)
        self._hub.tell_lobby(self)
        for message in self._insisted.values():
            self.tell(message)
        return link

    @property
    def just_returned(self) -> bool:
        return trio.current_time() - self._returned_s < RACE_S

    async def responds(self) -> bool:
        link = self._link
        return link is not None and await link.responds() and self._link is link

    def restart(self, stream: PacedStream) -> Link:
        """Like `connect`, for a page that was loaded anew: it knows nothing of the call and has no media yet."""
        self._stop_media()
        self._end_in(self._config.join_s, errors.MediaUnavailable())
        self.drops.came_back(errors.PageGone.code)
        self._returned_s = trio.current_time()
        self._hub.arrivals.tell(self.peer.room)
        link = self.connect(stream)
        if not self.peer.permissions.publish:  # who may get no offer, and so no media path, for a long time
            self._hub.deliver(self._hub.rooms.lost(self.peer, False))
        self._hub.deliver(self._hub.rooms.welcome(self.peer, now_ms()))
        if self.peer.hand:
            self.tell(HandRaised(self.peer.id, self.peer.hand))
        self._hub.tell_drain(self)
        self._hub.tell_lobby(self)
        return link

    def opened(self) -> None:
        if self._media.begin():
            self._await_offer()

    def _await_offer(self) -> None:
        """Sets the deadline of the first offer. A peer that only listens is offered nothing until somebody sends."""
        seconds = self._config.join_s if self.peer.permissions.publish else math.inf
        self._end_in(seconds, errors.MediaUnavailable())

    def _end_in(self, seconds: float, error: SfuError) -> None:
        """Ends this peer with `error`, unless something prevents it within `seconds`."""
        self._scope.deadline, self._overdue = trio.current_time() + seconds, error

    @property
    def _away_s(self) -> float:
        return min(AWAY_S, self._config.hold_s)

    def _stop_media(self) -> None:
        """Ends the media. Until the worker has answered, its events are about what has just ended."""
        if self._media.end():
            self._hub.deliver(self._hub.rooms.fall_silent(self.peer))

    def away(self) -> None:
        """Keeps the seat for a moment: the page may have been reloaded. Its media has ended with it."""
        link, self._link = self._link, None
        if link is not None:
            link.end(None)
        if not self.peer.full:
            self.end(None)
        elif not self._ended:
            self._stop_media()
            self._end_in(self._away_s, errors.PageGone())
            self._say("away")

    def broken(self) -> None:
        """Holds the peer, if it had the offers it was to get and can resume; else waits for its page to be reloaded."""
        lone = self._media.joined and not self.peer.permissions.publish  # offered nothing until somebody sends
        if not (self.peer.full and (self._media.offered or lone)):
            self.away()
            return
        link, self._link = self._link, None
        if link is not None:
            link.end(errors.Unresponsive())
        if not self._ended:
            self.drops.lost(errors.Unresponsive.code)
            self._end_in(self._config.hold_s, errors.Unresponsive())
            self._media.command(bridge.Hold(self.peer.id, True))
            self._say("held")

    def receive(self, frame: str | bytes) -> None:
        if self._ended:
            return
        if self._pays():
            self._guard(self._receive, frame)
        else:
            self.end(errors.RateLimited())

    def _guard(self, act: Callable[[_T], None], what: _T) -> None:
        """Runs `act`. An unexpected exception, a bug of ours, ends this peer only."""
        try:
            act(what)
        except Exception:
            log.exception("%s", line("peer_failed", **self.who))
            self.end(SfuError())

    def _say(self, event: str, **fields: object) -> None:
        log.info("%s", line(event, **self.who, **fields))

    def _pays(self) -> bool:
        """Takes one frame, or one resume, from the rate limit; false if it is exhausted."""
        return not self._config.limits or self._bucket.take(trio.current_time())

    # --- from the client ----------------------------------------------------------------------------------------------

    def _receive(self, frame: str | bytes) -> None:
        try:
            self._carry_out(frame)
        except SfuError as error:
            self._refuse(error)

    def _carry_out(self, frame: str | bytes) -> None:
        """Decodes and handles one frame. Raises the SfuError to report to the client."""
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
                self._media.command(bridge.Answer(peer.id, sdp))
            case Candidate():
                self._media.count_candidate()
            case Publish(source, kind):
                self._media.publish(source, kind)
            case Unpublish(source):
                self._media.unpublish(source)
                peer.muted.discard(source)
                self._heard_of(source)
            case Mute(source, muted):
                self._heard_of(source)
                self.mute(source, muted)
            case View(videos):
                shown = (bridge.Shown(video.peer, video.source, video.height, video.width) for video in videos)
                self._media.command(bridge.View(peer.id, tuple(shown)))
            case Sizes(source, layers):
                sizes = (bridge.LayerSize(one.rid, one.width, one.height, one.max_bps) for one in layers)
                self._media.sizes(source, tuple(sizes))
            case Chat(text):
                if not peer.permissions.chat:
                    raise errors.NotAllowed("You may not write in the chat.")
                hub.deliver(hub.chat.say(self.entry, peer, text))
            case RestartIce():
                hub.workers.addresses.doubt()
                self._media.command(bridge.RestartIce(peer.id))
            case Hand(raised):
                hub.deliver(hub.rooms.hand(peer, now_ms() if raised else 0))
            case Reaction(reaction):
                hub.deliver(hub.rooms.react(peer, reaction))
            case Moderate() | ChangeRoom() | Spotlight() | EndCall():
                self._moderation.carry_out(self, message)
            case Leave():
                self.end(None)

    # --- from the media worker ----------------------------------------------------------------------------------------

    def _on_event(self, event: bridge.Event) -> None:
        peer, hub = self.peer, self._hub
        match event:
            case bridge.Quality():  # first, as it is the most frequent event
                observe(event, hub.counters)
                hub.deliver(hub.rooms.measured(peer, event))
            case bridge.Offer(_, sdp, send, receive):
                if not self._media.offered:
                    self._media.offered, self._scope.deadline = True, math.inf
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
                self._media_failed(_CODES.get(code, SfuError)(message))
            case bridge.Lost(_, lost):
                hub.deliver(hub.rooms.lost(peer, lost))
            case bridge.Unreached():
                hub.workers.addresses.doubt()
                self.tell(hub.reach.unreached(event, self.who, self.entry.address))
            case bridge.Connected(_, address, over):
                self.had_media, self.path = True, {"transport": over, "address": address}
                hub.reach.connected(peer.id, address, over)
                hub.deliver(hub.rooms.lost(peer, False))
                self._say("connected", **self.path)

    def _media_failed(self, error: SfuError) -> None:
        """Ends the session, unless the page just went away: a browser then closes the media before the WebSocket."""
        if not (isinstance(error, errors.MediaLost) and self.peer.full):
            self.end(error)
        else:
            self._stop_media()
            self._end_in(UNLOAD_S if self._link is not None else self._away_s, error)
