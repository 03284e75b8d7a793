"""An asyncio loop in its own thread, called from trio.

`databases` runs on asyncio only. The loop runs as long as the `async with` that opens it. On exit, running calls are
cancelled (except that work begun by `finish` ends first, within its own deadline) and the thread is joined. A loop that
does not end, for example because it is stuck in a system call, is abandoned; see `left_behind`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, TypeVarTuple, Unpack

import anyio
import trio
from anyio.from_thread import BlockingPortal, start_blocking_portal

T = TypeVar("T")
Args = TypeVarTuple("Args")

GRACE_S = 2.0
"""How much longer trio waits than the timeout on the asyncio side. Only a hanging loop uses it up."""

END_S = 10.0
"""How long the loop may take to end, unless `Portal.stop` was called."""

LEAST_S = 0.3
"""Time that every call has after the deadline of `Portal.stop`. An orderly end takes less."""

NAME = "sfu-portal"
"""Name of the loop's threads."""

log = logging.getLogger(__name__)


class PortalStopped(Exception):
    """The loop has ended, or was stopped during the call."""


class Portal:
    """Runs coroutine functions on the asyncio loop. Their exceptions are raised in the caller."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._open = True
        self._deadline = math.inf  # for all calls together
        self._waits: set[trio.CancelScope] = set()

    def stop(self, within_s: float) -> None:
        """From now on, calls of `finish`, including running ones, wait at most `within_s`. Their work may go on."""
        self._deadline = trio.current_time() + within_s
        for scope in self._waits:
            scope.deadline = min(scope.deadline, self._deadline)

    def _until(self, timeout_s: float) -> float:
        now = trio.current_time()
        return min(now + timeout_s, max(self._deadline, now + LEAST_S))

    async def call(self, function: Callable[[Unpack[Args]], Awaitable[T]], *args: *Args) -> T:
        """Awaits `function(*args)` on the loop. Cancelling the caller cancels it there and waits until it has ended."""
        if not self._open:
            raise PortalStopped
        try:
            return await self._portal.call_async(function, *args)
        except concurrent.futures.CancelledError:  # an ordinary Exception, not a cancellation to trio
            raise PortalStopped from None

    async def finish(self, function: Callable[[Unpack[Args]], Awaitable[T]], *args: *Args, timeout_s: float) -> T:
        """Like `call`, but never interrupted half-way: abandoned SQL would leak its connection.

        A caller that is already cancelled starts nothing. A caller that is cancelled later gets the result first and
        is cancelled at its next checkpoint, so it can undo its work. Raises TimeoutError after `timeout_s`, which the
        function sees as an asyncio.CancelledError.
        """

        async def whole() -> T:
            with anyio.CancelScope(shield=True):
                async with asyncio.timeout(timeout_s):
                    result = await function(*args)
            return result

        await trio.lowlevel.checkpoint_if_cancelled()  # else a task that calls this repeatedly could not be cancelled
        if not self._open:
            raise PortalStopped
        scope = trio.CancelScope(deadline=self._until(timeout_s + GRACE_S), shield=True)
        self._waits.add(scope)
        try:
            with scope:
                return await self._portal.call_async(whole, abandon_on_cancel=True)
        except concurrent.futures.CancelledError:
            raise PortalStopped from None
        finally:
            self._waits.discard(scope)
        raise TimeoutError

    async def _end(self, join: Callable[[], object]) -> None:
        self._open = False
        with trio.CancelScope(deadline=self._until(END_S), shield=True) as scope:
            await self._portal.call_async(self._portal.stop, True, abandon_on_cancel=True)
            await trio.to_thread.run_sync(join, abandon_on_cancel=True)
        if scope.cancelled_caught:
            log.warning("loop=left_behind")


def left_behind() -> bool:
    """Whether a loop was abandoned. Python may then wait forever for its threads instead of exiting."""
    return any(thread.name == NAME for thread in threading.enumerate())


@asynccontextmanager
async def open_portal() -> AsyncIterator[Portal]:
    """Starts the loop. Must be entered and left in trio."""
    manager = start_blocking_portal("asyncio", name=NAME)
    portal = Portal(await trio.to_thread.run_sync(manager.__enter__))
    try:
        yield portal
    finally:
        await portal._end(lambda: manager.__exit__(None, None, None))
