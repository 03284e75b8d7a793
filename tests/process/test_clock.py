"""The control plane's clock: what a paused process did not see does not count, what it waited for does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.process import ROOT

from sfu.process.clock import LOOK_S, MOST_S, AwakeClock

PAUSED = """
import os, sys, trio
from sfu.process.clock import AwakeClock

async def main():
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(float(sys.argv[1])) as silence:
            print("waiting", flush=True)
            stdin = trio.lowlevel.FdStream(os.dup(0))
            while await stdin.receive_some(1) != b"!":
                pass
    print("silent" if silence.cancelled_caught else "heard", flush=True)

trio.run(main, clock=AwakeClock())
"""


class Ticks:
    """A clock to be set."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("gaps_s", "counted_s"),
    [
        ([0.5, 1.0, 0.25], 1.75),
        ([MOST_S], MOST_S),
        ([60.0], MOST_S),
        ([1.0, 3600.0, 1.0], 2 + MOST_S),
    ],
    ids=["awake", "late", "paused", "paused between"],
)
def test_a_pause_does_not_count(gaps_s: list[float], counted_s: float) -> None:
    ticks = Ticks()
    clock = AwakeClock(ticks)
    clock.start_clock()
    began_s = clock.current_time()
    for gap_s in gaps_s:
        ticks.now_s += gap_s
        clock.current_time()
    assert clock.current_time() == pytest.approx(began_s + counted_s)


def test_what_was_before_the_start_does_not_count() -> None:
    ticks = Ticks()
    clock = AwakeClock(ticks)
    ticks.now_s += 1
    clock.start_clock()
    assert clock.current_time() == 1000.0


@given(st.lists(st.floats(0, 1e6), max_size=50), st.floats(0, 100))
def test_it_never_goes_back_nor_ahead_and_looks_often_enough(gaps_s: list[float], left_s: float) -> None:
    ticks = Ticks()
    clock = AwakeClock(ticks)
    before_s = clock.current_time()
    for gap_s in gaps_s:
        ticks.now_s += gap_s
        sleep_s = clock.deadline_to_sleep_time(before_s + left_s)
        now_s = clock.current_time()
        assert before_s <= now_s <= ticks.now_s
        assert sleep_s == pytest.approx(min(before_s + left_s - now_s, LOOK_S))
        before_s = now_s
    assert clock.deadline_to_sleep_time(float("inf")) == LOOK_S < MOST_S


@pytest.mark.parametrize(("said", "heard"), [(b"...!", b"heard\n"), (b"...", b"silent\n")])
def test_a_process_that_was_stopped_reads_what_came_meanwhile(said: bytes, heard: bytes) -> None:
    """Stopped for longer than its deadline; whoever does not say it is silent all the same, later."""
    command = [sys.executable, "-c", PAUSED, "2.5"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(signal.SIGSTOP)
        os.write(process.stdin.fileno(), said)
        time.sleep(4)  # what is tested is how long it is stopped
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == heard
