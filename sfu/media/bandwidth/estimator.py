"""Bandwidth estimation for the downlink of a client that gives no transport-wide feedback, for which send_side.py is.
Pure: the clock is an argument.

The subscriber's browser watches how packet delays change, and reports in REMB the bitrate that it thinks the downlink
carries (draft-alvestrand-rmcat-remb-03). A falling REMB is a sign of congestion. A low one says little: it never goes
far beyond the bitrate received, and Chromium's hardly grows after a congested period. To learn whether there is room
for more, the server sends more for a moment, by repeating earlier packets (`probe_bps`).

Round trips tell what REMB leaves open (roundtrips.py): on a congested path a queue stays, while the queue behind a
burst is gone half a second later.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfu.media.bandwidth.delays import Group
from sfu.media.bandwidth.roundtrips import RoundTrips

START_BPS = 800_000.0
MIN_BPS, MAX_BPS = 30_000.0, 50_000_000.0
LEAST_BPS = 200_000.0
"""Neither loss nor a low REMB alone lowers the allowed bitrate below this: a small picture with errors is better than
none, and packets that arrive unevenly are not yet congestion."""
FALLEN = 0.98
"""A REMB below this share of the previous one has fallen."""
SHARE = 0.85
"""Back-off factor on congestion: the estimate falls to this share of the send rate. A REMB that follows the bitrate
received has already fallen to about this share; if it was lower before, the factor is applied here."""
QUEUE_S = 0.1
"""A round trip this much longer than the shortest recent one shows a queue. If the queue is there again AGAIN_S later,
a single frame cannot have left it."""
AGAIN_S = 0.5
NOTHING_S = 1.5
"""If no check is answered for this long, all of them are in a queue. Five a second are sent in that time, so loss alone
does not explain it."""
DRAIN_S = 1.0
"""How long a queue takes to drain after a back-off."""
WATCH_S, CALM_S = 1.0, 10.0
"""How often round trips are measured on a downlink that was congested before (WATCH_S) and on any other (CALM_S), so
that the round trip without a queue is known."""
LOSS_HIGH = 0.10
"""More loss than this is congestion, as in Google Congestion Control (draft-ietf-rmcat-gcc-02 section 6)."""
LESS, AS_MUCH, CONSTANT_S = 0.5, 0.7, 5.0
"""Except loss that does not depend on the send rate, as on radio links: still AS_MUCH of the loss after CONSTANT_S at
no more than this share of the send rate. It takes that long because the loss is smoothed."""
REPORTS_APART_S = 2.0
PROBE_S = 0.5
LEFT_S = 0.04
"""If a round trip takes this much longer after a probe than before, the path did not carry the probe."""
VERDICT_S = 0.7
"""Time from the end of a probe to its verdict: an answer takes a round trip and the browser's report interval."""
GROWN = 1.005
"""A REMB must grow by this factor during a probe. A browser raises its estimate by 8 % a second while more arrives
without delay, but not on a full path, nor if the estimate is far above the bitrate received already."""
PROBE_OVER = 1.1
RETRY_FIRST_S, RETRY_MOST_S = 2.0, 8.0
HELD_S = 6.0
"""A bitrate that only round trips allowed is confirmed after this long without a sign of congestion."""
WRONG_FIRST_S, WRONG_MOST_S = 12.0, 120.0
"""A bitrate that only round trips allowed and that was too much is not tried again for this long; the time doubles with
each failure, up to WRONG_MOST_S."""
SMOOTH_S = 0.5


