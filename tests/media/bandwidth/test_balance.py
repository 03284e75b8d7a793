from __future__ import annotations

import pytest

from sfu.media.bandwidth.balance import Balance


def filled(*, lose: int = 0) -> Balance:
    """Ten packets of 100 bytes each 0.1 s from 10.0 to 11.0; of those of each second tenth, `lose` do not arrive."""
    balance, total = Balance(), 0
    balance.sent(0, 10.0)
    for n in range(10):
        start_s = 10.0 + n / 10
        total += 1000
        balance.sent(total, start_s + 0.1)
        times = [start_s + 0.005 + k / 100 for k in range(10 - (lose if n % 2 else 0))]
        balance.arrived([(at_s, 100, 1, at_s + 0.05) for at_s in times])
    return balance


def test_all_arrives() -> None:
    sums = filled().between(10.0, 10.9)
    assert (sums.sent, sums.arrived, sums.packets) == (9000, 9000, 90)
    assert sums.seconds == pytest.approx(0.9)
    assert sums.loss == 0
    assert sums.sent_bps == sums.arrived_bps == pytest.approx(80e3)


def test_what_is_not_told_yet_is_not_lost() -> None:
    balance = filled()
    balance.sent(20_000, 11.1)
    assert balance.between(10.0, 11.1).loss == 0
    assert balance.untold(10.0, 11.1) == 11_000


def test_a_loss_is_counted_where_it_was() -> None:
    balance = filled(lose=5)
    assert balance.between(10.1, 10.21).loss == pytest.approx(0.5)
    assert balance.between(10.2, 10.31).loss == 0
    lately = balance.lately(0.0, 0.35, 1)
    assert lately is not None
    assert 0.2 < lately.loss < 0.3


def test_as_many_packets_as_are_needed() -> None:
    balance = filled()
    assert balance.lately(0.0, 0.1, 50).packets >= 50  # type: ignore[union-attr]
    assert balance.lately(0.0, 0.1, 500) is None
    assert balance.lately(10.7, 0.1, 50) is None, "only from then on"


def test_lost_feedback_is_no_loss() -> None:
    balance, total = Balance(), 0
    balance.sent(0, 10.0)
    for n in range(10):
        start_s = 10.0 + n / 10
        total += 1000
        balance.sent(total, start_s + 0.1)
        if n not in (4, 5):
            packets = [(start_s + 0.005 + k / 100, 100, 1, start_s + 0.05) for k in range(10)]
            balance.arrived(packets, whole=n != 6)
    assert balance.between(10.0, 10.9).loss == 0
    assert balance.between(10.0, 10.9).seconds < 0.8


def test_the_arrival_rate_is_that_of_the_receivers_clock() -> None:
    balance = Balance()
    for n in range(10):
        balance.arrived([(10 + n / 10, 1000, 1, 500 + n / 5)])
    assert balance.arrival_bps == pytest.approx(40e3)


def test_a_rate_needs_some_time() -> None:
    balance = Balance()
    balance.arrived([(10.0, 1000, 1, 500.0)])
    assert balance.arrival_bps == 0
    balance.arrived([(10.01, 1000, 1, 500.01)])
    assert balance.arrival_bps == 0


def test_what_is_sent_at_the_moment_of_counting_counts_later() -> None:
    balance = Balance()
    for now_s, total in ((10.0, 0), (10.1, 0), (10.2, 1000), (10.3, 1000)):
        balance.sent(total, now_s)
    balance.arrived([(10.1, 1000, 1, 20.1), (10.3, 1, 1, 20.3)])
    assert balance.between(10.1, 10.2).loss == 0
    assert balance.between(10.0, 10.1).packets == 0


def test_bytes_that_go_back_are_none() -> None:
    """A down track that ended takes its count with it."""
    balance = Balance()
    for now_s, total in ((10.0, 5000), (10.1, 1000), (10.2, 2000)):
        balance.sent(total, now_s)
    balance.arrived([(10.25, 1, 1, 20.0)])
    assert balance.between(10.0, 10.2).sent == 1000
