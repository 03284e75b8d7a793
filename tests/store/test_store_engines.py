"""What each engine's errors mean, and that a statement can always be stopped."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
import trio
from support.waiting import until

from sfu.errors import RoomFull
from sfu.process.metrics import Counters
from sfu.refusals import DatabaseUnavailable
from sfu.store import Store
from sfu.store.engines import Engine, engine_of
from sfu.store.records import Company

if TYPE_CHECKING:
    from support.away import Away

pytest_plugins = ["support.storing"]

SQLITE = engine_of("sqlite:///sfu.db")
POSTGRESQL = engine_of("postgresql://host/name")


def sqlite(code: int, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> sqlite3.Error:
    error = kind("as SQLite raises it")
    error.sqlite_errorcode = code
    return error


def postgresql(state: str) -> BaseException:
    made: BaseException = asyncpg.PostgresError.new({"C": state, "M": "as PostgreSQL raises it", "S": "ERROR"})
    assert isinstance(made, asyncpg.PostgresError)
    return made


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (sqlite3.SQLITE_BUSY, "away"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "away"),
        (sqlite3.SQLITE_LOCKED_SHAREDCACHE, "away"),
        (sqlite3.SQLITE_READONLY_DBMOVED, "away"),
        (sqlite3.SQLITE_IOERR_FSYNC, "away"),
        (sqlite3.SQLITE_CORRUPT_VTAB, "away"),
        (sqlite3.SQLITE_NOTADB, "away"),
        (sqlite3.SQLITE_FULL, "full"),
        (sqlite3.SQLITE_CANTOPEN_ISDIR, "away"),
        (sqlite3.SQLITE_INTERRUPT, "away"),
        (sqlite3.SQLITE_ERROR, "refused"),
        (sqlite3.SQLITE_SCHEMA, "refused"),
        (sqlite3.SQLITE_AUTH, "refused"),
        (sqlite3.SQLITE_ABORT_ROLLBACK, "refused"),
        (sqlite3.SQLITE_INTERNAL, "refused"),
        (99, "refused"),
        (sqlite3.SQLITE_CONSTRAINT_TRIGGER, "refused"),
        (sqlite3.SQLITE_CONSTRAINT_CHECK, "ours"),
        (sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY, "ours"),
        (sqlite3.SQLITE_MISMATCH, "ours"),
        (sqlite3.SQLITE_TOOBIG, "ours"),
    ],
)
def test_what_a_code_of_sqlite_means(code: int, fault: str) -> None:
    assert SQLITE.fault(sqlite(code)) == fault


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("40001", "clash"),
        ("40P01", "clash"),
        ("08006", "away"),
        ("25006", "away"),
        ("25P03", "away"),
        ("28P01", "away"),
        ("3D000", "away"),
        ("53100", "full"),
        ("53300", "away"),
        ("57P01", "away"),
        ("57P03", "away"),
        ("58030", "away"),
        ("57014", "refused"),
        ("40003", "refused"),
        ("55P03", "refused"),
        ("42501", "refused"),
        ("42P01", "refused"),
        ("42703", "refused"),
        ("0A000", "refused"),
        ("P0001", "refused"),
        ("XX000", "refused"),
        ("ZZ999", "refused"),
        ("21000", "ours"),
        ("22003", "ours"),
        ("23503", "ours"),
        ("54000", "ours"),
    ],
)
def test_what_a_state_of_postgresql_means(state: str, fault: str) -> None:
    assert POSTGRESQL.fault(postgresql(state)) == fault


@pytest.mark.parametrize("engine", [SQLITE, POSTGRESQL])
def test_what_is_no_error_of_the_database_is_raised_as_it_is(engine: Engine) -> None:
    for error in (RoomFull(), KeyError("x"), AssertionError(), asyncio.CancelledError()):
        assert engine.fault(error) == "ours"
    for gone in (TimeoutError(), ConnectionResetError(), OSError("disk")):
        assert engine.fault(gone) == "away"


def test_what_asyncpg_says_by_itself() -> None:
    assert POSTGRESQL.fault(asyncpg.InterfaceError("connection is closed")) == "away"
    assert POSTGRESQL.fault(asyncpg.InternalClientError("protocol")) == "away"
    assert POSTGRESQL.fault(asyncpg.exceptions._base.DataError("value out of int64 range")) == "ours"
    assert SQLITE.fault(sqlite3.OperationalError("Could not decode to UTF-8 column")) == "refused"
    assert SQLITE.fault(sqlite3.ProgrammingError("type is not supported")) == "ours"


ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS i FROM n"


async def read(engine: Engine, sql: str, timeout_s: float) -> list[int]:
    async with asyncio.timeout(timeout_s), engine.connection(write=True) as connection:
        return [row["i"] for row in await connection.fetch_all(sql)]


def test_a_statement_whose_time_is_over_before_it_begins_is_stopped(tmp_path: Path) -> None:
    """Its thread still has another to do, so there is nothing to interrupt yet."""

    async def test() -> None:
        engine = engine_of(f"sqlite:///{tmp_path}/sfu.db")
        await engine.open()
        busy, go = threading.Event(), threading.Event()

        def stall() -> None:
            busy.set()
            go.wait()

        try:
            async with engine.connection(write=True) as connection:
                raw = connection.raw_connection
                await raw.create_function("stall", 0, stall)
            for _ in range(3):
                before = asyncio.ensure_future(raw.execute_fetchall("SELECT stall()"))
                await asyncio.to_thread(busy.wait)
                asyncio.get_running_loop().call_later(0.1, go.set)  # after it was told to stop
                with pytest.raises(TimeoutError):
                    await read(engine, ENDLESS, 0.01)
                with pytest.raises(sqlite3.OperationalError, match="interrupted"):
                    await before
                busy.clear()
                go.clear()
            assert await read(engine, "SELECT 1 AS i", 5) == [1]  # it is as good as new
        finally:
            go.set()
            await raw.interrupt()  # or the tests would not end where this one fails
            await engine.close()

    async def whole() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(whole())


# --- another process that writes -------------------------------------------------------------------------------------

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@sqlite_only
async def test_those_who_wait_for_a_locked_file_give_up_together(
    store: Store, company: Company, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In turn, the last ones would be stopped by their deadline, or be admitted long after they had gone."""
    monkeypatch.setattr("sfu.store.database.CALL_S", 2.0)
    causes: list[BaseException | None] = []

    async def join(number: int) -> None:
        with pytest.raises(DatabaseUnavailable) as refused:
            await store.sessions.admit_anonymous(company.id, f"room-{number}", "alice")
        causes.append(refused.value.__cause__)

    with away():
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(join, number)
        assert [str(cause) for cause in causes] == ["database is locked"] * 40
    await store.sessions.admit_anonymous(company.id, "team", "alice")


async def test_nobody_needs_to_use_the_database_for_its_state_to_be_told(
    store: Store, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfu.store.PROBE_S", 0.05)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run, 3600.0, Counters())
        with away():
            await until(lambda: store.database.state == "away")
        await until(lambda: store.database.state == "ok")
        nursery.cancel_scope.cancel()
