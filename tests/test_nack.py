from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.media.nack import HISTORY, RESEND_BURST, RESEND_PER_S, Budget, History

STARTS = [0, 1, 511, 512, 0x7FFF, 0x8000, 0xFE00, 0xFFFE, 0xFFFF]


def name(ext: int) -> bytes:
    return b"packet %d" % ext


@pytest.mark.parametrize("start", STARTS)
def test_the_last_ones_are_kept_across_the_wrap(start: int) -> None:
    history = History()
    for ext in range(start, start + 3 * HISTORY):
        history.store(ext & 0xFFFF, name(ext))
        oldest = max(start, ext - HISTORY + 1)
        for kept in {ext, oldest, (ext + oldest) // 2}:
            assert history.find(kept & 0xFFFF) == name(kept)
        assert history.find((oldest - 1) & 0xFFFF) is None
        assert history.find((ext + 1) & 0xFFFF) is None


@pytest.mark.parametrize("start", STARTS)
@given(st.lists(st.integers(0, 40), max_size=80))
def test_against_a_dictionary(start: int, offsets: list[int]) -> None:
    """Stored in any order, a slot holds the packet that came last."""
    history, model = History(16), dict[int, int]()
    for offset in offsets:
        ext = start + offset
        history.store(ext & 0xFFFF, name(ext))
        model[(ext & 0xFFFF) % 16] = ext
    for ext in range(start, start + 41):
        kept = model.get((ext & 0xFFFF) % 16) == ext
        assert history.find(ext & 0xFFFF) == (name(ext) if kept else None)


def test_an_empty_history_has_nothing() -> None:
    history = History()
    assert not any(history.find(seq16) for seq16 in range(0x10000))


@pytest.mark.parametrize("size", [3, 100, 1000])
def test_slots_must_survive_the_wrap(size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        History(size)


def test_a_budget_is_spent_and_comes_back() -> None:
    budget = Budget(per_s=10, burst=5)
    assert [budget.take(1.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [budget.take(1.1) for _ in range(2)] == [True, False]
    assert [budget.take(1000.0) for _ in range(7)] == [True] * 5 + [False] * 2  # never more than the burst


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=400))
def test_never_more_than_rate_and_burst(gaps_s: list[float]) -> None:
    budget, now_s, taken = Budget(), 100.0, 0
    for gap_s in gaps_s:
        now_s += gap_s
        for _ in range(20):
            taken += budget.take(now_s)
    assert taken <= RESEND_BURST + RESEND_PER_S * (now_s - 100.0) + 1e-6
