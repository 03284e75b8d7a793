"""A flood gate caps how many messages of strangers are handled per second. Pure: the clock is an argument."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

WINDOW_S = 1.0
FORMER_S = 40.0
"""How long after a peer left its media may go on coming: a browser that was not told stops once its checks were not
answered for 30 s (RFC 7675 section 5.1)."""


class FloodGate:
    """Admits `share` per second from one source and `total` from all together. `total` also bounds the memory used."""

    __slots__ = ("_admitted", "_ends_s", "_share", "_total", "_warned_s")

    def __init__(self, share: int, total: int) -> None:
        self._share, self._total = share, total
        self._admitted: dict[Hashable, int] = {}
        self._ends_s = 0.0
        self._warned_s = float("-inf")

    def admits(self, source: Hashable, now_s: float) -> bool:
        if now_s >= self._ends_s:
            self._admitted = {None: 0}  # None counts all sources together
            self._ends_s = now_s + WINDOW_S
        of_one, of_all = self._admitted.get(source, 0), self._admitted[None]
        if of_one >= self._share or of_all >= self._total:
            return False
        self._admitted[source], self._admitted[None] = of_one + 1, of_all + 1
        return True

    def warns(self, now_s: float, every_s: float = 60.0) -> bool:
        """Whether a refusal is to be logged: at most once in `every_s` seconds."""
        if now_s < self._warned_s + every_s:
            return False
        self._warned_s = now_s
        return True


class Former:
    """Sources that were somebody's until `for_s` ago. Memory is bounded: `most`, of which the oldest go first."""

    __slots__ = ("_for_s", "_left_s", "_most")

    def __init__(self, for_s: float = FORMER_S, most: int = 10_000) -> None:
        self._for_s, self._most = for_s, most
        self._left_s: OrderedDict[Hashable, float] = OrderedDict()

    def add(self, source: Hashable, now_s: float) -> None:
        self._left_s[source] = now_s
        self._left_s.move_to_end(source)
        if len(self._left_s) > self._most:
            self._left_s.popitem(last=False)

    def holds(self, source: Hashable, now_s: float) -> bool:
        return now_s - self._left_s.get(source, -self._for_s) < self._for_s
