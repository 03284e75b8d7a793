"""The registry of this server's sessions, lobby and pending joins: finds sessions, delivers to them, ends them.

It is independent of WebSockets: it sees sessions through the protocol `Seat`, which calls/session.py implements.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import trio

from sfu import bridge, errors
from sfu.calls import facts
from sfu.calls.admission import Admission, Ask, Entry
from sfu.calls.arrivals import Arrivals
from sfu.calls.chat import Chat
from sfu.calls.drops import Drops
from sfu.calls.lobby import Lobby
from sfu.calls.probes import Probes
from sfu.calls.reach import Reach
from sfu.calls.rooms import Deliveries, Peer, Rooms
from sfu.calls.websocket import Link
from sfu.errors import ServerStopping, SfuError
from sfu.limits.rates import Rate, Rates, failures
from sfu.limits.refused import Refused
from sfu.logs import line
from sfu.process.lifecycle import Lifecycle
from sfu.process.metrics import Counters
from sfu.protocol.server_messages import Asked, Draining, Muted, ServerMessage, encode
from sfu.refusals import TokenSignature, TooManyJoins
from sfu.settings.config import Config
from sfu.store import records
from sfu.store.audit import Author
from sfu.web.streams import PacedStream
from sfu.workers.workers import Workers

log = logging.getLogger("sfu.calls")

JOINS = ((60, 10.0), (300, 600.0))
"""Most joins without a token from one address, each within so many seconds. An office or a school class behind one
router joins at once. Each join costs a transaction and an offer, and leaves a row in the history."""

NO_VISIT = frozenset(
    error.code for error in (errors.AnswerTimeout, errors.IceTimeout, errors.DtlsFailed, errors.MediaUnavailable)
)
"""Ends of a join that got no further. They do not use up a token for a single use."""
TROUBLES = NO_VISIT | {error.code for error in (errors.MediaLost, errors.SlowConsumer, errors.Unresponsive)}
"""Ends that nobody wanted: the log warns of them."""


class Seat(Protocol):
    """The interface of a session for other tasks. No method waits; only those that say so raise."""

    peer: Peer
    entry: Entry
    record: records.Session
    drops: Drops
    had_media: bool
    path: dict[str, str]
    """How its media comes: `transport` and `address`; empty before it does."""
    changes: dict[str, Any]
    """What was changed during its stay, as in its record: `name` and `permissions`."""
    who: dict[str, str]
    """The session in lines of the log: `room`, `peer`, `name`, `session`, and the `request_id` of its join."""

    @property
    def connected(self) -> bool:
        """Whether its client has a WebSocket now."""

    @property
    def error(self) -> SfuError | None:
        """Why it ended; None if the peer left by itself."""

    def send(self, text: str) -> None:
        """Queues one frame."""

    def tell(self, message: ServerMessage) -> None:
        """Queues one message, if the client knows its event."""

    def insist(self, message: Asked | Muted) -> None:
        """Like `tell`, and again after a resume until the client says something about the source."""

    def post(self, event: bridge.Event) -> None:
        """Acts on an event of the media worker."""

    def mute(self, source: str, muted: bool) -> None:
        """Mutes or unmutes a source. Raises BadSource."""

    def permit(self) -> None:
        """The permissions of its peer have changed."""

    def end(self, error: SfuError | None) -> None:
        """Ends the session; None if the peer left by itself. The first reason wins."""

    def resume(self, stream: PacedStream) -> Link:
        """Continues on another connection. Raises RateLimited."""

    @property
    def just_returned(self) -> bool:
        """Whether a page continued it within RACE_S."""

    async def responds(self) -> bool:
        """Whether its client is connected and answers."""

    def restart(self, stream: PacedStream) -> Link:
        """Continues with a page that was loaded anew, and new media."""


def author_of(seat: Seat) -> Author:
    """A person in a call who changes something."""
    return Author("person", seat.record.id, seat.peer.name, seat.entry.address, seat.who["request_id"])


@dataclass(slots=True, eq=False)
class Joining:
    """A pending join. `error` is set if it must fail, for example because the token is revoked during the join.

    `invited` people, who were admitted from the lobby or return to their session, pass lock and lobby.
    """

    entry: Entry
    invited: bool = False
    error: SfuError | None = None


class Calls:
    def __init__(
        self,
        config: Config,
        rooms: Rooms,
        workers: Workers,
        counters: Counters,
        admission: Admission,
        life: Lifecycle,
    ) -> None:
        self.config, self.rooms, self.workers, self.counters = config, rooms, workers, counters
        self.admission, self.life = admission, life
        self.chat = Chat(rooms, admission.store, limits=config.limits)
        self.lobby = Lobby(
            config,
            self._lobby_changed,
            lambda key: bool(rooms.moderators(key)),
            partial(facts.waiting, admission.store),
            partial(facts.waited, admission.store),
        )
        self.reach = Reach(trio.current_time, config.public_tcp_port, lambda: workers.addresses.contradiction)
        self.probes = Probes(config, workers)
        self.arrivals = Arrivals(self._send)
        self.joining: set[Joining] = set()
        self.seats: dict[str, Seat] = {}
        self.failures = failures(trio.current_time) if config.limits else None
        """Limits guesses at tokens and secrets per address; None if limits are off."""
        self.refused = Refused(trio.current_time)
        joins = JOINS if config.limits else ()
        self.joins = Rates(*(Rate(count, per_s, trio.current_time, TooManyJoins) for count, per_s in joins))
        """Limits joins without a token per address."""

    def sessions(self) -> list[Seat]:
        """All sessions, as a copy."""
        return list(self.seats.values())

    def find(self, key: str, peer_id: str) -> Seat | None:
        """The session of the peer with this id, if it is in the call `key`."""
        session = self.seats.get(peer_id)
        return session if session is not None and session.peer.room.key == key else None

    def stop_joining(self, who: Callable[[Entry], bool], error: SfuError, *, invited: bool = True) -> None:
        """Makes pending joins of these people fail with `error`; those of `invited` people only if told."""
        for joining in self.joining:
            if who(joining.entry) and (invited or not joining.invited):
                joining.error = joining.error or error

    def session_of(self, secret: str) -> Seat | None:
        """The session with this secret, compared in constant time."""
        session = self.seats.get(secret.partition(".")[0])
        if session is None or not hmac.compare_digest(session.peer.secret.encode(), secret.encode()):
            return None
        return session

    def seat_of(self, session_id: str) -> Seat | None:
        """The session with this id in the store, if it is on this server."""
        return next((session for session in self.seats.values() if session.record.id == session_id), None)

    def _send(self, peer: Peer, text: str) -> None:
        if (session := self.seats.get(peer.id)) is not None:
            session.send(text)

    def deliver(self, deliveries: Deliveries) -> None:
        """Queues messages for their peers. A message for many peers is encoded once."""
        last: ServerMessage | None = None
        text = ""
        for peer, message in deliveries:
            if message is not last:
                self.arrivals.before(getattr(message, "peer", ""))
                last, text = message, encode(message)
            if (session := self.seats.get(peer.id)) is not None:
                session.send(text)

    def forget(self, session: Seat) -> None:
        """Removes the peer from its room and worker, tells the others, and closes its session in the database."""
        peer, code = session.peer, "left" if session.error is None else session.error.code
        if self.seats.pop(peer.id, None) is None:
            return
        self.workers.send(peer.room.worker, bridge.Leave(peer.id))
        self.workers.release(peer.room.worker, peer.id)
        self.reach.left(peer.id)
        told = self.rooms.leave(peer, code)
        if not isinstance(session.error, ServerStopping):  # everybody ends then, and comes back
            self.deliver(told)
        self.lobby.look_again(peer.room.key)
        drops = session.drops.ended(session.error)
        began = session.had_media or code not in NO_VISIT
        by = session.error.by if session.error else ""
        known = session.path | ({"ended_by": by} if by else {}) | session.changes
        self.admission.store.sessions.close(
            session.record, code, known or None, peer.summary.record(), drops, began=began
        )
        self.counters.add("sfu_ends_total", code=code)
        level = logging.WARNING if code in TROUBLES else logging.INFO
        trouble = asdict(drops) if drops.drops else {}
        log.log(level, "%s", line("left", **session.who, reason=code, **trouble))

    @property
    def idle(self) -> bool:
        """Whether nobody is in a call or joins one."""
        return not self.seats and not self.joining

    def tell_drain(self, session: Seat) -> None:
        """Tells a participant who came, or came back, when the server stops, if it does."""
        if self.life.draining:
            session.tell(Draining(self.life.seconds_left))

    def tell_lobby(self, session: Seat) -> None:
        """After a moderator joined or resumed: shows them the lobby, and the lobby that a moderator is present."""
        lobby = self.lobby.waiting(session.entry.key)
        if session.peer.moderator and lobby.waiting:
            session.tell(lobby)
            self.lobby.look_again(session.entry.key)

    def _lobby_changed(self, key: str) -> None:
        lobby = self.lobby.waiting(key)
        self.deliver([(peer, lobby) for peer in self.rooms.moderators(key) if peer.takes(lobby)])

    async def identify(self, ask: Ask, address: str) -> Entry:
        """Like `Admission.identify`, but raises TooManyFailures for an address's many tokens with a wrong signature.

        Other errors do not count, such as an expired token: many people behind one address may be late. A valid token
        works whatever else comes from its address.
        """
        try:
            return await self.admission.identify(ask, address)
        except TokenSignature:
            if self.failures is not None:
                self.failures.take(address)
            raise