class BandwidthEstimator:
    """See downlink.py, whose protocol this is. `allowed_bps` is for video; audio is not counted, as REMB does not count
    it either."""

    __slots__ = (
        "_asked_s", "_at_s", "_bytes", "_calm_s", "_complained", "_constant", "_doubt_s", "_extra_bps", "_first_s",
        "_less_s", "_loss", "_lossy_s", "_most", "_pause_s", "_probe_bps", "_probe_remb_bps", "_probe_s", "_queue_s",
        "_remb_bps", "_retry_s", "_round_trip_s", "_suspected_bps", "_suspected_s", "_trips", "_trying_s",
        "allowed_bps", "jammed", "limited", "sent_bps",
    )  # fmt: skip

    def __init__(self) -> None:
        self.allowed_bps = START_BPS
        self.limited = False  # whether the downlink was ever congested
        self.jammed = False  # delays showed it, not just loss, and more has not been allowed since
        self.sent_bps = 0.0  # recent send rate, probes included
        self._remb_bps = 0.0
        self._at_s, self._bytes = 0.0, 0
        self._pause_s = RETRY_FIRST_S  # from the last probe to the next; doubles with each failure
        self._calm_s = 0.0  # before this time, signs of congestion are due to the former send rate
        self._trips = RoundTrips()
        self._asked_s = 0.0  # when the last round trip began
        self._suspected_s = self._suspected_bps = 0.0  # start of suspected congestion; bitrate if confirmed
        self._trying_s = 0.0  # since when a bitrate is in use that only round trips allowed
        self._doubt_s = WRONG_FIRST_S  # how long such a bitrate is not tried again if it was too much
        self._retry_s = 0.0  # no probe before this time
        self._probe_bps = self._extra_bps = self._probe_s = self._probe_remb_bps = 0.0
        self._first_s = 0.0  # when the probe's first round trip began
        self._round_trip_s: float | None = None  # that round trip
        self._queue_s: float | None = None  # how much longer the last round trip took
        self._complained = False  # whether REMB fell during the probe
        self._loss = self._lossy_s = 0.0
        self._constant = 0.0  # the part of the loss that does not depend on the send rate
        self._most = (0.0, 0.0)  # the highest send rate while loss was high, and that loss
        self._less_s = 0.0  # when the send rate was last not much below that

    @property
    def speaks(self) -> bool:
        """Whether there is a REMB; without one only loss is known."""
        return self._remb_bps > 0

    @property
    def estimate_bps(self) -> float:
        """Without sound, of which nothing is known."""
        return self.allowed_bps

    @property
    def probe_bps(self) -> float:
        return self._extra_bps if self._probe_bps and self._at_s <= self._probe_s + PROBE_S else 0.0

    def sent(self, video_bytes: int, sound_bytes: int, now_s: float) -> None:
        passed_s = now_s - self._at_s
        if self._at_s and passed_s > 0:
            bps = max(0, video_bytes - self._bytes) * 8 / passed_s
            self.sent_bps += (bps - self.sent_bps) * min(1.0, passed_s / SMOOTH_S)
            if self.sent_bps < MIN_BPS:
                self._remb_bps = 0.0  # browsers forget their estimate while nothing arrives
        self._at_s, self._bytes = now_s, video_bytes
        if self._suspected_s and now_s > self._suspected_s + NOTHING_S:
            self._suspect(max(LEAST_BPS, self.sent_bps / 2), now_s)
            self._full(now_s)

    # --- signs of congestion -----------------------------------------------------------------------------------------

    def acknowledged(self, groups: Sequence[Group], now_s: float, *, whole: bool = True) -> bool:
        """There is none; the first feedback brings the other estimator."""
        return False

    def remb(self, bps: float, now_s: float) -> bool:
        """Takes the browser's estimate. True if that lowers `allowed_bps`."""
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
        """Whether to measure a round trip now: before each part of a probe and after its end, while congestion is
        suspected, and now and then."""
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
        """Takes a round trip that began at `sent_s`. True if that lowers `allowed_bps`."""
        queue_s = self._trips.add(seconds, sent_s)
        if self._probe_bps:
            if sent_s == self._first_s:
                self._round_trip_s = seconds
            elif sent_s > self._first_s > self._probe_s and self._round_trip_s is not None:
                self._queue_s = seconds - self._round_trip_s  # the queue that each part leaves until the next
        elif queue_s <= QUEUE_S:
            self._suspected_s = 0.0
        elif not self._suspected_s:
            self._suspect(max(LEAST_BPS, SHARE * self.sent_bps), sent_s)
        elif sent_s >= self._suspected_s + AGAIN_S:
            return self._full(now_s)
        return False

    def refused(self, now_s: float) -> None:
        """The path took less than was sent, so the server dropped video itself."""
        self._suspect(max(LEAST_BPS, SHARE * self.sent_bps), now_s)
        self._full(now_s)

    def loss(self, fraction: float, now_s: float) -> bool:
        """Takes the smoothed loss of a down track from a receiver report. True if that lowers `allowed_bps`."""
        before, self._loss, self._constant = self._loss, fraction, min(self._constant, fraction)
        if fraction - self._constant <= LOSS_HIGH:
            self._most = (0.0, 0.0)
            return False
        if now_s < self._lossy_s + REPORTS_APART_S or fraction < before:
            return False  # falling already: smoothed loss shows a back-off late
        self._lossy_s = now_s
        if self._is_constant(fraction, now_s):
            self._constant = fraction
            return False
        bps = max(LEAST_BPS, min(self.allowed_bps, self.sent_bps) * (1 - 0.5 * fraction))
        return bps < self.allowed_bps and self._congested(bps, now_s)

    def _is_constant(self, fraction: float, now_s: float) -> bool:
        """Whether the loss is about what it was at a much higher send rate."""
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
        """Takes the bitrate that would be sent if it were allowed, 0 if nothing more is wanted. Begins a probe when it
        is due."""
        if self._probe_bps and now_s >= self._probe_s + PROBE_S + VERDICT_S:
            self._judge(now_s)
        if self._trying_s and now_s >= self._trying_s + HELD_S:
            self._trying_s, self._doubt_s = 0.0, WRONG_FIRST_S
        if not next_bps or next_bps <= self.allowed_bps or self._probe_bps or now_s < self._retry_s:
            return
        if self._suspected_s:
            return
        if can_probe:
            # at most twice what is known to pass: people would notice a larger step
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
        """Decides whether the finished probe succeeded."""
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
        """The probe was too much; that says nothing against the bitrate allowed before."""
        self._probe_bps = 0.0
        self._calm_s = now_s + VERDICT_S
        self._pause_s = min(RETRY_MOST_S, 2 * self._pause_s)
        self._retry_s = now_s + self._pause_s
