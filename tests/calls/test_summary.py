"""What is kept of a session's call, and what /metrics shows of all of them."""

from __future__ import annotations

from typing import Any

import msgspec

from sfu.bridge import Cause, Direction, Quality
from sfu.calls.summary import Summary, observe
from sfu.process.metrics import Counters
from sfu.store.records import SessionQuality


def direction(**changes: Any) -> Direction:
    return msgspec.structs.replace(Direction(0.0, 2.0, 30.0, 500_000), **changes)


def told(score: float | None = 4.4, **changes: Any) -> Quality:
    usual = {"up": direction(), "down": direction(), "cause": None, "bytes_up": 0, "bytes_down": 0}
    return Quality("a", score, **(usual | changes))


def test_nothing_is_kept_of_a_session_that_was_never_told_of() -> None:
    assert Summary().record() == SessionQuality()


def test_means_extremes_and_the_last_byte_counts() -> None:
    summary = Summary()
    summary.add(told(4.0, up=direction(loss=0.1, jitter_ms=10.0), bytes_up=100, bytes_down=200))
    summary.add(told(2.0, up=direction(loss=0.3), down=None, bytes_up=150, bytes_down=200))
    summary.add(told(None, up=None, down=None, bytes_up=150, bytes_down=200))
    summary.add(told(3.0, up=None, down=direction(loss=0.02, round_trip_ms=60.0), bytes_up=150, bytes_down=900))
    assert summary.record() == SessionQuality(
        score_mean=3.0,
        score_min=2.0,
        loss_up=0.2,
        loss_down=0.01,
        jitter_up_ms=6.0,
        jitter_down_ms=2.0,
        round_trip_ms=40.0,
        bytes_up=150,
        bytes_down=900,
    )


def test_metrics_have_directions_and_no_names() -> None:
    counters = Counters()
    observe(told(4.1, up=direction(loss=0.04, bitrate_bps=1_200_000)), counters)
    observe(told(1.9, up=None, down=None, cause=Cause("delay", "b", 300, "ms")), counters)
    observe(told(1.2, up=None, down=direction(round_trip_ms=None, jitter_ms=30.0)), counters)
    observe(told(None, up=None, down=None), counters)
    text = counters.render()
    assert 'sfu_quality_score_bucket{le="1.5"} 1\n' in text
    assert 'sfu_quality_score_bucket{le="4"} 2\n' in text
    assert 'sfu_quality_score_bucket{le="+Inf"} 3\n' in text
    assert "sfu_quality_round_trip_seconds_count 1\n" in text
    assert 'sfu_quality_loss_ratio_bucket{direction="up",le="0.02"} 0\n' in text
    assert 'sfu_quality_loss_ratio_bucket{direction="up",le="0.05"} 1\n' in text
    assert 'sfu_quality_jitter_seconds_sum{direction="down"} 0.032\n' in text
    assert 'sfu_quality_bitrate_bps_count{direction="down"} 2\n' in text
    assert 'sfu_quality_causes_total{kind="delay"} 1\n' in text
    assert "peer" not in "".join(line for line in text.splitlines() if not line.startswith("#"))
