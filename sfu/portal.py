"""An asyncio loop in a thread of its own, called from trio.

`databases` runs on asyncio only. The loop lives as long as the `async with` that opens it: when that is left, what
still runs is cancelled (work begun by `finish` ends first, within its own deadline) and the thread is joined.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, TypeVarTuple, Unpack

import anyio
import trio
from anyio.from_thread import BlockingPortal, start_blocking_portal

T = TypeVar("T")
Args = TypeVarTuple("Args")

GRACE_S = 2.0
"""How much longer than the asyncio side trio waits; only a loop that hangs takes it."""


class PortalStopped(Exception):
    """The loop has ended, or was told to end while the call ran."""


class Portal:
    """Runs coroutine functions on the asyncio loop. What they raise is raised here."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._open = True

    async def call(self, function: Callable[[Unpack[Args]], Awaitable[T]], *args: *Args) -> T:
        """`await function(*args)` over there. Cancelling it here cancels it there and waits until it is over."""
        if not self._open:
            raise PortalStopped
        try:
            return await self._portal.call_async(function, *args)
        except concurrent.futures.CancelledError:  # an Exception, which trio would not take for a cancellation
            raise PortalStopped from None

    async def finish(self, function: Callable[[Unpack[Args]], Awaitable[T]], *args: *Args, timeout_s: float) -> T:
        """Like `call`, but never cut short half-way: for SQL, which cannot be abandoned without leaking its connection.

        A cancelled caller gets the result first and meets its cancellation at the next checkpoint, so whatever was made
        can be undone. Raises TimeoutError after `timeout_s`, which the function sees as one asyncio.CancelledError.
        """

        async def whole() -> T:
            with anyio.CancelScope(shield=True):
                async with asyncio.timeout(timeout_s):
                    result = await function(*args)
            return result

        if not self._open:
            raise PortalStopped
        try:
            with trio.fail_after(timeout_s + GRACE_S, shield=True):
                return await self._portal.call_async(whole, abandon_on_cancel=True)
        except trio.TooSlowError:
            raise TimeoutError from None
        except concurrent.futures.CancelledError:
            raise PortalStopped from None

    async def _stop(self) -> None:
        self._open = False
        await self._portal.call_async(self._portal.stop, True)


@asynccontextmanager
async def open_portal() -> AsyncIterator[Portal]:
    """Starts the loop; opened and closed in trio."""
    manager = start_blocking_portal("asyncio", name="sfu-portal")
    portal = Portal(await trio.to_thread.run_sync(manager.__enter__))
    try:
        yield portal
    finally:
        with trio.CancelScope(shield=True):
            await portal._stop()
            await trio.to_thread.run_sync(manager.__exit__, None, None, None)
