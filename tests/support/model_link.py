"""A downlink in virtual time: a drop-tail queue with losses and jitter, calls that are sent over it as the server does,
and a flow that behaves like TCP. No sockets, no threads: what one estimator decides in hours takes seconds.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sfu.media.bandwidth.delays import Group
from sfu.media.bandwidth.send_side import SendSideEstimator
from sfu.media.rtp import twcc
from sfu.media.streams.send_history import TOGETHER_TICKS

TICK_S = 0.005
ALLOCATE_S = 0.2
FEEDBACK_S = 0.1
PACKET, OVERHEAD = 1150, 44
"""Bytes of an RTP packet of video; and what SRTP, UDP and IP add to any packet."""
STEPS = (60e3, 90e3, 150e3, 200e3, 300e3, 500e3, 680e3, 1020e3, 1700e3)
"""Bitrates of the layers and their temporal parts."""
LARGER = 1.15


def grouped(packets: Sequence[tuple[float, int, float]]) -> list[Group]:
    """Packets that arrived (when sent, length, arrival) as SendHistory.match groups them."""
    groups: list[Group] = []
    for sent_s, size, arrived_s in packets:
        last = groups[-1] if groups else (0.0, 0, 0, 0.0)
        if sent_s == last[0] and 0 <= arrived_s - last[3] <= TOGETHER_TICKS * twcc.TICK_S:
            groups[-1] = sent_s, last[1] + size, last[2] + 1, last[3]
        else:
            groups.append((sent_s, size, 1, arrived_s))
    return groups


@dataclass
class Link:
    """`queue_s` of packets wait at `bps`; what comes then is lost. `loses` is asked for each packet."""

    bps: float
    queue_s: float = 0.3
    trip_s: float = 0.04
    jitter_s: float = 0.0
    loses: Callable[[random.Random], bool] = lambda _: False
    seed: int = 1
    cut: bool = False
    chance: random.Random = field(init=False)
    free_s: float = 0.0
    last_s: float = 0.0
    carried: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def waits_s(self, now_s: float) -> float:
        return max(0.0, self.free_s - now_s)

    def carry(self, size: int, now_s: float) -> float | None:
        """When a packet arrives, None if never."""
        if self.cut or self.loses(self.chance) or self.waits_s(now_s) > self.queue_s:
            return None
        self.free_s = max(now_s, self.free_s) + (size + OVERHEAD) * 8 / self.bps
        self.carried += size + OVERHEAD
        arrives_s = self.free_s + self.trip_s / 2 + self.chance.uniform(0, self.jitter_s)
        self.last_s = max(self.last_s, arrives_s)
        return self.last_s


def lost(share: float) -> Callable[[random.Random], bool]:
    return lambda chance: chance.random() < share


def lost_in_bursts(share: float, length: float = 4.0) -> Callable[[random.Random], bool]:
    """After Gilbert and Elliott: bursts of `length` packets on average."""
    state = [False]

    def loses(chance: random.Random) -> bool:
        leaves = 1 / length if state[0] else share / (1 - share) / length
        state[0] ^= chance.random() < leaves
        return state[0]

    return loses


class Call:
    """What one subscriber is sent: sound, and a video in one of STEPS, as its estimator allows."""

    def __init__(
        self, link: Link, *, wanted_bps: float = STEPS[-1], sound_bps: float = 40e3, steps: Sequence[float] = STEPS,
        paced: bool = True, fps: float = 15.0, drift: float = 0.0, feedback_lost: float = 0.0, seed: int = 1,
        estimator: SendSideEstimator | None = None,
    ) -> None:  # fmt: skip
        self.link, self.wanted_bps, self.steps, self.paced, self.fps = link, wanted_bps, steps, paced, fps
        self.sound_bps, self.drift, self.feedback_lost = sound_bps, drift, feedback_lost
        self.chance = random.Random(seed)
        self.down = estimator or SendSideEstimator(chance=random.Random(seed).random)
        self.sending_bps, self.key = 0.0, True
        self.muted = self.stopped = False
        self.video = self.sound = 0
        self._lane: deque[int] = deque()
        self._budget = self._probe_bytes = 0.0
        self._again: deque[tuple[float, int]] = deque()
        self._repair = 0.0
        self._arrivals: deque[tuple[float, int, float]] = deque()  # sent, size, arrived
        self._reports: deque[tuple[float, list[tuple[float, int, float]], bool]] = deque()
        self._picture_s = self._sound_s = self._allocate_s = self._report_s = 0.0
        self._last_lost = False
        self.switches: list[tuple[float, float]] = []
        self.alarms: list[float] = []
        self.offered: deque[tuple[float, int]] = deque()

    # --- what is sent ------------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        if not self.stopped:
            self._report(now_s)
            if now_s >= self._allocate_s:
                self._allocate_s = now_s + ALLOCATE_S
                self._allocate(now_s)
            self._feed(now_s)
            self._send(now_s)
        self._receive(now_s)

    def _feed(self, now_s: float) -> None:
        if now_s >= self._sound_s:
            self._sound_s = now_s + 0.02
            size = int(self.sound_bps * 0.02 / 8)
            if size:
                self.sound += size
                self._offer(size, now_s)
                self.link.carry(size, now_s)
        if now_s >= self._picture_s:
            self._picture_s = now_s + 1 / self.fps
            if self.sending_bps and not self.muted:
                size = self.sending_bps / 8 / self.fps * self.chance.uniform(0.7, 1.3) * (6 if self.key else 1)
                self.key = False
                if sum(self._lane) * 8 < 0.6 * self.down.estimate_bps or not self.limited:
                    while size > 0:
                        self._lane.append(int(min(size, PACKET)) + 1)
                        size -= PACKET

    @property
    def limited(self) -> bool:
        return self.paced and self.down.limited

    def _send(self, now_s: float) -> None:
        self._budget = min(self._budget + 2.5 * self.down.estimate_bps * TICK_S / 8, PACKET)
        while self._lane and (self._budget > 0 or not self.limited):
            self._budget -= self._lane[0]
            self._packet(self._lane.popleft(), now_s)
        self._repair = min(self._repair + 0.2 * self.down.estimate_bps * TICK_S / 8, 0.05 * self.down.estimate_bps)
        while self._again and self._again[0][0] <= now_s:
            size = self._again.popleft()[1]
            if self._repair >= size:
                self._repair -= size
                self._packet(size, now_s)
        self._probe_bytes = self._probe_bytes + self.down.probe_bps * TICK_S / 8 if self.down.probe_bps else 0.0
        while self._probe_bytes >= 250:
            self._probe_bytes -= 250
            self._packet(250, now_s)

    def _packet(self, size: int, now_s: float) -> None:
        self.video += size
        self._offer(size, now_s)
        arrives_s = self.link.carry(size, now_s)
        if arrives_s is None:
            if not self.link.cut:  # else no NACK comes
                self._again.append((now_s + self.link.trip_s + 0.05, size))
        else:
            self._arrivals.append((now_s + TICK_S / 2, size, arrives_s))

    def _offer(self, size: int, now_s: float) -> None:
        self.offered.append((now_s, size + OVERHEAD))
        while self.offered[0][0] < now_s - 1:
            self.offered.popleft()

    def offered_bps(self) -> float:
        """Over the last second."""
        return sum(size for _, size in self.offered) * 8

    def _allocate(self, now_s: float) -> None:
        down = self.down
        down.sent(self.video, self.sound, now_s)
        down.asks(now_s)
        allowed, now = down.allowed_bps, self.sending_bps
        fits = [bps for bps in self.steps if bps <= self.wanted_bps and bps * (LARGER if bps > now else 1) <= allowed]
        chosen = fits[-1] if fits else 0.0
        larger = [bps for bps in self.steps if chosen < bps <= self.wanted_bps]
        if chosen != now:
            self.switches.append((now_s, chosen))
            self.sending_bps, self.key = chosen, True
        down.want(larger[0] * LARGER if larger else 0.0, now_s)

    # --- what comes back ---------------------------------------------------------------------------------------------

    def _receive(self, now_s: float) -> None:
        """The client's side: feedback about what has arrived."""
        if now_s < self._report_s:
            return
        self._report_s = now_s + FEEDBACK_S
        packets = []
        while self._arrivals and self._arrivals[0][2] <= now_s:
            sent_s, size, arrived_s = self._arrivals.popleft()
            packets.append((sent_s, size, round((5000 + arrived_s * (1 + self.drift)) / twcc.TICK_S) * twcc.TICK_S))
        if packets:
            if self.chance.random() < self.feedback_lost or self.link.cut:
                self._last_lost = True
            else:
                self._reports.append((now_s + self.link.trip_s / 2, packets, not self._last_lost))
                self._last_lost = False

    def _report(self, now_s: float) -> None:
        while self._reports and self._reports[0][0] <= now_s:
            _, packets, whole = self._reports.popleft()
            self.down.sent(self.video, self.sound, now_s)
            before = self.down.estimate_bps
            fell = self.down.acknowledged(grouped(packets), now_s, whole=whole)
            if self.down.estimate_bps < before:
                self.alarms.append(now_s)
            if fell:
                self._allocate(now_s)


