"""SQLite and PostgreSQL: connections, and the few differences between them.

The only importer of `databases`. All of it lives on the portal's asyncio loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import asyncpg  # type: ignore[import-untyped]
import databases
from databases.core import Connection as Connection
from databases.core import DatabaseURL

from sfu.errors import ConfigError

BUSY_S = 3.0
"""How long SQLite waits for another process to finish writing, and asyncpg for a connection."""

SETTLED_S = 0.1
"""File times are some milliseconds coarse: only one so old tells a file from what the next write makes of it."""

STATEMENT_S = 35.0
"""After which PostgreSQL stops a statement by itself: a request to cancel that overtakes its statement is lost."""

STEPS = 100_000
"""Of SQLite's virtual machine, some milliseconds: how often a statement looks whether it is to stop."""

READERS = 2
POOL = 10

Fault = Literal["ours", "clash", "refused", "away"]
"""What an error is: of the values or of our code, and nothing helps; of two transactions that met, and the next try may
succeed at once; the database's, which refuses this statement or does not answer, and a later try may succeed."""

OPEN_ERRORS = (TimeoutError, OSError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What `Engine.open` raises when there is no database at the URL, or none that lets us in."""

for _library in ("databases", "aiosqlite"):
    logging.getLogger(_library).setLevel(logging.WARNING)  # below, they log every statement with its values
logging.getLogger("asyncpg").setLevel(logging.CRITICAL)  # of an outage the store says once what asyncpg says each time


class Engine(Protocol):
    """What the two databases do not have in common. Lives on the asyncio side."""

    begin: str
    lock_schema: str
    """Keeps other starts out of the schema until the transaction ends."""
    lock_rows: str
    """What makes of a SELECT one that locks its rows, in its order; empty where one transaction writes at a time."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def connection(self, *, write: bool) -> AbstractAsyncContextManager[Connection]:
        """A connection nobody else uses, as an asynchronous context manager. An open transaction is rolled back if the
        block fails."""

    def stamp(self) -> object:
        """What another commit, of whichever process, makes another one, where that can be told without a query; None
        where it cannot, and for a moment after one. From any thread."""

    def fault(self, error: BaseException) -> Fault: ...


class SQLite:
    """One file. Any number of processes may open it; writers queue.

    One connection that writes and some that read are held open: `databases` would open the file, and a thread, for
    every call.
    """

    begin = "BEGIN IMMEDIATE"
    lock_schema = lock_rows = ""

    def __init__(self, url: DatabaseURL) -> None:
        self._url = url
        self._held = AsyncExitStack()
        self._writing = asyncio.Lock()
        self._readers: asyncio.Queue[_Held] = asyncio.Queue()

    async def open(self) -> None:
        _prepare(Path(self._url.database))
        async with AsyncExitStack() as held:
            self._writer = await self._hold(held)
            for _ in range(READERS):
                reader = await self._hold(held)
                await reader.connection.execute("PRAGMA query_only = ON")
                self._readers.put_nowait(reader)
            self._held = held.pop_all()

    async def _hold(self, held: AsyncExitStack) -> _Held:
        """A connection kept open. One Database each, which has one connection a task, and these all are one task's."""
        stop = threading.Event()
        database = databases.Database(self._url, factory=partial(_SQLiteConnection, stop), timeout=BUSY_S)
        return _Held(await held.enter_async_context(database.connection()), stop)

    async def close(self) -> None:
        await self._held.aclose()

    @asynccontextmanager
    async def connection(self, *, write: bool) -> AsyncIterator[Connection]:
        if write:
            async with self._writing, _mended(self._writer):
                yield self._writer.connection
            return
        reader = await self._readers.get()
        try:
            async with _mended(reader):
                yield reader.connection
        finally:
            self._readers.put_nowait(reader)

    def stamp(self) -> object:
        try:
            log_file = os.stat(f"{self._url.database}-wal")  # where every commit goes
        except OSError:
            return None
        return log_file.st_mtime_ns if time.time() - log_file.st_mtime > SETTLED_S else None

    def fault(self, error: BaseException) -> Fault:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return "away" if isinstance(error, OSError) else "refused" if type(error) is _NO_CODE else "ours"
        if code & 0xFF in _SQLITE_OURS and code != sqlite3.SQLITE_CONSTRAINT_TRIGGER:  # no trigger is of our making
            return "ours"
        return "away" if code & 0xFF in _SQLITE_AWAY else "refused"


_NO_CODE = sqlite3.OperationalError
"""Without a code: text that is not UTF-8, in a file that is damaged."""

_SQLITE_OURS = {
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_RANGE,
    sqlite3.SQLITE_MISUSE,
}
_SQLITE_AWAY = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}


