"""What a subscriber's way down carries. Pure: the clock is an argument.

The subscriber's browser watches how the packets' delays change and says in REMB what it takes the way to carry
(draft-alvestrand-rmcat-remb-03). A REMB that falls says that the way is full. One that is low says little, as it never
goes far beyond what arrives: to learn that there is room for more, more has to be sent for a moment, packets sent
before once again (`probe_bytes`). If REMB grows then, there is.
"""

from __future__ import annotations

from collections import deque

START_BPS = 800_000.0
MIN_BPS, MAX_BPS = 30_000.0, 50_000_000.0
LEAST_BPS = 200_000.0
"""Neither losses nor a low estimate take anybody below this by themselves: a small picture with errors is better than
none, and packets that come unevenly are not yet a narrow way."""
FALLEN = 0.98
"""A REMB under this share of the last one has fallen."""
SHORT, STEADY_S = 0.85, 4.0
"""So is the way full where REMB stays under this share of what was sent all this time, and does not grow: a browser
that sees no delay adds to it, however much more arrives."""
LOSS_HIGH = 0.10
"""As in Google Congestion Control (draft-ietf-rmcat-gcc-02 section 6): more loss than this is congestion."""
LESS, AS_MUCH, CONSTANT_S = 0.5, 0.7, 5.0
"""But not what a way loses whatever is sent, as radio does: still AS_MUCH where only this share is sent, for so long,
since the loss is smoothed."""
REPORTS_APART_S = 1.0
PROBE_S = 0.5
VERDICT_S = 0.7
"""After a probe: an answer takes a round trip and the browser's interval."""
GROWN = 1.005
"""A browser adds 8 % a second to its estimate while more arrives without delay, and nothing where the way is full, nor
where it is far above what arrives already."""
PROBE_OVER = 1.1
RETRY_FIRST_S, RETRY_MOST_S = 2.0, 8.0
HELD_S = 6.0
"""What was allowed for so long without a sign of congestion is carried."""
TRIAL_AFTER_S, TRIAL_FIRST_S, TRIAL_MOST_S = 8.0, 12.0, 120.0
"""A browser that was once short may leave its estimate as it is, wide as the way is by now: a probe to which it says
neither yes nor no is taken for a yes, but not for so long after congestion, for longer after a trial that was wrong,
and twice as long after two."""
SMOOTH_S = 0.5
REMEMBERED = 64
"""Estimates at most: browsers send a few a second, but nothing keeps a client from sending thousands."""

Window = deque[tuple[float, float]]
"""When, and how much: of the last STEADY_S."""


def _remember(window: Window, bps: float, now_s: float) -> None:
    window.append((now_s, bps))
    while window[0][0] < now_s - STEADY_S:
        window.popleft()


