"""Queueing delay, from the times at which a subscriber's packets were sent and arrived. Pure.

The two clocks have different origins and drift apart, so a delay is relative to the shortest one lately. A queue that
grows shows as delays that rise on and on: a line through those of the last moments (a trendline, as in libwebrtc's
goog_cc) is steep, and the latest delay exceeds that at its beginning. A path that only became longer, a stall, or one
large picture do not look like that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter

Group = tuple[float, int, int, float]
"""Packets that were sent together and arrived together: when they were sent, in seconds of our clock; their size in
bytes; how many they are; when the first arrived, by the receiver's clock, which wraps after 12 days."""

SLOT_S = 0.025
"""Arrivals within this time are one point; the shortest of their delays counts, which jitter distorts least."""
WINDOW_S = 0.6
"""The line goes through the points of this time: nine pictures of 15 a second, so that one alone does not bend it."""
LEAST_POINTS = 4
GAIN = 240.0
"""Makes the slope comparable with the threshold: 4 x 60, the gain and the number of deltas of libwebrtc's trendline."""
THRESHOLD, THRESHOLD_LEAST, THRESHOLD_MOST = 12.5, 6.0, 600.0
RISE, FALL = 4.0, 0.18
"""Per second: how fast the threshold follows jitter (draft-ietf-rmcat-gcc-02 section 5.4: K_u = 0.01 and K_d = 0.00018
per ms; the former is smaller here, or a queue that grows slowly would raise the threshold with it)."""
FAR = 15.0
"""A slope so far above the threshold is no jitter and does not change it (likewise)."""
GREW_S = 0.02
"""A queue grows if the line is too steep, and the delay exceeds that at the beginning of this by so much."""
QUEUE_S = 0.25
"""A queue stands if no delay in this time was short."""
SHORTEST_S, SHORTEST_KEPT = 2.0, 8
"""The shortest delay is that of the last 16 s, kept in parts of 2 s. Crystals drift by 2 ms in that time."""
SLOW_S, SLOW_KEPT, SLOW_RISES, SLOW_RISE_S, SLOW_GREW_S = 0.5, 7, 5, 0.004, 0.05
"""A queue also grows if the shortest delays of the last seven half seconds rose five times of six, and by so much
together."""
JUMP_S = 5.0
"""Delays that change by more mean that a clock was set or has wrapped."""
PAUSE_S = 1.0
"""Delays from before a pause of video say nothing about a trend."""

_delay = itemgetter(1)


