from __future__ import annotations

from sfu.media.bandwidth.roundtrips import IDLE_S, REMEMBERED, RoundTrips


def test_what_is_longer_than_the_shortest_waits() -> None:
    trips = RoundTrips()
    assert not trips
    assert trips.add(0.05, 10.0) == 0
    assert trips
    assert trips.add(0.07, 11.0) == 0.07 - 0.05
    assert trips.add(0.04, 12.0) == 0
    assert trips.add(0.07, 13.0) == 0.07 - 0.04


def test_another_path_is_another_length_after_a_while() -> None:
    trips = RoundTrips()
    trips.add(0.05, 10.0)
    assert trips.add(0.2, 10.0 + IDLE_S - 0.1) > 0.1
    assert trips.add(0.2, 10.0 + IDLE_S + 0.1) == 0


def test_a_flood_is_not_kept() -> None:
    trips = RoundTrips()
    for n in range(10_000):
        trips.add(0.05, 10.0 + n / 1e6)
    assert len(trips._lately) <= REMEMBERED
