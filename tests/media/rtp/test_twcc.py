from __future__ import annotations

import copy
import random
import struct
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.variants import variants

from sfu.media.rtp.rtcp import transport_feedback
from sfu.media.rtp.twcc import REPORT_PACKETS, TICK_US, TransportFeedback, arrivals

STARTS = [0, 1, 6, 7, 8, 255, 256, 0x7FFF, 0x8000, 0xFF00, 0xFFF8, 0xFFF9, 0xFFFE, 0xFFFF]
MTU = 1200


@dataclass
class Report:
    """A feedback message (section 3.1 of the draft): arrival times in µs by sequence number, None if lost."""

    base: int
    count: int
    arrivals: list[tuple[int, float | None]]


def parse(fci: bytes) -> Report:
    """Written from the draft alone, and strict: what is left over or out of range is an assertion."""
    base, status_count, reference, report_count = struct.unpack("!HHIB", fci[:4] + b"\0" + fci[4:8])
    at = 8
    symbols: list[int] = []
    while len(symbols) < status_count:
        (chunk,) = struct.unpack_from("!H", fci, at)
        at += 2
        if not chunk & 0x8000:  # section 3.1.3: run length
            length = chunk & 0x1FFF
            assert 0 < length <= status_count - len(symbols)
            symbols += [chunk >> 13] * length
        elif chunk & 0x4000:  # section 3.1.4: seven symbols of two bits
            symbols += [chunk >> 2 * i & 3 for i in range(6, -1, -1)]
        else:  # fourteen symbols of one bit
            symbols += [chunk >> i & 1 for i in range(13, -1, -1)]
    assert not any(symbols[status_count:])
    time_us = reference * 64_000
    arrivals: list[tuple[int, float | None]] = []
    for i, symbol in enumerate(symbols[:status_count]):
        assert symbol != 3
        delta: int | None = None
        if symbol == 1:
            delta = fci[at]
            at += 1
        elif symbol == 2:
            (delta,) = struct.unpack_from("!h", fci, at)
            at += 2
        if delta is not None:
            time_us += delta * 250
        arrivals.append(((base + i) & 0xFFFF, None if delta is None else time_us))
    assert len(fci) % 4 == 0
    assert fci[at:] == bytes(-at % 4)
    return Report(base, report_count, arrivals)


def feed(feedback: TransportFeedback, arrivals: list[tuple[int, int]]) -> Report:
    for ext, now_us in arrivals:
        feedback.arrived([ext & 0xFFFF], now_us / 1e6)
    report = parse(feedback.report())
    assert not feedback.report()
    return report


def expect(report: Report, first: int, times: dict[int, int]) -> None:
    """The report covers `first` up to the last arrival; each time is right to one tick."""
    assert report.base == first & 0xFFFF
    assert len(report.arrivals) == max(times) + 1 - first
    for ext, (seq16, time_us) in enumerate(report.arrivals, first):
        assert seq16 == ext & 0xFFFF
        if ext in times:
            assert time_us is not None
            assert 0 <= times[ext] - time_us < 250
        else:
            assert time_us is None


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("count", [1, 2, 6, 7, 8, 13, 14, 15, 100, 240])
def test_without_loss(start: int, count: int) -> None:
    times = {start + i: 5_000_000 + 700 * i for i in range(count)}
    expect(feed(TransportFeedback(), list(times.items())), start, times)


@pytest.mark.parametrize("start", [*STARTS[::4], *variants(*(one for one in STARTS if one not in STARTS[::4]))])
@settings(max_examples=40)
@given(
    rounds=st.lists(
        st.lists(st.tuples(st.integers(0, 60), st.integers(-40_000, 200_000)), min_size=1, max_size=60),
        min_size=1,
        max_size=4,
    )
)
def test_losses_reordering_and_duplicates(start: int, rounds: list[list[tuple[int, int]]]) -> None:
    """Each round reports 61 numbers, of which some arrive, in any order, some twice."""
    feedback, now_us, due = TransportFeedback(), 10_000_000, None
    for number, arrived in enumerate(rounds):
        base = start + 61 * number
        times: dict[int, int] = {}
        events = []
        for offset, step_us in arrived:
            now_us = max(now_us + step_us, 0)
            events.append((base + offset, now_us))
            times.setdefault(base + offset, now_us)  # of a duplicate the first counts
        report = feed(feedback, events)
        assert report.count == number
        expect(report, min(times) if due is None else due, times)
        due = max(times) + 1


