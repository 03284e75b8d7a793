"""How a statement reaches aiosqlite and asyncpg: its parameters, its values and its rows.

`databases` makes and keeps the connections. Statements go past it, since it compiles each one anew with SQLAlchemy,
which takes longer than most of them run. All have `:name` parameters: SQLite knows these, PostgreSQL knows `$1`.
Everything here runs on the portal's asyncio loop, DirectDriver on the thread of its connection.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Protocol, TypeVar, cast

Row = Mapping[str, Any]
Values = Mapping[str, Any]
T = TypeVar("T")
Together = Callable[[Any, "Driver"], Coroutine[Any, Any, T]]
"""Work that takes a connection and the driver for it."""

KNOWN = 1024
"""Most statements whose translation is kept. All that this package has are some two hundred."""

_NAME = re.compile(r"'[^']*'|(?<![:\w]):(\w+)")
"""A parameter, or a text literal, in which there are none. A cast (`::text`) is neither."""


class Driver(Protocol):
    """`raw` is the library's own connection."""

    async def together(self, raw: Any, work: Together[T]) -> T:
        """Awaits `work(raw, driver)` with the connection and the driver that its statements take. It may await nothing
        else than those."""

    async def script(self, raw: Any, sql: str) -> None:
        """Runs a statement as it is, without parameters or rows."""

    async def fetch(self, raw: Any, sql: str, values: Values) -> list[Row]:
        """Runs a statement, and returns its rows, if it has any."""

    async def run_many(self, raw: Any, sql: str, values: Sequence[Values]) -> None:
        """Runs a statement once with each of these values."""


class SQLiteDriver:
    """aiosqlite. Each call is one trip to the thread of the connection; `together` is one in all."""

    async def together(self, raw: Any, work: Together[T]) -> T:
        return cast(T, await raw._execute(lambda: _driven(work(raw._conn, _DIRECT))))

    async def script(self, raw: Any, sql: str) -> None:
        cursor = await raw.execute(sql)
        await cursor.close()

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


class DirectDriver:
    """sqlite3, on the thread of the connection: nothing here waits for another one."""

    async def together(self, raw: Any, work: Together[T]) -> T:
        return await work(raw, self)

    async def script(self, raw: Any, sql: str) -> None:
        raw.check().execute(sql).close()

    async def fetch(self, raw: Any, sql: str, values: Values) -> list[Row]:
        return SQLiteDriver.rows(raw.check().execute(sql, SQLiteDriver.as_text(values)).fetchall())

    async def run_many(self, raw: Any, sql: str, values: Sequence[Values]) -> None:
        raw.check().executemany(sql, [SQLiteDriver.as_text(one) for one in values]).close()


_DIRECT = DirectDriver()


def _driven(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast(T, done.value)
    work.close()
    raise RuntimeError("a transaction may await only its statements")


class PostgreSQLDriver:
    """asyncpg, which prepares each statement once per connection."""

    async def together(self, raw: Any, work: Together[T]) -> T:
        return await work(raw, self)

    async def script(self, raw: Any, sql: str) -> None:
        await raw.execute(sql)

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
