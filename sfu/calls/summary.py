"""The summary of a session's call quality that goes into the database. Pure.

The media worker reports figures every few seconds. Only means and extremes are kept, so memory does not grow with the
length of a call. They are kept here, so that a worker that dies loses only the last seconds.
"""

from __future__ import annotations

from sfu.bridge import Direction, Quality
from sfu.process.metrics import Counters
from sfu.store.records import SessionQuality

SCORES = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.3)
LOSSES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
DELAYS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
BITRATES_BPS = (30e3, 100e3, 300e3, 1e6, 3e6, 10e6, 30e6)
"""Upper bounds of the histograms in /metrics."""


class _Mean:
    __slots__ = ("_count", "_sum")

    def __init__(self) -> None:
        self._count, self._sum = 0, 0.0

    def add(self, value: float | None) -> None:
        if value is not None:
            self._count += 1
            self._sum += value

    @property
    def value(self) -> float | None:
        return self._sum / self._count if self._count else None


class Summary:
    """The quality of one session so far."""

    def __init__(self) -> None:
        self._scores, self._round_trips = _Mean(), _Mean()
        self._losses = {"up": _Mean(), "down": _Mean()}
        self._jitters = {"up": _Mean(), "down": _Mean()}
        self._worst: float | None = None
        self._bytes_up: int | None = None
        self._bytes_down: int | None = None
        self._before = (0, 0)  # bytes up and down until the last restart

    def restart(self) -> None:
        """The peer's media begins anew, and with it the worker's byte counts."""
        self._before = (self._bytes_up or 0, self._bytes_down or 0)

    def add(self, told: Quality) -> None:
        """Adds a report of the worker. Its byte counts are totals and replace the previous ones."""
        self._scores.add(told.score)
        if told.score is not None:
            self._worst = min(told.score, self._worst or told.score)
        for name, figures in _directions(told):
            self._losses[name].add(figures.loss)
            self._jitters[name].add(figures.jitter_ms)
        self._round_trips.add(_round_trip_ms(told))
        up, down = self._before
        self._bytes_up, self._bytes_down = up + told.bytes_up, down + told.bytes_down

    def record(self) -> SessionQuality:
        return SessionQuality(
            score_mean=self._scores.value,
            score_min=self._worst,
            loss_up=self._losses["up"].value,
            loss_down=self._losses["down"].value,
            jitter_up_ms=self._jitters["up"].value,
            jitter_down_ms=self._jitters["down"].value,
            round_trip_ms=self._round_trips.value,
            bytes_up=self._bytes_up,
            bytes_down=self._bytes_down,
        )


def observe(told: Quality, counters: Counters) -> None:
    """Adds a report to the histograms in /metrics, which do not identify peers."""
    if told.score is not None:
        counters.observe("sfu_quality_score", told.score, SCORES)
    if (round_trip_ms := _round_trip_ms(told)) is not None:
        counters.observe("sfu_quality_round_trip_seconds", round_trip_ms / 1e3, DELAYS_S)
    if told.cause is not None:
        counters.add("sfu_quality_causes_total", kind=told.cause.kind)
    for name, figures in _directions(told):
        counters.observe("sfu_quality_loss_ratio", figures.loss, LOSSES, direction=name)
        counters.observe("sfu_quality_jitter_seconds", figures.jitter_ms / 1e3, DELAYS_S, direction=name)
        counters.observe("sfu_quality_bitrate_bps", figures.bitrate_bps, BITRATES_BPS, direction=name)


def _directions(told: Quality) -> list[tuple[str, Direction]]:
    return [(name, figures) for name, figures in (("up", told.up), ("down", told.down)) if figures is not None]


def _round_trip_ms(told: Quality) -> float | None:
    """The round-trip time, which is the same in both directions' figures."""
    figures = told.up or told.down
    return None if figures is None else figures.round_trip_ms