class Tcp:
    """A download that doubles its window each round trip, and halves it when a packet is lost."""

    def __init__(self, link: Link) -> None:
        self.link, self.window, self.flying = link, 10.0, 0
        self.threshold = 1e9
        self._acks: deque[tuple[float, bool]] = deque()
        self._halved_s = 0.0
        self.bytes = 0

    def tick(self, now_s: float) -> None:
        while self._acks and self._acks[0][0] <= now_s:
            _, arrived = self._acks.popleft()
            self.flying -= 1
            if arrived:
                self.window += 1 if self.window < self.threshold else 1 / self.window
            elif now_s >= self._halved_s:
                self.window = self.threshold = max(2.0, self.window * 0.7)
                self._halved_s = now_s + self.link.trip_s + self.link.waits_s(now_s)
        while self.flying < int(self.window):
            self.flying += 1
            arrives_s = self.link.carry(1400, now_s)
            if arrives_s is not None:
                self.bytes += 1400
            ack_s = (arrives_s or now_s + self.link.trip_s + self.link.waits_s(now_s)) + self.link.trip_s / 2
            self._acks.append((max(ack_s, self._acks[-1][0] if self._acks else 0.0), arrives_s is not None))


def run(
    seconds: float, *flows: Call | Tcp, start_s: float = 100.0, each: Callable[[float], None] | None = None
) -> float:
    """Lets the flows run; returns when they stopped. `each` is called every 0.1 s."""
    ticks = round(seconds / TICK_S)
    for n in range(ticks):
        now_s = start_s + n * TICK_S
        for flow in flows:
            flow.tick(now_s)
        if each is not None and n % 20 == 0:
            each(now_s)
    return start_s + ticks * TICK_S
