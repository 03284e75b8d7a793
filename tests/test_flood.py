"""A flood gate admits each source its share and no more, and forgets within a second."""

from __future__ import annotations

from sfu.flood import WINDOW_S, FloodGate, Former


def admitted(gate: FloodGate, source: object, times: int, now_s: float) -> int:
    return sum(gate.admits(source, now_s) for _ in range(times))


def test_a_source_has_its_share_and_leaves_the_rest_to_others() -> None:
    gate = FloodGate(share=3, total=10)
    assert admitted(gate, "a", 100, 5.0) == 3
    assert admitted(gate, "b", 2, 5.5) == 2
    assert admitted(gate, "a", 100, 5.9) == 0
    assert admitted(gate, "a", 100, 5.0 + WINDOW_S) == 3


def test_all_sources_together_have_a_total_which_bounds_what_is_remembered() -> None:
    gate = FloodGate(share=3, total=10)
    assert sum(gate.admits(source, 1.0) for source in range(100_000)) == 10
    assert len(gate._admitted) <= 11
    assert gate.admits("late", 1.0 + WINDOW_S)


def test_a_flood_is_worth_a_line_a_minute() -> None:
    gate = FloodGate(1, 1)
    assert [gate.warns(now_s) for now_s in (10.0, 11.0, 69.0, 70.0, 71.0)] == [True, False, False, True, False]


def test_who_left_is_remembered_for_a_while_and_so_are_so_many() -> None:
    former = Former(40.0, most=3)
    for n in range(5):
        former.add(n, 100.0 + n)
    assert [former.holds(n, 105.0) for n in range(6)] == [False, False, True, True, True, False]
    assert [former.holds(n, 143.5) for n in range(5)] == [False, False, False, False, True]
