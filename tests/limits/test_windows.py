"""Requests per key and minute: counted in windows that a key's first request begins."""

from __future__ import annotations

import pytest

from sfu.limits.rates import ADDRESSES
from sfu.limits.windows import WINDOW_S, Windows
from sfu.refusals import TooManyRequests


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_window_is_used_up_and_begins_again() -> None:
    clock = Clock()
    windows = Windows(clock)
    assert [windows.take("a", 3).left for _ in range(3)] == [2, 1, 0]
    clock.now_s += 10.5
    late = windows.take("a", 3)
    with pytest.raises(TooManyRequests, match="more than 3 requests with this key") as refused:
        late.check()
    assert refused.value.retry_after_s == 50
    assert late.headers == {"RateLimit-Policy": '"key";q=3;w=60', "RateLimit": '"key";r=0;t=50'}
    windows.take("b", 3).check()
    clock.now_s += WINDOW_S - 10.5
    again = windows.take("a", 3)
    again.check()
    assert (again.left, again.reset_s) == (2, 60)


def test_a_limit_that_is_raised_counts_at_once() -> None:
    windows = Windows(Clock())
    for _ in range(9):
        windows.take("a", 2)
    windows.take("a", 4).check()


def test_memory_is_bounded() -> None:
    windows = Windows(Clock())
    for number in range(ADDRESSES + 10):
        windows.take(str(number), 1)
    assert len(windows._windows) == ADDRESSES
