from __future__ import annotations

from collections.abc import Callable

import pytest

from sfu.media.bandwidth.delays import Delays


def feed(delays: Delays, start_s: float, seconds: float, delay_s: Callable[[float], float], fps: float = 15.0) -> bool:
    """Pictures of one packet; `delay_s` of the time since the start. Whether the queue grew for 0.3 s at any time."""
    grew, packets, due_s = False, [], start_s + 0.1
    for n in range(int(seconds * fps)):
        sent_s = start_s + n / fps
        packets.append((sent_s, 1000, 1, 7e5 + sent_s + delay_s(sent_s - start_s)))
        if sent_s >= due_s:
            delays.add(packets)
            packets, due_s = [], due_s + 0.1
            grew |= delays.growing_s >= 0.3
    return grew


def test_no_queue() -> None:
    delays = Delays()
    assert not feed(delays, 100, 20, lambda _: 0.05)
    assert delays.queue_s == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("per_s", [0.1, 0.5, 2.0])
def test_a_queue_that_grows(per_s: float) -> None:
    delays = Delays()
    feed(delays, 100, 10, lambda _: 0.0)
    assert feed(delays, 110, 1.5, lambda passed_s: per_s * passed_s)
    assert 0.2 * per_s < delays.queue_s < 1.5 * per_s


def test_a_queue_that_grows_slowly() -> None:
    delays = Delays()
    feed(delays, 100, 10, lambda _: 0.0)
    assert feed(delays, 110, 6, lambda passed_s: 0.03 * passed_s)


@pytest.mark.parametrize("longer_s", [-0.1, 0.1, 1.0])
def test_a_path_of_another_length(longer_s: float) -> None:
    delays = Delays()
    assert not feed(delays, 100, 10, lambda _: 0.2)
    assert not feed(delays, 110, 30, lambda _: 0.2 + longer_s)
    assert delays.queue_s == pytest.approx(0, abs=1e-6), "it has become the usual one"


def test_a_stall() -> None:
    """All that was sent meanwhile comes at its end."""
    delays = Delays()
    feed(delays, 100, 10, lambda _: 0.0)
    assert not feed(delays, 110, 3, lambda passed_s: max(0.0, 0.4 - passed_s))


def test_a_large_picture() -> None:
    """The queue that it leaves is gone after a second."""
    delays = Delays()
    feed(delays, 100, 10, lambda _: 0.0)
    assert not feed(delays, 110, 3, lambda passed_s: max(0.0, 0.2 - 0.2 * passed_s))


@pytest.mark.parametrize("jump_s", [-1e6, 50.0])
def test_a_clock_that_jumps(jump_s: float) -> None:
    delays = Delays()
    feed(delays, 100, 10, lambda _: 0.0)
    assert not feed(delays, 110, 10, lambda _: jump_s)
    assert delays.queue_s == pytest.approx(0, abs=1e-6)


def test_a_pause_forgets_the_trend() -> None:
    delays = Delays()
    feed(delays, 100, 10, lambda _: 0.0)
    feed(delays, 110, 0.5, lambda passed_s: passed_s / 5)
    assert not feed(delays, 120, 2, lambda _: 0.1)


def test_a_queue_of_others_becomes_the_usual_one() -> None:
    delays = Delays()
    feed(delays, 100, 5, lambda _: 0.0)
    feed(delays, 105, 2, lambda _: 0.3)
    assert delays.queue_s == pytest.approx(0.3, abs=0.01)
    delays.accept_queue()
    feed(delays, 107, 2, lambda _: 0.3)
    assert delays.queue_s == pytest.approx(0, abs=0.01)
