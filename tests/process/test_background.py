"""Work beside the calls: nothing it raises ends the server, and it is put off, counted and said once."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from sfu.process.background import RETRY_MOST_S, RETRY_S, repeat
from sfu.process.metrics import Counters
from sfu.refusals import DatabaseUnavailable

EVERY_S = 60.0


class Work:
    """Raises what it is told to, in order, then succeeds; remembers when it was run."""

    def __init__(self, *errors: Exception) -> None:
        self.errors: Iterator[Exception] = iter(errors)
        self.began: list[float] = []

    async def __call__(self) -> None:
        await trio.lowlevel.checkpoint()
        self.began.append(trio.current_time())
        for error in self.errors:
            raise error

    @property
    def pauses(self) -> list[float]:
        return [round(later - before, 3) for before, later in zip(self.began, self.began[1:], strict=False)]


async def run(work: Work, counters: Counters, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await repeat("heartbeat", work, EVERY_S, counters)


@pytest.mark.parametrize(
    "error", [ValueError("odd"), OSError("disk"), MemoryError(), ExceptionGroup("two", [KeyError()])]
)
async def test_whatever_is_raised_is_counted_and_said_once(
    error: Exception, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    work, counters = Work(error, error, error), Counters()
    await run(work, counters, 1000)
    assert counters.get("sfu_task_failures_total", task="heartbeat") == 3
    said = [(record.levelname, record.getMessage().split(" error=")[0]) for record in caplog.records]
    assert said == [("WARNING", "task=heartbeat state=failing"), ("INFO", "task=heartbeat state=works")]


async def test_pauses_grow_to_the_most_and_end_with_the_failures(autojump_clock: trio.testing.MockClock) -> None:
    work = Work(*[DatabaseUnavailable()] * 6)
    await run(work, Counters(), 300)
    grown = [min(RETRY_S * 2**tried, RETRY_MOST_S) for tried in range(6)]
    assert work.pauses[:6] == grown
    assert set(work.pauses[6:]) == {EVERY_S}


async def test_of_the_database_the_database_tells(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    counters = Counters()
    await run(Work(DatabaseUnavailable()), counters, 100)
    assert counters.get("sfu_task_failures_total", task="heartbeat") == 1
    assert not caplog.records


async def test_it_ends_when_it_is_cancelled_also_while_it_fails(autojump_clock: trio.testing.MockClock) -> None:
    async def fail() -> None:
        raise ValueError

    with trio.move_on_after(100) as scope:
        await repeat("heartbeat", fail, 0, Counters())
    assert scope.cancelled_caught
