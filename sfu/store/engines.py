"""SQLite and PostgreSQL: connections, and the few differences between the engines.

Except for URLs (sfu.store.urls), only this module uses `databases`. Everything here runs on the portal's asyncio loop,
except for `read_quickly`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Mapping
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

from sfu.store import bulk, claims
from sfu.store.drivers import Driver, PostgreSQLDriver, Row, SQLiteDriver
from sfu.store.quick import QuickReader
from sfu.store.urls import parse_url

BUSY_S = 3.0
"""How long asyncpg waits for a connection, and SQLite at the start for another process."""
LOCKED_S = 1.0
"""How long a statement of SQLite waits for another process to finish writing. Those are short, or hold it for long."""

SETTLED_S = 0.1
"""Least age of a file time that can be trusted. File times have a resolution of some milliseconds, so two writes in
quick succession may leave the same one."""

STATEMENT_S = 35.0
"""Timeout after which PostgreSQL itself stops a statement: a cancel request that overtakes its statement is lost."""

STEPS = 100_000
"""Instructions of SQLite's virtual machine (some milliseconds) after which a statement checks whether it must stop."""

READERS = 2
POOL = 10

Fault = Literal["ours", "clash", "refused", "full", "away"]
"""The cause of an error. `ours`: our values or our code, so retrying does not help. `clash`: two transactions conflict;
a retry may succeed at once. `refused`, `full`, `away`: the database refuses this statement, for example since its disk
is full, or does not answer; a retry may succeed later. Reads and small writes still work on a full disk."""

