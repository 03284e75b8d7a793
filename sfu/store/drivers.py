"""How a statement reaches aiosqlite and asyncpg: its parameters, its values and its rows.

`databases` makes and keeps the connections. Statements go past it, since it compiles each one anew with SQLAlchemy,
which takes longer than most of them run. All have `:name` parameters: SQLite knows these, PostgreSQL knows `$1`.
Everything here runs on the portal's asyncio loop.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Protocol

Row = Mapping[str, Any]
Values = Mapping[str, Any]

KNOWN = 1024
"""Most statements whose translation is kept. All that this package has are some two hundred."""

_NAME = re.compile(r"'[^']*'|(?<![:\w]):(\w+)")
"""A parameter, or a text literal, in which there are none. A cast (`::text`) is neither."""


class Driver(Protocol):
    """`raw` is the library's own connection."""

    async def fetch(self, raw: Any, sql: str, values: Values) -> list[Row]:
        """Runs a statement, and returns its rows, if it has any."""

    async def run_many(self, raw: Any, sql: str, values: Sequence[Values]) -> None:
        """Runs a statement once with each of these values."""


class SQLiteDriver:
    """aiosqlite. Each call is one trip to the thread of the connection."""

    async def fetch(self, raw: Any, sql: str, values: Values) -> list[Row]:
        return self.rows(await raw.execute_fetchall(sql, self.as_text(values)))

    async def run_many(self, raw: Any, sql: str, values: Sequence[Values]) -> None:
        cursor = await raw.executemany(sql, [self.as_text(one) for one in values])
        await cursor.close()

    @staticmethod
    def rows(found: Sequence[sqlite3.Row]) -> list[Row]:
        if not found:
            return []
        names = found[0].keys()
        return [dict(zip(names, row, strict=True)) for row in found]

    @staticmethod
    def as_text(values: Values) -> dict[str, Any]:
        """Times and dates as the columns have them: text that sorts, in UTC, without a zone."""
        found = dict(values)
        for name, value in values.items():
            if isinstance(value, datetime):
                found[name] = value.replace(tzinfo=None).isoformat(" ", "microseconds")
            elif isinstance(value, date):
                found[name] = value.isoformat()
        return found


class PostgreSQLDriver:
    """asyncpg, which prepares each statement once per connection."""

    async def fetch(self, raw: Any, sql: str, values: Values) -> list[Row]:
        text, names = _numbered(sql)
        rows = await raw.fetch(text, *[values[name] for name in names])
        return [dict(row) for row in rows]

    async def run_many(self, raw: Any, sql: str, values: Sequence[Values]) -> None:
        text, names = _numbered(sql)
        await raw.executemany(text, [[one[name] for name in names] for one in values])


@lru_cache(maxsize=KNOWN)
def _numbered(sql: str) -> tuple[str, tuple[str, ...]]:
    """A statement with `$1`, `$2` … for its parameters, and their names in that order."""
    places: dict[str, str] = {}

    def place(found: re.Match[str]) -> str:
        return places.setdefault(found[1], f"${len(places) + 1}") if found[1] else found[0]

    return _NAME.sub(place, sql), tuple(places)
