"""Round-trip times as a sign of queueing: the longer they grow, the fuller the queue. Pure: the clock is an
argument.
"""

from __future__ import annotations

IDLE_S = 30.0
"""The shortest round trip within this time counts as that of an empty queue: paths change, and their length with
them."""
REMEMBERED = 64


class RoundTrips:
    """Recent round trips to one subscriber."""

    __slots__ = ("_lately",)

    def __init__(self) -> None:
        self._lately: list[tuple[float, float]] = []  # start and duration of each

    def __bool__(self) -> bool:
        return bool(self._lately)

    def add(self, seconds: float, sent_s: float) -> float:
        """Takes a round trip that began at `sent_s`; returns how much longer it took than the shortest recent one,
        itself included."""
        self._lately = [one for one in self._lately if one[0] > sent_s - IDLE_S][1 - REMEMBERED :]
        self._lately.append((sent_s, seconds))
        return seconds - min(took_s for _, took_s in self._lately)
