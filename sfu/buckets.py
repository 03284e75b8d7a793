"""A token bucket. Pure: the clock is an argument."""

from __future__ import annotations


class TokenBucket:
    """Allows `per_s` tokens a second on average, and up to `burst` at once. It starts full."""

    __slots__ = ("_at_s", "_burst", "_left", "_per_s")

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._at_s = burst, 0.0

    def take(self, now_s: float, amount: float = 1.0) -> bool:
        """Takes `amount` tokens; if there are fewer, takes none and returns False."""
        if not self.holds(now_s, amount):
            return False
        self._left -= amount
        return True

    def holds(self, now_s: float, amount: float = 1.0) -> bool:
        """Whether there are `amount` tokens. Takes none."""
        if self._at_s:
            self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return self._left >= amount
