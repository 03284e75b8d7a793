from __future__ import annotations

import asyncio
import threading

import pytest
import trio

from sfu.store.portal import Portal, PortalStopped, left_behind, open_portal


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def test_a_call_runs_on_an_asyncio_loop_in_another_thread() -> None:
    async def where() -> tuple[int, bool]:
        return threading.get_ident(), asyncio.get_running_loop().is_running()

    async with open_portal() as portal:
        assert await portal.call(double, 21) == 42
        assert await portal.finish(double, 21, timeout_s=5) == 42
        assert await portal.call(where) != (threading.get_ident(), True)


@pytest.mark.parametrize("how", ["call", "finish"])
async def test_what_a_call_raises_is_raised_here(how: str) -> None:
    async def fail() -> None:
        raise LookupError("there")

    async with open_portal() as portal:
        with pytest.raises(LookupError, match="there"):
            await (portal.call(fail) if how == "call" else portal.finish(fail, timeout_s=5))
        assert await portal.call(double, 1) == 2


class Work:
    """Takes until it is let go, and tells how it ended."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended = ""
        self._go: asyncio.Event | None = None

    async def __call__(self) -> str:
        self._go = asyncio.Event()
        self.began.set()
        try:
            await self._go.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "done"
        return "result"

    async def let_go(self) -> None:
        assert self._go is not None
        self._go.set()


async def test_cancelling_a_call_cancels_it_there() -> None:
    work = Work()
    async with open_portal() as portal, trio.open_nursery() as nursery:
        nursery.start_soon(portal.call, work)
        await trio.to_thread.run_sync(work.began.wait)
        nursery.cancel_scope.cancel()
    assert work.ended == "cancelled"


async def test_a_cancelled_finish_ends_its_work_and_gives_the_result() -> None:
    work, results = Work(), []

    async def caller(portal: Portal) -> None:
        results.append(await portal.finish(work, timeout_s=5))
        await trio.sleep_forever()

    with trio.fail_after(10):
        async with open_portal() as portal, trio.open_nursery() as nursery:
            nursery.start_soon(caller, portal)
            await trio.to_thread.run_sync(work.began.wait)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await portal.call(work.let_go)
    assert (work.ended, results) == ("done", ["result"])


async def test_finish_has_a_deadline_and_lets_the_work_clean_up() -> None:
    cleaned: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)  # the rollback: not cancelled again
            cleaned.append("up")

    async with open_portal() as portal:
        with pytest.raises(TimeoutError):
            await portal.finish(slow, timeout_s=0.05)
    assert cleaned == ["up"]


async def test_a_loop_that_hangs_does_not_hang_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfu.store.portal.GRACE_S", 0.05)
    release = threading.Event()

    async def hang() -> None:
        release.wait()  # blocks the loop itself

    async with open_portal() as portal:
        with pytest.raises(TimeoutError), trio.fail_after(10):
            await portal.finish(hang, timeout_s=0.05)
        release.set()


async def test_a_loop_of_calls_meets_its_cancellation() -> None:
    begun: list[int] = []

    async def begin() -> None:
        begun.append(1)

    async with open_portal() as portal:
        with trio.CancelScope() as scope:
            while True:
                await portal.finish(begin, timeout_s=5)
                scope.cancel()
    assert begun == [1]


@pytest.mark.parametrize("first", ["call", "stop"])
async def test_nobody_waits_longer_than_told(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those that wait when it is told, nor those that call then; and the loop is left behind that hangs."""
    monkeypatch.setattr("sfu.store.portal.LEAST_S", 0.05)
    release, begun = threading.Event(), threading.Event()

    async def hang() -> None:
        begun.set()
        release.wait()  # blocks the loop itself

    async def call(portal: Portal) -> None:
        with pytest.raises(TimeoutError):
            await portal.finish(hang, timeout_s=3600)

    with trio.fail_after(10):
        async with open_portal() as portal, trio.open_nursery() as nursery:
            if first == "stop":
                portal.stop(0.05)
            nursery.start_soon(call, portal)
            await trio.to_thread.run_sync(begun.wait)
            if first == "call":
                portal.stop(0.05)
        assert left_behind()
        release.set()
        while left_behind():  # noqa: ASYNC110 -- a thread tells nobody that it ends
            await trio.sleep(0.01)


@pytest.mark.parametrize("how", ["call", "finish"])
async def test_a_cancellation_over_there_is_not_one_here(how: str) -> None:
    """It would arrive as concurrent.futures.CancelledError, which no trio code expects."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    async with open_portal() as portal:
        with pytest.raises(PortalStopped):
            await (portal.call(cancelled) if how == "call" else portal.finish(cancelled, timeout_s=5))


@pytest.mark.parametrize("how", ["call", "finish"])
async def test_after_its_end_a_portal_refuses(how: str) -> None:
    async with open_portal() as portal:
        pass
    with pytest.raises(PortalStopped):
        await (portal.call(double, 1) if how == "call" else portal.finish(double, 1, timeout_s=5))


async def test_the_end_cancels_calls_and_waits_for_what_must_finish() -> None:
    ended: list[str] = []

    async def endless() -> None:
        await asyncio.sleep(60)

    async def commit() -> None:
        started.set()
        await asyncio.sleep(0.05)
        ended.append("committed")

    async def call(portal: Portal) -> None:
        with pytest.raises(PortalStopped):
            await portal.call(endless)
        ended.append("stopped")

    async def finish(portal: Portal) -> None:
        await portal.finish(commit, timeout_s=5)

    started = threading.Event()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery, open_portal() as portal:
            nursery.start_soon(call, portal)
            nursery.start_soon(finish, portal)
            await trio.to_thread.run_sync(started.wait)
    assert sorted(ended) == ["committed", "stopped"]


async def test_no_thread_is_left() -> None:
    before = threading.active_count()
    for _ in range(3):
        async with open_portal() as portal:
            await portal.call(double, 1)
    assert not [thread for thread in threading.enumerate() if thread.name == "sfu-portal"]
    assert threading.active_count() <= before + 1  # trio keeps one of its own for the next call
