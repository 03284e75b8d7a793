"""A flood gate: caps how many messages of strangers are handled per second. Pure: the clock is an argument."""

from __future__ import annotations

from collections.abc import Hashable

WINDOW_S = 1.0


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