def _prepare(path: Path) -> None:
    """What belongs to the file: that it exists, is nobody else's to read, is a database, and lets readers read while
    somebody writes. Nothing else runs on the loop yet that this could hold up."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(sqlite3.connect(path, timeout=BUSY_S)) as connection:
        give_up = time.monotonic() + BUSY_S
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:  # SQLite does not wait for this lock, whatever its timeout
                if time.monotonic() > give_up:
                    raise
            time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class _Held:
    """A connection that is kept open. `stop`, while it is set, ends each of its statements within STEPS."""

    connection: Connection
    stop: threading.Event


@asynccontextmanager
async def _mended(held: _Held) -> AsyncIterator[None]:
    """Leaves a held connection without a running statement and outside a transaction, however the block ends."""
    try:
        yield
    except BaseException:
        raw = held.connection.raw_connection
        held.stop.set()  # interrupt() ends what runs, but not what waits for its thread and would run to its end then
        try:
            await raw.interrupt()
            await raw.rollback()  # in its thread, so after what was stopped; does nothing outside a transaction
        finally:
            held.stop.clear()
        raise


class _SQLiteConnection(sqlite3.Connection):
    """PRAGMAs are a connection's, not the file's; and PostgreSQL's names for what SQLite lacks."""

    def __init__(self, stop: threading.Event, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.set_progress_handler(stop.is_set, STEPS)
        for pragma in ("synchronous = NORMAL", "foreign_keys = ON", "cache_size = -16384"):
            self.execute(f"PRAGMA {pragma}")
        self.create_function("date_part", 2, _date_part, deterministic=True)
        self.create_function("greatest", 2, max, deterministic=True)


def _date_part(_epoch: str, time: str | None) -> float | None:
    """Only `date_part('epoch', …)`: seconds since 1970 of a time as SQLAlchemy writes it, UTC without saying so."""
    return None if time is None else datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp()


class PostgreSQL:
    """A server elsewhere. Its pool reconnects by itself."""

    begin = "BEGIN"
    lock_schema = "SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock(7331002)"
    lock_rows = " FOR NO KEY UPDATE"

    def __init__(self, url: DatabaseURL) -> None:
        self._database = databases.Database(
            url,
            min_size=1,
            max_size=POOL,
            timeout=BUSY_S,
            server_settings={
                "timezone": "UTC",
                "application_name": "sfu",
                "statement_timeout": f"{STATEMENT_S * 1000:.0f}",
                "idle_in_transaction_session_timeout": f"{STATEMENT_S * 1000:.0f}",
            },
            reset=_keep,
        )

    async def open(self) -> None:
        await self._database.connect()

    async def close(self) -> None:
        await self._database.disconnect()  # cut short, it breaks the connections off

    @asynccontextmanager
    async def connection(self, *, write: bool) -> AsyncIterator[Connection]:
        async with self._database.connection() as connection:
            try:
                yield connection
            except BaseException as error:
                with suppress(asyncpg.InterfaceError):  # it has closed already
                    await self._settle(connection.raw_connection, error)
                raise

    async def _settle(self, raw: Any, error: BaseException) -> None:
        """Leaves a connection outside a transaction, or closes it: the pool opens another one when it is needed."""
        if self.fault(error) == "away":
            raw.terminate()  # it may stay read-only long after the database is no more
        elif raw.is_in_transaction():
            try:
                async with asyncio.timeout(BUSY_S):
                    await raw.execute("ROLLBACK")
            except (OSError, asyncpg.PostgresError):  # TimeoutError included
                raw.terminate()

    def stamp(self) -> object:
        return None

    def fault(self, error: BaseException) -> Fault:
        if isinstance(error, (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
            return "ours" if isinstance(error, ValueError) else "away"  # a value that its column cannot take
        if not isinstance(error, asyncpg.PostgresError):
            return "ours"
        state = error.sqlstate or ""
        return _POSTGRESQL_FAULTS.get(state) or _POSTGRESQL_FAULTS.get(state[:2]) or "refused"


_POSTGRESQL_FAULTS: dict[str, Fault] = {
    "08": "away",  # connection
    "21": "ours",  # cardinality
    "22": "ours",  # data
    "23": "ours",  # constraints
    "25": "away",  # state of the transaction, as read-only after a failover
    "28": "away",  # authorization
    "3D": "away",  # no such database
    "40001": "clash",  # not serializable
    "40P01": "clash",  # deadlock
    "53": "away",  # resources
    "54": "ours",  # limits
    "57": "away",  # operator
    "57014": "refused",  # a statement cancelled
    "58": "away",  # system
}
"""By SQLSTATE, or its class."""


async def _keep(_connection: object) -> None:
    """Instead of asyncpg's DISCARD-like reset, a round trip a call: nothing here changes a connection's settings."""


def engine_of(url: str) -> Engine:
    """Raises ConfigError for a URL of neither. Connects to nothing yet."""
    try:
        parsed = DatabaseURL(url)
        scheme, name = parsed.scheme, parsed.database
        _ = parsed.port
    except ValueError:
        raise ConfigError("SFU_DATABASE_URL is not a URL.") from None
    if scheme == "sqlite" and name and ":memory:" not in name:
        return SQLite(parsed)
    if scheme in ("postgresql", "postgres") and name:
        return PostgreSQL(parsed)
    raise ConfigError(
        "SFU_DATABASE_URL must be sqlite:///relative/file.db, sqlite:////absolute/file.db or "
        "postgresql://user:password@host:5432/name."
    )
