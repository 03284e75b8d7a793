"""Deferred writes: queued in order and written by one task, so that callers never wait.

The queue is bounded. While the database is away or refuses statements, queued writes are kept; once the queue is full,
new ones are rejected.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import groupby, islice
from typing import Any

import trio

from sfu.refusals import DatabaseUnavailable
from sfu.store import events
from sfu.store.database import Database
from sfu.store.events import Event
from sfu.store.statements import Statements, bound

BATCH = 200

log = logging.getLogger(__name__)

Step = Callable[[Statements], Awaitable[Sequence[Event]]]
"""Several statements that belong together. Returns the events of what it changed, which are recorded at the end of the
transaction, when all other rows are locked. It may run twice."""

LOCK_SESSION = "SELECT id FROM sessions WHERE id = :session_id"
LOCK = "SELECT id FROM rooms WHERE company_id = :company_id AND room_id = :room_id"

_Item = tuple[str | Step, dict[str, Any]]


class Later:
    """A queue of statements with their values. Every statement must be idempotent, since it may run twice."""

    def __init__(self, database: Database, limit: int, lock_room: str = "") -> None:
        """`lock_room` is a SELECT that locks the room named by the value `room` of a statement, before it runs."""
        self._database = database
        self._limit = limit
        self._lock_room = lock_room
        self._items: deque[_Item] = deque()
        self._more = trio.Event()
        self._flushing = trio.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, sql: str, /, **values: Any) -> bool:
        """Queues a statement; false if the queue is full.

        Raises BadValue for values that cannot be stored: in the queue they would block everything behind them.
        """
        if len(self._items) >= self._limit:
            return False
        self._items.append((sql, bound(values)))
        self._more.set()
        return True

    def add_step(self, step: Step, **locks: str) -> bool:
        """Queues statements that are committed together, or not at all; false if the queue is full.

        `locks` is what they need locked: a room, as `company_id` and `room_id`, and perhaps a `session_id`. The rooms,
        then the sessions, of all that is written together are locked first and in order, as elsewhere, so that no two
        transactions wait for each other.
        """
        if len(self._items) >= self._limit:
            return False
        self._items.append((step, locks))
        self._more.set()
        return True

    async def write(self) -> None:
        """Waits until something is queued, then calls `flush`."""
        if not self._items:
            self._more = trio.Event()
            await self._more.wait()
        await self.flush()

    async def flush(self) -> None:
        """Writes the queue, or raises DatabaseUnavailable and keeps what is not written."""
        async with self._flushing:
            while self._items:
                batch = list(islice(self._items, BATCH))
                try:
                    await self._database.transaction(partial(self._run, batch))
                except DatabaseUnavailable:
                    raise
                except Exception:
                    log.exception("batch=refused")  # invalid values, a bug; they must not block the others
                    await self._one_by_one(batch)
                for _ in batch:
                    self._items.popleft()

    async def _one_by_one(self, batch: list[_Item]) -> None:
        for item in batch:
            try:
                await self._database.transaction(partial(self._run, [item]))
            except DatabaseUnavailable:
                raise
            except Exception:
                log.exception("write=dropped what=%r", _shown(item[0]))

    async def _run(self, items: list[_Item], statements: Statements) -> None:
        if self._lock_room:
            for room in sorted({values["room"] for what, values in items if isinstance(what, str)}):
                await statements.lock(self._lock_room, room=room)
        await self._lock(statements, [locks for what, locks in items if not isinstance(what, str) and locks])
        happened: list[Event] = []
        for what, group in groupby(items, key=lambda item: item[0]):
            if isinstance(what, str):
                await statements.run_many(what, sorted((values for _, values in group), key=_row))
            else:
                happened += await what(statements)
        if happened:
            await events.record(statements, datetime.now(UTC), *happened)

    @staticmethod
    async def _lock(statements: Statements, locks: Sequence[Mapping[str, str]]) -> None:
        for company_id, room_id in sorted({(one["company_id"], one["room_id"]) for one in locks}):
            await statements.lock(LOCK, company_id=company_id, room_id=room_id)
        for session_id in sorted({one["session_id"] for one in locks if "session_id" in one}):
            await statements.lock(LOCK_SESSION, session_id=session_id)


def _shown(what: str | Step) -> str:
    return " ".join(what.split())[:60] if isinstance(what, str) else getattr(what, "__qualname__", repr(what))


def _row(values: Mapping[str, Any]) -> tuple[str, str]:
    """Sort key by row, so that rows are locked in the same order as elsewhere. Writes to one row keep their order."""
    return str(values.get("room_id", "")), str(values.get("id", ""))
