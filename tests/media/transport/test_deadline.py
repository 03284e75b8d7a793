"""Deadlines of the media plane: they come once, and not out of time for which the process did not run."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from support.media_client import DEADLINE_S

from sfu.media.transport import deadline
from sfu.media.transport.deadline import Deadline, within


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    def run(test: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(test, DEADLINE_S))

    return run


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.25, 0.2])
def test_a_deadline_comes_once_and_not_early(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[Any], None], after_s: float
) -> None:
    monkeypatch.setattr(deadline, "STEP_S", 0.1)

    async def test() -> None:
        loop, came = asyncio.get_running_loop(), asyncio.Queue[float]()
        began_s = loop.time()
        Deadline(after_s, lambda: came.put_nowait(loop.time()))
        assert await came.get() - began_s >= after_s - 0.02  # loops count in milliseconds, and come early by one a step
        await asyncio.sleep(0.2)
        assert came.empty()

    run(test())


def test_one_that_was_cancelled_does_not_come(monkeypatch: pytest.MonkeyPatch, run: Callable[[Any], None]) -> None:
    monkeypatch.setattr(deadline, "STEP_S", 0.02)

    async def test() -> None:
        came: list[bool] = []
        kept, cancelled = asyncio.Event(), Deadline(0.05, lambda: came.append(True))
        Deadline(0.03, cancelled.cancel)
        Deadline(0.1, kept.set)
        await kept.wait()
        assert not came

    run(test())


def test_what_came_during_a_pause_is_in_time(run: Callable[[Any], None]) -> None:
    async def test() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            async with within(0.5):
                theirs.send(b"here\n")
                time.sleep(2)  # noqa: ASYNC251 - the loop does not run
                assert await reader.readline() == b"here\n"
            writer.close()

    run(test())


def test_who_is_silent_is_overdue_after_a_pause_too(run: Callable[[Any], None]) -> None:
    async def silence() -> None:
        async with within(0.2):
            asyncio.get_running_loop().call_soon(time.sleep, 1.5)
            await asyncio.Event().wait()

    async def test() -> None:
        with pytest.raises(TimeoutError):
            await silence()

    run(test())
