"""Rate limits per address. Pure: the clock is an argument; memory is bounded."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network

from sfu.buckets import TokenBucket
from sfu.errors import SfuError
from sfu.refusals import TooManyFailures, TooManyRequests

FAILURES = 10
FAILURES_S = 60.0
ADDRESSES = 10_000
"""Addresses kept in memory. Beyond that, the least recently counted one is forgotten."""


class Rate:
    """Allows one address (for IPv6 one /64) `count` events within any `per_s` seconds.

    `refuse` turns the seconds until the next allowed event into the error to raise.
    """

    def __init__(
        self, count: int, per_s: float, clock: Callable[[], float], refuse: Callable[[int], SfuError] = TooManyRequests
    ) -> None:
        self._count, self._per_s, self._clock, self._refuse = count, per_s, clock, refuse
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises the refusal while the address has used up its count."""
        times = self._times.get(place(address))
        if times is not None and len(times) == self._count:
            left_s = times[0] + self._per_s - self._clock()
            if left_s > 0:
                raise self._refuse(math.ceil(left_s))

    def add(self, address: str) -> None:
        where = place(address)
        self._times.setdefault(where, deque(maxlen=self._count)).append(self._clock())
        self._times.move_to_end(where)
        if len(self._times) > ADDRESSES:
            self._times.popitem(last=False)

    def take(self, address: str) -> None:
        """`check`, then `add`."""
        self.check(address)
        self.add(address)

    def allows(self, address: str) -> bool:
        """Like `take`, but returns whether the event is allowed."""
        try:
            self.take(address)
        except SfuError:
            return False
        return True


class Rates:
    """Several limits at once: an event counts for all of them if each allows it."""

    def __init__(self, *rates: Rate) -> None:
        self._rates = rates

    def check(self, address: str) -> None:
        """Raises the refusal of the first limit that is used up."""
        for rate in self._rates:
            rate.check(address)

    def take(self, address: str) -> None:
        """`check`, then counts the event."""
        self.check(address)
        for rate in self._rates:
            rate.add(address)


class Buckets:
    """A bucket for each key, of the same size. Memory is bounded like that of Rate."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s, self._burst = per_s, burst
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __getitem__(self, key: str) -> TokenBucket:
        bucket = self._buckets.setdefault(key, TokenBucket(self._per_s, self._burst))
        self._buckets.move_to_end(key)
        if len(self._buckets) > ADDRESSES:
            self._buckets.popitem(last=False)
        return bucket


def failures(clock: Callable[[], float]) -> Rate:
    """The limit on guesses: requests with a key, token or secret that has the right form and is not valid."""
    return Rate(FAILURES, FAILURES_S, clock, TooManyFailures)


def place(address: str) -> str:
    """The unit that limits count as one address: the address itself, for IPv6 its /64, since one person may own that.

    Text that is not an IP address is returned unchanged.
    """
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((ip, 64), strict=False)) if isinstance(ip, IPv6Address) and not ip.ipv4_mapped else str(ip)
