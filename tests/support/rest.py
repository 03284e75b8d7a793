"""The REST API as it runs: a real listener, the real app and a real database; and a client for it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import trio
from quart_trio import QuartTrio

from sfu.api import create_api
from sfu.calls.admission import Entry
from sfu.calls.drops import Drops
from sfu.calls.rooms import Room as RoomOfCall
from sfu.calls.rooms import Rooms
from sfu.process.lifecycle import Lifecycle
from sfu.process.metrics import Counters
from sfu.protocol.server_messages import ChatLine, Participant
from sfu.serving.status import Status, create_metrics, create_status
from sfu.settings.config import Config
from sfu.store import Store
from sfu.store.audit import Author
from sfu.store.records import Company, Room, Session, SessionDrops
from sfu.store.sessions import NOTHING_KNOWN
from sfu.tenancy.tokens import Permissions
from sfu.web import edge
from sfu.web.app import create_app
from sfu.workers.workers import Workers
from support.rest_client import Reply, request

pytest_plugins = ["support.storing"]


class Person:
    """In the place of a session (registry.Seat), and of one in a lobby."""

    def __init__(self) -> None:
        peer, _ = Rooms(Config()).join("team", "alice", full=True, pick=lambda: 0)
        now, nothing = datetime.now(UTC), (None, None, None)
        who = ("00000000-0000-4000-8000-000000000000", "", "team", "alice", None, "sfu", "", now, now)
        self.record = Session(*who, *nothing, 1, {}, NOTHING_KNOWN)
        self.entry = Entry("", "team", "alice", Permissions())
        self.peer, self.drops, self.id, self.since = peer, Drops(SessionDrops()), "x", now
        self.decided = trio.Event()

    def invite(self, author: Author) -> None: ...


class Conduct:
    """Does nothing. Everybody is in the room `team`, and waits for it."""

    def __init__(self) -> None:
        self.permits = self.spotlights = self.messages = self.moves = self

    def seats(self, company_id: str, room_id: str) -> list[Person]:
        return [Person()] if room_id == "team" else []

    waiting = seats

    def seat(self, company_id: str, room_id: str, one: str) -> Person | None:
        return next(iter(self.seats(company_id, room_id)), None)

    waiter = seat

    def room(self, company_id: str, room_id: str) -> RoomOfCall | None:
        return next((one.peer.room for one in self.seats(company_id, room_id)), None)

    def turn(self, room: RoomOfCall, *_: Any) -> None: ...

    def refuse(self, one: Person, author: Author) -> None: ...

    def change(self, *_: Any, **__: Any) -> bool:
        return True

    def send(self, *_: Any) -> int:
        return 1

    def say(self, room: Room, name: str, text: str, author: Author) -> ChatLine:
        return ChatLine("", name, text, 1, "00000000-0000-4000-8000-000000000000")

    async def move(self, *_: Any) -> Person:
        return Person()


@dataclass
class Calls:
    """Remembers what the API ended. Everybody is in the room `team`, and nobody in another."""

    ended: list[tuple[str, ...]] = field(default_factory=list)
    changed: list[Room] = field(default_factory=list)
    conduct: Any = field(default_factory=Conduct)

    def end_token(self, token_id: str) -> None:
        self.ended.append(("token", token_id))

    def end_room(self, company_id: str, room_id: str) -> None:
        self.ended.append(("room", company_id, room_id))

    def end_call(self, company_id: str, room_id: str, author: Author) -> bool:
        self.ended.append(("call", company_id, room_id))
        return room_id == "team"

    def change_room(self, room: Room) -> None:
        self.changed.append(room)

    def participants(self, company_id: str, room_id: str) -> list[tuple[Session, Participant]]:
        return []

    def mute(self, company_id: str, room_id: str, session_id: str, source: str, author: Author) -> bool:
        return room_id == "team"

    def remove(self, company_id: str, room_id: str, session_id: str, author: Author) -> bool:
        return room_id == "team"

    def chat_deleted(self, company_id: str, room_id: str, line_id: str) -> None:
        self.ended.append(("line", line_id))


@dataclass
class Rest:
    """A client; `key` is the API key it sends unless told otherwise."""

    port: int
    key: str
    calls: Calls
    counters: Counters
    app: QuartTrio

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """One request on a connection of its own. `body` is sent as JSON, `raw` as it is, an empty `key` not at all."""
        sent = {"Host": "localhost", "Connection": "close"}
        key = self.key if key is None else key
        sent |= {"Authorization": f"Bearer {key}"} if key else {}
        if body is not None:
            raw = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        if raw is not None:
            sent["Content-Length"] = str(len(raw))
        return await request(self.port, method, "/api/v1" + path, sent | (headers or {}), raw or b"")


@asynccontextmanager
async def serving(store: Store, clock: Callable[[], Any], **changes: Any) -> AsyncIterator[Rest]:
    """A client without a key."""
    config = Config(**{"host": "127.0.0.1", "port": 0, **changes})
    counters, rooms, calls = Counters(), Rooms(config), Calls()
    app = create_app(config, counters)
    status = Status(rooms, Workers(config, counters), counters, Lifecycle(trio.current_time), store)
    app.register_blueprint(create_status(status))
    app.register_blueprint(create_metrics(config, status))
    app.register_blueprint(create_api(config, store, calls, counters, clock))
    stop = trio.Event()

    async def signaling(connection: edge.Upgraded) -> None:
        raise AssertionError("nobody joins here")

    async with trio.open_nursery() as nursery:
        serve = partial(edge.serve, tls=None, stop=stop)
        listeners = await nursery.start(serve, config, app, signaling, counters)
        yield Rest(listeners[0].socket.getsockname()[1], "", calls, counters, app)
        nursery.cancel_scope.cancel()


@dataclass
class Tenant:
    company: Company
    key: str


@pytest.fixture
async def acme(store: Store) -> Tenant:
    company, key = await store.companies.create("Acme Ltd.")
    return Tenant(company, key.reveal())


@pytest.fixture
async def rival(store: Store) -> Tenant:
    company, key = await store.companies.create("Rival Inc.")
    return Tenant(company, key.reveal())


@pytest.fixture
async def rest(store: Store, clock: Any, acme: Tenant) -> AsyncIterator[Rest]:
    """A client with Acme's key."""
    async with serving(store, clock) as client:
        client.key = acme.key
        yield client
