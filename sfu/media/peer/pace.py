"""Rate limit for operations that cost other peers time. Pure: the clock is an argument."""

from __future__ import annotations

import math


class Pace:
    """Spaces operations at least `every_s` apart on average; after a pause, up to `burst` of them may follow at
    once."""

    __slots__ = ("_burst", "_due_s", "_every_s")

    def __init__(self, every_s: float, burst: int) -> None:
        self._every_s, self._burst = every_s, burst
        self._due_s = -math.inf  # when the next one would be due at the average rate

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next operation is allowed, 0 for now."""
        return max(0.0, self._due_s - (self._burst - 1) * self._every_s - now_s)

    def done(self, now_s: float) -> None:
        """Counts an operation."""
        self._due_s = max(self._due_s, now_s) + self._every_s
