"""Bandwidth estimation for one subscriber's downlink. Pure: the clock is an argument.

The subscriber's browser watches how the packets' delays change and says in REMB what it takes the way to carry
(draft-alvestrand-rmcat-remb-03). A REMB that falls says that the way may be full. One that is low says little, as it
never goes far beyond what arrives, and Chromium's hardly grows after a narrow time: to learn that there is room for
more, more has to be sent for a moment, packets sent before once again (`probe_bytes`).

What REMB leaves open, round trips tell (roundtrips.py): a way that is full keeps what is sent in a queue, one that
only got much at once has forgotten it half a second later.
"""

from __future__ import annotations

from sfu.media.bandwidth.roundtrips import RoundTrips

START_BPS = 800_000.0
MIN_BPS, MAX_BPS = 30_000.0, 50_000_000.0
LEAST_BPS = 200_000.0
"""Neither losses nor a low estimate take anybody below this by themselves: a small picture with errors is better than
none, and packets that come unevenly are not yet a narrow way."""
FALLEN = 0.98
"""A REMB under this share of the last one has fallen."""
SHARE = 0.85
"""Of what is sent while the way is full: what a REMB that means what arrives falls to, and what is allowed where it
means less."""
QUEUE_S = 0.1
"""So much longer than the shortest round trip lately is a queue, and a queue that is there again AGAIN_S later is not
what a frame left."""
AGAIN_S = 0.5
NOTHING_S = 1.5
"""Where no check was answered for so long, all are in a queue. They go out five times a second then: some are lost."""
DRAIN_S = 1.0
"""What was too much is in the queue for so long after it was stopped."""
WATCH_S, CALM_S = 1.0, 10.0
"""How often a way that was once too narrow is looked at, and any other one, so that it is known how long a round trip
takes without a queue."""
LOSS_HIGH = 0.10
"""As in Google Congestion Control (draft-ietf-rmcat-gcc-02 section 6): more loss than this is congestion."""
LESS, AS_MUCH, CONSTANT_S = 0.5, 0.7, 5.0
"""But not what a way loses whatever is sent, as radio does: still AS_MUCH where only this share is sent, for so long,
since the loss is smoothed."""
REPORTS_APART_S = 2.0
PROBE_S = 0.5
LEFT_S = 0.04
"""Where a round trip takes so much longer after a probe than before, the way has not carried it."""
VERDICT_S = 0.7
"""After a probe: an answer takes a round trip and the browser's interval."""
GROWN = 1.005
"""A browser adds 8 % a second to its estimate while more arrives without delay, and nothing where the way is full, nor
where it is far above what arrives already."""
PROBE_OVER = 1.1
RETRY_FIRST_S, RETRY_MOST_S = 2.0, 8.0
HELD_S = 6.0
"""What round trips allowed for so long without a sign of congestion is carried."""
WRONG_FIRST_S, WRONG_MOST_S = 12.0, 120.0
"""What round trips allowed and then was too much is not tried again for so long, and twice as long after two."""
SMOOTH_S = 0.5


