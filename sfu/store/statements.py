"""SQL on one connection, and the values that go with it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sfu.refusals import BadValue
from sfu.store.drivers import Driver, Row

__all__ = ["Row", "Statements", "Work", "bound"]

T = TypeVar("T")


class Statements:
    """SQL on one connection. Lives on the asyncio side, so use it only inside `Database.transaction`."""

    def __init__(self, raw: Any, driver: Driver, said: list[str], lock_rows: str = "") -> None:
        """`raw` is aiosqlite's or asyncpg's connection. `said` collects each statement before it runs. `lock_rows`
        turns a SELECT into one that locks rows."""
        self.raw = raw
        self._driver = driver
        self._said = said
        self._lock_rows = lock_rows

    async def all(self, sql: str, /, **values: Any) -> list[Row]:
        """The rows of a SELECT, or of a statement with RETURNING."""
        self._said.append(sql)
        return await self._driver.fetch(self.raw, sql, bound(values))

    async def one(self, sql: str, /, **values: Any) -> Row | None:
        rows = await self.all(sql, **values)
        return rows[0] if rows else None

    async def lock(self, sql: str, /, **values: Any) -> None:
        """Locks the rows of a SELECT in its order. Transactions that lock in the same order do not deadlock."""
        if self._lock_rows:
            await self.all(sql + self._lock_rows, **values)

    async def run(self, sql: str, /, **values: Any) -> None:
        self._said.append(sql)
        await self._driver.fetch(self.raw, sql, bound(values))

    async def run_many(self, sql: str, values: Sequence[Mapping[str, Any]]) -> None:
        self._said.append(sql)
        await self._driver.run_many(self.raw, sql, [bound(item) for item in values])

    async def script(self, sql: str, /) -> None:
        """Runs a statement of the schema as it is, without parsing `:names` as parameters."""
        self._said.append(sql)
        await self._driver.script(self.raw, sql)


Work = Callable[[Statements], Awaitable[T]]


def bound(values: Mapping[str, Any]) -> dict[str, Any]:
    """Converts values for both engines. Raises BadValue for text that PostgreSQL cannot store."""
    bound = dict(values)
    for name, value in values.items():
        if isinstance(value, datetime):
            bound[name] = value.astimezone(UTC)
        elif isinstance(value, str) and _UNSTORABLE.search(value):
            raise BadValue(f"{name}: must be text without NUL and lone surrogates.")
    return bound


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