class Downlink:
    """One a subscriber. `allowed_bps` is for video; sound is not counted, as REMB does not count it either."""

    __slots__ = (
        "_at_s", "_bytes", "_calm_s", "_constant", "_extra_bps", "_failures", "_lately", "_less_s", "_loss", "_lossy_s",
        "_most", "_probe_bps", "_probe_end_s", "_probe_remb_bps", "_remb_bps", "_rembs", "_retry_s", "_trial_s",
        "_trying_s", "_wrong",
        "allowed_bps", "jammed", "limited", "sent_bps",
    )  # fmt: skip

    def __init__(self) -> None:
        self.allowed_bps = START_BPS
        self.limited = False  # whether it was ever found too narrow
        self.jammed = False  # delays said so, not just losses, and it was not found wider since
        self.sent_bps = 0.0  # lately, probes included
        self._remb_bps = 0.0
        self._lately: Window = deque(maxlen=REMEMBERED)  # sent_bps of the last STEADY_S
        self._rembs: Window = deque(maxlen=REMEMBERED)  # likewise
        self._at_s, self._bytes = 0.0, 0
        self._failures = 0
        self._calm_s = 0.0  # before, signs of congestion are a failed probe's
        self._trying_s = 0.0  # since when what a doubtful probe allowed is sent
        self._trial_s, self._wrong = 0.0, 0  # no other one before, after so many that were wrong
        self._retry_s = 0.0  # no probe before
        self._probe_bps = self._extra_bps = self._probe_end_s = self._probe_remb_bps = 0.0
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
            _remember(self._lately, self.sent_bps, now_s)
        self._at_s, self._bytes = now_s, total_bytes

    def remb(self, bps: float, now_s: float) -> bool:
        """The browser's estimate. True if it allows less than was thought."""
        before, self._remb_bps = self._remb_bps, bps
        _remember(self._rembs, bps, now_s)
        growing = bps > self._rembs[0][1]
        steady_bps = min((bps for _, bps in self._lately), default=0.0)
        if bps >= before * FALLEN and (bps >= steady_bps * SHORT or growing):
            return False
        lossy = self._loss - self._constant > LOSS_HIGH
        lower = self._congested(max(MIN_BPS if lossy else LEAST_BPS, bps), now_s)
        self.jammed |= lower
        return lower

    def loss(self, fraction: float, now_s: float) -> bool:
        """Of a receiver report, what its way lost. True if that allows less than was thought."""
        self._loss, self._constant = fraction, min(self._constant, fraction)
        if fraction - self._constant <= LOSS_HIGH:
            self._most = (0.0, 0.0)
            return False
        if now_s < self._lossy_s + REPORTS_APART_S:
            return False
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
        if self._probe_bps:
            # so much more was too much, which says nothing against what was carried before
            self._probe_bps = 0.0
            self._put_off(now_s)
            self._calm_s = now_s + VERDICT_S
        self.limited = True
        if bps >= self.allowed_bps or now_s < self._calm_s:
            return False
        self._trial_s = max(self._trial_s, now_s + TRIAL_AFTER_S)
        if self._trying_s:
            self._trying_s = 0.0
            self._trial_s = now_s + min(TRIAL_MOST_S, TRIAL_FIRST_S * 2**self._wrong)
            self._wrong += 1
        self.allowed_bps, self._retry_s = bps, now_s + RETRY_FIRST_S
        return True

    def _put_off(self, now_s: float) -> None:
        self._failures += 1
        self._retry_s = now_s + min(RETRY_MOST_S, RETRY_FIRST_S * 2**self._failures)

    # --- probing -----------------------------------------------------------------------------------------------------

    def want(self, next_bps: float, now_s: float, *, can_probe: bool = True) -> None:
        """What would be sent if it were allowed; 0 if all is. Begins a probe when it is time for one."""
        if self._probe_bps and now_s >= self._probe_end_s + VERDICT_S:
            doubtful = self._remb_bps and self._remb_bps < min(self._probe_remb_bps * GROWN, self._probe_bps)
            if doubtful and now_s < self._trial_s:
                self._put_off(now_s)
            else:
                self.allowed_bps = min(MAX_BPS, max(self.allowed_bps, self._probe_bps))
                self._failures, self.jammed = 0, False
                self._trying_s = 0.0
                if doubtful:
                    self._trying_s, self._retry_s = now_s, now_s + HELD_S
            self._probe_bps = 0.0
        if self._trying_s and now_s >= self._trying_s + HELD_S:
            self._trying_s, self._wrong = 0.0, 0
        if not next_bps or next_bps <= self.allowed_bps or self._probe_bps or now_s < self._retry_s:
            return
        if can_probe:
            # not more than twice what is known to pass: a step too large would be felt
            self._probe_bps = min(next_bps * PROBE_OVER, 2 * self.allowed_bps)
            self._probe_remb_bps = self._remb_bps
            self._extra_bps = max(0.0, self._probe_bps - self.sent_bps)
            self._probe_end_s = now_s + PROBE_S
        else:
            self.allowed_bps, self.jammed = min(next_bps * PROBE_OVER, 2 * self.allowed_bps), False
            self._retry_s = now_s + RETRY_FIRST_S

    def probe_bytes(self, passed_s: float, now_s: float) -> int:
        """How much to send beside the videos for the last `passed_s`, while a probe runs."""
        if not self._probe_bps or now_s > self._probe_end_s:
            return 0
        return int(self._extra_bps * min(passed_s, PROBE_S) / 8)
