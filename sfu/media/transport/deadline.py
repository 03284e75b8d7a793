"""Timeouts for peers. Time during which this process was stopped does not count.

A process that was stopped, alone or with its machine, finds its timers due before it has read what arrived meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

STEP_S = 1.0
"""A deadline is counted down in steps. A step that ends this late is not counted: the process was stopped, and could
have heard nobody."""


class Deadline:
    """Calls `overdue` once, after `after_s` seconds, unless it is cancelled."""

    def __init__(self, after_s: float, overdue: Callable[[], object]) -> None:
        self._left_s, self._overdue = after_s, overdue
        self._loop = asyncio.get_running_loop()
        self._next()

    def _next(self) -> None:
        self._step_s = min(self._left_s, STEP_S)
        self._due_s = self._loop.time() + self._step_s
        self._timer = self._loop.call_later(self._step_s, self._step)

    def _step(self) -> None:
        if self._loop.time() - self._due_s < STEP_S:
            self._left_s -= self._step_s
        if self._left_s > 0:
            self._next()
        else:
            self._overdue()

    def cancel(self) -> None:
        self._timer.cancel()


@asynccontextmanager
async def within(after_s: float) -> AsyncIterator[None]:
    """Raises TimeoutError if its block takes longer than `after_s` seconds, counted like a Deadline's."""
    async with asyncio.timeout(None) as timeout:
        deadline = Deadline(after_s, lambda: timeout.reschedule(asyncio.get_running_loop().time()))
        try:
            yield
        finally:
            deadline.cancel()
