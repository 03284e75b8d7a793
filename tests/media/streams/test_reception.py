"""What is asked for again, how often, and what a report says."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.media.rtp.numbering import HISTORY
from sfu.media.streams.reception import BURSTS, LATE_S, REORDER_S, RETRY_MIN_S, RETRY_S, TRIES, Reception

VIDEO_S = REORDER_S["video"]


def test_what_is_overtaken_is_not_asked_for() -> None:
    reception = Reception("video", 90_000)
    reception.skipped(10, 12, 0.0)
    assert reception.due(VIDEO_S / 2) == []
    assert reception.came(10, 1.0)
    assert reception.came(11, 1.0)
    assert reception.next_s() is None
    assert reception.due(1.0) == []
    assert not reception.hopeless


def test_it_is_asked_for_once_a_round_trip_and_then_given_up() -> None:
    reception = Reception("video", 90_000)
    reception.skipped(10, 12, 0.0)
    now_s = VIDEO_S
    for _ in range(TRIES["video"]):
        assert reception.due(now_s) == [10, 11]
        assert reception.due(now_s + RETRY_S / 2) == []
        assert reception.next_s() == now_s + RETRY_S
        now_s += RETRY_S
    assert reception.due(now_s) == []
    assert reception.hopeless
    assert reception.next_s() is None


@pytest.mark.parametrize(("loss", "never"), [(0.05, 0), (0.1, 0), (0.2, 1e-4)])
def test_almost_nothing_is_given_up_on_a_way_that_loses_much(loss: float, never: float) -> None:
    """Of 100 packets a second, a fifth of which, of requests and of answers may be lost. Each that never comes stops
    the picture until a keyframe does."""
    reception, chance, packets = Reception("video", 90_000), Random(1), 50_000
    coming: dict[int, float] = {}
    given_up = 0
    for number in range(packets):
        now_s = number / 100
        for asked_s in iter(lambda now_s=now_s: reception.next_s(), None):
            if asked_s > now_s:
                break
            for asked in reception.due(asked_s):
                if chance.random() > loss and chance.random() > loss:
                    coming.setdefault(asked, asked_s + 0.01)
            given_up += reception.hopeless
            reception.hopeless = False
            for asked in [asked for asked, at_s in coming.items() if at_s <= asked_s]:
                del coming[asked]
                reception.came(asked, asked_s)
        for asked in [asked for asked, at_s in coming.items() if at_s <= now_s]:
            reception.came(asked, coming.pop(asked))
        if chance.random() < loss:
            reception.skipped(number, number + 1, now_s)
    assert given_up <= never * packets


def test_what_was_asked_for_is_taken_once_whichever_way_it_comes() -> None:
    reception = Reception("video", 90_000)
    reception.skipped(10, 11, 0.0)
    assert not reception.asked(10)
    reception.due(VIDEO_S)
    assert reception.asked(10)
    assert reception.came(10, 1.0)
    assert not reception.asked(10)
    assert not reception.came(10, 1.0)


def test_too_much_is_not_asked_for() -> None:
    reception = Reception("video", 90_000)
    reception.skipped(0, 10_000, 0.0)
    assert reception.due(1.0) == []
    assert reception.hopeless


def test_sound_is_asked_for_at_once() -> None:
    reception = Reception("audio", 48_000)
    reception.skipped(10, 12, 5.0)
    assert reception.next_s() == 5.0
    assert reception.due(5.0) == [10, 11]
    assert reception.report(98, 5.0).lost == 2


@pytest.mark.parametrize(("takes_s", "retry_s"), [(0.001, RETRY_MIN_S), (0.04, 0.08), (0.5, RETRY_S)])
def test_it_is_asked_for_again_when_the_answer_is_late(takes_s: float, retry_s: float) -> None:
    """By how long answers took; one to the second request may be the first one's and tells nothing."""
    reception, now_s = Reception("video", 90_000), 0.0
    for number in range(50):
        reception.skipped(number, number + 1, now_s)
        asked_s = now_s + VIDEO_S
        assert reception.due(asked_s) == [number]
        now_s = asked_s + takes_s
        if number % 2:
            now_s = max(now_s, asked_s + RETRY_S)
            reception.due(now_s)
        assert reception.came(number, now_s)
    reception.skipped(100, 101, now_s)
    reception.due(now_s + VIDEO_S)
    assert reception.next_s() == pytest.approx(now_s + VIDEO_S + retry_s, rel=0.1)


@given(st.lists(st.tuples(st.integers(1, 80), st.floats(0, 0.2)), max_size=60))
def test_it_remembers_a_bounded_number(gaps: list[tuple[int, float]]) -> None:
    reception, number, now_s = Reception("video", 90_000), 0, 0.0
    for size, pause_s in gaps:
        reception.skipped(number, number + size, now_s)
        number, now_s = number + size + 1, now_s + pause_s
        for asked in reception.due(now_s)[::2]:
            reception.came(asked, now_s)
        assert len(reception._missing) <= HISTORY // 2
        assert len(reception._filled) <= HISTORY


def test_a_report_tells_of_the_time_since_the_last_one() -> None:
    reception = Reception("video", 90_000)
    reception.skipped(10, 20, 0.0)
    said = reception.report(90, 1.0)
    assert (said.fraction, said.lost) == (25, 10)
    for number in range(10, 15):
        reception.came(number, 1.0)
    said = reception.report(195, 2.0)
    assert (said.fraction, said.lost) == (0, 5)
    assert reception.report(195, 3.0).fraction == 0


def test_a_report_answers_the_last_sender_report() -> None:
    reception = Reception("video", 90_000)
    assert reception.report(1, 5.0)[3:] == (0, 0)
    reception.sender_report(0x11112222_33334444, 10.0)
    assert reception.report(1, 11.5)[3:] == (0x22223333, 3 << 15)


@pytest.mark.parametrize("start", [0, 0xFFFFFF00])
def test_jitter_is_the_mean_of_what_arrivals_deviate(start: int) -> None:
    reception = Reception("video", 90_000)
    for i in range(400):
        late_s = 0.002 * (i % 2)
        ts = (start + 3000 * i) & 0xFFFFFFFF
        reception.burst(ts, i / 30 + late_s)
        reception.burst(ts, i / 30 + 0.02)  # what follows of a frame is late by its sender's pace
        assert len(reception._bursts) <= BURSTS
    assert 150 < reception.report(400, 20.0).jitter < 190  # 2 ms of 90 kHz, each time


def test_sound_that_is_late_is_not_used_nor_asked_for() -> None:
    """Nor is what was given up. Pictures wait longer."""
    sound, picture = Reception("audio", 48_000), Reception("video", 90_000)
    for reception in (sound, picture):
        reception.skipped(10, 14, 5.0)
        reception.due(5.0 + REORDER_S["video"])
        assert reception.came(10, 5.0 + LATE_S * 0.9)
        assert reception.came(11, 5.0 + LATE_S * 1.1) == (reception is picture)
        assert bool(reception.due(5.0 + LATE_S * 1.2)) == (reception is picture)
    assert not sound.came(12, 5.0 + LATE_S * 1.2)
    assert sound.next_s() is None
    assert sound.report(96, 6.0).lost == 3
