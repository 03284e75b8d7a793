"""Upload limits: how much audio and video one peer may send over all its streams. Pure: the clock is an argument.

Nothing here runs per packet: the streams' counters are read a few times a second. A peer that sends too much is not
forwarded until it sends less.
"""

from __future__ import annotations

from typing import NamedTuple


class Ceiling(NamedTuple):
    bps: float
    packets_per_s: float


CEILINGS = {"audio": Ceiling(2_500_000.0, 500.0), "video": Ceiling(50_000_000.0, 8_000.0)}
"""Audio: a microphone and a shared screen, each with Opus's maximum (510 kbit/s) twice (RED), in frames of 5 ms. Video:
the most that a downlink is ever assumed to carry (estimator.py), ten times a 4K screen."""
BURST_S = 1.0
"""Tolerated excess over a ceiling, in seconds at the ceiling's rate: after a stall, two seconds of one such audio
stream may arrive at once."""
FORGIVEN_S = 0.5
"""Forwarding resumes once the excess has fallen by this much."""


class Intake:
    """One per peer and kind. `over` is true while too much arrives."""

    __slots__ = ("_at_s", "_bytes", "_ceiling", "_level_s", "_packets", "over")

    def __init__(self, ceiling: Ceiling) -> None:
        self._ceiling = ceiling
        self._packets = self._bytes = 0  # since the last `judge`
        self._level_s = 0.0  # the excess, in seconds at the ceiling's rate
        self._at_s = 0.0
        self.over = False

    def came(self, packets: int, n_bytes: int) -> None:
        """Counts packets that arrived, forwarded or not."""
        self._packets += packets
        self._bytes += n_bytes

    def judge(self, now_s: float) -> bool:
        """Updates `over`. True if it changed."""
        took_s = max(self._bytes * 8 / self._ceiling.bps, self._packets / self._ceiling.packets_per_s)
        self._packets = self._bytes = 0
        passed_s, self._at_s = now_s - (self._at_s or now_s), now_s
        # capped, so that even a large flood is forgiven soon after its end
        self._level_s = min(BURST_S, max(0.0, self._level_s + took_s - passed_s))
        before, self.over = self.over, self._level_s > BURST_S - FORGIVEN_S if self.over else self._level_s >= BURST_S
        return self.over != before
