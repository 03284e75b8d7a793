"""Whatever the database refuses, for whatever reason: no task beside the calls ends, and nothing that waits is lost."""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest
import trio
from support.rows import room
from support.variants import variants
from support.waiting import until

from sfu.process.metrics import Counters
from sfu.refusals import DatabaseUnavailable
from sfu.store import Store, open_store
from sfu.store.portal import open_portal
from sfu.store.records import Company, File, Line, RoomSettings, Session
from sfu.tenancy.keys import ServerKey

if TYPE_CHECKING:
    from support.postgres import Postgres

pytest_plugins = ["support.storing"]

WRITERS = ("leaves", "rulings", "lines", "heartbeat", "retention")
TABLES = {"sessions": ("UPDATE",), "bans": ("INSERT",), "chat_lines": ("INSERT", "DELETE")}
"""What these write, and how."""
STATES = (
    "08006", "0A000", "25006", "28000", "40001", "40003", "40P01", "42501", "42703", "42P01", "53100", "53200", "53300",
    "55P03", "57014", "57P01", "58030", "P0001", "XX000", "XX001", "ZZ999",
)  # fmt: skip
AWAY = ("locked", "read_only", "08006", "25006", "28000", "53200", "53300", "57P01", "58030")
"""The others are statements refused by a database that answers."""
QUICK = ("renamed", "revoked", "read_only", "08006", "40P01", "53100", "57P01", "XX000")
"""Of PostgreSQL's, one of each kind."""

Break = Callable[[], AbstractContextManager[None]]


@contextmanager
def between(execute: Callable[[str], object], before: str, after: str) -> Iterator[None]:
    execute(before)
    try:
        yield
    finally:
        execute(after)


def failing(state: str) -> tuple[str, str]:
    """Has PostgreSQL refuse what the tasks write, with any SQLSTATE; and lets it be."""
    body = f"BEGIN RAISE EXCEPTION 'out of order' USING ERRCODE = '{state}'; END"
    made = [
        f"CREATE TRIGGER fail BEFORE {' OR '.join(events)} ON {table} EXECUTE FUNCTION fail();"
        for table, events in TABLES.items()
    ]
    before = f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$; {''.join(made)}"
    return before, "DROP FUNCTION fail() CASCADE"


def failing_rows() -> tuple[str, str]:
    """The same in SQLite, which has one way to fail."""
    found = [(table, event) for table, events in TABLES.items() for event in events]
    made = "CREATE TRIGGER {0}_{1} BEFORE {1} ON {0} BEGIN SELECT RAISE(ABORT, 'out of order'); END;"
    return "".join(made.format(*one) for one in found), "".join("DROP TRIGGER {}_{};".format(*one) for one in found)


RENAMED = (
    "".join(f"ALTER TABLE {table} RENAME TO {table}_gone;" for table in TABLES),
    "".join(f"ALTER TABLE {table}_gone RENAME TO {table};" for table in TABLES),
)
REVOKED = tuple(
    "".join(f"{verb} INSERT, UPDATE, DELETE ON {table} {whom} guest;" for table in TABLES)
    for verb, whom in (("REVOKE", "FROM"), ("GRANT", "TO"))
)
READ_ONLY = (
    """
    ALTER DATABASE postgres SET default_transaction_read_only = on;
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sfu'
    """,
    "SET transaction_read_only = off; ALTER DATABASE postgres RESET default_transaction_read_only",
)
GUEST = """
    DO $$ BEGIN CREATE ROLE guest LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
    GRANT ALL ON SCHEMA public TO guest;
    GRANT ALL ON ALL TABLES IN SCHEMA public TO guest
"""


def in_sqlite(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path, timeout=5)) as connection:
        connection.executescript(script)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Another process writes on and on."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=5)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


SQLITE: dict[str, Callable[[Path], AbstractContextManager[None]]] = {
    "trigger": lambda path: between(partial(in_sqlite, path), *failing_rows()),
    "renamed": lambda path: between(partial(in_sqlite, path), *RENAMED),
    "locked": exclusive,
}
POSTGRESQL: dict[str, tuple[str, str]] = {
    "renamed": RENAMED,
    "revoked": (REVOKED[0], REVOKED[1]),
    "read_only": READ_ONLY,
} | {state: failing(state) for state in STATES}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    monkeypatch.setattr("sfu.process.background.RETRY_S", 0.01)
    monkeypatch.setattr("sfu.process.background.RETRY_MOST_S", 0.05)
    monkeypatch.setattr("sfu.store.SWEEP_S", 0.05)
    if database_url.startswith("sqlite"):  # in PostgreSQL it is for connections
        monkeypatch.setattr("sfu.store.engines.LOCKED_S", 0.1)


@pytest.fixture
def broken(how: str, database_url: str, request: pytest.FixtureRequest) -> tuple[str, Break]:
    """The URL to open, and what breaks the database for as long as a `with` lasts."""
    if database_url.startswith("sqlite"):
        return database_url, partial(SQLITE[how], Path(urlsplit(database_url).path.removeprefix("/")))
    server: Postgres = request.getfixturevalue("postgres")
    if how == "revoked":
        server.execute(GUEST)
        database_url = database_url.replace("sfu@", "guest@")
    return database_url, partial(between, server.execute, *POSTGRESQL[how])


