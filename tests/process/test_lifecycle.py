"""The phases of a server, with the test's clock."""

from __future__ import annotations

from sfu.process.lifecycle import BACK_S, RETRY_MOST_S, Lifecycle


def test_a_drain_counts_down_and_ends_in_the_stop() -> None:
    now = [100.0]
    life = Lifecycle(lambda: now[0])
    assert life.phase == "starting"
    life.started()
    assert (life.phase, life.draining, life.seconds_left) == ("ready", False, 0)
    life.drain(60)
    assert (life.phase, life.draining, life.seconds_left) == ("draining", True, 60)
    now[0] += 59.5
    assert life.seconds_left == 1
    now[0] += 10
    assert life.seconds_left == 0
    life.stop()
    assert (life.phase, life.draining) == ("stopping", False)
    life.started()
    assert life.phase == "stopping", "a start that is late changes nothing"


def test_who_is_refused_is_to_come_back_after_the_restart_or_to_look_whether_it_is_over() -> None:
    life = Lifecycle(lambda: 0.0)
    life.drain(3)
    assert life.refusal().retry_after_s == 3 + BACK_S
    life.drain(3600)
    assert life.refusal().retry_after_s == RETRY_MOST_S
    assert f"Try again in {RETRY_MOST_S} s." in str(life.refusal())
