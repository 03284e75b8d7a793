"""The estimator in virtual time, at the end of a model of a downlink (support/model_link.py)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_link import STEPS, Call, Link, Tcp, lost, lost_in_bursts, run

from sfu.media.bandwidth.delays import Group
from sfu.media.bandwidth.send_side import MIN_BPS, SILENT_S, START_BPS, SendSideEstimator

WIDE_BPS = 5e6
TOP = STEPS[-1]


class Watched(Call):
    """Notes what happens every 0.1 s."""

    def __init__(self, link: Link, **how: object) -> None:
        super().__init__(link, **how)  # type: ignore[arg-type]
        self.now_s = 100.0
        self.forget()

    def forget(self) -> None:
        self.offers: list[float] = []
        self.waits: list[float] = []
        self.sends: list[float] = []
        self.switches.clear()
        self.alarms.clear()
        self._carried = self.link.carried

    def note(self, now_s: float) -> None:
        self.offers.append(self.offered_bps())
        self.waits.append(self.link.waits_s(now_s))
        self.sends.append(self.sending_bps)

    def run(self, seconds: float, *others: Call | Tcp) -> Watched:
        self.forget()
        self.now_s = run(seconds, self, *others, start_s=self.now_s, each=self.note)
        return self

    def used(self) -> float:
        """Share of the link."""
        return (self.link.carried - self._carried) * 8 / (len(self.offers) / 10) / self.link.bps

    def above_s(self) -> float:
        """The longest time for which more was offered than the link carries, by at least a tenth. The offered bitrate
        is the mean of a second, so the last one does not count."""
        longest = now = 0
        for bps in self.offers:
            now = now + 1 if bps > 1.1 * self.link.bps else 0
            longest = max(longest, now)
        return max(0.0, longest / 10 - 1)

    def most_switches(self, seconds: float) -> int:
        times = [at_s for at_s, _ in self.switches]
        return max((sum(at_s <= other < at_s + seconds for other in times) for at_s in times), default=0)


def settled(bps: float = WIDE_BPS, **how: float) -> Watched:
    call = Watched(Link(bps, **how))  # type: ignore[arg-type]
    return call.run(20)


# --- clean links ------------------------------------------------------------------------------------------------------


def test_a_wide_link_is_found_in_seconds_and_never_doubted() -> None:
    call = Watched(Link(20e6))
    call.run(5)
    assert call.sending_bps == TOP
    call.run(600)
    assert not call.alarms
    assert not call.switches
    assert not call.down.limited


@pytest.mark.parametrize("drift", [-2e-4, 2e-4])
def test_a_clock_that_drifts_is_no_queue(drift: float) -> None:
    call = Watched(Link(20e6), drift=drift).run(10).run(300)
    assert call.sending_bps == TOP
    assert not call.alarms


def test_jitter_is_no_queue() -> None:
    call = settled()
    call.link.jitter_s = 0.06
    assert not call.run(300).alarms
    assert call.sending_bps == TOP


def test_a_longer_path_is_no_queue() -> None:
    call = settled()
    call.link.trip_s = 0.3
    call.link.loses = lost(0.02)
    assert not call.run(60).switches


@pytest.mark.parametrize("loses", [lost(0.1), lost(0.2), lost_in_bursts(0.05)])
def test_loss_of_the_path_itself_changes_nothing(loses: object) -> None:
    call = settled()
    call.link.loses = loses  # type: ignore[assignment]
    assert not call.run(120).switches
    assert call.sending_bps == TOP


def test_with_loss_from_the_beginning_all_is_found_too() -> None:
    call = Watched(Link(WIDE_BPS, loses=lost(0.2)), feedback_lost=0.2).run(30)
    assert call.sending_bps == TOP
    assert not call.run(60).alarms


# --- narrow links -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bps", [250e3, 600e3, 1.5e6])
def test_a_narrow_link_is_used_without_a_long_queue(bps: float) -> None:
    call = Watched(Link(bps)).run(15).run(60)
    assert call.used() >= 0.6
    assert sum(call.waits) / len(call.waits) < 0.06
    assert call.most_switches(10) <= 1


def test_where_not_even_the_smallest_video_fits_sound_is_whole() -> None:
    call = Watched(Link(80e3)).run(15).run(60)
    assert call.sending_bps == 0
    assert sum(call.waits) / len(call.waits) < 0.06
    call.link.bps = WIDE_BPS
    call.run(30)
    assert call.sending_bps == TOP, "it comes back by probes, though nothing else is sent"


@pytest.mark.parametrize("queue_s", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("bps", [400e3, 250e3, 100e3])
def test_a_link_that_narrows(bps: float, queue_s: float) -> None:
    call = settled(queue_s=queue_s)
    call.link.bps = bps
    call.run(6)
    assert call.above_s() <= 1.5
    assert call.alarms[0] < call.now_s - 6 + 1.0
    assert call.down.limited
    call.run(24)
    assert call.most_switches(10) <= 3, "one to where it stays, and while the queue drains"
    assert bps < 200e3 or min(call.sends[100:]) > 0
    assert sum(call.waits[50:]) / len(call.waits[50:]) < 0.08
    call.link.bps = WIDE_BPS
    call.run(20)
    assert call.sending_bps == TOP
    steps = [bps for _, bps in call.switches]
    assert steps == sorted(steps), "no step back"


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_ten_hours_of_a_narrow_link() -> None:
    call = Watched(Link(400e3))
    call.run(30)
    for _ in range(10):
        call.run(3600)
        assert min(call.sends) >= 60e3
        assert call.used() >= 0.6
        assert sum(call.waits) / len(call.waits) < 0.06
        assert len(call.switches) < 3600 / 10
    call.link.bps = WIDE_BPS
    assert call.run(120).sending_bps == TOP


CHANGING = given(
    st.lists(st.tuples(st.floats(120e3, 6e6), st.integers(5, 30)), min_size=1, max_size=5),
    st.sampled_from([0.1, 0.3, 1.0]),
    st.sampled_from([0.0, 0.02, 0.1]),
    st.sampled_from([0.0, 0.02]),
    st.integers(0, 100),
)


@settings(max_examples=6, deadline=None, derandomize=True)
@CHANGING
def test_whatever_the_link_does(
    stretches: list[tuple[float, int]], queue_s: float, loss: float, jitter_s: float, seed: int
) -> None:
    change(stretches, queue_s, loss, jitter_s, seed, 1.5)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=60, deadline=None)
@CHANGING
def test_whatever_the_link_does_for_long(
    stretches: list[tuple[float, int]], queue_s: float, loss: float, jitter_s: float, seed: int
) -> None:
    change(stretches, queue_s, loss, jitter_s, seed, 2.5)  # one history of eighty takes longer than 1.5 s


def change(
    stretches: list[tuple[float, int]], queue_s: float, loss: float, jitter_s: float, seed: int, most_s: float
) -> None:
    """Never above it for more than `most_s`, and all of it is found again."""
    link = Link(WIDE_BPS, queue_s=queue_s, jitter_s=jitter_s, loses=lost(loss), seed=seed)
    call = Watched(link, seed=seed).run(10)
    for link.bps, seconds in stretches:
        call.run(seconds)
        assert call.above_s() <= most_s
    link.bps = WIDE_BPS
    call.run(60)
    assert call.sending_bps == TOP


# --- others on the same link ------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_subscribers_behind_one_link_share_it() -> None:
    got = [0, 0]
    for seed in range(3, 7):
        link = Link(1.5e6)
        first, second = Watched(link), Watched(link, seed=seed)
        first.run(20)
        first.run(20, second)
        before = first.video, second.video
        first.run(120, second)
        got = [n + call.video - start for n, call, start in zip(got, (first, second), before, strict=True)]
        assert sum(first.waits) / len(first.waits) < 0.1
    assert min(got) >= 0.5 * max(got)


def test_a_download_beside_does_not_starve_the_call() -> None:
    """Who probes when is chance, so this is the mean of several calls."""
    got, seeds = 0, range(1, 9)
    for seed in seeds:
        link = Link(1e6)
        call, download = Watched(link, seed=seed), Tcp(link)
        call.run(20)
        before = call.video
        call.run(120, download)
        got += call.video - before
        assert download.bytes * 8 / 120 >= 0.3 * link.bps
    assert got * 8 / 120 / len(seeds) >= 0.4 * 0.5 * link.bps


# --- feedback ---------------------------------------------------------------------------------------------------------


def test_feedback_that_is_lost_is_no_loss() -> None:
    call = Watched(Link(20e6), feedback_lost=0.3).run(10).run(120)
    assert call.sending_bps == TOP
    assert not call.alarms


@pytest.mark.parametrize("sound_bps", [40e3, 100e3])
@pytest.mark.parametrize("seconds", [SILENT_S + 2, 20.0])
def test_a_cut_is_over_when_it_is_over(seconds: float, sound_bps: float) -> None:
    """Also after the estimate has fallen below the sound, so that no video is left that could tell."""
    call = Watched(Link(WIDE_BPS), sound_bps=sound_bps).run(20)
    call.link.cut = True
    call.run(seconds)
    assert call.down.jammed
    call.link.cut = False
    call.run(1)
    assert call.sending_bps == TOP


def test_what_a_short_cut_lost_is_no_congestion() -> None:
    call = settled()
    call.link.cut = True
    call.run(SILENT_S - 0.5)
    call.link.cut = False
    call.run(10)
    assert not call.switches
    assert not call.alarms


def test_a_video_that_was_paused_for_long_comes_back() -> None:
    """Nothing but probes tells that there is room again, and the estimate is below what sound takes."""
    call = Watched(Link(70e3), sound_bps=60e3).run(60)
    assert call.sending_bps == 0
    call.link.bps = WIDE_BPS
    call.run(40)
    assert call.sending_bps == TOP


def test_a_stopped_server_learns_nothing_from_its_pause() -> None:
    call = settled()
    before = call.down.estimate_bps
    call.now_s += 60
    call.run(5)
    assert call.down.estimate_bps >= before
    assert not call.switches


def test_a_pause_of_the_video_says_nothing() -> None:
    call = settled()
    call.muted = True
    call.run(30)
    call.muted = False
    call.run(30)
    assert not call.alarms
    assert call.sending_bps == TOP


def sending(bps: float, seconds: float, down: SendSideEstimator, *, delay_s: float = 0.0, now_s: float = 10.0) -> float:
    """A packet each 20 ms, acknowledged at once."""
    size, total = int(bps / 8 / 50), 0
    for _n in range(int(seconds * 10)):
        packets = [(now_s + k / 50, size, 1, now_s + k / 50 + delay_s) for k in range(5)]
        now_s += 0.1
        total += 5 * size
        down.sent(total, 0, now_s)
        down.acknowledged(packets, now_s)
        down.want(0.0, now_s)
    return now_s


def test_the_clock_of_the_client_wraps() -> None:
    down = SendSideEstimator()
    now_s = sending(500e3, 5, down, delay_s=1073741.0)
    sending(500e3, 5, down, delay_s=-800.0, now_s=now_s)
    assert down.estimate_bps >= START_BPS
    assert not down.limited


def test_feedback_about_nothing_is_ignored() -> None:
    assert not SendSideEstimator().acknowledged([], 10.0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.floats(0, 200), st.integers(1, 1500), st.integers(1, 16), st.floats(-1e9, 1e9)), max_size=20
        ),
        max_size=20,
    ),
    st.booleans(),
)
def test_forged_feedback_has_bounds(reports: list[list[Group]], whole: bool) -> None:
    down, now_s, total = SendSideEstimator(), 100.0, 0
    for report in reports:
        now_s += 0.05
        total += 1000
        down.sent(total, 0, now_s)
        down.acknowledged(report, now_s, whole=whole)
        down.want(2e6, now_s)
        assert MIN_BPS <= down.estimate_bps <= 50e6
        assert 0 <= down.allowed_bps <= down.estimate_bps
        assert 0 <= down.probe_bps <= 2.2 * down.estimate_bps


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_sound_is_counted_first() -> None:
    call = Watched(Link(20e6), sound_bps=200e3).run(3)
    assert call.down.allowed_bps == pytest.approx(call.down.estimate_bps - 200e3, rel=0.05)
    call.down.refused(call.now_s)
    assert call.down.limited
    assert call.down.allowed_bps == pytest.approx(0.9 * call.down.estimate_bps - 200e3, rel=0.05)


def test_a_path_that_takes_less_than_is_sent() -> None:
    call = settled()
    before = call.down.estimate_bps
    call.down.refused(call.now_s)
    lower = call.down.estimate_bps
    assert 0.5 * TOP < lower < before
    call.down.refused(call.now_s + 0.1)
    assert call.down.estimate_bps == lower, "once for what waits already"


def test_a_limit_is_forgotten_once_all_that_is_wanted_is_carried() -> None:
    call = settled()
    call.down.refused(call.now_s)
    assert call.down.limited
    call.run(90)
    assert call.sending_bps == TOP
    assert not call.down.limited


def test_where_nothing_can_be_sent_for_a_probe_more_is_just_tried() -> None:
    down = SendSideEstimator()
    down.want(2e6, 10.0, can_probe=False)
    assert down.estimate_bps == 2 * START_BPS
    assert down.probe_bps == 0


def test_no_more_is_probed_than_is_wanted() -> None:
    down = SendSideEstimator()
    down.want(0.0, 10.0)
    assert down.probe_bps == 0
    down.want(900e3, 10.1)
    assert 0 < down.probe_bps < 1.2 * 900e3


def test_round_trips_are_measured_now_and_then() -> None:
    down = SendSideEstimator()
    assert down.asks(10.0)
    assert not down.asks(15.0)
    assert down.asks(20.0)