def test_late_packets_are_not_reported_twice() -> None:
    feedback = TransportFeedback()
    expect(feed(feedback, [(10, 1_000_000), (12, 1_000_250)]), 10, {10: 1_000_000, 12: 1_000_250})
    feedback.arrived([11], 1.1)  # already reported missing
    feedback.arrived([12], 1.1)
    assert not feedback.report()
    expect(feed(feedback, [(14, 1_200_000)]), 13, {14: 1_200_000})


@pytest.mark.parametrize("start", STARTS)
def test_numbers_missing_between_reports_are_reported(start: int) -> None:
    feedback = TransportFeedback()
    feed(feedback, [(start, 1_000_000)])
    expect(feed(feedback, [(start + 100, 1_050_000)]), start + 1, {start + 100: 1_050_000})


@pytest.mark.parametrize("pause_us", [63_750, 64_000, 64_250, 8_191_750, 8_192_000, 20_000_000])
def test_times_far_apart(pause_us: int) -> None:
    """A delta is at most 32767 ticks; beyond it the time is as late as can be said."""
    report = feed(TransportFeedback(), [(1, 64_000), (2, 64_000 + pause_us), (3, 64_000 + pause_us + 250)])
    times = [time_us for _, time_us in report.arrivals]
    assert times[0] == 64_000
    assert times[1] == 64_000 + min(pause_us // 250, 0x7FFF) * 250
    assert times[2] is not None
    assert times[2] > (times[1] or 0)


def test_the_reference_time_wraps() -> None:
    """24 bits of 64 ms are 12.4 days of monotonic clock."""
    wrap_us = (1 << 24) * 64_000
    report = feed(TransportFeedback(), [(1, wrap_us + 64_500)])
    assert report.arrivals == [(1, 64_500)]


def test_the_count_wraps() -> None:
    feedback = TransportFeedback()
    counts = [feed(feedback, [(i, 1_000_000 + i)]).count for i in range(300)]
    assert counts == [i & 0xFF for i in range(300)]


def test_a_jump_forward_starts_anew() -> None:
    feedback = TransportFeedback()
    feed(feedback, [(5, 1_000_000)])
    expect(feed(feedback, [(30_000, 1_050_000), (30_001, 1_050_500)]), 30_000, {30_000: 1_050_000, 30_001: 1_050_500})


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 1 << 45)), min_size=1, max_size=80), max_size=10)
)
def test_whatever_the_numbers_a_report_is_well_formed(rounds: list[list[tuple[int, int]]]) -> None:
    feedback = TransportFeedback()
    for came in rounds:
        for seq16, now_us in came:
            feedback.arrived([seq16], now_us / 1e6)
        if fci := feedback.report():
            parse(fci)
            assert len(transport_feedback(fci, 1)) <= MTU
        assert not feedback.report()


@pytest.mark.parametrize("step", [1, -1, 2, -2, 7, 239, 240, 241, 300, 1023, 1024, 4096, 0x7FFF, 0x8000, 0x8001])
@pytest.mark.parametrize("gap_us", [300, *variants(1, 70_000)])
@pytest.mark.parametrize("before", [False, True])
def test_a_report_fits_a_datagram(step: int, gap_us: int, before: bool) -> None:
    """However many packets a hostile publisher squeezes between two reports."""
    feedback = TransportFeedback()
    if before:
        feed(feedback, [(20_000, 1_000_000)])
    for i in range(6 * REPORT_PACKETS):
        feedback.arrived([(20_001 + step * i) & 0xFFFF], 1 + gap_us * i / 1e6)
        if i % 13 == 0:
            assert len(transport_feedback(copy.deepcopy(feedback).report(), 1)) <= MTU


