"""The entrance for WebSockets: accepts or refuses each one, and tells the room who joined.

calls/session.py handles those that were admitted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from weakref import WeakValueDictionary

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, wrap_server_stream
from wsproto.utilities import LocalProtocolError

from sfu import bridge, errors
from sfu.calls import time_limits
from sfu.calls.admission import Ask, Entry, LobbyFirst, asked, changes_of
from sfu.calls.chat import now_ms
from sfu.calls.moderation import Moderation
from sfu.calls.probes import probe_secret
from sfu.calls.registry import Calls, Joining
from sfu.calls.session import Session
from sfu.calls.websocket import CLOSE_S, Door, Link
from sfu.errors import SfuError
from sfu.logs import begin_request, line, quoted
from sfu.process.background import repeat
from sfu.protocol.server_messages import Bye, ChatLine, Draining, encode
from sfu.refusals import CompanyDisabled, RoomDeleted, TokenRevoked
from sfu.store import records
from sfu.store.returns import ReturnOver
from sfu.tenancy.tokens import Permissions
from sfu.web.app import PROBLEM_TYPE, SECURITY_HEADERS, problem
from sfu.web.edge import PacedStream, Upgraded
from sfu.web.origins import check_origin, origin_of

log = logging.getLogger("sfu.signaling")

FRAME_QUEUE = 8
"""Frames trio-websocket may read ahead. With its default of one, a pong waits behind a message not yet handled."""
QUIET_S, LINGER_BYTES = 0.25, 1 << 20
"""A closing connection is read until it is quiet for QUIET_S. Up to LINGER_BYTES are exempt from the read rate."""

WATCH_S = 1.0
"""How often to query the database for sessions ended by other processes."""

ENDED = {error.code: error for error in (CompanyDisabled, RoomDeleted, TokenRevoked, errors.Replaced, errors.Removed)}
"""Why other processes end sessions, by the reason in the database."""

GONE = (ConnectionClosed, LocalProtocolError, UnicodeError)
"""Exceptions that the client causes, by closing the connection or by what it sends."""


class Signaling:
    """Runs the WebSockets and sessions of this server. Installs itself as `on_event` and `on_death` of `workers`."""

    def __init__(self, calls: Calls, moderation: Moderation) -> None:
        self.calls, self.moderation = calls, moderation
        self._handshakes: set[trio.CancelScope] = set()
        self._returning: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()  # by session id
        self._stopping = False
        self._nursery: trio.Nursery | None = None
        self._stamp: object = None  # the database's stamp at the last query for revocations
        calls.workers.on_event, calls.workers.on_death = self._on_event, self._on_death

    async def serve(self, connection: Upgraded) -> None:
        """Runs one WebSocket until it ends and closes its stream. Raises only Cancelled."""
        begin_request()
        try:
            async with trio.open_nursery() as nursery:  # trio-websocket's reader lives here
                request = await self._handshake(nursery, connection)
                if request is not None:
                    await self._admit(request, connection)
                nursery.cancel_scope.cancel()
            await _linger(connection.stream)
        except* GONE:
            # the client's fault, raised in trio-websocket's reader: a ping after our close frame, or an invalid Host
            self.calls.counters.add("sfu_connection_failures_total", kind="websocket")
        except* Exception:
            log.exception("connection_failed client=%s", connection.client)
        finally:
            await trio.aclose_forcefully(connection.stream)  # ws.aclose() does not, after 1009 or if the peer is silent

    def drain(self) -> None:
        """The server drains: tells everybody in a call, and refuses those who wait for a call to begin."""
        calls = self.calls
        message = Draining(calls.life.seconds_left)
        calls.deliver([(peer, message) for peer in calls.rooms.peers.values() if peer.takes(message)])
        calls.lobby.refuse(lambda entry: entry.key not in calls.rooms.rooms, calls.life.refusal())

    def stop(self) -> None:
        """Ends every peer with ServerStopping and admits nobody else."""
        self._stopping = True
        for scope in self._handshakes:
            scope.cancel()
        for session in self.calls.seats.values():
            session.end(errors.ServerStopping())
        self.calls.probes.stop()
        self.calls.lobby.refuse(lambda _: True, errors.ServerStopping())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs the sessions, which outlive their connections, and watches for revocations. Runs until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            self._nursery.start_soon(self.calls.arrivals.run)
            await repeat("revocations", self._watch, WATCH_S, self.calls.counters)

    async def _watch(self) -> None:
        """Does what other processes did: they revoked a token, disabled a company, deleted or changed a room or its
        chat, or forgot a person."""
        store = self.calls.admission.store
        stamp = store.database.stamp()
        if stamp is None or stamp != self._stamp:
            ids = [session.record.id for session in self.calls.sessions()]
            self._end(await store.sessions.ended(ids))
            for company_id, room_id, rules in await store.sessions.rooms():
                if self.moderation.follow(company_id, room_id, rules):
                    await self.moderation.follow_chat(company_id, room_id)
            self._stamp = stamp

    def _end(self, ended: Mapping[str, str]) -> None:
        """Ends sessions for the reasons that the database has."""
        for session in self.calls.sessions():
            if (reason := ended.get(session.record.id)) is not None:
                error = ENDED.get(reason, errors.CallEnded)()
                log.info("%s", line("ended", **session.who, reason=reason))
                session.end(error)
                if isinstance(error, RoomDeleted):
                    self.calls.lobby.refuse(partial(_enters, session.entry.key), error)

    async def _handshake(self, nursery: trio.Nursery, connection: Upgraded) -> WebSocketRequest | None:
        """The WebSocket request; None if no valid one came in time.

        After an invalid request, trio-websocket answers it and then waits forever.
        """
        with trio.move_on_after(self.calls.config.join_s) as scope:
            self._handshakes.add(scope)
            try:
                limit = self.calls.config.message_bytes
                return await wrap_server_stream(nursery, connection.stream, FRAME_QUEUE, limit)
            finally:
                self._handshakes.discard(scope)
        return None

    async def _admit(self, request: WebSocketRequest, connection: Upgraded) -> None:
        door = Door(request)
        try:
            link = await self._link(door, connection)
        except GONE:
            raise
        except Exception as failure:
            who = self.calls.admission.asker(connection.target, door.request.proposed_subprotocols)
            if not isinstance(failure, SfuError):
                about = {name: quoted(text) for name, text in who.items()}
                log.exception("%s", line("join_failed", **about, client=connection.client))
            error = failure if isinstance(failure, SfuError) else SfuError()
            self.calls.counters.add("sfu_refused_total", code=error.code)
            self.calls.refused.tell(log, error, connection.client, **who)
            with trio.move_on_after(CLOSE_S):
                await _refuse(door, error)
            return
        if link is not None:
            await link.run(door)
        else:
            with trio.move_on_after(CLOSE_S):
                await _refuse(door, None)

    async def _link(self, door: Door, connection: Upgraded) -> Link | None:
        """Joins or resumes, before the handshake is answered, so that a refusal can be its answer.

        Only people in a lobby are admitted or refused after the handshake. None if they left the lobby by themselves.
        """
        if self._stopping:
            raise errors.ServerStopping
        check_origin(connection, frozenset(filter(None, map(origin_of, self.calls.config.allowed_origins))))
        if (probe := probe_secret(door.request.proposed_subprotocols)) is not None:
            return self.calls.probes.connect(probe, connection)
        ask = asked(connection.target, door.request.proposed_subprotocols)
        if ask.secret is not None:
            return self._resume(ask.secret, connection, door.full)
        if ask.ticket is not None and (link := await self._return(ask, ask.ticket, door, connection)) is not None:
            return link
        entry, invited = await self.calls.identify(ask, connection.client), False
        if entry.grant is None:
            self.calls.joins.take(connection.client)
        while True:
            try:
                return await self._join(door, connection, entry, invited)
            except LobbyFirst:
                waiter = await self.calls.lobby.wait(door, entry, self.calls.admission.seconds_left(entry))
                if waiter.left:
                    return None
                invited = waiter.invited

    def _resume(self, secret: str, connection: Upgraded, full: bool) -> Link:
        session = self.calls.session_of(secret) if full else None
        if session is None:
            raise errors.SessionGone
        link = session.resume(connection.stream)
        self.calls.counters.add("sfu_resumes_total")
        log.info("%s", line("resumed", **session.who, client=connection.client))
        return link

    async def _return(self, ask: Ask, ticket: str, door: Door, connection: Upgraded) -> Link | None:
        """Continues the session that the ticket names. None if that is impossible; then the request is a join.

        Several returns with one ticket take turns, so that they find what the earlier ones made of the session.
        """
        session_id = self.calls.admission.store.returns.session_id(ticket) if door.full else None
        if session_id is None:
            return None
        async with self._returning.setdefault(session_id, trio.Lock()):
            link = await self._continue(ask, session_id, door, connection)
        if link is not None:
            self.calls.counters.add("sfu_returns_total")
        return link

    async def _continue(self, ask: Ask, session_id: str, door: Door, connection: Upgraded) -> Link | None:
        """Like `_return`. A session whose client still responds is not continued: a duplicated tab has the same ticket.

        Raises Replaced if that client has itself just returned: only one of a tab's copies may.
        """
        seat = self.calls.seat_of(session_id)
        if seat is not None:
            if not await self.calls.admission.fits(ask, seat.record):
                return None
            if await seat.responds():
                if seat.just_returned:
                    raise errors.Replaced
                return None
            seat = self.calls.seat_of(session_id)  # it may have ended meanwhile
        if seat is not None:
            link = seat.restart(connection.stream)
            log.info("%s", line("returned", **seat.who, client=connection.client))
            return link
        entry = await self.calls.admission.returner(ask, session_id, connection.client)
        if entry is None:
            return None
        try:
            return await self._join(door, connection, entry, invited=True)
        except ReturnOver:
            return None

    async def _join(self, door: Door, connection: Upgraded, entry: Entry, invited: bool) -> Link:
        self._check_worker(entry)
        joining = Joining(entry, invited)
        self.calls.joining.add(joining)
        try:
            record, rules = await self.calls.admission.admit(entry, invited=invited)
            try:
                earlier = await self.calls.chat.earlier(entry)  # not before: a room of this name may have been deleted
                self._check_wanted(joining)
                return self._enter(door, connection, entry, record, rules, earlier)
            except BaseException as error:  # also a cancellation: the database has opened the session already
                code, began = getattr(error, "code", SfuError.code), entry.continues is not None
                self.calls.admission.store.sessions.close(record, code, began=began)
                raise
        finally:
            self.calls.joining.discard(joining)

    def _check_wanted(self, joining: Joining) -> None:
        """Raises the reason to end a join that came up while the database admitted it."""
        if joining.error is not None or self._stopping:
            raise joining.error or errors.ServerStopping()

    def _check_worker(self, entry: Entry) -> None:
        """Raises ServerDraining, MediaUnavailable or ServerFull: a join bound to fail must not use up a token."""
        room = self.calls.rooms.rooms.get(entry.key)
        if room is None and self.calls.life.draining:
            raise self.calls.life.refusal()
        if not (self.calls.workers.ready if room is None else self.calls.workers.is_ready(room.worker)):
            raise errors.MediaUnavailable  # if the room's worker died, its peers are being told to rejoin
        if room is None:
            self.calls.workers.pick()
        else:
            self.calls.workers.admit(room.worker)

    def _enter(
        self,
        door: Door,
        connection: Upgraded,
        entry: Entry,
        record: records.Session,
        rules: records.RoomRules,
        earlier: Sequence[ChatLine],
    ) -> Link:
        self._check_worker(entry)
        state = self.calls.admission.state(entry.company_id, entry.room_id, rules)
        changes = changes_of(record)
        peer, deliveries = self.calls.rooms.join(
            entry.key,
            changes.get("name", entry.user_name),
            full=door.full,
            pick=self.calls.workers.pick,
            room_id=entry.room_id,
            id=rules.id,
            permissions=Permissions.of(changes["permissions"]) if "permissions" in changes else entry.permissions,
            state=state,
            earlier=earlier if state.chat_kept_s else (),
            now_ms=now_ms(),
            batches=door.batches,
            ticket=self.calls.admission.store.returns.ticket(record.id) if door.full else "",
        )
        peer.room.version = max(peer.room.version, rules.version)
        self.calls.workers.place(peer.room.worker, peer.id)
        session = self.calls.seats[peer.id] = Session(self.calls, self.moderation, peer, entry, record)
        assert self._nursery is not None
        self._nursery.start_soon(time_limits.run, session, self.calls.admission.clock)
        log.info("%s", line("joined", **session.who, client=connection.client, full=door.full))
        link = session.connect(connection.stream)
        self.calls.deliver(deliveries)
        self.calls.arrivals.came(peer)
        self.calls.tell_drain(session)
        self.calls.tell_lobby(session)
        return link

    def _on_event(self, worker: int, event: bridge.Event) -> None:
        if isinstance(event, bridge.Speakers):
            self.calls.deliver(self.calls.rooms.speakers(event.room, event.dominant, event.speaking))
            return
        session = self.calls.seats.get(getattr(event, "peer", ""))
        if session is not None:
            session.post(event)
        else:
            self.calls.probes.post(event)

    def _on_death(self, worker: int) -> None:
        self.calls.probes.lost(worker)
        for session in self.calls.seats.values():
            if session.peer.room.worker == worker:
                session.end(errors.MediaRestarted())


def _enters(key: str, entry: Entry) -> bool:
    return entry.key == key


async def _refuse(door: Door, error: SfuError | None) -> None:
    """Refuses with an HTTP problem (RFC 9457), or with `bye` over the WebSocket if the client knows that event.

    Browsers do not tell a page why a handshake was refused. `error` is None if the person left the lobby.
    """
    ours = not isinstance(error, (errors.OriginNotAllowed, errors.BadRequest))  # these get no handshake
    try:
        if door.ws is not None or (ours and door.full):
            ws = await door.accept()
            if door.full:
                await ws.send_message(encode(Bye.of(error)))
            await ws.aclose(1000 if error is None else error.close_code, str(error or ""))
        if door.ws is not None or error is None:
            return
        headers = {"Content-Type": PROBLEM_TYPE, "Connection": "close"} | SECURITY_HEADERS
        if error.retry_after_s is not None:
            headers["Retry-After"] = str(error.retry_after_s)
        await door.request.reject(
            error.status,
            extra_headers=[(name.encode(), value.encode()) for name, value in headers.items()],
            body=problem(error.status, str(error), error.code).encode(),
        )
    except ConnectionClosed:
        pass  # the client did not wait for the refusal


async def _linger(stream: PacedStream) -> None:
    """Reads what a closing client still sends: closing with unread data resets the stream and loses our close frame."""
    stream.credit(LINGER_BYTES)
    quiet = False
    try:
        with trio.move_on_after(CLOSE_S):
            while not quiet:
                with trio.move_on_after(QUIET_S) as scope:
                    quiet = not await stream.receive_some(65536)
                quiet = quiet or scope.cancelled_caught
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
