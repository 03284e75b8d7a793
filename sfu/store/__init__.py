"""The database: companies, rooms, tokens, sessions, chat. All SQL is in this package.

Here also: which files the settings mean (data.py), and the file of a backup (archive.py), which holds rows of all
tables. Not here: who may do what (tenancy/, calls/) and HTTP (api/).
Read this file, then database.py, engines.py and drivers.py, which all others stand on.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from sfu.process.background import repeat
from sfu.process.metrics import Counters
from sfu.refusals import DatabaseUnavailable
from sfu.store.answers import Answers
from sfu.store.bans import Bans
from sfu.store.chat import Chat
from sfu.store.companies import Companies
from sfu.store.database import Database, open_database
from sfu.store.deliveries import Deliveries
from sfu.store.feed import Events
from sfu.store.files import Files
from sfu.store.history import History
from sfu.store.keys import Keys
from sfu.store.later import Later
from sfu.store.renaming import SCRIPTS
from sfu.store.retention import SWEEP_S, Retention
from sfu.store.returns import Returns
from sfu.store.rooms import Rooms
from sfu.store.sending import Sending
from sfu.store.servers import LOOK_S, Servers
from sfu.store.sessions import Sessions
from sfu.store.tiers import Tiers
from sfu.store.tokens import Tokens
from sfu.store.trail import Trail
from sfu.store.usage import Usage
from sfu.store.webhooks import Webhooks
from sfu.tenancy.keys import ServerKey

__all__ = ["Store", "has_companies", "open_store"]

log = logging.getLogger(__name__)

RULINGS = 2000
"""Most bans, room changes and entries about calls queued for the database."""
LINES = 10_000
"""Most chat lines queued for the database."""
USES = 1000
"""Most last uses of keys queued for the database."""
FRESH_BEATS = 3
"""For how many heartbeats a server that recorded a session counts as having its call."""
PROBE_S = 2.0
"""How often to check whether the database can be written to, for `/health`."""
STOP_S = 6.0
"""How long a stopping server waits for its database; slightly longer than for its clients."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Store:
    """Everything the server keeps in the database. Called from trio.

    Calls that reach the database raise DatabaseUnavailable if it is away or refuses the statement. They are never
    interrupted half-way: a cancelled caller gets its result first.
    """

    database: Database
    companies: Companies
    keys: Keys
    rooms: Rooms
    tokens: Tokens
    sessions: Sessions
    servers: Servers
    returns: Returns
    history: History
    tiers: Tiers
    usage: Usage
    bans: Bans
    chat: Chat
    files: Files
    trail: Trail
    events: Events
    webhooks: Webhooks
    deliveries: Deliveries
    sending: Sending
    leaves: Later
    rulings: Later
    lines: Later
    uses: Later
    retention: Retention
    answers: Answers

    async def run(
        self, heartbeat_s: float, counters: Counters, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Closes stale sessions, then runs the deferred writes, the heartbeat and retention until cancelled.

        Raises DatabaseUnavailable only before it has started.
        """
        await self.sessions.close_stale()
        async with trio.open_nursery() as nursery:
            for task, work, every_s in (
                ("leaves", self.leaves.write, 0.0),
                ("rulings", self.rulings.write, 0.0),
                ("lines", self.lines.write, 0.0),
                ("uses", self.uses.write, 0.0),
                ("database", self.database.probe, PROBE_S),
                ("heartbeat", self.sessions.touch, heartbeat_s),
                ("servers", self.servers.look, max(LOOK_S, LOOK_S / 10 * heartbeat_s)),
                ("retention", self.retention.sweep, SWEEP_S),
            ):
                nursery.start_soon(repeat, task, work, every_s, counters)
            task_status.started()

    def stop(self) -> None:
        """The server is stopping. From now on no call takes longer than STOP_S, so that the store can be closed."""
        self.database.stop(STOP_S)


@asynccontextmanager
async def open_store(
    url: str,
    server_key: ServerKey,
    *,
    server: str = "sfu",
    heartbeat_s: float = 10.0,
    max_participants: int = 100,
    max_leaves: int = 10_000,
    chat_kept_s: int = 86_400,
    audit_days: int = 0,
    history_days: int = 0,
    guest_days: int = 0,
    event_days: int = 0,
    keep_open_chat: bool = False,
    clock: Callable[[], datetime] = _now,
    create: bool = True,
) -> AsyncIterator[Store]:
    """The store at a database URL. Its schema is migrated first.

    `server` identifies this server among those that share the database and stays the same from run to run. All of
    them have the same `heartbeat_s`.
    `max_participants` applies to rooms that a join creates, `chat_kept_s` to rooms without their own setting.
    `audit_days`, `history_days`, `guest_days`, `event_days` and `keep_open_chat` are those of Retention. Queued writes
    are written at the end, if the database accepts them. Without `create`, a database whose schema is not up to date is
    refused.
    Raises ConfigError or DatabaseUnavailable.
    """
    async with open_database(url, SCRIPTS, create=create) as database:
        leaves, rulings = Later(database, max_leaves), Later(database, RULINGS)
        lines, uses = Later(database, LINES, Chat.LOCK_ROOM), Later(database, USES)
        queues, fresh_s = (leaves, rulings), FRESH_BEATS * heartbeat_s
        tiers = Tiers(database, clock)
        sessions = Sessions(
            database, server, clock, *queues, max_participants=max_participants, fresh_s=fresh_s, ahead=tiers.ahead
        )
        store = Store(
            database,
            Companies(database, server_key, clock),
            Keys(database, clock, uses),
            Rooms(database, clock, rulings, chat_kept_s=chat_kept_s),
            Tokens(database, clock),
            sessions,
            Servers(database, server),
            Returns(database, server_key, server, clock, *queues, sessions.check_here, fresh_s, tiers.exist),
            History(database),
            tiers,
            Usage(database, clock),
            Bans(database, clock, rulings),
            Chat(database, clock, lines, chat_kept_s=chat_kept_s),
            Files(database, clock, chat_kept_s=chat_kept_s),
            Trail(database, clock, rulings),
            Events(database),
            Webhooks(database, server_key, clock),
            Deliveries(database, clock),
            Sending(database, server, clock),
            leaves,
            rulings,
            lines,
            uses,
            Retention(
                database,
                clock,
                audit_days=audit_days,
                history_days=history_days,
                guest_days=guest_days,
                event_days=event_days,
                keep_open_chat=keep_open_chat,
            ),
            Answers(database, server_key, clock),
        )
        try:
            yield store
        finally:
            await _write_what_is_left({"leaves": leaves, "rulings": rulings, "lines": lines, "uses": uses})


async def has_companies(url: str) -> bool:
    """Whether the database at this URL has companies, and so secrets that a server key sealed.

    Its schema is migrated first. Raises ConfigError or DatabaseUnavailable.
    """
    async with open_database(url, SCRIPTS) as database:
        return await database.read_one(Companies.DEFAULT) is not None


async def _write_what_is_left(queues: Mapping[str, Later]) -> None:
    with trio.CancelScope(shield=True):
        for name, queue in queues.items():
            try:
                await queue.flush()
            except DatabaseUnavailable:
                log.error("%s_lost=%d reason=database_unavailable", name, len(queue))
