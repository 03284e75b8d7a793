"""Upload limits: how much audio and video one peer may send over all its tracks. Pure: the clock is an argument.

Nothing here runs for a packet: what its tracks have counted is looked at a few times a second. Who sends too much is
not forwarded until it sends less.
"""

from __future__ import annotations

from typing import NamedTuple


class Ceiling(NamedTuple):
    bps: float
    packets_per_s: float


CEILINGS = {"audio": Ceiling(2_500_000.0, 500.0), "video": Ceiling(50_000_000.0, 8_000.0)}
"""Sound: a microphone and a shared screen, each with Opus's most (510 kbit/s) twice (RED), in frames of 5 ms. Pictures:
what a way down is ever taken to carry (estimator.py), which is ten times a screen in 4K."""
BURST_S = 1.0
"""So long more may come than a ceiling allows, or at once what it allows in this time: after a stall, two seconds of
one such track of sound."""
FORGIVEN_S = 0.5
"""Of which so much has to be over before anything is forwarded again."""


class Intake:
    """One a peer and kind. `over` while too much comes."""

    __slots__ = ("_at_s", "_bytes", "_ceiling", "_level_s", "_packets", "over")

    def __init__(self, ceiling: Ceiling) -> None:
        self._ceiling = ceiling
        self._packets = self._bytes = 0  # since `judge`
        self._level_s = 0.0  # what came beyond its time
        self._at_s = 0.0
        self.over = False

    def came(self, packets: int, n_bytes: int) -> None:
        """So much has come, forwarded or not."""
        self._packets += packets
        self._bytes += n_bytes

    def judge(self, now_s: float) -> bool:
        """Brings `over` up to date. True if that changed it."""
        took_s = max(self._bytes * 8 / self._ceiling.bps, self._packets / self._ceiling.packets_per_s)
        self._packets = self._bytes = 0
        passed_s, self._at_s = now_s - (self._at_s or now_s), now_s
        # a flood is held against nobody for longer than it lasts
        self._level_s = min(BURST_S, max(0.0, self._level_s + took_s - passed_s))
        before, self.over = self.over, self._level_s > BURST_S - FORGIVEN_S if self.over else self._level_s >= BURST_S
        return self.over != before
