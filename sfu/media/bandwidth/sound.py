"""Whether a subscriber gets sound with redundancy (RED), which takes twice as much. Pure: the clock is an argument."""

from __future__ import annotations

import math

LARGE, SMALL = 0.3, 0.15
"""Sound with redundancy is given up where it takes more than LARGE of the estimate, and comes back below SMALL."""
STAY_S = 10.0
"""How long a choice lasts at least before redundancy comes back."""
MEASURE_S = 1.0


class Redundancy:
    """One per subscriber; `plain` is true while it does without."""

    __slots__ = ("_at_s", "_bps", "_bytes", "_since_s", "plain")

    def __init__(self) -> None:
        self.plain = False
        self._at_s, self._bytes, self._bps, self._since_s = 0.0, 0, 0.0, -math.inf

    def choose(self, redundant_bytes: int, estimate_bps: float, now_s: float) -> bool:
        """Takes what its sound has been so far with redundancy, sent like that or not, and what its downlink carries,
        infinite if it is not limited. True if `plain` changed."""
        passed_s = now_s - self._at_s
        if passed_s >= MEASURE_S:
            self._bps = max(0, redundant_bytes - self._bytes) * 8 / passed_s if self._at_s else 0.0
            self._at_s, self._bytes = now_s, redundant_bytes
        before = self.plain
        if self._bps > LARGE * estimate_bps:
            self.plain = True
            self._since_s = now_s
        elif self._bps < SMALL * estimate_bps and now_s - self._since_s >= STAY_S:
            self.plain = False
        return self.plain != before
