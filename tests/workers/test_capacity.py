"""When a server refuses people before its calls suffer. Measurements and the clock are the test's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from support.control import settings
from support.waiting import until

from sfu.workers import capacity
from sfu.workers.capacity import CONTROL_LATE_S, JOIN_S, LASTING, PEER_LOAD, WORKER_LATE_S, Capacity, read_cpu, stolen


class Now:
    """A clock that stands still between the steps of a test."""

    s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def now() -> Now:
    return Now()


def made(now: Now, **changes: Any) -> Capacity:
    return Capacity(settings(max_load=0.8, **changes), now)


def report(of: Capacity, load: float, lag_s: float = 0.0, times: int = 1) -> None:
    for _ in range(times):
        of.worker_reported(0, load, lag_s)


def measure(of: Capacity, lag_s: float = 0.0, steal: float = 0.0, times: int = LASTING) -> None:
    for _ in range(times):
        of.measured(lag_s, steal)


def test_load_is_bounded(now: Now) -> None:
    found = made(now)
    report(found, 0.79)
    assert found.objection(0) == ""
    report(found, 0.81)
    assert found.objection(0) == "load=0.81 most=0.80 steal=0.00"


def test_who_joined_counts_until_the_load_shows_it(now: Now) -> None:
    found = made(now)
    report(found, 0.6)
    for number in range(21):
        assert found.objection(0) == ""
        found.joined(0, str(number))
    assert found.objection(0) == "load=0.81 most=0.80 steal=0.00"
    now.s += JOIN_S / 2
    assert found.expected_load(0) == pytest.approx(0.6 + 21 * PEER_LOAD / 2)
    assert found.objection(0) == ""
    now.s += JOIN_S / 2
    assert found.expected_load(0) == 0.6
    found.joined(0, "last")
    found.restarted(0)
    assert found.expected_load(0) == 0


def test_who_left_counts_no_more(now: Now) -> None:
    found = made(now)
    for number in range(1000):
        found.joined(0, str(number))
        assert found.objection(0) == ""
        found.left(0, str(number))
    found.left(0, "somebody else")
    assert found.expected_load(0) == 0


def test_a_class_that_joins_at_once_comes_in(now: Now) -> None:
    found = made(now)
    report(found, 0.3)
    for number in range(40):
        assert found.objection(0) == ""
        found.joined(0, str(number))


def test_stolen_time_is_missing_from_each_core(now: Now) -> None:
    found = made(now)
    report(found, 0.5)
    measure(found, steal=0.5)
    assert found.objection(0) == "load=0.50 most=0.40 steal=0.50"
    measure(found, steal=0.0, times=1)
    assert found.objection(0) == ""


@pytest.mark.parametrize("whose", ["worker", "control"])
def test_only_lag_that_lasts_counts(now: Now, whose: str) -> None:
    found = made(now)
    limit_s = WORKER_LATE_S if whose == "worker" else CONTROL_LATE_S

    def late(lag_s: float, times: int) -> None:
        if whose == "worker":
            report(found, 0.1, lag_s, times)
        else:
            measure(found, lag_s, times=times)

    late(limit_s * 10, LASTING - 1)
    assert found.objection(0) == "", "a pause, or a burst of joins"
    late(limit_s + 0.01, 1)
    assert found.objection(0).startswith(f"{whose}_lag_s=")
    late(0.0, 1)
    assert found.objection(0) == ""


def test_without_limits_everybody_comes_in(now: Now) -> None:
    found = made(now, limits=False)
    report(found, 5.0, 5.0, LASTING)
    measure(found, 5.0, 1.0)
    assert found.objection(0) == ""


def test_what_the_kernel_tells_of_stolen_time(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 0 100 700 0 0 0 100 50 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    before = read_cpu(stat)
    assert before == (100, 1000)
    stat.write_text("cpu  150 0 150 750 0 0 0 150 60 0\n")
    assert stolen(before, read_cpu(stat)) == 0.25
    for text in ("", "cpu  1 2 3\n", "cpu  a b c d e f g h\n"):
        stat.write_text(text)
        assert read_cpu(stat) == (0, 0)
    assert read_cpu(tmp_path / "none") == (0, 0)
    assert stolen((0, 0), (0, 0)) == stolen(before, (0, 0)) == 0.0


async def test_it_measures_by_itself(now: Now, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file grows by a tick of each kind between two looks, so an eighth is stolen."""
    monkeypatch.setattr(capacity, "LOOK_S", 0.01)
    stat = tmp_path / "stat"
    found = made(now)

    async def pass_time() -> None:
        for ticks in range(1, 1_000_000):
            stat.write_text(f"cpu {' '.join([str(ticks)] * 8)}\n")
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_time)
        await until(stat.exists)
        nursery.start_soon(found.measure, stat)
        await until(lambda: found.steal == 0.125)
        nursery.cancel_scope.cancel()
