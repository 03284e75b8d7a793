from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.bandwidth.estimator import (
    AGAIN_S,
    CALM_S,
    LEAST_BPS,
    LEFT_S,
    LOSS_HIGH,
    NOTHING_S,
    PROBE_S,
    RETRY_FIRST_S,
    RETRY_MOST_S,
    SHARE,
    START_BPS,
    VERDICT_S,
    WATCH_S,
    WRONG_FIRST_S,
    WRONG_MOST_S,
    BandwidthEstimator,
)
from sfu.media.worker import ALLOCATE_S

TICK_S = 0.1


class Way:
    """A way down that carries `bps`, and a browser that says so: it complains when more comes, and else lets its
    estimate grow by 8 % a second up to one and a half times what comes. With `checks` it answers those, too:
    they wait in the queue that is left by more than it carries, of half a second at most; what is beyond is lost and
    told of."""

    def __init__(self, bps: float, *, checks: bool = False) -> None:
        self.bps, self.down, self.checks = bps, BandwidthEstimator(), checks
        self.queue_bytes = self.loss = 0.0
        self.now_s, self.total = 100.0, 0
        self.remb_bps = 0.0
        self.probes = 0

    def run(self, seconds: float, wanted_bps: float, tick_s: float = TICK_S) -> BandwidthEstimator:
        """Sends what is allowed of `wanted_bps`, in steps as layers have them."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += tick_s
            sending = next((bps for bps in (2500e3, 500e3, 150e3) if bps <= min(wanted_bps, self.down.allowed_bps)), 0)
            probe = int(self.down.probe_bps * tick_s / 8)
            self.probes += probe > 0
            arriving = sending + probe * 8 / tick_s
            self.total += int(arriving * tick_s / 8)
            self.down.sent(self.total, 0, self.now_s)
            if self.checks:
                waiting = max(0.0, self.queue_bytes + (arriving - self.bps) * tick_s / 8)
                self.queue_bytes = min(self.bps / 16, waiting)
                lost = (waiting - self.queue_bytes) * 8 / tick_s / arriving if arriving else 0.0
                self.loss += (lost - self.loss) * 0.3 * tick_s
                self.down.loss(self.loss, self.now_s)
                if self.down.asks(self.now_s):
                    self.down.round_trip(0.05 + self.queue_bytes * 8 / self.bps, self.now_s, self.now_s)
            if arriving > self.bps:
                self.remb_bps = min(self.remb_bps or 1e9, 0.85 * self.bps)
            else:
                cap = max(self.remb_bps, 1.5 * arriving + 10e3)
                self.remb_bps = min(cap, max(self.remb_bps, arriving) * (1 + 0.08 * tick_s))
            self.down.remb(self.remb_bps, self.now_s)
            larger = next((bps for bps in (150e3, 500e3, 2500e3) if bps > sending and bps <= wanted_bps), 0)
            self.down.want(larger, self.now_s)
        return self.down


def test_room_for_more_is_found_in_seconds() -> None:
    way = Way(20e6)
    assert way.down.allowed_bps == START_BPS
    assert way.run(8, 2500e3).allowed_bps >= 2500e3
    assert not way.down.limited


def test_a_full_way_is_known_within_a_second_and_room_again_within_fifteen() -> None:
    way = Way(20e6)
    way.run(10, 2500e3)
    way.bps = 600e3
    assert way.run(1, 2500e3).allowed_bps <= 600e3
    way.run(60, 2500e3)
    assert 150e3 <= way.down.allowed_bps <= 600e3 * 1.2
    way.bps = 20e6
    assert way.run(15, 2500e3).allowed_bps >= 2500e3


def test_in_a_steady_state_probes_are_seldom() -> None:
    way = Way(400e3)
    way.run(20, 2500e3)
    way.probes = 0
    way.run(60, 2500e3)
    assert 0 < way.probes * TICK_S <= 60 / RETRY_MOST_S * (PROBE_S + TICK_S)


@pytest.mark.soak
@pytest.mark.parametrize("checks", [False, True])
@pytest.mark.parametrize(("bps", "wanted_bps"), [(160e3, 2500e3), (300e3, 2500e3), (20e6, 2500e3), (20e6, 0.0)])
def test_after_ten_hours_it_still_finds_what_a_way_carries(bps: float, wanted_bps: float, checks: bool) -> None:
    """On a narrow way some 4,000 probes fail in that time, or 300 where checks say that what was allowed was wrong."""
    way = Way(bps, checks=checks)
    way.run(36_000, wanted_bps, ALLOCATE_S)
    assert way.down.allowed_bps >= min(START_BPS, bps, wanted_bps or START_BPS) * SHARE
    assert checks or (way.probes > 3000) == (bps < wanted_bps)
    way.bps = 20e6
    assert way.run(WRONG_MOST_S + 15, 2500e3).allowed_bps >= 2500e3
    way.bps = 600e3
    assert way.run(5, 2500e3).allowed_bps < 2500e3


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(50e3, 20e6), st.sampled_from((0.0, 500e3, 2500e3)), st.integers(1, 600)), max_size=8),
    st.booleans(),
)
def test_whatever_came_before_a_way_that_carries_more_is_found(
    stretches: list[tuple[float, float, int]], checks: bool
) -> None:
    way = Way(20e6, checks=checks)
    for way.bps, wanted_bps, seconds in stretches:
        way.run(seconds, wanted_bps, ALLOCATE_S)
    way.bps = 20e6
    assert way.run(WRONG_MOST_S + 15, 2500e3).allowed_bps >= 2500e3


def test_a_remb_that_does_not_fall_takes_nothing() -> None:
    """A browser that gets little allows little: that says nothing of the way."""
    down = BandwidthEstimator()
    down.sent(0, 0, 1.0)
    down.sent(int(500e3 / 8), 0, 2.0)
    assert not down.remb(500e3, 2.0)
    for second in range(3, 10):
        assert not down.remb(500e3, second)
    assert down.allowed_bps == START_BPS


def test_after_a_silence_a_browser_begins_anew() -> None:
    down, total = BandwidthEstimator(), 0
    for tick in range(100):
        total += 20_000 if tick < 50 else 0
        down.sent(total, 0, 10.0 + tick / 10)
        if tick < 50:
            down.remb(2e6, 10.0 + tick / 10)
    for tick in range(10):
        total += 6_000
        down.sent(total, 0, 20.1 + tick / 10)
        assert not down.remb(100e3 + tick, 20.1 + tick / 10)
    assert not down.limited


@pytest.mark.parametrize(("fraction", "lower"), [(0.0, False), (LOSS_HIGH, False), (0.3, True)])
def test_much_loss_is_congestion(fraction: float, lower: bool) -> None:
    down = BandwidthEstimator()
    down.sent(0, 0, 1.0)
    down.sent(100_000, 0, 2.0)
    assert down.loss(fraction, 2.0) == lower
    assert not down.loss(fraction, 2.5), "one report a second counts"


def report(way: Way, seconds: int, wanted_bps: float, loss: Callable[[float], float]) -> None:
    """The way loses, once a second told of, what `loss` says of what is sent."""
    for _ in range(seconds):
        way.run(1, wanted_bps)
        way.down.loss(loss(way.down.sent_bps), way.now_s)


@pytest.mark.parametrize("begins", [0, 10])
def test_what_a_way_loses_whatever_is_sent_is_no_congestion(begins: int) -> None:
    """Going down is tried, and does not help."""
    way = Way(20e6)
    report(way, begins, 2500e3, lambda _: 0.0)
    report(way, 60, 2500e3, lambda _: 0.2)
    assert not way.down.jammed
    seen = set()
    for _ in range(60):
        report(way, 1, 2500e3, lambda _: 0.2)
        seen.add(way.down.allowed_bps >= 2500e3)
    assert seen == {True}
    report(way, 4, 2500e3, lambda _: 0.5)
    assert way.down.allowed_bps < 2500e3, "but more is"


def test_what_a_way_without_a_queue_loses_of_too_much_is_congestion() -> None:
    """Nothing is late then."""
    way = Way(20e6)
    report(way, 60, 2500e3, lambda bps: max(0.0, 1 - 900e3 / max(bps, 1)))
    sent = []
    for _ in range(40):
        report(way, 1, 2500e3, lambda bps: max(0.0, 1 - 900e3 / max(bps, 1)))
        sent.append(way.down.sent_bps)
    assert sum(sent) / len(sent) < 1100e3


def test_only_delays_tell_that_a_way_is_jammed() -> None:
    down = BandwidthEstimator()
    down.sent(0, 0, 1.0)
    down.sent(100_000, 0, 2.0)
    down.remb(1e6, 2.0)
    down.loss(0.5, 3.0)
    assert down.limited
    assert not down.jammed
    down.remb(0.5e6, 4.0)
    assert down.jammed


def test_what_the_server_had_to_drop_is_congestion() -> None:
    """TCP tells no loss, and what waits for it is no more than may wait."""
    way = Way(5e6)
    down = way.run(20, 2500e3)
    before_bps = down.allowed_bps
    down.refused(way.now_s)
    assert down.allowed_bps == pytest.approx(SHARE * 2500e3, rel=0.1)
    assert down.allowed_bps < before_bps
    assert down.limited
    assert down.jammed
    lower_bps = down.allowed_bps
    down.refused(way.now_s)
    assert down.allowed_bps == lower_bps, "once for what waits already"


def test_losses_alone_leave_a_small_picture() -> None:
    down = BandwidthEstimator()
    for second in range(60):
        down.loss(0.9, 10.0 + second)
    assert down.allowed_bps == LEAST_BPS


def test_a_complaint_about_a_probe_puts_the_next_one_off() -> None:
    down = BandwidthEstimator()
    down.remb(1e6, 10.0)
    down.want(2e6, 10.0)
    assert down.probe_bps > 0
    assert not down.remb(0.7e6, 10.2)
    over_s = 10.0 + PROBE_S + VERDICT_S + 0.01
    down.want(2e6, over_s)
    assert down.limited
    assert down.allowed_bps == START_BPS, "that more is too much says nothing against what was carried"
    down.remb(0.6e6, over_s + 0.1)
    assert down.allowed_bps == START_BPS, "the probe may be what this is about, still"
    down.want(2e6, over_s + 2 * RETRY_FIRST_S - 0.01)
    assert down.probe_bps == 0
    down.want(2e6, over_s + 2 * RETRY_FIRST_S + 0.01)
    assert down.probe_bps > 0


def test_losses_end_a_probe() -> None:
    """What has no queue to fill drops what is too much."""
    down = BandwidthEstimator()
    down.want(2e6, 10.0)
    down.sent(0, 0, 10.0)
    down.sent(100_000, 0, 10.2)
    down.loss(0.3, 10.2)
    assert down.probe_bps == 0


def test_a_way_that_stays_too_narrow_after_a_failed_probe_is_noticed() -> None:
    down = BandwidthEstimator()
    down.remb(1e6, 10.0)
    down.want(2e6, 10.0)
    down.remb(0.7e6, 10.2)
    over_s = 10.0 + PROBE_S + VERDICT_S + 0.01
    down.want(2e6, over_s)
    down.remb(0.6e6, over_s + VERDICT_S + 0.01)
    assert down.allowed_bps == 0.6e6


def silent(down: BandwidthEstimator, now_s: float, *round_trips_s: float) -> bool:
    """A probe that the browser says nothing to, with what is measured before it and later; whether it is taken for a
    yes."""
    before = down.allowed_bps
    down.want(2e6, now_s)
    assert down.probe_bps > 0
    for n in range(1, round(PROBE_S / TICK_S) + 1):
        assert down.asks(now_s + n * TICK_S + 0.01)
        if n <= len(round_trips_s):
            down.round_trip(round_trips_s[n - 1], now_s + n * TICK_S + 0.01, now_s)
    assert not down.asks(now_s + PROBE_S + 2 * TICK_S)
    down.remb(150e3, now_s + 0.2)
    down.want(2e6, now_s + PROBE_S + VERDICT_S + 0.01)
    return down.allowed_bps == 2 * before


@pytest.mark.parametrize(
    ("round_trips_s", "taken"),
    [
        ((), False),
        ((0.05,), False),
        ((0.05, 0.06), True),
        ((0.05, 0.04, 0.03), True),
        ((0.05, 0.05 + LEFT_S - 0.001), True),
        ((0.05, 0.05 + LEFT_S + 0.001), False),
        ((0.05, 0.05, 0.3), False),
        ((0.05, 0.3, 0.05), True),
    ],
)
def test_what_an_estimate_that_stays_low_does_not_say_a_queue_does(
    round_trips_s: tuple[float, ...], taken: bool
) -> None:
    """Chromium adds next to nothing to its estimate after a narrow time, however wide the way is since."""
    down = BandwidthEstimator()
    down.remb(150e3, 1.0)
    down.loss(0.5, 2.0)
    assert down.allowed_bps < 1e6
    assert silent(down, 10.0, *round_trips_s) == taken


@pytest.mark.parametrize(("after_s", "taken"), [(0.05, True), (0.3, False)])
def test_a_queue_says_more_than_an_estimate_that_falls(after_s: float, taken: bool) -> None:
    """What is sent at once arrives one after the other, which looks like too much to Chromium."""
    down = BandwidthEstimator()
    down.remb(500e3, 1.0)
    assert silent(down, 10.0, 0.05, after_s) == taken


@pytest.mark.parametrize("round_trip_s", [0.001, 0.3])
def test_a_round_trip_of_another_probe_says_nothing(round_trip_s: float) -> None:
    down = BandwidthEstimator()
    down.remb(150e3, 1.0)
    assert not silent(down, 10.0)
    for sent_s in (10.11, 10.31, 19.0):
        down.round_trip(round_trip_s, sent_s, sent_s)
    assert not silent(down, 20.0)


def test_what_round_trips_allowed_wrongly_waits_longer_each_time() -> None:
    down, now_s, waits = BandwidthEstimator(), 10.0, []
    down.remb(150e3, 1.0)
    down.loss(0.5, 2.0)
    for _ in range(3):
        began_s, low = now_s, down.allowed_bps
        while down.allowed_bps == low:
            now_s += TICK_S
            if down.asks(now_s):
                down.round_trip(0.05, now_s, now_s)
            down.remb(150e3, now_s)
            down.want(2e6, now_s)
        waits.append(now_s - began_s)
        down.loss(0.5, now_s + 1)
        down.loss(0.0, now_s + 2)
        down.allowed_bps = low
        now_s += 2
    assert waits[1] >= WRONG_FIRST_S - 2
    assert waits[2] >= waits[1] + WRONG_FIRST_S - 2


def test_where_nothing_can_be_sent_twice_it_is_just_tried() -> None:
    down = BandwidthEstimator()
    down.want(2e6, 10.0, can_probe=False)
    assert down.allowed_bps == 2 * START_BPS
    down.want(2e6, 10.1, can_probe=False)
    assert down.allowed_bps == 2 * START_BPS
    assert down.probe_bps == 0


def test_nothing_more_is_sent_than_asked_for() -> None:
    down = BandwidthEstimator()
    down.want(0, 10.0)
    assert down.probe_bps == 0
    down.want(START_BPS / 2, 10.1)
    assert down.probe_bps == 0


def test_a_quiet_probe_is_an_allowance() -> None:
    down = BandwidthEstimator()
    down.want(1e6, 10.0)
    down.want(1e6, 10.0 + PROBE_S + VERDICT_S + 0.01)
    assert down.allowed_bps == pytest.approx(1.1e6)


def test_uneven_arrival_alone_takes_nobody_the_last_picture() -> None:
    """A busy machine or Wi-Fi delays packets without losing any; a way that is too narrow loses them."""
    down = sending(80e3)
    for tick in range(20):
        down.remb(100e3 * 0.97**tick, 20.0 + tick / 10)
    assert down.allowed_bps == LEAST_BPS
    down.loss(0.3, 23.0)
    down.remb(50e3, 23.1)
    assert down.allowed_bps == pytest.approx(SHARE * 80e3)


# --- queues -----------------------------------------------------------------------------------------------------------


def sending(bps: float) -> BandwidthEstimator:
    """For ten seconds until 20.0."""
    down = BandwidthEstimator()
    for tick in range(101):
        down.sent(int(bps / 80) * tick, 0, 10.0 + tick / 10)
    return down


def known(bps: float) -> BandwidthEstimator:
    """Likewise, with an empty queue at the end."""
    down = sending(bps)
    assert not down.round_trip(0.05, 19.9, 19.95)
    down.remb(bps, 19.9)
    return down


def test_a_fall_of_the_estimate_is_believed_when_a_queue_stays() -> None:
    down = known(600e3)
    assert not down.remb(400e3, 20.0)
    assert down.asks(20.1)
    assert not down.round_trip(0.3, 20.1, 20.4), "one burst may be all of that"
    assert down.asks(20.3), "some of them may be lost"
    assert not down.round_trip(0.3, 20.3, 20.6)
    assert down.asks(20.1 + AGAIN_S)
    assert down.round_trip(0.3, 20.1 + AGAIN_S, 21.0)
    assert down.allowed_bps == 400e3
    assert down.jammed


def test_a_fall_of_the_estimate_after_a_long_quiet_time_is_believed_too() -> None:
    """What an empty queue takes has to be known from before, and lately: paths change."""
    down = known(600e3)
    for tick in range(3000):
        now_s = 20.0 + tick / 5
        if down.asks(now_s):
            assert not down.round_trip(0.05, now_s, now_s + 0.05)
    assert not down.remb(400e3, 620.0)
    times = (620.0 + tick / 5 for tick in range(1, 6))
    assert [down.round_trip(0.3, at_s, at_s + 0.3) for at_s in times if down.asks(at_s)] == [False, False, True]


def test_a_fall_of_the_estimate_without_a_queue_takes_nothing() -> None:
    down = known(600e3)
    down.remb(400e3, 20.0)
    assert down.asks(20.1)
    assert not down.round_trip(0.06, 20.1, 20.2)
    assert not down.asks(22.0)
    down.sent(10**9, 0, 22.0)
    assert down.allowed_bps == START_BPS
    assert not down.limited


def test_where_nothing_comes_back_the_way_is_full() -> None:
    down = known(600e3)
    down.remb(400e3, 20.0)
    assert down.asks(20.1)
    down.sent(int(600e3 / 80) * 115, 0, 20.0 + NOTHING_S)
    assert down.allowed_bps == START_BPS
    down.sent(int(600e3 / 80) * 116, 0, 20.0 + NOTHING_S + 0.1)
    assert down.allowed_bps == pytest.approx(600e3 / 2, rel=0.05)


def test_an_estimate_far_below_what_is_sent_says_not_how_much_is_carried() -> None:
    down = sending(600e3)
    down.remb(130e3, 19.8)
    down.round_trip(0.05, 19.9, 19.95)
    down.remb(120e3, 20.0)
    for sent_s in (20.1, 20.1 + AGAIN_S):
        assert down.asks(sent_s)
        down.round_trip(0.3, sent_s, sent_s + 0.3)
    assert down.allowed_bps == pytest.approx(SHARE * 600e3)


def test_a_way_that_was_too_narrow_is_watched() -> None:
    """Chromium's estimate may stay where it is, and so cannot fall."""
    down = known(600e3)
    assert down.asks(20.0)
    assert not down.asks(20.0 + CALM_S - 0.1), "others are hardly"
    down.loss(0.5, 22.0)
    assert down.limited
    assert down.asks(23.0)
    assert not down.asks(23.0 + WATCH_S - 0.01)
    down.allowed_bps = 600e3
    assert not down.round_trip(0.3, 23.0, 23.3)
    assert down.asks(23.0 + AGAIN_S)
    assert down.round_trip(0.3, 23.0 + AGAIN_S, 23.9)
    assert down.allowed_bps == pytest.approx(SHARE * 600e3)


def test_who_lies_about_round_trips_gets_no_less_than_others() -> None:
    down = known(600e3)
    down.limited = True
    for n in range(1000):
        down.round_trip(float(n), 21.0 + n, 21.0 + n)
    assert down.allowed_bps >= LEAST_BPS
