"""Round-trip times as a sign of queueing: the longer they grow, the fuller the queue. Pure: the clock is an
argument.
"""

from __future__ import annotations

IDLE_S = 30.0
"""The shortest one of this time is taken for that of an empty queue: paths change, and with them how long they are."""
REMEMBERED = 64


class RoundTrips:
    """Those to one subscriber."""

    __slots__ = ("_lately",)

    def __init__(self) -> None:
        self._lately: list[tuple[float, float]] = []  # when each began and what it took

    def __bool__(self) -> bool:
        return bool(self._lately)

    def add(self, seconds: float, sent_s: float) -> float:
        """One that began then; returns how much longer it took than the shortest one lately, this one included."""
        self._lately = [one for one in self._lately if one[0] > sent_s - IDLE_S][1 - REMEMBERED :]
        self._lately.append((sent_s, seconds))
        return seconds - min(took_s for _, took_s in self._lately)
