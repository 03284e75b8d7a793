"""SQLite and PostgreSQL: their connections, and the little they do not have in common.

The only importer of `databases`. All of it lives on the portal's asyncio loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

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

READERS = 2
POOL = 10

OPEN_ERRORS = (TimeoutError, OSError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What `Engine.open` raises when there is no database at the URL, or none that lets us in."""

for _library in ("databases", "aiosqlite"):
    logging.getLogger(_library).setLevel(logging.WARNING)  # below, they log every statement with its values


class Engine(Protocol):
    """What the two databases do not have in common. Lives on the asyncio side."""

    begin: str
    lock_schema: str
    """Keeps other starts out of the schema until the transaction ends."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def connection(self, *, write: bool) -> AbstractAsyncContextManager[Connection]:
        """A connection nobody else uses, as an asynchronous context manager. An open transaction is rolled back if the
        block fails."""

    def stamp(self) -> object:
        """What another commit, of whichever process, makes another one, where that can be told without a query; None
        where it cannot, and for a moment after one. From any thread."""

    def is_away(self, error: BaseException) -> bool:
        """Whether the error is the database's state, not the statement's fault."""


class SQLite:
    """One file. Any number of processes may open it; writers queue.

    One connection that writes and some that read are held open: `databases` would open the file, and a thread, for
    every call.
    """

    begin = "BEGIN IMMEDIATE"
    lock_schema = ""

    def __init__(self, url: DatabaseURL) -> None:
        self._url = url
        self._held = AsyncExitStack()
        self._writing = asyncio.Lock()
        self._readers: asyncio.Queue[Connection] = asyncio.Queue()

    async def open(self) -> None:
        _prepare(Path(self._url.database))
        async with AsyncExitStack() as held:
            self._writer = await self._hold(held)
            for _ in range(READERS):
                reader = await self._hold(held)
                await reader.execute("PRAGMA query_only = ON")
                self._readers.put_nowait(reader)
            self._held = held.pop_all()

    async def _hold(self, held: AsyncExitStack) -> Connection:
        """A connection kept open. One Database each, which has one connection a task, and these all are one task's."""
        database = databases.Database(self._url, factory=_SQLiteConnection, timeout=BUSY_S)
        return await held.enter_async_context(database.connection())

    async def close(self) -> None:
        await self._held.aclose()

    @asynccontextmanager
    async def connection(self, *, write: bool) -> AsyncIterator[Connection]:
        if write:
            async with self._writing, _mended(self._writer):
                yield self._writer
            return
        reader = await self._readers.get()
        try:
            async with _mended(reader):
                yield reader
        finally:
            self._readers.put_nowait(reader)

    def stamp(self) -> object:
        try:
            log_file = os.stat(f"{self._url.database}-wal")  # where every commit goes
        except OSError:
            return None
        return log_file.st_mtime_ns if time.time() - log_file.st_mtime > SETTLED_S else None

    def is_away(self, error: BaseException) -> bool:
        code = getattr(error, "sqlite_errorcode", None)
        return isinstance(error, OSError) or (code is not None and code & 0xFF in _SQLITE_AWAY)


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


@asynccontextmanager
async def _mended(connection: Connection) -> AsyncIterator[None]:
    """Leaves a held connection without a running statement and outside a transaction, however the block ends."""
    try:
        yield
    except BaseException:
        raw = connection.raw_connection
        await raw.interrupt()
        await raw.rollback()  # in its thread, so after what was interrupted; does nothing outside a transaction
        raise


class _SQLiteConnection(sqlite3.Connection):
    """PRAGMAs are a connection's, not the file's; and PostgreSQL's names for what SQLite lacks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
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
            except BaseException:
                raw = connection.raw_connection
                if not raw.is_closed() and raw.is_in_transaction():
                    await connection.execute("ROLLBACK")
                raise

    def stamp(self) -> object:
        return None

    def is_away(self, error: BaseException) -> bool:
        return isinstance(error, (OSError, asyncpg.InterfaceError)) or (
            isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] in _POSTGRESQL_AWAY
        )


_POSTGRESQL_AWAY = {"08", "28", "3D", "53", "57", "58"}
"""Classes of SQLSTATE: connection, authorization, no such database, resources, operator, system."""


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