OPEN_ERRORS = (TimeoutError, OSError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What `Engine.open` raises if there is no database at the URL, or if it denies access."""

for _library in ("databases", "aiosqlite"):
    logging.getLogger(_library).setLevel(logging.WARNING)  # below that level, they log every statement and its values
log = logging.getLogger(__name__)
logging.getLogger("asyncpg").setLevel(logging.CRITICAL)  # it logs every failure of an outage; the store logs it once


class Engine(Protocol):
    """The differences between the two databases. Lives on the asyncio side, except for `read_quickly`."""

    begin: str
    """The statement that begins a transaction."""
    begin_snapshot: str
    """Statements that begin a transaction of any length that sees the database as it was at one moment."""
    bulk: bulk.Bulk
    driver: Driver
    lock_schema: str
    """Statements that lock the schema against other starting servers until the transaction ends; may be empty."""
    lock_rows: str
    """Suffix that makes a SELECT lock its rows in order; empty if only one transaction can write at a time."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def connection(self, *, write: bool) -> AbstractAsyncContextManager[Connection]:
        """An asynchronous context manager for exclusive use of a connection.

        If the block fails, an open transaction is rolled back.
        """

    def read_quickly(self, sql: str, values: Mapping[str, Any]) -> list[Row] | None:
        """The rows of a SELECT, if it takes next to no time. None if not, if it fails, or if the engine cannot tell: it
        must run on a `connection` then. Called in trio's thread, which it blocks."""

    def claim(self) -> bool:
        """Registers this process as a server of the database until `close`. Whether it is certainly the only one.

        Raises ConfigError while a command replaces the contents of the database.
        """

    def stamp(self) -> object:
        """A value that changes with every commit of any process, obtained without a query. Callable from any thread.

        None if the engine has none, and for a moment after a commit.
        """

    def fault(self, error: BaseException) -> Fault: ...


_HINT = "Another server uses this SQLite file. If that is on purpose, PostgreSQL serves several better."


class SQLite:
    """A SQLite file. Any number of processes may open it; writers wait for each other.

    One connection for writing and READERS for reading are kept open. Otherwise `databases` would open the file, and
    start a thread, for every call.
    """

    begin = "BEGIN IMMEDIATE"
    lock_schema = lock_rows = ""
    bulk: bulk.Bulk = bulk.SQLiteBulk()
    driver: Driver = SQLiteDriver()

    def __init__(self, url: DatabaseURL, *, alone: bool = False) -> None:
        self._url, self._alone = url, alone
        self.begin_snapshot = self.begin if alone else "BEGIN"  # alone, also programs that are not ours must wait
        self._held = AsyncExitStack()
        self._writing = asyncio.Lock()
        self._locked: tuple[float, sqlite3.Error] | None = None  # when another process last kept a write out
        self._readers: asyncio.Queue[_Held] = asyncio.Queue()
        self._quick: QuickReader | None = None

    async def open(self) -> None:
        _prepare(Path(self._url.database))
        async with AsyncExitStack() as held:
            if self._alone:
                held.callback(os.close, claims.take(self._url.database))
            self._writer = await self._hold(held)
            for _ in range(READERS):
                reader = await self._hold(held)
                await reader.connection.execute("PRAGMA query_only = ON")
                self._readers.put_nowait(reader)
            self._quick = held.enter_context(
                closing(QuickReader(self._url.database, partial(_SQLiteConnection, threading.Event())))
            )
            self._held = held.pop_all()

    async def _hold(self, held: AsyncExitStack) -> _Held:
        """Opens a connection to keep. Each needs its own Database, which has only one connection per task."""
        stop = threading.Event()
        database = databases.Database(self._url, factory=partial(_SQLiteConnection, stop), timeout=LOCKED_S)
        return _Held(await held.enter_async_context(database.connection()), stop)

    async def close(self) -> None:
        self._quick = None
        await self._held.aclose()

    def read_quickly(self, sql: str, values: Mapping[str, Any]) -> list[Row] | None:
        return None if self._quick is None else self._quick.read(sql, values)

    def claim(self) -> bool:
        try:
            file, alone = claims.share(self._url.database)
        except claims.Replacing:
            raise
        except OSError:  # a file system without locks
            return False
        self._held.callback(os.close, file)
        if not alone:
            log.warning("database=shared hint=%r", _HINT)
        return alone

    @asynccontextmanager
    async def connection(self, *, write: bool) -> AsyncIterator[Connection]:
        if write:
            async with self._write() as connection:
                yield connection
            return
        reader = await self._readers.get()
        try:
            async with _mended(reader):
                yield reader.connection
        finally:
            self._readers.put_nowait(reader)

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[Connection]:
        asked_s = time.monotonic()
        async with self._writing:
            if self._locked is not None and self._locked[0] > asked_s:  # what it waited for, waited for the same
                raise self._locked[1].with_traceback(None)
            try:
                async with _mended(self._writer):
                    yield self._writer.connection
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                    self._locked = time.monotonic(), error
                raise

    def stamp(self) -> object:
        try:
            log_file = os.stat(f"{self._url.database}-wal")  # every commit is written to this file
        except OSError:
            return None
        return log_file.st_mtime_ns if time.time() - log_file.st_mtime > SETTLED_S else None

    def fault(self, error: BaseException) -> Fault:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return "away" if isinstance(error, OSError) else "refused" if type(error) is _NO_CODE else "ours"
        if code & 0xFF in _SQLITE_OURS and code != sqlite3.SQLITE_CONSTRAINT_TRIGGER:  # our schema has no triggers
            return "ours"
        if code & 0xFF == sqlite3.SQLITE_FULL:
            return "full"
        return "away" if code & 0xFF in _SQLITE_AWAY else "refused"


_NO_CODE = sqlite3.OperationalError
"""The error without a code: text that is not UTF-8, in a damaged file."""

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
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}


