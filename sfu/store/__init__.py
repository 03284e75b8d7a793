"""Companies, rooms, tokens and sessions in a database: all SQL there is."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from sfu.keys import ServerKey
from sfu.refusals import DatabaseUnavailable
from sfu.store.companies import Companies
from sfu.store.database import Database, open_database
from sfu.store.history import History
from sfu.store.rooms import Rooms
from sfu.store.sessions import Sessions
from sfu.store.tokens import Tokens

__all__ = ["Store", "open_store"]

log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Store:
    """What the server remembers. Called from trio.

    Every call that reaches the database raises DatabaseUnavailable when it is away, and is never cut short half-way: a
    cancelled caller gets its result first.
    """

    database: Database
    companies: Companies
    rooms: Rooms
    tokens: Tokens
    sessions: Sessions
    history: History


@asynccontextmanager
async def open_store(
    url: str,
    server_key: ServerKey,
    *,
    server: str = "sfu",
    max_participants: int = 100,
    max_leaves: int = 10_000,
    clock: Callable[[], datetime] = _now,
) -> AsyncIterator[Store]:
    """The store at a database URL, with its schema brought up to date.

    `server` names this server among those that share the database, the same from run to run. `max_participants` is
    what rooms get that a join makes. Leaves still queued at the end are written, if the database takes them. Raises
    ConfigError or DatabaseUnavailable.
    """
    async with open_database(url) as database:
        store = Store(
            database,
            Companies(database, server_key, clock),
            Rooms(database, clock),
            Tokens(database, clock),
            Sessions(database, server, clock, max_participants=max_participants, max_leaves=max_leaves),
            History(database),
        )
        try:
            yield store
        finally:
            await _write_what_is_left(store.sessions)


async def _write_what_is_left(sessions: Sessions) -> None:
    with trio.CancelScope(shield=True):
        try:
            await sessions.flush()
        except DatabaseUnavailable:
            log.error("leaves_lost=%d reason=database_away", sessions.unwritten)
