"""Figures from recordings that are written by hand: each says what somebody who watched would say."""

from __future__ import annotations

from typing import Any

import pytest

from networks import report
from networks.cases import CASES, STEP_S, WIDE_S, at_least, at_most
from networks.emulator import Traffic
from networks.figures import Watched, began_small, curves, measured
from networks.trial import Recording

BEGAN_S = 1_000.0
CASE = {case.name: case for case in CASES}


def shown(spans: list[tuple[float, float, int]], fps: float = 15.0) -> list[list[float]]:
    """Pictures of these heights during these times."""
    return [
        [BEGAN_S + begin + i / fps, height]
        for begin, end, height in spans
        for i in range(round((end - begin) * fps))
    ]  # fmt: skip


def person(
    frames: list[list[float]], seconds: float, *, made_up: float = 0.0, events: list[Any] | None = None
) -> dict[str, Any]:
    """Somebody who sees one camera; `made_up` is a share of the sound."""
    samples = [
        [
            BEGAN_S + at,
            [
                {"id": "v", "kind": "video", "framesDecoded": at * 15, "totalFreezesDuration": 0.0, "bytesReceived": 0},
                {"id": "a", "kind": "audio", "totalSamplesReceived": at * 48_000, "bytesReceived": 0}
                | {"concealedSamples": at * 48_000 * made_up, "jitterBufferDelay": at * 4_800.0}
                | {"jitterBufferEmittedCount": at * 48_000},
            ],
        ]
        for at in range(int(seconds) + 1)
    ]
    events = [[BEGAN_S + at, what, detail] for at, what, detail in events or []]
    return {"name": "x", "frames": {"speaker": frames}, "samples": samples, "events": events, "problems": []}


def carried(spans: list[tuple[float, float, float]], wait_ms: float = 0.0) -> list[Traffic]:
    """Rates in kbps of what was offered and delivered."""
    return [
        Traffic(BEGAN_S + at / 5, 1, "a", "down", int(kbps * 25), 10, int(kbps * 25), 10, 0, 0, wait_ms, wait_ms)
        for begin, end, kbps in spans
        for at in range(round(begin * 5) + 1, round(end * 5) + 1)
    ]


def recording(name: str, seen: dict[str, Any], traffic: list[Traffic]) -> Recording:
    return Recording(CASE[name], BEGAN_S, [seen], [], traffic, 0.0, 0.0)


def test_a_good_call_on_a_narrow_link() -> None:
    found = measured(recording("600k", person(shown([(0, 60, 360)]), 60), carried([(0, 60, 540)], wait_ms=20)))
    assert found["height"] == 360
    assert found["fps"] == pytest.approx(15)
    assert found["used_pct"] == pytest.approx(90)
    assert found["queue_ms"] == pytest.approx(20)
    assert found["late_ms"] == pytest.approx(100)
    assert (found["frozen_pct"], found["gaps_s"], found["made_up_pct"], found["untold_pct"]) == (0, 0, 0, 0)
    assert all(goal.met(found[goal.figure]) for goal in CASE["600k"].goals)


def test_a_picture_that_stops_for_good_is_frozen() -> None:
    found = measured(recording("600k", person(shown([(0, 35, 360)]), 60, made_up=0.02), []))
    assert found["frozen_pct"] == pytest.approx(50, abs=0.5)
    assert found["untold_pct"] == pytest.approx(50, abs=0.5)
    assert found["made_up_pct"] == pytest.approx(2)


def test_a_pause_that_is_told_is_not_frozen() -> None:
    events = [(12.0, "paused", ["speaker", "camera", "bandwidth"]), (37.0, "paused", ["speaker", "camera", None])]
    frames = shown([(0, 12, 180), (37.2, 60, 180)])
    found = measured(recording("100k", person(frames, 60, events=events), []))
    assert found["paused_pct"] == pytest.approx(50)
    assert found["untold_pct"] == pytest.approx(0, abs=1)
    assert found["frozen_pct"] == 0


def test_another_reason_to_pause_is_not_the_networks() -> None:
    events = [(0.0, "paused", ["speaker", "camera", "view"])]
    found = measured(recording("100k", person([], 60, events=events), []))
    assert found["paused_pct"] == 0
    assert found["untold_pct"] == 100
    assert found["height"] == 0


