"""Whole databases: the tables of the schema, their copies between the engines, and who may replace them."""

from __future__ import annotations

import re
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.filled import contents, fill
from support.older import take_back
from support.variants import variants

from sfu.errors import ConfigError
from sfu.refusals import DatabaseUnavailable
from sfu.store import bulk, copies, open_store
from sfu.store.claims import InUse
from sfu.store.database import connect
from sfu.store.migrations import Step
from sfu.store.shape import Table, shape
from sfu.store.statements import Statements
from sfu.tenancy.keys import ServerKey

if TYPE_CHECKING:
    from support.postgres import Postgres

pytest_plugins = ["support.storing"]

TABLES = shape(copies.known_steps())
KINDS = {"UUID", "TEXT", "INTEGER", "BIGINT", "DOUBLE PRECISION", "BOOLEAN", "TIMESTAMPTZ", "DATE", "JSONB"}


crossing = pytest.mark.parametrize(
    ("database_url", "target_url"),
    [
        ("sqlite", "postgresql"),
        ("postgresql", "sqlite"),
        *variants(("sqlite", "sqlite"), ("postgresql", "postgresql")),
    ],
    indirect=True,
)
"""For what depends on the one engine or the other, and not on both."""


@pytest.fixture(params=["sqlite", "postgresql"])
def target_url(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> str:
    """Another database, that is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/target.db"
    server: Postgres = request.getfixturevalue("postgres")
    server.execute("DROP DATABASE IF EXISTS target WITH (FORCE)")
    server.execute("CREATE DATABASE target")
    return server.url.replace("/postgres", "/target")


async def moved(
    source_url: str, target_url: str, progress: Any = lambda count: None, committed: Any = lambda: None
) -> dict[str, int]:
    async with connect(source_url) as source, connect(target_url, beside=source) as target:

        async def work(old: Statements, new: Statements) -> dict[str, int]:
            found = await copies.contents(old, source.bulk)
            await copies.clear(new, target.bulk)
            rows = copies.read(old, source.bulk, found.tables)
            return await copies.fill(new, target.bulk, found.steps, rows, progress)

        return await source.copy(target, work, committed)


async def test_everything_is_copied_whatever_the_engines(
    database_url: str, target_url: str, server_key: ServerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "PAGE", 1)  # each row a page
    async with open_store(database_url, server_key) as store:
        await fill(store)
    before, done = await contents(database_url), []
    written = await moved(database_url, target_url, done.append)
    assert all(before.values()), "the fixture has rows in every table, also in one that was added later"
    assert await contents(target_url) == before == await contents(database_url)
    assert written == {table: len(rows) for table, rows in before.items()}
    assert sum(done) == sum(written.values())
    async with open_store(target_url, server_key, create=False) as store:
        await store.companies.check_key()
        company = await store.companies.by_name("Acme & Söhne")
        assert company is not None
        (session,) = (await store.history.room_sessions(company.id, "team")).items
        assert (session.user_name, session.quality.score_min, session.drops.last_drop) == ("alice", 1 / 3, "page_gone")
        with pytest.raises(Exception, match=r"UNIQUE|unique"):
            await store.database.run("UPDATE companies SET name = 'same'")


@crossing
async def test_a_copy_is_upgraded(database_url: str, target_url: str, server_key: ServerKey) -> None:
    """What an older release left: here without the step that counts lost connections."""
    async with open_store(database_url, server_key) as store:
        await fill(store)
        await take_back(store.database, 11)
    await moved(database_url, target_url)
    async with open_store(target_url, server_key, create=False) as store:
        rows = await store.database.read("SELECT drops, last_drop FROM sessions")
        assert [(row["drops"], row["last_drop"]) for row in rows] == [(0, None)] * 2


@crossing
async def test_an_interrupted_copy_leaves_nothing(database_url: str, target_url: str, server_key: ServerKey) -> None:
    async with open_store(database_url, server_key) as store:
        await fill(store)
    here, committed = trio.lowlevel.current_trio_token(), list[bool]()
    with trio.CancelScope() as scope:
        await moved(
            database_url,
            target_url,
            lambda count: here.run_sync_soon(scope.cancel),
            lambda: committed.append(True),
        )
    assert (scope.cancelled_caught, committed) == (True, [])
    assert await contents(target_url) == {}
    assert await moved(database_url, target_url)
    assert await contents(target_url) == await contents(database_url)


async def test_a_snapshot_is_of_one_moment(
    database_url: str, server_key: ServerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "PAGE", 1)
    async with open_store(database_url, server_key) as store, connect(database_url) as database:
        await fill(store)
        before = sum(map(len, (await contents(database_url)).values()))
        seen, here = [], trio.lowlevel.current_trio_token()

        async def work(statements: Statements) -> None:
            found = await copies.contents(statements, database.bulk)
            async for _, rows in copies.read(statements, database.bulk, found.tables):
                seen.extend(rows)
                trio.from_thread.run(store.companies.create, str(uuid.uuid4()), trio_token=here)

        await database.snapshot(work)
        assert len(seen) == before
        assert len(await store.companies.list()) == 2 + before, "others wrote meanwhile"


async def test_pages_come_out_of_the_index_of_the_key(postgres: Postgres, server_key: ServerKey) -> None:
    """In the order of the column, not of its text, which a locale may sort otherwise."""
    url, table = postgres.emptied(), next(table for table in TABLES if table.name == "sessions")

    async def work(statements: Statements) -> str:
        await statements.raw.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        sql = bulk.PostgreSQLBulk().page_sql(table, first=False)
        return "\n".join(row[0] for row in await statements.raw.fetch(f"EXPLAIN {sql}", str(uuid.UUID(int=7))))

    async with open_store(url, server_key) as store:
        plan = await store.database.snapshot(work)
    assert "Index Scan using sessions_pkey" in plan
    assert "Sort" not in plan


async def test_nothing_is_replaced_while_a_server_runs(database_url: str, server_key: ServerKey) -> None:
    async with open_store(database_url, server_key) as store:
        await store.sessions.close_stale()  # as a server does at its start
        with pytest.raises(InUse, match="Stop it"):
            async with connect(database_url, alone=True):
                pass
    async with connect(database_url, alone=True):
        with pytest.raises((ConfigError, DatabaseUnavailable), match="is restoring or moving this database"):
            async with open_store(database_url, server_key, create=False) as store:
                await store.sessions.close_stale()
    async with open_store(database_url, server_key) as store:
        await store.sessions.close_stale()


@crossing
async def test_tables_of_others_are_left_alone(database_url: str, target_url: str, server_key: ServerKey) -> None:
    async with open_store(database_url, server_key) as store:
        await fill(store)
    async with open_store(target_url, server_key) as store:
        await store.database.run("CREATE TABLE theirs (x INTEGER)")
        await store.database.run("INSERT INTO theirs VALUES (7)")
    await moved(database_url, target_url)
    async with open_store(target_url, server_key, create=False) as store:
        assert await store.database.read("SELECT x FROM theirs") == [{"x": 7}]


# --- the schema ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_has_a_type_that_is_copied(table: Table) -> None:
    assert {column.kind for column in table.columns} <= KINDS
    kinds = {column.name: column.kind for column in table.columns}
    assert [kinds[name] for name in table.key] == ["UUID"], "a sequence would have to be copied as well"


def test_no_table_refers_to_a_later_one() -> None:
    names = [table.name for table in TABLES]
    with closing(sqlite3.connect(":memory:")) as scratch:
        for step in copies.known_steps():
            for statement in step.statements:
                scratch.execute(statement)
        for name in names:
            for row in scratch.execute(f"PRAGMA foreign_key_list({name})"):
                assert names.index(row[2]) < names.index(name)
    assert set(re.findall(r"CREATE TABLE (\w+)", Path("schema.sql").read_text())) == set(names)


def test_a_circle_of_tables_is_refused() -> None:
    statements = ("CREATE TABLE a (id UUID REFERENCES b (id))", "CREATE TABLE b (id UUID REFERENCES a (id))")
    with pytest.raises(ValueError, match="circle: a, b"):
        shape([Step(1, "a circle", statements)])
