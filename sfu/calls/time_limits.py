"""Stays of a limited length: a token may say for how long its holder may be in the call (`max_duration`)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

import trio

from sfu.calls.admission import Entry
from sfu.errors import SfuError, TimeOver
from sfu.store import records


class Stay(Protocol):
    """A session, as far as its length is concerned."""

    entry: Entry
    record: records.Session

    def end(self, error: SfuError | None) -> None:
        """Ends the session."""

    async def run(self) -> None:
        """Runs it until it has ended."""


async def run(stay: Stay, clock: Callable[[], datetime]) -> None:
    """Runs a session and ends it with TimeOver when its time is over.

    The time counts from the join, also for somebody who returns after the connection was lost; waiting in a lobby does
    not count.
    """
    grant = stay.entry.grant
    most_s = None if grant is None else grant.max_duration_s
    if most_s is None:
        await stay.run()
        return
    left_s = (stay.record.connected_at + timedelta(seconds=most_s) - clock()).total_seconds()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_after, max(0.0, left_s), stay)
        await stay.run()
        nursery.cancel_scope.cancel()


async def _end_after(seconds: float, stay: Stay) -> None:
    await trio.sleep(seconds)
    stay.end(TimeOver())