def test_a_step_down_and_up() -> None:
    frames = shown([(0, 15.4, 720), (16.2, 48, 180), (48, 75, 720)])
    traffic = carried([(0, 15, 2000), (15, 16, 3000), (16, 45, 380), (45, 75, 2000)])
    found = measured(recording("step-300", person(frames, 75), traffic))
    assert found["gaps_s"] == pytest.approx(0.87, abs=0.1)
    assert found["peak_ratio"] == pytest.approx(1.5)
    assert found["below_s"] == pytest.approx(1, abs=0.21)
    assert found["up_s"] == pytest.approx(3)
    assert found["steps_back"] == 0
    assert found["used_pct"] == pytest.approx(95)


def test_steps_back_and_never_up() -> None:
    frames = shown([(0, STEP_S, 720), (STEP_S, WIDE_S + 2, 180), (WIDE_S + 2, 50, 720), (50, 55, 360), (55, 75, 720)])
    assert measured(recording("step-300", person(frames, 75), []))["steps_back"] == 1
    frames = shown([(0, STEP_S, 720), (STEP_S, 75, 180)])
    never = measured(recording("step-300", person(frames, 75), []))
    assert not next(goal for goal in CASE["step-300"].goals if goal.figure == "up_s").met(never["up_s"])


def test_an_outage_is_over_with_a_picture_that_goes_on() -> None:
    """The decoder's last picture, alone within the outage, is no call."""
    frames = [*shown([(0, 5.2, 360)]), [BEGAN_S + 20, 360], *shown([(26, 45, 360)])]
    found = measured(recording("outage-20", person(frames, 45), []))
    assert found["back_s"] == pytest.approx(1)
    assert found["gap_s"] == pytest.approx(20.8, abs=0.1)
    lost = measured(recording("outage-20", person(shown([(0, 5.2, 360)]), 45), []))
    assert lost["back_s"] == 99


def test_counters_that_begin_anew_are_added_up() -> None:
    samples = [
        [BEGAN_S + at, [{"id": "v", "kind": "video", "framesDecoded": n}]] for at, n in ((0, 5), (1, 20), (2, 4))
    ]
    seen = {"name": "x", "frames": {}, "samples": samples, "events": []}
    assert Watched(seen, BEGAN_S).grown("video", "framesDecoded", (0, 2)) == 19


def test_the_median_counts_what_failed_as_the_worst() -> None:
    rows = [
        {"case": "250k", "figures": {"fps": 9.0, "frozen_pct": 1.0}},
        {"case": "250k", "figures": {}, "failed": "nobody came"},
        {"case": "250k", "figures": {"fps": 8.0, "frozen_pct": 3.0}},
    ]
    (count, found) = report.medians(rows)["250k"]
    assert count == 3
    assert (found["fps"], found["frozen_pct"]) == (8.0, 3.0)
    assert report.missed(rows) == ["250k: sound made up – (≤ 0.5) ✗"]


def test_a_call_that_was_not_well_before_is_marked() -> None:
    case = CASE["600k"]
    assert began_small(recording(case.name, person(shown([(-5, 60, 360)]), 60), [])) == 360
    assert began_small(recording(case.name, person(shown([(-5, 0, 720), (0, 60, 180)]), 60), [])) == 0


def test_goals_have_a_side() -> None:
    assert [goal.met(7) for goal in (*at_least(fps=7), *at_most(fps=7))] == [True, True]
    assert [goal.met(6.9) for goal in (*at_least(fps=7), *at_most(fps=7))] == [False, True]
    assert not at_most(gaps_s=1)[0].met(None)


def test_each_goal_is_measured_and_has_a_name() -> None:
    for case in CASES:
        seen = person(shown([(0, case.seconds, 360)]), case.seconds)
        made = Recording(case, BEGAN_S, [seen] * case.watchers, [], [], 0.0, 0.0)
        assert {goal.figure for goal in case.goals} <= measured(made).keys() & report.NAMES.keys(), case.name
        assert curves(made)["offered"]


def test_names_of_cases_and_runs_choose() -> None:
    assert [case.name for case in report.chosen(["narrow", "600k"], long=False)] == ["600k", "250k", "100k", "400k-1s"]
    assert not any(case.long for case in report.chosen([], long=False))
    with pytest.raises(SystemExit, match="no case nothing"):
        report.chosen(["nothing"], long=False)
