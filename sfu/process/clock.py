"""The clock for the control plane's deadlines. Time during which the process was paused does not count.

The process pauses with its machine (a snapshot, a closed laptop lid), or on a stalled disk or a log pipe that nobody
reads. With a monotonic clock, every deadline would have passed before the process has read what arrived meanwhile, and
it would take its own pause for the silence of its peers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

LOOK_S = 1.0
"""Longest sleep of the event loop, so that idle waiting can be told from a pause."""
MOST_S = 2.0
"""Longest step of the clock between two readings. Above LOOK_S, because a busy machine wakes up late at times."""


class AwakeClock(trio.abc.Clock):
    """A clock for `trio.run`. `now` is a monotonic clock in seconds."""

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
