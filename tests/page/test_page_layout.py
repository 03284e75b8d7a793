"""The stage's geometry: for every number of people and any window, tiles are inside, apart, alike and large."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from support.node import run

GAP = 12
WINDOWS = [(1416, 776), (1000, 640), (600, 600), (374, 720), (700, 374), (320, 560), (2400, 900)]
_PLACES = """
import { gridPlaces, seatsThatFit, splitPlaces } from './public/stage/grid.js';
const windows = %s;
const found = [];
for (const [width, height] of windows) {
    for (let n = 1; n <= 25; n++) {
        const fit = seatsThatFit(n, width, height, 12);
        found.push({ width, height, n, fit, grid: gridPlaces(n, { x: 0, y: 0, width, height }, 12),
            shared: splitPlaces(n, width, height, 12, true), speaker: splitPlaces(n, width, height, 12, false) });
    }
}
out(found);
"""


@pytest.fixture(scope="module")
def found() -> Any:
    return run(_PLACES % [list(window) for window in WINDOWS])


def apart(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether there is a gap between them: sideways or above each other."""
    beside = max(one["x"] - other["x"] - other["width"], other["x"] - one["x"] - one["width"])
    above = max(one["y"] - other["y"] - other["height"], other["y"] - one["y"] - one["height"])
    return max(beside, above) >= GAP - 1  # rounded to whole pixels


def inside(place: dict[str, float], case: dict[str, Any]) -> bool:
    ends = place["x"] + place["width"] <= case["width"] + 1 and place["y"] + place["height"] <= case["height"] + 1
    return bool(ends and min(place["x"], place["y"]) >= 0 and min(place["width"], place["height"]) > 0)


def test_a_grid_is_inside_apart_and_of_the_right_shape(found: list[dict[str, Any]]) -> None:
    for case in found:
        places = case["grid"]
        assert len(places) == case["n"]
        assert all(inside(place, case) for place in places), case
        assert all(apart(*pair) for pair in combinations(places, 2)), case
        assert len({(place["width"], place["height"]) for place in places}) == 1
        shape = places[0]["width"] / places[0]["height"]
        assert (4 / 3 if case["width"] >= case["height"] else 3 / 4) - 0.05 <= shape <= 16 / 9 + 0.05, case


def test_a_grid_fills_the_window(found: list[dict[str, Any]]) -> None:
    for case in found:
        area = sum(place["width"] * place["height"] for place in case["grid"])
        assert area >= 0.42 * case["width"] * case["height"], (case["width"], case["height"], case["n"])


def test_a_laptop_shows_25_and_a_phone_as_many_as_can_be_read(found: list[dict[str, Any]]) -> None:
    fits = {(case["width"], case["height"]): case["fit"] for case in found if case["n"] == 25}
    assert fits[1416, 776] == fits[1000, 640] == 25
    assert 8 <= fits[374, 720] < 25
    assert 8 <= fits[700, 374] < 25


@pytest.mark.parametrize("kind", ["shared", "speaker"])
def test_one_large_and_a_strip(found: list[dict[str, Any]], kind: str) -> None:
    for case in found:
        split = case[kind]
        places = [split["main"], *split["strip"], *filter(None, [split["more"]])]
        assert all(inside(place, case) for place in places), case
        assert all(apart(*pair) for pair in combinations(places, 2)), case
        assert (len(split["strip"]) < case["n"]) == (split["more"] is not None)
        assert split["main"]["width"] * split["main"]["height"] >= 0.25 * case["width"] * case["height"]
        if kind == "shared":
            assert split["bar"]["y"] == split["main"]["height"], "the bar is under the picture, never on it"


def test_who_gets_a_place() -> None:
    script = """
    import { choose } from './public/stage/grid.js';
    const all = ['a', 'b', 'c', 'd', 'e'];
    const spoke = new Map([['a', 5], ['b', 9], ['d', 7]]);
    out([
        choose(all, 5, {}),
        choose(all, 3, { spoke }),
        choose(all, 3, { before: ['c', 'a', 'e'], spoke }),
        choose(all, 3, { before: ['a', 'b', 'c'], speaker: 'e', spoke }),
        choose(['a', 'c', 'd'], 2, { before: ['a', 'b'], spoke }),
        choose(all, 0, { speaker: 'a' }),
    ]);
    """
    everybody, spoke_last, kept, speaker, gone, none = run(script)
    assert everybody == list("abcde")
    assert spoke_last == ["b", "d", "a"]
    assert kept == ["c", "a", "e"], "who is in sight stays where they are"
    assert speaker == ["a", "b", "e"], "the speaker takes the place of who never spoke"
    assert gone == ["a", "d"]
    assert none == []
