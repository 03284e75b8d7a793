"""Counters of one RTP stream in one direction."""

from __future__ import annotations

from typing import NamedTuple


class Counted(NamedTuple):
    """Counts only grow, except that packets thought lost may arrive after all. `key` is not the SSRC, which layers
    share."""

    key: int
    expected: int
    lost: int
    n_bytes: int
    jitter_s: float
    round_trip_s: float | None = None
