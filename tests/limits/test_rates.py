"""How often one address may do something, and that remembering it is bounded."""

from __future__ import annotations

import pytest

from sfu.limits import rates
from sfu.limits.rates import ADDRESSES, FAILURES, FAILURES_S, Buckets, Rate, Rates
from sfu.refusals import TooManyFailures, TooManyRequests


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_minute_later_an_address_is_listened_to_again() -> None:
    time = Time()
    failures = rates.failures(time)
    for _ in range(FAILURES):
        failures.check("192.0.2.1")
        failures.add("192.0.2.1")
        time.now += 1
    with pytest.raises(TooManyFailures) as refused:
        failures.check("192.0.2.1")
    assert refused.value.retry_after_s == FAILURES_S - FAILURES
    time.now += FAILURES_S - FAILURES
    failures.check("192.0.2.1")
    failures.add("192.0.2.1")
    with pytest.raises(TooManyFailures):
        failures.check("192.0.2.1")


def test_an_ipv6_neighbourhood_is_one_address_and_memory_is_bounded() -> None:
    failures = rates.failures(Time())
    for n in range(FAILURES):
        failures.add(f"2001:db8:0:1::{n:x}")
    with pytest.raises(TooManyFailures):
        failures.check("2001:db8:0:1:ffff::")
    failures.check("2001:db8:0:2::")
    for n in range(ADDRESSES):
        failures.add(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert len(failures._times) == ADDRESSES
    failures.check("2001:db8:0:1::1")  # forgotten: it failed longest ago


def test_a_rate_holds_for_each_address() -> None:
    time = Time()
    rate = Rate(2, 10, time)
    for address in ("192.0.2.1", "192.0.2.2"):
        rate.take(address)
        rate.take(address)
        with pytest.raises(TooManyRequests):
            rate.take(address)
    time.now += 10
    rate.take("192.0.2.1")


def test_the_longest_unused_bucket_is_forgotten() -> None:
    buckets = Buckets(1, 1)
    assert buckets["first"].take(5)
    assert not buckets["first"].take(5)
    for number in range(ADDRESSES):
        assert buckets[str(number)].take(5)
    assert buckets["first"].take(5)


def test_of_two_limits_the_stricter_counts() -> None:
    now = [0.0]
    rates = Rates(Rate(2, 1, lambda: now[0]), Rate(3, 100, lambda: now[0]))
    for _ in range(2):
        rates.take("a")
    with pytest.raises(TooManyRequests):
        rates.take("a")  # which counts for neither
    now[0] = 2
    rates.take("a")
    with pytest.raises(TooManyRequests) as refused:
        rates.take("a")
    assert refused.value.retry_after_s == 98
    rates.take("b")
