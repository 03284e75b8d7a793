"""Periodic background tasks, and how they carry on after a failure."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from sfu.process.metrics import Counters
from sfu.refusals import DatabaseUnavailable

RETRY_S, RETRY_MOST_S = 1.0, 8.0
"""First pause after a failure; it doubles with each further failure, up to RETRY_MOST_S."""

log = logging.getLogger("sfu.background")


async def repeat(task: str, work: Callable[[], Awaitable[object]], every_s: float, counters: Counters) -> None:
    """Runs `work` repeatedly until cancelled, `every_s` apart (0 if `work` itself waits for something to do).

    An exception does not end the loop: it is counted under `task`, logged once until `work` succeeds again, and `work`
    is retried. DatabaseUnavailable is not logged here, since sfu.store.database logs it.
    """
    pause_s, said = RETRY_S, False
    while True:
        try:
            await work()
        except Exception as error:
            counters.add("sfu_task_failures_total", task=task)
            if not said and not isinstance(error, DatabaseUnavailable):
                log.warning("task=%s state=failing error=%r", task, error, exc_info=error)
                said = True
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)
        else:
            if said:
                log.info("task=%s state=works", task)
            pause_s, said = RETRY_S, False
            await trio.sleep(every_s)