class Delays:
    """One per subscriber. `queue_s` is how long a packet waits at least; `delay_s` how long they wait on average, of
    the last feedback; `growing_s` since how long the queue grows, 0 if it does not."""

    __slots__ = (
        "_last_s", "_least_s", "_over", "_points", "_shortest", "_slot_s", "_slow", "_slow_s", "_threshold", "_zero_s",
        "delay_s", "growing_s", "queue_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self._threshold = THRESHOLD
        self._zero_s: float | None = None  # delays are relative to this one
        self._shortest: deque[tuple[float, float]] = deque(maxlen=SHORTEST_KEPT)  # when it began, and the delay
        self._last_s = 0.0  # the latest arrival
        self.forget_trend()
        self.queue_s = self.delay_s = 0.0

    def forget_trend(self) -> None:
        """What was sent until now no longer says whether the queue grows."""
        self._points: deque[tuple[float, float]] = deque()  # arrival and delay of each slot
        self._slot_s, self._least_s = 0.0, 0.0  # the slot that is not over
        self._slow: deque[float] = deque(maxlen=SLOW_KEPT)
        self._slow_s = 0.0
        self._over: tuple[float, float] | None = None  # since when the line is too steep, and the delay then
        self.growing_s = 0.0

    def accept_queue(self) -> None:
        """The queue is not of our making, for it does not shrink: from now on it counts as the way's length."""
        self._shortest.clear()
        self._shortest.append((self._last_s, self._least_s))
        self.forget_trend()
        self.queue_s = self.delay_s = 0.0

    def add(self, groups: Sequence[Group]) -> None:
        """Takes what one feedback is about, at least one group, in the order in which they were sent."""
        sent_s, _, _, arrived_s = groups[0]
        if self._zero_s is None or abs(arrived_s - sent_s - self._zero_s - self._least_s) > JUMP_S:
            self._zero_s = arrived_s - sent_s
            self._shortest.clear()
            self.forget_trend()
        elif abs(arrived_s - self._last_s) > PAUSE_S:
            self.forget_trend()
        zero_s, points, slot_s, least_s = self._zero_s, self._points, self._slot_s, self._least_s
        if not slot_s:
            slot_s, least_s = arrived_s, arrived_s - sent_s - zero_s
        total_s, packets = 0.0, 0
        shortest_s = least_s
        for sent_s, _, n, arrived_s in groups:
            delay_s = arrived_s - sent_s - zero_s
            total_s += n * delay_s
            packets += n
            if arrived_s - slot_s > SLOT_S:
                points.append((slot_s, least_s))
                slot_s, least_s = arrived_s, delay_s
            elif delay_s < least_s:
                least_s = delay_s
            if delay_s < shortest_s:
                shortest_s = delay_s
        self._slot_s, self._least_s = slot_s, least_s
        passed_s = min(0.1, max(0.0, arrived_s - self._last_s))
        self._last_s = arrived_s
        self._shorten(shortest_s)
        base_s = min(map(_delay, self._shortest))
        self.delay_s = total_s / packets - base_s
        self._look(passed_s, base_s)

    def _shorten(self, delay_s: float) -> None:
        shortest = self._shortest
        if not shortest or not 0 <= self._last_s - shortest[-1][0] < SHORTEST_S:
            shortest.append((self._last_s, delay_s))
        elif delay_s < shortest[-1][1]:
            shortest[-1] = shortest[-1][0], delay_s

    def _look(self, passed_s: float, base_s: float) -> None:
        points, now_s, least_s = self._points, self._slot_s, self._least_s
        while points and points[0][0] < now_s - WINDOW_S:
            points.popleft()
        standing_s = least_s
        for at_s, delay_s in reversed(points):
            if at_s < now_s - QUEUE_S:
                break
            standing_s = min(standing_s, delay_s)
        self.queue_s = standing_s - base_s
        self.growing_s = max(self._grows(passed_s, base_s), self._grows_slowly(standing_s))

    def _grows(self, passed_s: float, base_s: float) -> float:
        now_s, delay_s = self._slot_s, self._least_s
        late = delay_s - base_s >= GREW_S  # mostly it is not, and the line need not be drawn
        slope = GAIN * _slope([*self._points, (now_s, delay_s)]) if late else 0.0
        threshold, size = self._threshold, abs(slope)
        if size < threshold + FAR:
            moved = threshold + (size - threshold) * min(1.0, passed_s * (RISE if size > threshold else FALL))
            self._threshold = min(THRESHOLD_MOST, max(THRESHOLD_LEAST, moved))
        if slope <= threshold:
            self._over = None
            return 0.0
        if self._over is None:
            self._over = now_s, delay_s
        since_s, before_s = self._over
        return now_s - since_s if delay_s - before_s >= GREW_S else 0.0

    def _grows_slowly(self, standing_s: float) -> float:
        slow = self._slow
        if not slow or self._last_s - self._slow_s >= SLOW_S:
            slow.append(standing_s)
            self._slow_s = self._last_s
        else:
            slow[-1] = min(slow[-1], standing_s)
        if len(slow) < SLOW_KEPT or slow[-1] - slow[0] < SLOW_GREW_S:
            return 0.0
        rises = sum(later - earlier > SLOW_RISE_S for earlier, later in pairwise(slow))
        return SLOW_S * rises if rises >= SLOW_RISES else 0.0


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the line with the least squares; 0 if there are too few points."""
    n = len(points)
    if n < LEAST_POINTS:
        return 0.0
    first_s = points[0][0]
    x = y = xx = xy = 0.0
    for at_s, delay_s in points:
        at_s -= first_s
        x += at_s
        y += delay_s
        xx += at_s * at_s
        xy += at_s * delay_s
    spread = n * xx - x * x
    return (n * xy - x * y) / spread if spread > 0 else 0.0
