"""Writes of several callers in one transaction: while one is committed, those that come meanwhile wait for the next.

A transaction costs several ways to the database, however much it writes, so many callers at once are quicker together.
One caller alone waits for nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import trio

from sfu.refusals import DatabaseUnavailable
from sfu.store.database import Database
from sfu.store.statements import Statements

T = TypeVar("T")

MOST = 100
"""Most callers of one transaction. Others wait for it, in SQLite also those who write something else."""


@dataclass(slots=True, eq=False)
class _Waiting(Generic[T]):
    item: T
    done: bool = False
    error: Exception | None = None


class Together(Generic[T]):
    """`write` writes all items that it gets, or raises. It may be called again with fewer of them."""

    def __init__(self, database: Database, write: Callable[[Statements, Sequence[T]], Awaitable[None]]) -> None:
        self._database, self._write = database, write
        self._waiting: list[_Waiting[T]] = []
        self._turn = trio.Lock()

    async def add(self, item: T) -> None:
        """Writes an item; returns once it is committed. Raises what `write` raises, or DatabaseUnavailable."""
        mine = _Waiting(item)
        self._waiting.append(mine)
        with trio.CancelScope(shield=True):  # like all calls that reach the database
            async with self._turn:
                if not mine.done:
                    batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                    await self._commit(batch)
        if mine.error is not None:
            raise mine.error

    async def _commit(self, batch: Sequence[_Waiting[T]]) -> None:
        """Raises nothing but stores it with each item."""
        error: Exception | None = None
        try:
            await self._database.transaction(partial(self._run, batch))
        except DatabaseUnavailable as away:
            error = away
        except Exception as fault:  # noqa: BLE001 -- `add` raises it
            if len(batch) > 1:  # of one of them, which must not keep the others from being written
                for one in batch:
                    await self._commit([one])
                return
            error = fault
        for one in batch:
            one.done, one.error = True, error

    async def _run(self, batch: Sequence[_Waiting[T]], statements: Statements) -> None:
        await self._write(statements, [one.item for one in batch])
