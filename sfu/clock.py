"""The clock for the control plane's deadlines: time during which the process was stopped does not count.

One that was stopped (with its machine, for a snapshot or a closed lid, or by a disk or a log that nobody reads) finds
every deadline over before it has read what came meanwhile. Its own pause is nobody else's silence.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

LOOK_S = 1.0
"""How often the clock is looked at while nothing happens, so that a pause is told from waiting."""
MOST_S = 2.0
"""What counts of the time between two looks: more than LOOK_S, as a busy machine is late at times."""


class AwakeClock(trio.abc.Clock):
    """For `trio.run`. `now` is a clock in seconds that never goes back."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen_s = self._awake_s = now()

    def start_clock(self) -> None:
        self._seen_s = self._now()

    def current_time(self) -> float:
        seen_s = self._now()
        self._awake_s += min(seen_s - self._seen_s, MOST_S)
        self._seen_s = seen_s
        return self._awake_s

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return min(deadline - self.current_time(), LOOK_S)
