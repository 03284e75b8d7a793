"""Quick reads of SQLite: most find a few rows by an index, which takes less than the way to another thread.

They run in trio's thread, which waits for them: a tenth of a millisecond at most, where two threads that both run
Python take turns of some milliseconds. One that takes longer is stopped, and goes the usual way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from sfu.store.drivers import KNOWN, Row, SQLiteDriver

STEPS = 5_000
"""Instructions of SQLite's virtual machine, some tenths of a millisecond. A read is stopped after one to two times as
many: SQLite goes on counting from one run of a statement to the next."""


class QuickReader:
    """A connection that only reads and waits for nothing. One thread makes it, another one uses it."""

    def __init__(self, path: str, factory: Callable[..., sqlite3.Connection]) -> None:
        self._connection: sqlite3.Connection = factory(path, timeout=0, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA query_only = ON")
        self._connection.set_progress_handler(self._count, STEPS)
        self._counted = 0
        self._long: set[str] = set()  # statements that took too long

    def close(self) -> None:
        self._connection.close()

    def read(self, sql: str, values: Mapping[str, Any]) -> list[Row] | None:
        """The rows of a SELECT; None if it takes too long, did so before, or fails, which the usual way deals with."""
        if sql in self._long:
            return None
        self._counted = 0
        try:
            return SQLiteDriver.rows(self._connection.execute(sql, SQLiteDriver.as_text(values)).fetchall())
        except sqlite3.Error:
            if self._counted > 1 and len(self._long) < KNOWN:
                self._long.add(sql)
            return None

    def _count(self) -> bool:
        self._counted += 1
        return self._counted > 1
