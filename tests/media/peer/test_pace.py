from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sfu.media.peer.pace import Pace


def times(pace: Pace, asked_s: list[float]) -> list[float]:
    """When it is done, if each time it is wanted it is done as soon as it may."""
    done: list[float] = []
    for at_s in sorted(asked_s):
        now_s = max([at_s, *done[-1:]])
        now_s += pace.wait_s(now_s)
        pace.done(now_s)
        done.append(now_s)
    return done


def test_at_once_after_a_while_and_spaced_in_a_row() -> None:
    assert times(Pace(0.5, 3), [10.0] * 6) == [10.0, 10.0, 10.0, 10.5, 11.0, 11.5]
    assert times(Pace(0.5, 3), [10.0, 10.0, 10.0, 20.0, 20.0, 20.0]) == [10.0, 10.0, 10.0, 20.0, 20.0, 20.0]


@given(st.lists(st.integers(0, 400).map(lambda n: n / 16), max_size=60), st.integers(1, 4))
def test_never_more_than_it_may(asked_s: list[float], burst: int) -> None:
    done = times(Pace(0.5, burst), asked_s)
    for i, first_s in enumerate(done):
        for j, last_s in enumerate(done[i:]):
            assert j + 1 <= burst + (last_s - first_s) / 0.5
