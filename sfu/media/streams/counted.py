"""Counters of one RTP stream in one direction."""

from __future__ import annotations

from typing import NamedTuple


class Counted(NamedTuple):
    """One track in one direction. Counts only grow, but for packets thought lost that came after all. `key` is not its
    SSRC, which layers share."""

    key: int
    expected: int
    lost: int
    n_bytes: int
    jitter_s: float
    round_trip_s: float | None = None
