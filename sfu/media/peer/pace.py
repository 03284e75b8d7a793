"""Rate limit for operations that cost other peers time. Pure: the clock is an argument."""

from __future__ import annotations

import math


class Pace:
    """At once as long as it is done seldom, then every `every_s`; what was not done for a while may be made up for,
    `burst` times at most."""

    __slots__ = ("_burst", "_due_s", "_every_s")

    def __init__(self, every_s: float, burst: int) -> None:
        self._every_s, self._burst = every_s, burst
        self._due_s = -math.inf  # when it would be due if it were done as often as it may be

    def wait_s(self, now_s: float) -> float:
        """How long until it may be done, 0 for now."""
        return max(0.0, self._due_s - (self._burst - 1) * self._every_s - now_s)

    def done(self, now_s: float) -> None:
        self._due_s = max(self._due_s, now_s) + self._every_s
