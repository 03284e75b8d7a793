"""The phases of the server's life: starting, ready, draining, stopping. Pure: the clock is an argument.

While it drains, running calls go on and people may still join them, but no call begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from sfu.errors import ServerDraining

Phase = Literal["starting", "ready", "draining", "stopping"]

BACK_S = 5
"""How long a restart takes, roughly: refused people are to come back afterwards."""
RETRY_MOST_S = 30
"""Longest time after which refused people are to try again, since a drain may end early."""


class Lifecycle:
    """The phase of one server, which only advances. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.phase: Phase = "starting"
        self._clock = clock
        self._end = math.inf

    @property
    def draining(self) -> bool:
        return self.phase == "draining"

    @property
    def seconds_left(self) -> int:
        """Whole seconds until the drain ends at the latest; 0 if the server does not drain."""
        return max(0, math.ceil(self._end - self._clock())) if self.draining else 0

    def started(self) -> None:
        if self.phase == "starting":
            self.phase = "ready"

    def drain(self, seconds: float) -> None:
        self.phase, self._end = "draining", self._clock() + seconds

    def stop(self) -> None:
        self.phase = "stopping"

    def refusal(self) -> ServerDraining:
        """The refusal of people whose call has not begun."""
        return ServerDraining(min(self.seconds_left + BACK_S, RETRY_MOST_S))
