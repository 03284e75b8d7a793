"""A server that is told to stop does so in time, whatever its database does, and leaves no connection behind."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from support.process import Server
from support.waiting import eventually

from sfu.process.metrics import Counters
from sfu.store import open_store
from sfu.store.retention import BATCH
from sfu.tenancy.keys import ServerKey

pytest_plugins = ["support.storing"]

LIMIT_S = 10.0
"""What docs/operating.md promises, and Docker waits before it kills."""
ROWS = 130_000
OVER = """
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
    INSERT INTO chat_lines (id, company_id, room_id, peer, user_name, text, sent_ms, expires_ms)
    SELECT {uuid}, c.id, 'team', 'p', 'alice', 'hello', i, i FROM n JOIN companies AS c ON c.is_default
"""
SQLITE_UUID = "'00000000-0000-4000-8000-' || substr('000000000000' || i, -12)"
POSTGRESQL_UUID = "CAST('00000000-0000-4000-8000-' || lpad(CAST(i AS TEXT), 12, '0') AS UUID)"
STALL = """
    CREATE TRIGGER stall BEFORE UPDATE ON sessions
    BEGIN SELECT instr(zeroblob(4000000), CAST(zeroblob(2000000) || x'01' AS BLOB)); END
"""
"""One step of SQLite's machine that takes minutes, as one in a file system that hangs: nothing can interrupt it."""
OPEN = """
    INSERT INTO sessions (
        id, company_id, room_id, user_name, server, connected_at, last_seen_at, day, concurrency
    )
    SELECT id, id, 'team', 'alice', 'one', created_at, created_at, '2030-01-01', 1 FROM companies
"""


def database(server: Server) -> Path:
    return Path(server.data.name) / "sfu.db"


def ask(path: Path, sql: str) -> Any:
    with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as connection:
        return connection.execute(sql).fetchone()


def is_locked(path: Path) -> bool:
    """Whether somebody who is not done writes."""
    with closing(sqlite3.connect(path, timeout=0.5, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        connection.execute("ROLLBACK")
        return False


def stopped(server: Server) -> float:
    """Seconds that it took to stop."""
    began = time.monotonic()
    assert server.stop(signal.SIGTERM) == 0
    return time.monotonic() - began


def test_a_sweep_stops_between_two_batches(start_server: Callable[..., Server]) -> None:
    server = start_server()
    path = database(server)
    assert server.stop() == 0
    ask(path, OVER.format(rows=ROWS, uuid=SQLITE_UUID))
    server.start()
    count = "SELECT count(*) FROM chat_lines"
    eventually(lambda: ask(path, count)[0] < ROWS, "the sweep has begun")
    assert stopped(server) < LIMIT_S
    left = ask(path, count)[0]
    assert 0 < left < ROWS
    assert left % BATCH == ROWS % BATCH
    assert not path.with_name("sfu.db-wal").exists(), "a connection was left open"


def test_a_database_that_hangs_keeps_no_server(start_server: Callable[..., Server]) -> None:
    server = start_server(heartbeat_s="0.2", server_name="one")
    ask(database(server), STALL)
    ask(database(server), OPEN)  # for the next heartbeat
    eventually(lambda: is_locked(database(server)), "the heartbeat hangs")
    assert stopped(server) < LIMIT_S


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
async def test_a_sweep_that_is_cancelled_leaves_no_connection(
    database_url: str, server_key: ServerKey, request: pytest.FixtureRequest
) -> None:
    sqlite = database_url.startswith("sqlite")
    uuid = SQLITE_UUID if sqlite else POSTGRESQL_UUID
    async with open_store(database_url, server_key) as store, trio.open_nursery() as nursery:
        await store.companies.ensure_default()
        await store.database.run(OVER.format(rows=20 * BATCH, uuid=uuid))
        await nursery.start(store.run, 0.05, Counters())
        while (await store.database.read("SELECT count(*) AS n FROM chat_lines"))[0]["n"] == 20 * BATCH:
            pass
        nursery.cancel_scope.cancel()
    async with open_store(database_url, server_key) as store:
        ((left,),) = [row.values() for row in await store.database.read("SELECT count(*) FROM chat_lines")]
        assert 0 < left < 20 * BATCH
        if not sqlite:
            pids = "SELECT pid FROM pg_stat_activity WHERE application_name = 'sfu'"
            assert len(await store.database.read(pids)) == 1, "the one that asks"
    if sqlite:
        assert not await trio.Path(urlsplit(database_url).path.removeprefix("/") + "-wal").exists()
