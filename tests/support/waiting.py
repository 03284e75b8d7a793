"""Waiting for what nothing announces."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import anyio

T = TypeVar("T")

DEADLINE_S = 30.0
"""Longer than anything here takes on a busy machine, so that what hangs fails instead."""
POLL_S = 0.05
TURN_S = 0.005


def eventually(look: Callable[[], T], what: str, timeout_s: float = DEADLINE_S) -> T:
    """The first true value that `look` returns; fails with the last false one after `timeout_s`. Blocks meanwhile."""
    deadline = time.monotonic() + timeout_s
    while not (value := look()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what} (last: {value!r})"
        time.sleep(POLL_S)
    return value


async def until(look: Callable[[], T], what: str = "it holds", timeout_s: float = DEADLINE_S) -> T:
    """The same in a loop, of trio or asyncio, whose other tasks go on."""
    deadline = anyio.current_time() + timeout_s
    while not (value := look()):
        assert anyio.current_time() < deadline, f"not within {timeout_s:g} s: {what} (last: {value!r})"
        await anyio.sleep(TURN_S)
    return value
