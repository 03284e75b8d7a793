from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.buckets import TokenBucket
from sfu.media.rtp.numbering import HISTORY
from sfu.media.streams.retransmission import (
    ANSWERED_ROUND_TRIPS,
    FREE_BYTES,
    FREE_SHARE,
    HISTORY_BYTES,
    HISTORY_RUNS,
    HISTORY_S,
    PACKET_BYTES,
    RUN_BYTES,
    SHARE,
    SHARE_BYTES,
    SHARE_S,
    RetransmissionBudget,
    RetransmissionBuffer,
    RetransmissionLimiter,
)
from sfu.media.transport.rows import ROW_BYTES
from sfu.media.transport.transport import RTX_BURST, RTX_PER_S

STARTS = [0, 1, 511, 512, 0x7FFF, 0x8000, 0xFE00, 0xFFFE, 0xFFFF, 0x2FFFF]


def packet(number: int, size: int = 12) -> bytes:
    return b"\x80\x60" + (number & 0xFFFF).to_bytes(2, "big") + b"%08d" % number + bytes(size - 12)


def store(history: RetransmissionBuffer, *packets: bytes, first: int, at_s: float = 0.0) -> None:
    rows = memoryview(b"".join(one.ljust(ROW_BYTES, b"?") for one in packets))
    last = first + ((int.from_bytes(packets[-1][2:4], "big") - first) & 0xFFFF)
    history.store(first, last - first + 1, rows, [len(one) for one in packets], at_s)


def store_one(history: RetransmissionBuffer, number: int, at_s: float = 0.0, size: int = 12) -> None:
    store(history, packet(number, size), first=number, at_s=at_s)


@settings(max_examples=60)
@given(st.sampled_from(STARTS), st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=32), max_size=20), st.data())
def test_what_was_sent_lately_is_found_and_nothing_else(start: int, runs: list[list[int]], data: st.DataObject) -> None:
    """Runs with gaps, and a few packets that come late, each a run of its own."""
    history, model, number = RetransmissionBuffer(), dict[int, bytes](), start
    for steps in runs:
        numbers, first = [], number
        for step in steps:
            number += step
            numbers.append(number)
        packets = [packet(n, 20) for n in numbers]
        packets[-1] = packet(numbers[-1], data.draw(st.integers(12, 20)))
        store(history, *packets, first=numbers[0])
        model |= dict(zip(numbers, packets, strict=True))
        missing = sorted(set(range(first + 1, number)) - model.keys())
        for late in data.draw(st.lists(st.sampled_from(missing), max_size=2, unique=True)) if missing else []:
            store_one(history, late)
            model[late] = packet(late)
    for asked in range(start - 3, number + 4):
        assert history.find(asked) == model.get(asked)
        assert history.find(asked + 0x10000) is None
        assert history.find(asked - 0x10000) is None


def test_what_is_older_is_forgotten() -> None:
    history = RetransmissionBuffer()
    store(history, packet(1), packet(2), first=1, at_s=10.0)
    store_one(history, 3, at_s=10.0 + HISTORY_S)
    assert history.find(1) == packet(1)
    store_one(history, 4, at_s=10.1 + HISTORY_S)
    assert [history.find(number) is not None for number in (1, 2, 3, 4)] == [False, False, True, True]


def test_bytes_and_runs_are_bounded() -> None:
    history, fits = RetransmissionBuffer(), 2 * (HISTORY_BYTES // (2 * (1000 + PACKET_BYTES) + RUN_BYTES))
    for number in range(0, 2 * fits, 2):
        store(history, packet(number, 1000), packet(number + 1, 1000), first=number)
    found = [number for number in range(2 * fits) if history.find(number) is not None]
    assert found == list(range(fits, 2 * fits))
    assert [history.forgot(number) for number in (0, fits - 1, fits)] == [True, True, False]
    history = RetransmissionBuffer()
    for number in range(2 * HISTORY_RUNS):
        store_one(history, number)
    assert sum(history.find(number) is not None for number in range(2 * HISTORY_RUNS)) == HISTORY_RUNS


def resend(answers: RetransmissionLimiter, number: int, now_s: float) -> bool:
    due = answers.due(number, 0.05, now_s)
    if due:
        answers.answered(number, now_s)
    return due


def test_asked_twice_within_a_round_trip_it_is_sent_once() -> None:
    answers = RetransmissionLimiter()
    asked_s = [10.0, 10.01, 10.04, 10.045, 10.08, 10.09]
    assert [resend(answers, 7, now_s) for now_s in asked_s] == [True, False, False, True, False, True]
    assert answers.due(8, 0.05, 10.102)


@given(st.lists(st.tuples(st.integers(0, 2000), st.floats(0, 0.05)), max_size=600))
def test_answers_to_one_number_are_a_round_trip_apart(asked: list[tuple[int, float]]) -> None:
    answers, now_s, sent = RetransmissionLimiter(), 0.0, dict[int, list[float]]()
    for number, gap_s in asked:
        now_s += gap_s
        if resend(answers, number, now_s):
            sent.setdefault(number, []).append(now_s)
        assert len(answers._at_s) <= HISTORY
    if len(sent) <= HISTORY:
        gaps_s = [after - before for times in sent.values() for before, after in pairwise(times)]
        assert all(gap_s >= 0.05 * ANSWERED_ROUND_TRIPS - 1e-9 for gap_s in gaps_s)


@given(st.lists(st.tuples(st.floats(0, 0.3), st.integers(40, 1500), st.floats(5e4, 2e6)), min_size=1, max_size=200))
def test_retransmissions_take_no_more_than_their_share(asked: list[tuple[float, int, float]]) -> None:
    budget, now_s, taken, earned, most = RetransmissionBudget(), 100.0, 0, 0.0, 0.0
    for gap_s, n_bytes, rate_bps in asked:
        now_s += gap_s
        earned += gap_s * SHARE * rate_bps / 8
        most = max(most, SHARE * rate_bps / 8 * SHARE_S, SHARE_BYTES)
        taken += n_bytes if budget.take(n_bytes, rate_bps, 0, now_s) else 0
    assert taken <= most + earned


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(40, 1500)), min_size=1, max_size=200))
def test_and_no_more_than_a_share_of_what_is_sent(asked: list[tuple[int, int]]) -> None:
    budget, sent, taken = RetransmissionBudget(), 1_000_000, 0
    for more, n_bytes in asked:
        sent += more
        taken += n_bytes if budget.take(n_bytes, 0.0, sent, 100.0) else 0
    assert taken <= FREE_BYTES + FREE_SHARE * (sent - 1_000_000)


def test_a_budget_is_spent_and_comes_back() -> None:
    budget = TokenBucket(per_s=10, burst=5)
    assert [budget.take(1.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [budget.take(1.1) for _ in range(2)] == [True, False]
    assert [budget.take(1000.0) for _ in range(7)] == [True] * 5 + [False] * 2  # never more than the burst


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=400))
def test_never_more_than_rate_and_burst(gaps_s: list[float]) -> None:
    budget, now_s, taken = TokenBucket(RTX_PER_S, RTX_BURST), 100.0, 0
    for gap_s in gaps_s:
        now_s += gap_s
        for _ in range(20):
            taken += budget.take(now_s)
    assert taken <= RTX_BURST + RTX_PER_S * (now_s - 100.0) + 1e-6