class BandwidthEstimator:
    """One a subscriber. `allowed_bps` is for video; sound is not counted, as REMB does not count it either."""

    __slots__ = (
        "_asked_s", "_at_s", "_bytes", "_calm_s", "_complained", "_constant", "_doubt_s", "_extra_bps", "_first_s",
        "_less_s", "_loss", "_lossy_s", "_most", "_pause_s", "_probe_bps", "_probe_remb_bps", "_probe_s", "_queue_s",
        "_remb_bps", "_retry_s", "_round_trip_s", "_suspected_bps", "_suspected_s", "_trips", "_trying_s",
        "allowed_bps", "jammed", "limited", "sent_bps",
    )  # fmt: skip

    def __init__(self) -> None:
        self.allowed_bps = START_BPS
        self.limited = False  # whether it was ever found too narrow
        self.jammed = False  # delays said so, not just losses, and it was not found wider since
        self.sent_bps = 0.0  # lately, probes included
        self._remb_bps = 0.0
        self._at_s, self._bytes = 0.0, 0
        self._pause_s = RETRY_FIRST_S  # after the last probe; twice as long after each that fails
        self._calm_s = 0.0  # before, signs of congestion are of what is sent no more
        self._trips = RoundTrips()
        self._asked_s = 0.0  # when the last of them began
        self._suspected_s = self._suspected_bps = 0.0  # since when the way may be full, and what it carries then
        self._trying_s = 0.0  # since when what round trips allowed is sent
        self._doubt_s = WRONG_FIRST_S  # how long that is not tried again once it was wrong
        self._retry_s = 0.0  # no probe before
        self._probe_bps = self._extra_bps = self._probe_s = self._probe_remb_bps = 0.0
        self._first_s = 0.0  # when the first round trip of the probe began
        self._round_trip_s: float | None = None  # that one
        self._queue_s: float | None = None  # how much longer the last one took
        self._complained = False  # whether REMB fell during the probe
        self._loss = self._lossy_s = 0.0
        self._constant = 0.0  # of the loss, what does not depend on what is sent
        self._most = (0.0, 0.0)  # the most that was sent while much was lost, and what was lost of it
        self._less_s = 0.0  # when much less than that was sent first

    @property
    def speaks(self) -> bool:
        """Whether a REMB ever came: without, nothing is known but losses."""
        return self._remb_bps > 0

    def sent(self, total_bytes: int, now_s: float) -> None:
        """All that was sent as video so far; a few times a second."""
        passed_s = now_s - self._at_s
        if self._at_s and passed_s > 0:
            bps = max(0, total_bytes - self._bytes) * 8 / passed_s
            self.sent_bps += (bps - self.sent_bps) * min(1.0, passed_s / SMOOTH_S)
            if self.sent_bps < MIN_BPS:
                self._remb_bps = 0.0  # browsers forget what they knew while nothing comes
        self._at_s, self._bytes = now_s, total_bytes
        if self._suspected_s and now_s > self._suspected_s + NOTHING_S:
            self._suspect(max(LEAST_BPS, self.sent_bps / 2), now_s)
            self._full(now_s)

    # --- signs of congestion -----------------------------------------------------------------------------------------

    def remb(self, bps: float, now_s: float) -> bool:
        """The browser's estimate. True if it allows less than was thought."""
        before, self._remb_bps = self._remb_bps, bps
        if bps >= before * FALLEN:
            return False
        if self._probe_bps:
            self._complained = True
            return False
        lossy = self._loss - self._constant > LOSS_HIGH
        allowed = max(
            MIN_BPS if lossy else LEAST_BPS, bps if before >= SHARE * self.sent_bps else SHARE * self.sent_bps
        )
        self._suspect(allowed, now_s)
        return not self._trips and self._full(now_s)

    def _suspect(self, bps: float, now_s: float) -> None:
        self._suspected_bps = min(bps, self._suspected_bps) if self._suspected_s else bps
        self._suspected_s = self._suspected_s or now_s

    def _full(self, now_s: float) -> bool:
        self._suspected_s = 0.0
        lower = self._congested(self._suspected_bps, now_s)
        self.jammed |= lower
        return lower

    def asks(self, now_s: float) -> bool:
        """Whether a round trip is to be measured now: before each part of a probe and when it has ended, where the way
        may be full, and now and then."""
        if self._probe_bps:
            due = self._asked_s <= self._probe_s + PROBE_S
            if due and self._asked_s <= self._probe_s:
                self._first_s = now_s
        else:
            due = bool(self._suspected_s) or now_s >= self._asked_s + (WATCH_S if self.limited else CALM_S)
        if due:
            self._asked_s = now_s
        return due

    def round_trip(self, seconds: float, sent_s: float, now_s: float) -> bool:
        """One that began then. True if it allows less than was thought."""
        queue_s = self._trips.add(seconds, sent_s)
        if self._probe_bps:
            if sent_s == self._first_s:
                self._round_trip_s = seconds
            elif sent_s > self._first_s > self._probe_s and self._round_trip_s is not None:
                self._queue_s = seconds - self._round_trip_s  # what parts leave until the next one is not carried
        elif queue_s <= QUEUE_S:
            self._suspected_s = 0.0
        elif not self._suspected_s:
            self._suspect(max(LEAST_BPS, SHARE * self.sent_bps), sent_s)
        elif sent_s >= self._suspected_s + AGAIN_S:
            return self._full(now_s)
        return False

    def loss(self, fraction: float, now_s: float) -> bool:
        """Of a receiver report, what its way lost. True if that allows less than was thought."""
        before, self._loss, self._constant = self._loss, fraction, min(self._constant, fraction)
        if fraction - self._constant <= LOSS_HIGH:
            self._most = (0.0, 0.0)
            return False
        if now_s < self._lossy_s + REPORTS_APART_S or fraction < before:
            return False  # fewer already: what was done about it is seen late, as losses are smoothed
        self._lossy_s = now_s
        if self._is_constant(fraction, now_s):
            self._constant = fraction
            return False
        bps = max(LEAST_BPS, min(self.allowed_bps, self.sent_bps) * (1 - 0.5 * fraction))
        return bps < self.allowed_bps and self._congested(bps, now_s)

    def _is_constant(self, fraction: float, now_s: float) -> bool:
        """Whether as much is lost as was when much more was sent."""
        most_bps, lost = self._most
        if self.sent_bps >= most_bps * LESS:
            self._less_s = now_s
            self._most = max(self._most, (self.sent_bps, fraction))
            return False
        return now_s - self._less_s >= CONSTANT_S and fraction >= lost * AS_MUCH

    def _congested(self, bps: float, now_s: float) -> bool:
        self.limited = True
        if self._probe_bps:
            self._fail(now_s)
        if bps >= self.allowed_bps or now_s < self._calm_s:
            return False
        wait_s = RETRY_FIRST_S
        if self._trying_s:
            self._trying_s = 0.0
            wait_s, self._doubt_s = self._doubt_s, min(WRONG_MOST_S, 2 * self._doubt_s)
        self.allowed_bps, self._retry_s = bps, max(self._retry_s, now_s + wait_s)
        self._calm_s = now_s + DRAIN_S
        return True

    # --- probing -----------------------------------------------------------------------------------------------------

    def want(self, next_bps: float, now_s: float, *, can_probe: bool = True) -> None:
        """What would be sent if it were allowed; 0 if all is. Begins a probe when it is time for one."""
        if self._probe_bps and now_s >= self._probe_s + PROBE_S + VERDICT_S:
            self._judge(now_s)
        if self._trying_s and now_s >= self._trying_s + HELD_S:
            self._trying_s, self._doubt_s = 0.0, WRONG_FIRST_S
        if not next_bps or next_bps <= self.allowed_bps or self._probe_bps or now_s < self._retry_s:
            return
        if self._suspected_s:
            return
        if can_probe:
            # not more than twice what is known to pass: a step too large would be felt
            self._probe_bps = min(next_bps * PROBE_OVER, 2 * self.allowed_bps)
            self._probe_remb_bps = self._remb_bps
            self._extra_bps = max(0.0, self._probe_bps - self.sent_bps)
            self._probe_s = now_s
            self._round_trip_s = self._queue_s = None
            self._complained = False
        else:
            self.allowed_bps, self.jammed = min(next_bps * PROBE_OVER, 2 * self.allowed_bps), False
            self._retry_s = now_s + RETRY_FIRST_S

    def _judge(self, now_s: float) -> None:
        """What the probe that is over says."""
        silent = self._remb_bps and self._remb_bps < min(self._probe_remb_bps * GROWN, self._probe_bps)
        doubtful = bool(silent or self._complained)
        if doubtful if self._queue_s is None else self._queue_s > LEFT_S:
            self.limited |= self._complained
            self._fail(now_s)
            return
        self.allowed_bps = min(MAX_BPS, max(self.allowed_bps, self._probe_bps))
        self._probe_bps = 0.0
        self._pause_s, self.jammed = RETRY_FIRST_S, False
        self._trying_s = now_s if doubtful else 0.0
        if doubtful:
            self._retry_s = now_s + RETRY_FIRST_S

    def _fail(self, now_s: float) -> None:
        """So much more was too much, which says nothing against what was carried before."""
        self._probe_bps = 0.0
        self._calm_s = now_s + VERDICT_S
        self._pause_s = min(RETRY_MOST_S, 2 * self._pause_s)
        self._retry_s = now_s + self._pause_s

    def probe_bytes(self, passed_s: float, now_s: float) -> int:
        """How much to send beside the videos for the last `passed_s`, while a probe runs."""
        if not self._probe_bps or now_s > self._probe_s + PROBE_S:
            return 0
        return int(self._extra_bps * min(passed_s, PROBE_S) / 8)
