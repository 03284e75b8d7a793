"""When a subscriber does without redundancy of sound."""

from __future__ import annotations

import itertools
import math

import pytest

from sfu.media.bandwidth.sound import STAY_S, Redundancy

STEP_S = 0.2


def choices(bps: float, estimates: list[tuple[float, float]]) -> list[bool]:
    """`plain` after each of the times in `estimates`, in seconds, with what the downlink carries."""
    redundancy, now_s, found = Redundancy(), 100.0, []
    for seconds, estimate_bps in estimates:
        for _ in range(round(seconds / STEP_S)):
            now_s += STEP_S
            redundancy.choose(int(bps / 8 * now_s), estimate_bps, now_s)
        found.append(redundancy.plain)
    return found


@pytest.mark.parametrize(
    ("speakers", "estimate_bps", "plain"), [(1, 100e3, True), (6, 800e3, True), (1, 400e3, False), (1, math.inf, False)]
)
def test_sound_that_is_a_large_part_is_sent_without(speakers: int, estimate_bps: float, plain: bool) -> None:
    assert choices(speakers * 80e3, [(5, estimate_bps)]) == [plain]


def test_it_comes_back_when_there_is_room_for_a_while() -> None:
    assert choices(80e3, [(5, 200e3), (30, 400e3), (3, 100e3), (STAY_S - 1, 1e6), (2, 1e6)]) == [
        True, True, True, True, False,
    ]  # fmt: skip


def test_a_downlink_that_goes_up_and_down_around_a_limit_sees_one_change() -> None:
    found = choices(80e3, [(2, 300e3), (2, 260e3)] * 30)
    assert sum(a != b for a, b in itertools.pairwise(found)) == 1