@pytest.mark.parametrize(
    ("database_url", "how"),
    [("sqlite", how) for how in SQLITE]
    + [("postgresql", how) for how in POSTGRESQL if how in QUICK]
    + variants(*(("postgresql", how) for how in POSTGRESQL if how not in QUICK)),
    indirect=["database_url"],
)
@pytest.mark.usefixtures("impatient")
async def test_no_task_ends_and_nothing_is_lost(
    how: str, broken: tuple[str, Break], server_key: ServerKey, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sfu.store.database")
    url, breaking = broken
    counters = Counters()

    def said(*starts: str) -> list[str]:
        return [line for line in map(logging.LogRecord.getMessage, caplog.records) if line.startswith(starts)]

    async with open_store(url, server_key, clock=clock) as store, trio.open_nursery() as nursery:
        await nursery.start(store.run, 0.05, counters)
        company = await store.companies.ensure_default()
        staying, leaving = [await store.sessions.admit_anonymous(company.id, "team", who) for who in ("alice", "bob")]
        now_ms = int(clock.now.timestamp() * 1000)
        lines = [Line(session.id, "p", "alice", "hello", now_ms) for session in (staying, leaving)]
        short = await room(store, company, "short", chat_kept_s=10)
        team = await room(store, company)
        store.chat.add(short, lines[0])
        await store.lines.flush()
        with breaking():
            clock.advance(20)
            store.sessions.close(leaving, "left")
            store.bans.add(leaving, until=clock.now + timedelta(days=1), by="alice")
            store.chat.add(team, lines[1])
            for task in WRITERS:
                await until(lambda task=task: counters.get("sfu_task_failures_total", task=task) >= 3)  # type: ignore[misc]
            assert len(store.leaves) == len(store.rulings) == len(store.lines) == 1
            expected = "away" if how in AWAY else "refused"
            await until(lambda: store.database.state == expected)  # a statement that works comes between others
        clock.advance(20)
        left_at = clock.now - timedelta(seconds=20)
        await until(lambda: not (store.leaves or store.rulings or store.lines))
        begun, over = ("database=away", "statement=refused"), ("database=back", "statement=works")
        await until(lambda: len(said(*begun)) == len(said(*over)))
        assert store.database.state == "ok"
        await until_seen(store, company, clock)
        await until_swept(store)
        nursery.cancel_scope.cancel()
    async with open_store(url, server_key, clock=clock) as store:
        closed = {one.user_name: one for one in (await store.history.room_sessions(company.id, "team")).items}["bob"]
        assert (closed.disconnected_at, closed.leave_reason) == (left_at, "left")
        assert [ban.user_name for ban in (await store.bans.list(company.id, "team")).items] == ["bob"]
        kept = await store.database.read("SELECT id FROM chat_lines")
        assert [str(row["id"]) for row in kept] == [leaving.id]  # and the line that was over is gone
    warnings = said(*begun)
    assert all(re.search(r" reason=['\"].+['\"] sql='.+'$", line) for line in warnings), warnings
    if how in AWAY:
        assert 1 <= len(warnings) <= len(WRITERS)  # one, but for what was on its way when the first got through
    else:
        assert len(set(warnings)) == len(warnings) == len(said(*over)) >= len(WRITERS)  # each once


async def until_swept(store: Store) -> None:
    """Until of the two lines the one is gone that was over."""
    with trio.fail_after(10):
        while len(await store.database.read("SELECT id FROM chat_lines")) > 1:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def until_seen(store: Store, company: Company, clock: Any) -> None:
    """Until a heartbeat got through."""
    with trio.fail_after(10):
        while (await store.history.participants(company.id, "team"))[0].last_seen_at != clock.now:  # noqa: ASYNC110
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("broken", "mended", "words", "state"),
    [
        (
            "PRAGMA max_page_count = 1",
            "PRAGMA max_page_count = 100000",
            "full",
            "refused",
        ),  # as many pages as there are
        ("PRAGMA query_only = ON", "PRAGMA query_only = OFF", "readonly", "away"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_file_that_takes_no_more_keeps_what_waits(
    store: Store, company: Company, broken: str, mended: str, words: str, state: str
) -> None:
    team = await room(store, company)
    await store.database.run(broken)
    for number in range(200):
        line = Line(f"00000000-0000-4000-8000-{number:012}", "p", "alice", "x" * 4000, number)
        store.chat.add(team, line)
    with pytest.raises(DatabaseUnavailable) as refused:
        await store.lines.flush()
    assert words in str(refused.value.__cause__)
    assert (len(store.lines), store.database.state) == (200, state)
    await store.database.run(mended)
    await store.lines.flush()
    assert len(await store.database.read("SELECT id FROM chat_lines")) == 200


async def test_a_value_that_nobody_takes_holds_up_no_others(
    store: Store, company: Company, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a bug, and would be refused for ever."""
    too_large = Line("00000000-0000-4000-8000-000000000001", "p", "alice", "hello", 2**70)
    of_no_file = Line("00000000-0000-4000-8000-000000000002", "p", "alice", "", 1, File(str(UUID(int=1)), "a", "b", 1))
    good = Line("00000000-0000-4000-8000-000000000003", "p", "alice", "hello", 1)
    team = await room(store, company)
    for line in (too_large, of_no_file, good):
        store.chat.add(team, line)
    await store.lines.flush()
    assert [str(row["id"]) for row in await store.database.read("SELECT id FROM chat_lines")] == [good.id]
    assert store.database.available
    assert caplog.text.count("write=dropped") == 2


# --- transactions that meet, which they do in PostgreSQL only --------------------------------------------------------

postgresql_only = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@postgresql_only
@pytest.mark.parametrize("state", ["40001", "40P01"])
async def test_what_others_got_in_the_way_of_is_tried_again_at_once(
    store: Store, company: Company, postgres: Postgres, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = f"BEGIN IF nextval('tries') < 3 THEN RAISE 'met' USING ERRCODE = '{state}'; END IF; RETURN NEW; END"
    postgres.execute(f"""
        CREATE SEQUENCE tries;
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$;
        CREATE TRIGGER fail BEFORE INSERT ON rooms FOR EACH ROW EXECUTE FUNCTION fail();
    """)
    room = await store.rooms.create(company.id, "team", RoomSettings())
    assert room.version == 1
    assert not caplog.records


Sql = Callable[[str], Awaitable[list[Any]]]
WAITING = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'sfu' AND wait_event_type = 'Lock'"


@pytest.fixture
async def others(postgres: Postgres) -> AsyncIterator[tuple[Sql, Sql]]:
    """Two connections of somebody else's."""
    async with open_portal() as portal:
        found = [await portal.call(asyncpg.connect, postgres.url) for _ in range(2)]
        yield partial(portal.call, found[0].fetch), partial(portal.call, found[1].fetch)
        for connection in found:
            await portal.call(connection.close)


async def waiting(sql: Sql) -> None:
    """Until the store waits for somebody else's lock."""
    with trio.fail_after(10):
        while not await sql(WAITING):  # noqa: ASYNC110
            await trio.sleep(0.01)


async def touch(store: Store, company: Company, sessions: list[Session]) -> None:
    await store.sessions.touch()


async def delete(store: Store, company: Company, sessions: list[Session]) -> None:
    await store.rooms.delete(company.id, "team")


async def leave(store: Store, company: Company, sessions: list[Session]) -> None:
    for session in sessions:
        store.sessions.close(session, "left")
    await store.sessions.flush()


@postgresql_only
@pytest.mark.parametrize("act", [touch, delete, leave])
async def test_rows_are_locked_in_one_order(
    store: Store, company: Company, others: tuple[Sql, Sql], act: Callable[..., Awaitable[None]]
) -> None:
    """Who changes many never holds what another needs and waits for what the other holds."""
    sessions = [await store.sessions.admit_anonymous(company.id, "team", f"user-{n}") for n in range(20)]
    ids = sorted(session.id for session in sessions)
    holds, looks = others
    await holds("BEGIN")
    await holds(f"SELECT id FROM sessions WHERE id = '{ids[9]}' FOR UPDATE")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(act, store, company, sessions)
        await waiting(looks)
        free = await looks("SELECT id FROM sessions ORDER BY id FOR UPDATE SKIP LOCKED")
        assert [str(row["id"]) for row in free] == ids[10:]
        await holds("ROLLBACK")


@postgresql_only
async def test_the_victim_of_a_deadlock_tries_again(
    postgres: Postgres, database_url: str, server_key: ServerKey, others: tuple[Sql, Sql], clock: Any
) -> None:
    holds, looks = others
    patience = "ALTER DATABASE postgres SET deadlock_timeout = '2s'", "ALTER DATABASE postgres RESET deadlock_timeout"
    with between(postgres.execute, *patience):
        async with open_store(database_url, server_key, clock=clock) as store:
            company = await store.companies.ensure_default()
            sessions = [await store.sessions.admit_anonymous(company.id, "team", who) for who in ("alice", "bob")]
            first, last = sorted(session.id for session in sessions)
            clock.advance(60)
            await holds("BEGIN")
            await holds("SET LOCAL deadlock_timeout = '60s'")  # so the other one looks first
            await holds(f"SELECT id FROM sessions WHERE id = '{last}' FOR UPDATE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.sessions.touch)
                await waiting(looks)
                await holds(f"SELECT id FROM sessions WHERE id = '{first}' FOR UPDATE")
                await holds("COMMIT")
            assert {one.last_seen_at for one in await store.history.participants(company.id, "team")} == {clock.now}
    found = await looks("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'")
    assert found[0]["deadlocks"] >= 1
