"""What makes a score, how it moves, and who is told what is to blame."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.variants import variants

from sfu.bridge import Direction
from sfu.media.peer.quality import (
    BLAME,
    CALM_S,
    FLOW_S,
    FORGIVE,
    IDEAL,
    QUALITY_S,
    Quality,
    Telling,
    Trouble,
    delay_damage,
    limit_damage,
    loss_damage,
    score,
    uploads,
)
from sfu.media.streams.counted import Counted

PPS = 100


class Line:
    """One peer and its network, as counted every QUALITY_S."""

    def __init__(self) -> None:
        self.quality, self.now_s = Quality(), 1000.0
        self.up, self.down = Counted(1, 0, 0, 0, 0.0), Counted(2, 0, 0, 0, 0.0)

    def go(
        self,
        seconds: float,
        *,
        up: float | None = 0.0,
        down: float | None = 0.0,
        jitter_s: float = 0.004,
        round_trip_s: float | None = 0.03,
        limit_bps: float | None = None,
    ) -> Quality:
        """A share of packets lost in each direction, None where nothing is sent."""
        for _ in range(round(seconds / QUALITY_S)):
            self.now_s += QUALITY_S
            if up is not None:
                self.up = more(self.up, up)._replace(jitter_s=jitter_s)
            if down is not None:
                self.down = more(self.down, down)._replace(jitter_s=jitter_s, round_trip_s=round_trip_s)
            self.quality.update([self.up], [self.down], self.now_s, limit_bps)
        return self.quality


def more(track: Counted, loss: float) -> Counted:
    packets = round(PPS * QUALITY_S)
    lost = round(packets * loss)
    return track._replace(
        expected=track.expected + packets,
        lost=track.lost + lost,
        n_bytes=track.n_bytes + 1000 * (packets - lost),
    )


# --- the E-model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rating", "said"), [(0, 1.0), (50, 2.58), (60, 3.1), (70, 3.6), (80, 4.03), (90, 4.34), (93.2, 4.41), (100, 4.5)]
)
def test_the_score_is_that_of_the_standard(rating: float, said: float) -> None:
    """The table of G.107 annex B."""
    assert score(rating) == pytest.approx(said, abs=0.01)


@given(st.floats(-1000, 1000), st.floats(-1000, 1000))
def test_a_better_rating_is_a_better_score(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 1 <= score(low) <= score(high) <= 4.5


@pytest.mark.parametrize(
    ("loss", "delay_s", "said"),
    [
        (0.0, 0.06, 4.4),
        (0.01, 0.06, 4.3),
        (0.02, 0.06, 4.1),
        (0.05, 0.06, 3.7),
        (0.1, 0.06, 3.1),
        (0.2, 0.06, 2.3),
        (0.5, 0.06, 1.4),
        (1.0, 0.06, 1.1),
        (0.0, 0.15, 4.3),
        (0.0, 0.3, 3.7),
        (0.0, 0.5, 2.4),
        (0.05, 0.3, 2.8),
    ],
)
def test_what_loss_and_delay_leave(loss: float, delay_s: float, said: float) -> None:
    assert round(score(IDEAL - loss_damage(loss) - delay_damage(delay_s)), 1) == said


@pytest.mark.parametrize(
    ("bitrate_bps", "damage"), [(5e6, 0), (2e6, 0), (1e6, 10), (5e5, 20), (1.25e5, 40), (0, limit_damage(20_000))]
)
def test_a_limit_costs_the_same_for_each_halving(bitrate_bps: float, damage: float) -> None:
    assert limit_damage(bitrate_bps) == pytest.approx(damage)


# --- figures ----------------------------------------------------------------------------------------------------------


def test_the_figures_of_both_directions() -> None:
    quality = Line().go(20, up=0.1, down=0.02, jitter_s=0.012, round_trip_s=0.08)
    assert quality.up.loss == pytest.approx(0.1)
    assert quality.down.loss == pytest.approx(0.02)
    assert quality.described(quality.up) == Direction(0.1, 12.0, 80.0, int(0.9 * PPS * 8000))
    assert quality.up.n_bytes == 20 * PPS * 900
    assert quality.down.n_bytes == 20 * PPS * 980


def test_nothing_is_known_of_what_does_not_flow() -> None:
    line = Line()
    quality = line.go(20, up=None)
    assert quality.described(quality.up) is None
    assert quality.described(quality.down) is not None
    assert quality.score == 4.4
    line.go(FLOW_S + QUALITY_S, up=None, down=None)
    assert quality.described(quality.down) is None
    assert quality.score is None
    assert line.go(QUALITY_S).score == 4.4


def test_tracks_come_and_go() -> None:
    quality = Quality()
    first, second = Counted(1, 1000, 100, 50_000, 0.03), Counted(2, 1000, 0, 50_000, 0.01)
    quality.update([first], [], 10.0)
    quality.update([first, second], [], 12.0)
    assert quality.up.n_bytes == 100_000
    assert quality.up.jitter_s == 0.01
    quality.update([first, second, Counted(9, 0, 0, 0, 0.0)], [], 13.0)
    assert quality.up.jitter_s == 0.01, "of one that sends nothing nothing is known"
    quality.update([second], [], 14.0)
    quality.update([second, first._replace(key=3)], [], 16.0)
    assert quality.up.n_bytes == 150_000
    assert 0 < quality.up.loss < 0.1


def test_packets_that_came_after_all_are_not_lost() -> None:
    quality = Quality()
    quality.update([Counted(1, 200, 20, 1, 0.0)], [], 10.0)
    quality.update([Counted(1, 400, 0, 2, 0.0)], [], 12.0)
    assert quality.up.loss < 0.01


def test_losses_among_few_packets_tell_nothing() -> None:
    """A microphone that sends two packets a second during silence."""
    line = Line()
    for i in range(1, 30):
        line.now_s += QUALITY_S
        line.quality.update([Counted(1, 5 * i, i, 400 * i, 0.0)], [], line.now_s)
        assert line.quality.score == 4.4
    assert not [t for t in line.quality.troubles("a") if t.damage > FORGIVE]


# --- the score --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["up", "down"])
def test_it_falls_fast_and_rises_slowly(way: str) -> None:
    line = Line()
    assert line.go(10).score == 4.4
    assert line.go(4, **{way: 0.2}).score < 3.1
    low = line.go(16, **{way: 0.2}).score
    assert low == pytest.approx(2.3, abs=0.1)
    assert line.go(10).score < 3.7
    assert line.go(50).score > 4.2


def test_the_worse_direction_counts() -> None:
    worse = Line().go(30, up=0.1, down=0.01).score
    assert worse == Line().go(30, up=0.01, down=0.1).score == Line().go(30, up=0.1, down=0.1).score


@given(
    st.lists(
        st.tuples(st.floats(0, 0.99), st.floats(0, 0.99), st.floats(0, 10), st.none() | st.floats(0, 10)), max_size=30
    )
)
def test_whatever_is_reported_it_is_a_score(reports: list[tuple[float, float, float, float | None]]) -> None:
    line = Line()
    for up, down, jitter_s, round_trip_s in reports:
        found = line.go(QUALITY_S, up=up, down=down, jitter_s=jitter_s, round_trip_s=round_trip_s)
        assert found.score is not None
        assert 1 <= found.score <= 4.4
        assert 0 <= found.up.loss <= 1
        assert not math.isnan(found.down.loss)


# --- causes -----------------------------------------------------------------------------------------------------------


def told(line: Line) -> tuple[str, str, float, str] | None:
    cause = line.quality.telling.cause
    return None if cause is None else msgspec.structs.astuple(cause.described())  # type: ignore[return-value]


def room(**lines: Line) -> dict[str, tuple[str, str, float, str] | None]:
    worst = uploads({peer: line.quality for peer, line in lines.items()})
    for peer, line in lines.items():
        line.quality.blame(peer, worst, line.now_s)
    return {peer: told(line) for peer, line in lines.items()}


def test_an_upload_that_loses_is_told_to_everybody_and_whose_it_is() -> None:
    a, b, c = Line(), Line(), Line()
    for line, up in ((a, 0.12), (b, 0.0), (c, 0.0)):
        line.go(20, up=up)
    assert room(a=a, b=b, c=c) == dict.fromkeys("abc", ("upload_loss", "a", 12, "%"))


def test_a_download_that_loses_is_told_to_its_own_peer_only() -> None:
    a, b = Line(), Line()
    a.go(20, down=0.08)
    b.go(20)
    assert room(a=a, b=b) == {"a": ("download_loss", "a", 8, "%"), "b": None}


def test_a_slow_path_is_told() -> None:
    a, b = Line(), Line()
    a.go(20, round_trip_s=0.6, jitter_s=0.02)
    b.go(20)
    assert room(a=a, b=b) == {"a": ("delay", "a", 340, "ms"), "b": ("delay", "a", 340, "ms")}


def test_what_a_download_allows_is_told_while_more_is_wanted() -> None:
    a = Line()
    assert a.go(20, limit_bps=400_000).score < 3.7
    assert room(a=a) == {"a": ("download_limited", "a", 400_000, "bps")}
    a.go(20, down=0.1, limit_bps=300_000)
    assert room(a=a) == {"a": ("download_loss", "a", 10, "%")}
    a.go(40, limit_bps=1_900_000)
    assert room(a=a) == {"a": None}


def test_the_worst_is_told() -> None:
    a, b = Line(), Line()
    a.go(20, up=0.05)
    b.go(20, down=0.3)
    assert room(a=a, b=b) == {"a": ("upload_loss", "a", 5, "%"), "b": ("download_loss", "b", 30, "%")}


def test_someone_who_sends_nothing_is_blamed_for_nothing() -> None:
    a, b = Line(), Line()
    a.go(20, up=0.3)
    a.go(10, up=None, down=0.0)
    b.go(30)
    assert room(a=a, b=b) == {"a": None, "b": None}


def trouble(damage: float, peer: str = "a") -> Trouble:
    return Trouble("upload_loss", peer, damage, damage)


def test_a_cause_is_told_from_one_bound_and_until_another() -> None:
    telling = Telling()
    assert telling.update([trouble(BLAME - 0.1)], 0.0) is None
    assert telling.update([trouble(BLAME)], 2.0) == trouble(BLAME)
    for i in range(20):
        assert telling.update([trouble(FORGIVE)], 4.0 + 2 * i) == trouble(FORGIVE)
    last_s = 42.0
    assert telling.update([trouble(FORGIVE - 0.1)], last_s + CALM_S - 0.1) is not None
    assert telling.update([trouble(FORGIVE - 0.1)], last_s + CALM_S) is None


def test_a_cause_that_is_gone_ends() -> None:
    telling = Telling()
    telling.update([trouble(50)], 0.0)
    assert telling.update([], CALM_S - 1) is not None
    assert telling.update([], CALM_S) is None


def test_only_what_is_clearly_worse_is_told_instead_and_not_at_once() -> None:
    telling = Telling()
    telling.update([trouble(20)], 0.0)
    assert telling.update([trouble(20), trouble(60, "b")], CALM_S - 1) == trouble(20)
    assert telling.update([trouble(20), trouble(25, "b")], CALM_S) == trouble(20)
    assert telling.update([trouble(20), trouble(60, "b")], CALM_S) == trouble(60, "b")


def changes(causes: Iterable[Trouble | None]) -> int:
    keys = [None if cause is None else (cause.kind, cause.peer) for cause in causes]
    return sum(a != b for a, b in pairwise(keys))


@pytest.mark.parametrize("seed", [0, *variants(*range(1, 5))])
@pytest.mark.parametrize("loss", [0.0, 0.01, 0.02, 0.03, 0.038, 0.05, 0.1])
def test_it_does_not_flap_on_a_steady_network(loss: float, seed: int) -> None:
    """Ten minutes of random loss, also around the bounds: about the same is told all the time."""
    random, line, causes = Random(seed), Line(), []
    for _ in range(300):
        lost = sum(random.random() < loss for _ in range(round(PPS * QUALITY_S))) / (PPS * QUALITY_S)
        causes.append(line.go(QUALITY_S, up=lost).telling.update(line.quality.troubles("a"), line.now_s))
    assert changes(causes) <= (1 if loss in (0.0, 0.01, 0.05, 0.1) else 10)
    assert bool(causes[-1]) == (loss >= 0.05) or loss in (0.02, 0.03, 0.038)


@given(st.lists(st.lists(st.floats(0, 90), min_size=3, max_size=3), max_size=200))
def test_it_changes_no_more_often_than_every_calm_s(damages: list[list[float]]) -> None:
    telling, causes = Telling(), []
    for i, (a, b, c) in enumerate(damages):
        causes.append(telling.update([trouble(a), trouble(b, "b"), trouble(c, "c")], QUALITY_S * i))
    assert changes([None, *causes]) <= 1 + len(damages) * QUALITY_S / CALM_S * 2
