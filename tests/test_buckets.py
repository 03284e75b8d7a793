"""Token buckets, which both planes use."""

from __future__ import annotations

from sfu.buckets import TokenBucket


def test_a_bucket_fills_up_again() -> None:
    bucket = TokenBucket(per_s=2, burst=10)
    assert bucket.take(5, 10)
    assert not bucket.take(5.4)
    assert bucket.holds(5.5)
    assert bucket.take(5.5)
    assert not bucket.take(1000, 11)  # it never holds more than its burst
    assert bucket.take(1000, 10)


def test_looking_takes_nothing() -> None:
    bucket = TokenBucket(per_s=1, burst=3)
    assert all(bucket.holds(7, 3) for _ in range(5))
    assert [bucket.take(7) for _ in range(4)] == [True, True, True, False]
