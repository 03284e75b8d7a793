"""Bytes sent to a subscriber, and the part of the same packets that arrived. Pure: the clock is an argument.

Sent bytes are counted in intervals, and each packet that arrived in the interval in which it was sent. So a bitrate
that changes, a pause, or a late feedback does not look like a loss.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sfu.media.bandwidth.delays import Group

KEPT_S = 4.0
RATE_S = 0.2
"""The arrival rate is measured over this time at least. A queue fills in less."""


class Interval:
    """Bytes of the packets sent from `start_s` on and before `end_s`, and of those among them that arrived. `told` is
    false if a lost feedback may have been about them."""

    __slots__ = ("arrived", "end_s", "packets", "sent", "start_s", "told")

    def __init__(self, start_s: float, end_s: float, sent: int) -> None:
        self.start_s, self.end_s, self.sent = start_s, end_s, sent
        self.arrived = self.packets = 0
        self.told = True


class Sums(NamedTuple):
    """Of several intervals: their length in seconds, bytes sent and arrived, packets arrived."""

    seconds: float
    sent: int
    arrived: int
    packets: int

    @property
    def loss(self) -> float:
        return 1 - min(1.0, self.arrived / self.sent) if self.sent else 0.0

    @property
    def sent_bps(self) -> float:
        return self.sent * 8 / self.seconds if self.seconds > 0 else 0.0

    @property
    def arrived_bps(self) -> float:
        return self.arrived * 8 / self.seconds if self.seconds > 0 else 0.0


class Balance:
    """One per subscriber. `told_s` is when the latest packet was sent that a feedback was about: earlier packets that
    it did not have are lost."""

    __slots__ = ("_arrivals", "_at_s", "_bytes", "_intervals", "_total", "told_s")

    def __init__(self) -> None:
        self._intervals: deque[Interval] = deque()
        self._at_s, self._bytes = 0.0, 0
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=64)  # last arrival of a feedback, bytes until then
        self._total = 0
        self.told_s = 0.0

    def sent(self, total_bytes: int, now_s: float) -> None:
        """Takes the bytes sent so far in all."""
        if self._at_s and now_s > self._at_s:
            self._intervals.append(Interval(self._at_s, now_s, max(0, total_bytes - self._bytes)))
        while self._intervals and self._intervals[0].end_s < now_s - KEPT_S:
            self._intervals.popleft()
        self._at_s, self._bytes = now_s, total_bytes

    def arrived(self, groups: Sequence[Group], *, whole: bool = True) -> None:
        """Takes what one feedback is about, in the order in which it was sent. Not `whole`: feedback before it was
        lost."""
        n_bytes = n = 0
        first_s, end_s = groups[0][0], 0.0
        interval: Interval | None = None
        later = self._from(first_s)
        for sent_s, size, packets, _ in groups:
            if sent_s >= end_s:
                if interval is not None:
                    interval.arrived, interval.packets = interval.arrived + n_bytes, interval.packets + n
                self._total += n_bytes
                n_bytes = n = 0
                interval = next((one for one in later if one.end_s > sent_s), None)
                end_s = interval.end_s if interval is not None else float("inf")
            n_bytes += size
            n += packets
        if interval is not None:
            interval.arrived, interval.packets = interval.arrived + n_bytes, interval.packets + n
        self._total += n_bytes
        if not whole:
            for one in self._intervals:
                one.told &= one.end_s <= self.told_s or one.start_s >= first_s
        self._note(groups)

    def _from(self, sent_s: float) -> Iterator[Interval]:
        """The intervals from the one on in which a packet was sent."""
        found = []
        for interval in reversed(self._intervals):
            if interval.end_s <= sent_s:
                break
            found.append(interval)
        return reversed(found)

    def _note(self, groups: Sequence[Group]) -> None:
        self.told_s = max(self.told_s, groups[-1][0])
        arrivals, arrived_s = self._arrivals, groups[-1][3]
        if arrivals and not 0 <= arrived_s - arrivals[-1][0] < KEPT_S:
            arrivals.clear()  # after a pause, or by another clock
        arrivals.append((arrived_s, self._total))

    @property
    def arrival_bps(self) -> float:
        """Rate at which packets arrived last. While there is a queue, this is what the path carries."""
        if not self._arrivals:
            return 0.0
        last_s, total = self._arrivals[-1]
        for at_s, before in reversed(self._arrivals):
            if last_s - at_s >= RATE_S:
                return (total - before) * 8 / (last_s - at_s)
        return 0.0

    def between(self, start_s: float, end_s: float) -> Sums:
        """Of the intervals within this time about which all is told."""
        passed_s, sent, arrived, n = 0.0, 0, 0, 0
        end_s = min(end_s, self.told_s)
        for one in reversed(self._intervals):
            if one.start_s < start_s:
                break
            if one.end_s <= end_s and one.told:
                passed_s += one.end_s - one.start_s
                sent, arrived, n = sent + one.sent, arrived + one.arrived, n + one.packets
        return Sums(passed_s, sent, min(sent, arrived), n)

    def untold(self, start_s: float, end_s: float) -> int:
        """Bytes sent within this time about which nothing is told yet."""
        return sum(one.sent for one in self._intervals if one.start_s >= start_s and self.told_s < one.end_s <= end_s)

    def lately(self, since_s: float, seconds: float, packets: int) -> Sums | None:
        """Of the last intervals about which all is told, as many as are needed for so much time and so many packets
        sent; None if there are not so many since then."""
        passed_s, arrived, sent, n = 0.0, 0, 0, 0
        for one in reversed(self._intervals):
            if one.end_s > self.told_s or not one.told:
                continue
            if one.start_s < since_s:
                return None
            passed_s += one.end_s - one.start_s
            arrived, sent, n = arrived + one.arrived, sent + one.sent, n + one.packets
            if passed_s >= seconds and n * max(sent, arrived) >= packets * arrived and n:
                return Sums(passed_s, sent, min(sent, arrived), n)
        return None
