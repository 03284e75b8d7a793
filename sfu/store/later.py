"""Deferred writes: queued in order, written by one task, so that callers never wait.

The queue is bounded. While the database is away or refuses, what is in it stays; what comes beyond the bound does not
get in.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from functools import partial
from itertools import groupby, islice
from typing import Any

import trio

from sfu.refusals import DatabaseUnavailable
from sfu.store.database import Database, Statements, bound

BATCH = 200

log = logging.getLogger(__name__)

_Item = tuple[str, dict[str, Any]]


class Later:
    """Statements with their values, each of which must change nothing when it is run a second time."""

    def __init__(self, database: Database, limit: int) -> None:
        self._database = database
        self._limit = limit
        self._items: deque[_Item] = deque()
        self._more = trio.Event()
        self._flushing = trio.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, sql: str, /, **values: Any) -> bool:
        """Queues a statement; false when the queue is full.

        Raises BadValue for what cannot be stored: in the queue it would keep everything behind it from being written.
        """
        if len(self._items) >= self._limit:
            return False
        self._items.append((sql, bound(values)))
        self._more.set()
        return True

    async def write(self) -> None:
        """Waits until there is something to write, and does as `flush`."""
        if not self._items:
            self._more = trio.Event()
            await self._more.wait()
        await self.flush()

    async def flush(self) -> None:
        """Writes what is queued, or raises DatabaseUnavailable and keeps it."""
        async with self._flushing:
            while self._items:
                batch = list(islice(self._items, BATCH))
                try:
                    await self._database.transaction(partial(_run, items=batch))
                except DatabaseUnavailable:
                    raise
                except Exception:
                    log.exception("batch=refused")  # for one's values: a bug, which must not hold up the others
                    await self._one_by_one(batch)
                for _ in batch:
                    self._items.popleft()

    async def _one_by_one(self, batch: list[_Item]) -> None:
        for item in batch:
            try:
                await self._database.transaction(partial(_run, items=[item]))
            except DatabaseUnavailable:
                raise
            except Exception:
                log.exception("write=dropped sql=%r", " ".join(item[0].split())[:60])


async def _run(statements: Statements, items: list[_Item]) -> None:
    for sql, group in groupby(items, key=lambda item: item[0]):
        await statements.run_many(sql, sorted((values for _, values in group), key=_row))


def _row(values: Mapping[str, Any]) -> tuple[str, str]:
    """Rows are locked in the order of this, as everywhere; what is about the same row stays in its own order."""
    return str(values.get("room_id", "")), str(values.get("id", ""))
