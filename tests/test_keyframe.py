from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.media.keyframe import HOLD_MS, KeyframeRequests


def test_the_first_goes_out_at_once() -> None:
    requests = KeyframeRequests()
    assert requests.request(0.0) == 0
    assert requests.due(0.0)


def test_nothing_is_due_unasked() -> None:
    requests = KeyframeRequests()
    assert not requests.due(0.0)
    assert requests.request(1000.0) == 0
    assert requests.due(1000.0)
    assert not requests.due(1000.0 + 10 * HOLD_MS)


def test_what_is_asked_in_the_hold_goes_out_once_at_its_end() -> None:
    requests = KeyframeRequests()
    assert requests.request(1000.0) == 0
    assert requests.due(1000.0)
    assert requests.request(1100.0) == HOLD_MS - 100
    assert requests.request(1200.0) < 0  # arranged already
    assert not requests.due(1000.0 + HOLD_MS - 1)
    assert requests.request(1000.0 + HOLD_MS - 1) < 0
    assert requests.due(1000.0 + HOLD_MS)
    assert not requests.due(1000.0 + HOLD_MS)
    assert requests.request(1000.0 + HOLD_MS) == HOLD_MS


@pytest.mark.parametrize("late_ms", [0.0, 1.0, 10 * HOLD_MS])
def test_after_the_hold_the_next_goes_out_at_once(late_ms: float) -> None:
    requests = KeyframeRequests()
    requests.request(0.0)
    assert requests.due(0.0)
    assert requests.request(HOLD_MS + late_ms) == 0
    assert requests.due(HOLD_MS + late_ms)


@given(st.lists(st.integers(0, 300), max_size=60))
def test_every_request_is_served_and_none_too_soon(gaps_ms: list[int]) -> None:
    """Driven as a track drives it: a timer when `request` says so, `due` when it fires."""
    requests, now_ms = KeyframeRequests(), 0.0
    timer_ms: float | None = None
    asked: list[float] = []
    sent: list[float] = []
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        if timer_ms is not None and timer_ms <= now_ms:
            assert requests.due(timer_ms)
            sent.append(timer_ms)
            timer_ms = None
        asked.append(now_ms)
        wait_ms = requests.request(now_ms)
        if wait_ms == 0:
            assert requests.due(now_ms)
            sent.append(now_ms)
        elif wait_ms > 0:
            assert timer_ms is None
            timer_ms = now_ms + wait_ms
        else:
            assert timer_ms is not None
    if timer_ms is not None:
        assert requests.due(timer_ms)
        sent.append(timer_ms)
    assert all(later - sooner >= HOLD_MS for sooner, later in itertools.pairwise(sent))
    assert all(any(at <= served <= at + HOLD_MS for served in sent) for at in asked)