def _prepare(path: Path) -> None:
    """Creates the file, readable by this user only, if it does not exist, and switches it to write-ahead logging.

    Blocks the loop, on which nothing else runs yet. Raises sqlite3.Error if the file is not a database.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(sqlite3.connect(path, timeout=BUSY_S)) as connection:
        give_up = time.monotonic() + BUSY_S
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:  # SQLite does not wait for this lock, even with a timeout
                if time.monotonic() > give_up:
                    raise
            time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class _Held:
    """A connection that is kept open. While `stop` is set, its statements end within STEPS instructions."""

    connection: Connection
    stop: threading.Event


@asynccontextmanager
async def _mended(held: _Held) -> AsyncIterator[None]:
    """Ensures that a held connection runs no statement and has no open transaction after the block failed."""
    try:
        yield
    except BaseException:
        raw = held.connection.raw_connection
        held.stop.set()  # interrupt() stops a running statement, but not one that is still queued for the thread
        try:
            await raw.interrupt()
            await raw.rollback()  # runs in the same thread, so after the stopped one; no effect outside a transaction
        finally:
            held.stop.clear()
        raise


class _SQLiteConnection(sqlite3.Connection):
    """Sets the PRAGMAs, which apply per connection, and defines functions of PostgreSQL that SQLite lacks."""

    def __init__(self, stop: threading.Event, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.row_factory = sqlite3.Row
        self._stop = stop
        self.set_progress_handler(stop.is_set, STEPS)
        for pragma in ("synchronous = NORMAL", "foreign_keys = ON", "cache_size = -16384"):
            self.execute(f"PRAGMA {pragma}")
        self.create_function("date_part", 2, _date_part, deterministic=True)
        self.create_function("greatest", 2, max, deterministic=True)

    def check(self) -> sqlite3.Connection:
        """This connection, for one more statement. Raises sqlite3.OperationalError if none may begin: nobody waits for
        the result any more."""
        if self._stop.is_set():
            raise sqlite3.OperationalError("stopped")
        return self


def _date_part(_epoch: str, time: str | None) -> float | None:
    """`date_part('epoch', …)` only: seconds since 1970 of a time as SQLAlchemy writes it, in UTC without a zone."""
    return None if time is None else datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp()


_UNTIMED = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"


class PostgreSQL:
    """A PostgreSQL server. The connection pool reconnects by itself."""

    begin = "BEGIN"
    lock_schema = f"{_UNTIMED}; SELECT pg_advisory_xact_lock(7331002)"
    lock_rows = " FOR NO KEY UPDATE"
    bulk: bulk.Bulk = bulk.PostgreSQLBulk()
    driver: Driver = PostgreSQLDriver()
    begin_snapshot = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_UNTIMED}"

    def __init__(self, url: DatabaseURL, *, alone: bool = False) -> None:
        self._database = databases.Database(
            url,
            min_size=1,
            max_size=1 if alone else POOL,
            init=claims.take_connection if alone else claims.share_connection,
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
        """Tries until it is cancelled: the database may be slow while its machine starts."""
        while not self._database.is_connected:
            with suppress(TimeoutError):
                await self._database.connect()

    async def close(self) -> None:
        await self._database.disconnect()  # if cancelled, it aborts the connections

    def read_quickly(self, sql: str, values: Mapping[str, Any]) -> list[Row] | None:
        return None

    def claim(self) -> bool:
        return False

    @asynccontextmanager
    async def connection(self, *, write: bool) -> AsyncIterator[Connection]:
        async with self._database.connection() as connection:
            try:
                yield connection
            except BaseException as error:
                with suppress(asyncpg.InterfaceError):  # already closed
                    await self._settle(connection.raw_connection, error)
                raise

    async def _settle(self, raw: Any, error: BaseException) -> None:
        """Rolls back a connection, or else closes it. The pool opens a new one when needed."""
        if self.fault(error) == "away":
            raw.terminate()  # the connection may stay read-only long after the database no longer is
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
            return "ours" if isinstance(error, ValueError) else "away"  # ValueError: the column cannot take the value
        if not isinstance(error, asyncpg.PostgresError):
            return "ours"
        state = error.sqlstate or ""
        return _POSTGRESQL_FAULTS.get(state) or _POSTGRESQL_FAULTS.get(state[:2]) or "refused"


_POSTGRESQL_FAULTS: dict[str, Fault] = {
    "08": "away",  # connection
    "21": "ours",  # cardinality
    "22": "ours",  # data
    "23": "ours",  # constraints
    "25": "away",  # state of the transaction, such as read-only after a failover
    "28": "away",  # authorization
    "3D": "away",  # no such database
    "40001": "clash",  # not serializable
    "40P01": "clash",  # deadlock
    "53": "away",  # resources
    "53100": "full",  # disk full
    "54": "ours",  # limits
    "57": "away",  # operator
    "57014": "refused",  # statement cancelled
    "58": "away",  # system
}
"""Faults by SQLSTATE or its class (the first two characters)."""


async def _keep(_connection: object) -> None:
    """Replaces asyncpg's reset, which costs a round trip per call. Nothing here changes a connection's settings."""


def engine_of(url: str, *, alone: bool = False) -> Engine:
    """The engine for a URL, not yet connected. `alone`: it opens only if no server uses the database, and none can
    start until it is closed. Raises ConfigError if the URL is for neither engine.
    """
    parsed = parse_url(url)
    return SQLite(parsed, alone=alone) if parsed.scheme == "sqlite" else PostgreSQL(parsed, alone=alone)