@pytest.mark.parametrize("reach", range(100, 2000, 37))
def test_the_largest_report_fits_a_datagram(reach: int) -> None:
    """Sent backwards around the first one, every arrival takes two bytes."""
    feedback = TransportFeedback()
    feed(feedback, [(20_000 - 3 * reach // 2, 1_000_000)])
    for i, seq16 in enumerate([20_000, *range(20_000 + reach, 20_000 - reach, -1)]):
        feedback.arrived([seq16], 2 + i / 1e5)
    fci = feedback.report()
    parse(fci)
    assert len(transport_feedback(fci, 1)) <= MTU


def test_a_busy_publisher_is_reported_whole() -> None:
    """4,000 packets/s, reported every 50 ms: nothing is left out."""
    feedback, first = TransportFeedback(), 65_000
    for number in range(20):
        base = first + 200 * number
        times = {base + i: 1_000_000 + 50_000 * number + 250 * i for i in range(200)}
        expect(feed(feedback, list(times.items())), base, times)


class Thorough(TransportFeedback):
    """Looks at every packet, in whatever order they came."""

    __slots__ = ()

    def _in_order(self) -> bytes:
        return b""


@given(st.integers(0, 1 << 32), st.booleans())
def test_bursts_in_order_are_reported_as_one_by_one(seed: int, odd: bool) -> None:
    chance = random.Random(seed)
    quick, thorough, now_s = TransportFeedback(), Thorough(), chance.uniform(0, 1e6)
    seq = chance.choice([0, 65_000, 65_530, chance.randrange(65_536)])
    for _ in range(30):
        for _ in range(chance.randrange(5)):
            now_s += chance.choice([0.001, 0.02, 0.033, 0.1 if odd else 0.01])
            if odd and chance.random() < 0.1:
                seq += chance.choice([1, 3, -4, 300, -300, 40_000])
            n = chance.choice([1, 1, 2, 5, 12, 40])
            burst = [(seq + i) & 0xFFFF for i in range(n)]
            seq += n
            if odd and chance.random() < 0.05:
                chance.shuffle(burst)
            quick.arrived(burst, now_s)
            thorough.arrived(burst, now_s)
        assert quick.report() == thorough.report()


# --- what a subscriber's browser reports ------------------------------------------------------------------------------


@given(
    st.integers(0, 0xFFFF),
    st.lists(st.tuples(st.booleans(), st.integers(-3000, 60_000)), min_size=1, max_size=100),
)
def test_reported_arrivals_are_read_back(first: int, packets: list[tuple[bool, int]]) -> None:
    """Any losses, and packets that overtake each other."""
    feedback, now_us, sent = TransportFeedback(), 5_000_000, {}
    for i, (came, apart_us) in enumerate(packets):
        now_us += apart_us
        if came:
            sent[(first + i) & 0xFFFF] = now_us
            feedback.arrived([(first + i) & 0xFFFF], now_us / 1e6)
    fci = feedback.report()
    if not sent:
        assert not fci
        return
    numbers, ticks = arrivals(fci)
    assert numbers == sorted(numbers)
    assert {number & 0xFFFF for number in numbers} == sent.keys()
    for number, tick in zip(numbers, ticks, strict=True):
        assert abs(tick * TICK_US - sent[number & 0xFFFF]) <= TICK_US


@given(st.binary(max_size=80))
def test_a_hostile_report_is_refused_or_costs_no_more_than_its_bytes(fci: bytes) -> None:
    try:
        numbers, ticks = arrivals(fci)
    except ValueError:
        return
    assert len(numbers) == len(ticks) <= len(fci)


@pytest.mark.parametrize("status", [0, 3])
def test_packets_that_did_not_come_cost_nothing(status: int) -> None:
    """A run of 8,191 in two bytes, as often as a datagram holds them."""
    head = struct.pack("!HHI", 1, 0xFFFF, 0)
    assert arrivals(head + struct.pack("!H", status << 13 | 0x1FFF) * 9) == ([], [])


@pytest.mark.parametrize(
    "fci",
    [
        b"",
        bytes(7),
        struct.pack("!HHI", 1, 1, 0),
        struct.pack("!HHIH", 1, 2, 0, 1 << 13 | 2) + b"\x01",
        struct.pack("!HHIH", 1, 1, 0, 2 << 13 | 1) + b"\x01",
        struct.pack("!HHIH", 1, 0xFFFF, 0, 1 << 13 | 0x1FFF) + bytes(1000),
    ],
)
def test_a_truncated_report_is_refused(fci: bytes) -> None:
    with pytest.raises(ValueError, match="transport-wide"):
        arrivals(fci)
