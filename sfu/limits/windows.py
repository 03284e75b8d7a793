"""Requests per key and window of time, as headers tell them (draft-ietf-httpapi-ratelimit-headers-10).

Pure; memory is bounded.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from sfu.limits.rates import ADDRESSES
from sfu.refusals import TooManyRequests

WINDOW_S = 60
NAME = "key"
"""The name of the policy in the headers."""


@dataclass(frozen=True, slots=True)
class Left:
    """How many requests of `count` are left in the window, and in how many seconds the next one begins."""

    count: int
    left: int
    reset_s: int

    @property
    def headers(self) -> dict[str, str]:
        """Sections 3 and 4 of the draft."""
        policy = {"RateLimit-Policy": f'"{NAME}";q={self.count};w={WINDOW_S}'}
        return policy | {"RateLimit": f'"{NAME}";r={max(0, self.left)};t={self.reset_s}'}

    def check(self) -> None:
        """Raises TooManyRequests if this request was one too many."""
        if self.left < 0:
            refusal = TooManyRequests(self.reset_s)
            refusal.args = (f"There were more than {self.count} requests with this key within a minute.",)
            raise refusal


class Windows:
    """Counts the requests of each key in windows of WINDOW_S, which begin with its first request."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()  # end of the window, requests in it

    def take(self, key: str, count: int) -> Left:
        """Counts a request of the key, which may send `count` in a window."""
        now_s = self._clock()
        end_s, taken = self._windows.get(key, (0.0, 0))
        if now_s >= end_s:
            end_s, taken = now_s + WINDOW_S, 0
        taken = min(taken, count) + 1
        self._windows[key] = end_s, taken
        self._windows.move_to_end(key)
        if len(self._windows) > ADDRESSES:
            self._windows.popitem(last=False)
        return Left(count, count - taken, math.ceil(end_s - now_s))
