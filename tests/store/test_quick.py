"""Quick reads of SQLite: the same rows as any other read, and never for long."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sfu.store import Store
from sfu.store.quick import STEPS, QuickReader

pytest_plugins = ["support.storing"]

COUNT = """
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :most)
    SELECT count(*) AS count FROM numbers
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "some.db") as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT)")
    writer.close()
    return tmp_path / "some.db"


@pytest.fixture
def reader(file: Path) -> QuickReader:
    return QuickReader(str(file), _connect)


def _connect(path: str, **how: object) -> sqlite3.Connection:
    connection = sqlite3.connect(path, **how)  # type: ignore[call-overload]
    connection.row_factory = sqlite3.Row
    return connection  # type: ignore[no-any-return]


def test_a_short_read_is_never_stopped_however_often_it_runs(reader: QuickReader) -> None:
    """SQLite counts the instructions of a statement on and on."""
    for _ in range(STEPS // 50):
        assert reader.read(COUNT, {"most": 50}) == [{"count": 50}]


def test_a_long_read_is_stopped_and_not_begun_again(reader: QuickReader) -> None:
    assert reader.read(COUNT, {"most": STEPS}) is None
    assert reader.read(COUNT, {"most": 1}) is None
    assert reader.read("SELECT 1 AS one", {}) == [{"one": 1}]


def test_it_sees_what_was_committed_and_waits_for_nobody(reader: QuickReader, file: Path) -> None:
    at = datetime(2026, 1, 31, 12, 0, 0, 5, tzinfo=UTC)
    with sqlite3.connect(file) as writer:
        writer.execute("INSERT INTO t VALUES (1, ?)", ["2026-01-31 12:00:00.000005"])
        assert reader.read("SELECT id FROM t", {}) == []
    assert reader.read("SELECT id FROM t WHERE at = :at", {"at": at}) == [{"id": 1}]
    writer.execute("BEGIN EXCLUSIVE")
    assert reader.read("SELECT id FROM t", {}) == [{"id": 1}]
    writer.close()


def test_it_writes_nothing_and_leaves_errors_to_others(reader: QuickReader) -> None:
    assert reader.read("INSERT INTO t VALUES (2, '') RETURNING id", {}) is None
    assert reader.read("SELECT * FROM nowhere", {}) is None
    assert reader.read("SELECT * FROM t", {}) == []


async def test_a_read_that_takes_longer_has_the_same_result(store: Store) -> None:
    for most in (10, 100 * STEPS, 10):
        assert await store.database.read(COUNT, most=most) == [{"count": most}]
