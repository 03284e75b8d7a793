"""Bandwidth estimation from transport-wide feedback, for one subscriber's downlink. Pure: the clock is an argument.

The client only tells which packets arrived, and when; everything else is derived here. Two signs show that more is
sent than the downlink carries: a queue that grows (delays.py), and a full queue, which loses much of what is sent
(balance.py). Then the rate at which packets arrive *is* what the downlink carries, and the estimate falls to it at
once. Loss without longer delays is the path's own, as on radio links: it changes nothing.

The estimate rises only on evidence: what arrived without a queue is carried. To learn more than the videos show, a
probe sends more for half a second.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sfu.media.bandwidth.balance import Balance
from sfu.media.bandwidth.delays import Delays, Group

START_BPS = 800_000.0
MIN_BPS, MAX_BPS = 30_000.0, 50_000_000.0
MARGIN = 0.9
"""Share of a limited downlink that is used, so that its queue stays short."""
MEASURED = 0.95
"""Share of the arrival rate to which the estimate falls. It is measured over only a few pictures."""
ONCE_MORE = 0.85
"""The estimate falls at least to this share if the last fall was not enough (draft-ietf-rmcat-gcc-02 section 5.5)."""
SOON_S = 3.0
DRAIN_MOST, EMPTY_S = 0.4, 0.04
"""While a queue of t seconds drains, video gets 1 - t of its share, at least 1 - DRAIN_MOST."""
FULL_S, FULL_PACKETS, STILL_S, STILL_PACKETS = 0.35, 20, 0.1, 4
"""Loss counts over this time and these packets, if it is as high among the last of them: the end of a large picture may
be lost in a queue that is empty again soon after."""
LATE_S = 0.04
"""Delays longer than usual by this much explain a loss: the queue is full."""
LOST_LATE, LOST = 0.1, 0.3
"""More loss than usual that shows a full queue, with and without delays longer than usual; 1/sqrt(packets) more, as
chance allows."""
USUAL_S, FALLS = 3.0, 6
"""Loss and delays are usual after about this time, shorter delays in a fraction of it."""
SOUND_S = 1.0
SILENT_S, SILENT_STEP_S, SILENT_BYTES = 3.0, 1.0, 2_000
"""Video without any feedback for so long does not arrive: the estimate falls by half, and again after each step."""
CUT_S, KNOCK_BPS = 1.0, 10_000.0
"""After this time without feedback the path was cut. While the estimate is low for that reason, so much is sent that
feedback tells when the path is back."""
STEP_S = 0.5
"""Time that counts as passed between two calls at most: after a pause of this process nothing was sent."""
GROWS_S, PROBE_GROWS_S = 0.45, 0.1
"""A queue that grows for so long means that too much is sent; during a probe, it ends the probe. The former is longer
than other subscribers behind the same bottleneck probe in vain."""
STAYS_S, LONG_S, VAIN_S, IN_VAIN = 2.0, 0.2, 1.0, 0.7
"""After this time, a queue that keeps this share of its length after a fall of the estimate is not of our making."""
OTHERS_S = 1.0
"""A queue that is there so long after the next probe is due is made by others, such as downloads. It is probed beside
it."""
DEAF_S = 20.0
"""How long its growth then says nothing. Only loss counts meanwhile."""
PROBE_S = 0.5
PROBE_QUEUE_S, PROBE_STOP_S = 0.03, 0.06
"""A probe that made the queue longer by so much was too much; by so much, it ends at once."""
PROBE_ARRIVED, PROBE_SENT = 0.9, 0.95
"""Shares of a probe that must have arrived, beside the usual loss, and of its bitrate that must have been sent."""
PROBE_OVER, PROBE_MORE = 1.1, 1.08
PROBE_LEAST_BPS = 50_000.0
"""Less than this beside the sound would be too few packets to tell anything."""
STRIDES = 1.3, 2.0
"""A probe tries this many times the estimate at most: after a failure, and after some successes."""
UNTOLD = 0.3
"""If more of a probe is still on its way when all should have arrived, there is a queue."""
AGAIN_S, RETRY_S, RETRY_MOST_S = 0.3, 2.0, 4.0
"""Time from a probe to the next one: if it succeeded, and if not; the latter grows with each failure."""
HELD_S, DOUBT_S, DOUBT_MOST_S = 8.0, 10.0, 80.0
"""If a probe's success did not last for HELD_S, there is no other one for DOUBT_S, twice as long each time."""
FREE_S = 30.0
"""A downlink that carries all that is wanted for so long is no longer limited."""
TRIP_S, FEEDBACK_S, ASK_S = 0.1, 0.3, 10.0


class Probe(NamedTuple):
    """`bps` is the whole bitrate that it tries; `queue_s` the queue before it."""

    start_s: float
    bps: float
    queue_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + PROBE_S


class SendSideEstimator:
    """See downlink.py, whose protocol this is."""

    __slots__ = (
        "_alarm_queue_s", "_alarm_s", "_asked_s", "_at_s", "_balance", "_before_silence_bps", "_carried_s", "_chance",
        "_deaf_s", "_delays", "_doubt_s", "_draining", "_heard_s", "_pause_s", "_probe", "_probed_s", "_raised_s",
        "_retry_s", "_satisfied_s", "_silent_s", "_sound_bps", "_sound_bytes", "_stride", "_trip_s", "_unheard",
        "_usual_delay_s", "_usual_loss", "_vain", "_video_bytes", "allowed_bps", "estimate_bps", "jammed", "limited",
        "probe_bps",
    )  # fmt: skip

    speaks = True

    def __init__(self, start_bps: float = START_BPS, chance: Callable[[], float] = random.random) -> None:
        """`chance` gives numbers from 0 to 1: subscribers behind one bottleneck must not probe in step."""
        self._chance = chance
        self.estimate_bps = self.allowed_bps = start_bps
        self.limited = self.jammed = False
        self.probe_bps = 0.0
        self._balance, self._delays = Balance(), Delays()
        self._at_s, self._video_bytes, self._sound_bytes = 0.0, 0, 0
        self._sound_bps = 0.0
        self._usual_loss = self._usual_delay_s = 0.0
        self._heard_s = 0.0  # when the last feedback came
        self._carried_s = 0.0  # when it was last looked what is carried
        self._alarm_s = -math.inf  # what was sent until then says nothing: it went at the former rate
        self._alarm_queue_s, self._vain, self._deaf_s = 0.0, 0, 0.0
        self._draining = False
        self._silent_s, self._unheard, self._before_silence_bps = 0.0, 0, 0.0
        self._probe: Probe | None = None
        self._probed_s = 0.0  # when the last one ended
        self._pause_s, self._retry_s, self._stride = RETRY_S, 0.0, STRIDES[1]
        self._raised_s, self._doubt_s = -math.inf, DOUBT_S  # when a probe last succeeded; the wait if that was wrong
        self._satisfied_s: float | None = None  # since when nothing more is wanted
        self._trip_s, self._asked_s = TRIP_S, -math.inf

    # --- what was sent -----------------------------------------------------------------------------------------------

    def sent(self, video_bytes: int, sound_bytes: int, now_s: float) -> None:
        passed_s = now_s - self._at_s
        if self._at_s and passed_s > 0:
            bps = max(0, sound_bytes - self._sound_bytes) * 8 / passed_s
            self._sound_bps += (bps - self._sound_bps) * min(1.0, passed_s / SOUND_S)
            self._unheard += max(0, video_bytes - self._video_bytes)
            if self._unheard > SILENT_BYTES:
                self._silent_s += min(passed_s, STEP_S)
        if self._silent_s >= SILENT_S:
            self._silent_s -= SILENT_STEP_S
            self._before_silence_bps = self._before_silence_bps or self.estimate_bps
            self._lower(self.estimate_bps / 2, now_s)
        self._at_s, self._video_bytes, self._sound_bytes = now_s, video_bytes, sound_bytes
        self._balance.sent(video_bytes, now_s)
        if self._probe is None:
            self.probe_bps = KNOCK_BPS if self._before_silence_bps else 0.0
        elif now_s >= self._probe.end_s:
            self.probe_bps = 0.0
            if now_s >= self._probe.end_s + self._trip_s + FEEDBACK_S:
                self._judge(self._probe, now_s)
        self._allow(now_s)

    def _allow(self, now_s: float) -> bool:
        """Updates `allowed_bps`. True if it fell."""
        before, share = self.allowed_bps, 1.0
        if self.limited:
            queue_s = self._queue_s(now_s)
            self._draining &= queue_s > EMPTY_S
            share = MARGIN * (1 - min(DRAIN_MOST, queue_s) if self._draining else 1)
        self.allowed_bps = max(0.0, self.estimate_bps * share - self._sound_bps)
        return self.allowed_bps < before * 0.97

    def _queue_s(self, now_s: float) -> float:
        """The queue at most, also while nothing arrives that would tell."""
        return max(0.0, self._delays.queue_s - max(0.0, now_s - self._heard_s - FEEDBACK_S))

    # --- what arrived ------------------------------------------------------------------------------------------------

    def acknowledged(self, groups: Sequence[Group], now_s: float, *, whole: bool = True) -> bool:
        if not groups:
            return False
        anew = now_s > self._heard_s + STEP_S
        passed_s, self._heard_s = min(STEP_S, now_s - self._heard_s), now_s
        self._delays.add(groups)
        self._balance.arrived(groups, whole=whole)
        self._heard(groups[-1][0])
        if self._probe is not None:
            if anew:
                self._probe = self._probe._replace(queue_s=self._delays.queue_s)  # which others made
            self._watch(self._probe, now_s)
            return self._allow(now_s)
        if groups[0][0] <= self._alarm_s:
            self._delays.forget_trend()
        elif self._overflows(passed_s) or self._fills(now_s) or self._stays(now_s):
            return self._congested(now_s)
        else:
            self._carried(now_s)
        return self._allow(now_s)

    def _heard(self, sent_s: float) -> None:
        """A packet arrived that was sent at `sent_s`. If none had for a while, and there is no queue, the path was
        cut: losses of that time are no congestion."""
        cut = self._silent_s >= CUT_S or self._before_silence_bps
        if cut and self._delays.queue_s < PROBE_STOP_S:
            self.estimate_bps = max(self.estimate_bps, self._before_silence_bps)
            self._alarm_s, self._draining = max(self._alarm_s, sent_s), False
            self._delays.forget_trend()
        self._silent_s, self._unheard, self._before_silence_bps = 0.0, 0, 0.0

    def _fills(self, now_s: float) -> bool:
        """Whether the queue grows, and is longer than jitter explains."""
        delays = self._delays
        return delays.growing_s >= GROWS_S and delays.delay_s > self._usual_delay_s + LATE_S and now_s >= self._deaf_s

    def _stays(self, now_s: float) -> bool:
        """Whether there is a long queue, or one that has hardly shrunk since the estimate fell."""
        queue_s = self._delays.queue_s
        self._alarm_queue_s = max(self._alarm_queue_s, queue_s)
        most_s = max(2 * EMPTY_S, IN_VAIN * self._alarm_queue_s) if self._draining else LONG_S
        return queue_s > most_s and now_s > self._alarm_s + STAYS_S

    def _overflows(self, passed_s: float) -> bool:
        """Whether so much is lost that it must be a full queue. Learns what is usual."""
        lately = self._balance.lately(self._alarm_s, FULL_S, FULL_PACKETS)
        if lately is None:
            return False
        later_s = self._delays.delay_s - self._usual_delay_s
        more = lately.loss - self._usual_loss
        high = (LOST_LATE if later_s > LATE_S else LOST) + 1 / math.sqrt(lately.packets + 1)
        if more > high:
            still = self._balance.lately(self._alarm_s, STILL_S, STILL_PACKETS)
            return still is not None and still.loss - self._usual_loss > high
        weight = min(1.0, passed_s / USUAL_S)
        if later_s < 0:
            self._usual_delay_s += later_s * min(1.0, FALLS * weight)
        elif more < LOST_LATE and not self._draining:
            self._usual_delay_s += later_s * weight
        if later_s <= LATE_S or more < 0:
            self._usual_loss = min(LOST, self._usual_loss + more * weight)
        return False

    def _carried(self, now_s: float) -> None:
        """What arrived without a queue is carried."""
        if now_s < self._carried_s + STEP_S:
            return
        self._carried_s = now_s
        if self._delays.queue_s < PROBE_QUEUE_S and self._at_s > self._alarm_s + 1.0:
            second = self._balance.between(self._balance.told_s - 1.2, self._balance.told_s)
            if second.seconds > 0.7:
                self.estimate_bps = max(self.estimate_bps, min(MAX_BPS, second.arrived_bps + self._sound_bps))

    def _congested(self, now_s: float) -> bool:
        queue_s, soon = self._delays.queue_s, now_s < self._alarm_s + SOON_S
        if not soon or queue_s <= max(2 * EMPTY_S, IN_VAIN * self._alarm_queue_s):
            self._vain = 0
        elif self._draining and now_s > self._alarm_s + VAIN_S:
            self._vain += 1
        lately = self._deaf_s > 0 and now_s < self._deaf_s + DEAF_S  # the others are probably still there
        if self._vain >= (1 if lately else 2):
            self._vain, self._deaf_s = 0, now_s + DEAF_S
            self._delays.accept_queue()
            return self._allow(now_s)
        bps = MEASURED * self._arriving_bps()
        if soon:
            bps = min(bps, ONCE_MORE * self.estimate_bps)
        elif bps >= self.estimate_bps:  # a large picture, of which as much arrives as is expected
            self._alarm_s = now_s
            self._delays.forget_trend()
            return self._allow(now_s)
        self._alarm_queue_s = queue_s
        return self._lower(bps, now_s)

    def _arriving_bps(self) -> float:
        bps, lately = self._balance.arrival_bps, self._balance.lately(0.0, STILL_S, STILL_PACKETS)
        if lately is None:
            return bps + self._sound_bps
        if self._delays.delay_s <= self._usual_delay_s + LATE_S:
            bps = max(bps, lately.arrived_bps)  # without a queue, nothing arrives between two pictures
        return bps + self._sound_bps * (1 - lately.loss)

    def _lower(self, bps: float, now_s: float) -> bool:
        self.limited = self.jammed = self._draining = True
        self._satisfied_s = None
        self.estimate_bps = max(MIN_BPS, min(bps, self.estimate_bps))
        self._alarm_s = now_s
        self._delays.forget_trend()
        wait_s = RETRY_S
        if now_s < self._raised_s + HELD_S:
            wait_s, self._doubt_s, self._raised_s = self._doubt_s, min(DOUBT_MOST_S, 2 * self._doubt_s), -math.inf
        self._retry_s = max(self._retry_s, now_s + wait_s)
        return self._allow(now_s)

    def refused(self, now_s: float) -> None:
        if now_s >= self._alarm_s + 1.0:
            second = self._balance.between(now_s - 1.2, now_s)
            if self._probe is not None:
                self._end_probe(self._probe, now_s, 0.0, succeeded=False)
            self._lower(ONCE_MORE * (second.sent_bps + self._sound_bps), now_s)

    # --- hints -------------------------------------------------------------------------------------------------------

    def remb(self, bps: float, now_s: float) -> bool:
        """Feedback says more."""
        return False

    def loss(self, fraction: float, now_s: float) -> bool:
        """Feedback says it earlier, and of the same packets."""
        return False

    def round_trip(self, seconds: float, sent_s: float, now_s: float) -> bool:
        self._trip_s = min(1.0, seconds)
        return False

    def asks(self, now_s: float) -> bool:
        if now_s < self._asked_s + ASK_S:
            return False
        self._asked_s = now_s
        return True

    # --- probes ------------------------------------------------------------------------------------------------------

    def want(self, next_bps: float, now_s: float, *, can_probe: bool = True) -> None:
        if now_s >= self._raised_s + HELD_S:
            self._doubt_s = DOUBT_S
        if next_bps <= 0:
            self._satisfied_s = now_s if self._satisfied_s is None else self._satisfied_s
            if now_s >= self._satisfied_s + FREE_S:
                self.limited = False
            return
        self._satisfied_s = None
        share = MARGIN if self.limited else 1 / PROBE_OVER
        most_bps = max(self._stride * self.estimate_bps, self._sound_bps + PROBE_LEAST_BPS)
        bps = min((next_bps + self._sound_bps) / share, most_bps, MAX_BPS)
        if self._probe is not None or now_s < self._retry_s or bps <= self.estimate_bps:
            return
        ours = now_s < max(self._retry_s, self._alarm_s) + OTHERS_S
        waits = ours and self._queue_s(now_s) > EMPTY_S and now_s >= self._deaf_s
        if self._draining or waits or self._before_silence_bps:
            return
        if can_probe:
            video = self._balance.between(max(now_s - 1.2, self._probed_s), now_s)
            self._probe = Probe(now_s, bps, self._queue_s(now_s))
            self.probe_bps = max(0.0, PROBE_MORE * bps - min(video.sent_bps, self.allowed_bps) - self._sound_bps)
        else:
            self._raise(bps, now_s)
            self._retry_s = now_s + RETRY_S

    def _watch(self, probe: Probe, now_s: float) -> None:
        """Ends the probe when it shows that it is too much, or when all of it has arrived."""
        delays, sums = self._delays, self._balance.between(probe.start_s, probe.end_s)
        full = sums.packets > FULL_PACKETS and sums.loss - self._usual_loss > LOST
        if delays.growing_s >= PROBE_GROWS_S or delays.queue_s > probe.queue_s + PROBE_STOP_S:
            full |= now_s >= self._deaf_s
        if full:
            carried = min(sums.sent_bps + self._sound_bps, self._arriving_bps())
            self._end_probe(probe, now_s, MEASURED * carried, succeeded=False)
        elif self._balance.told_s >= probe.end_s:
            self._judge(probe, now_s)

    def _judge(self, probe: Probe, now_s: float) -> None:
        sums = self._balance.between(probe.start_s, probe.end_s + STEP_S)
        if not sums.packets or self._balance.untold(probe.start_s, probe.end_s) > sums.sent * UNTOLD:
            self._end_probe(probe, now_s, 0.0, succeeded=False)
            return
        grew_s = max(0.0, self._queue_s(now_s) - probe.queue_s) if now_s >= self._deaf_s else 0.0
        lost = sums.loss - self._usual_loss
        if grew_s > PROBE_QUEUE_S or lost > 1 - PROBE_ARRIVED + 0.5 / math.sqrt(sums.packets):
            carried = sums.arrived * 8 / (sums.seconds + grew_s) + self._sound_bps
            self._end_probe(probe, now_s, MEASURED * carried, succeeded=False)
        else:
            sent_bps = sums.sent_bps + self._sound_bps
            passed = probe.bps if sent_bps >= PROBE_SENT * probe.bps else sent_bps
            self._end_probe(probe, now_s, passed, succeeded=True)

    def _raise(self, bps: float, now_s: float) -> None:
        if bps > self.estimate_bps:
            self.estimate_bps, self._raised_s, self.jammed = bps, now_s, False

    def _end_probe(self, probe: Probe, now_s: float, carried_bps: float, *, succeeded: bool) -> None:
        """A failed probe does not lower the estimate. Nothing sent until now counts as a sign of congestion."""
        self._probe, self.probe_bps, self._probed_s = None, 0.0, now_s
        carried_bps = min(probe.bps, carried_bps)
        if succeeded:
            self._raise(carried_bps, now_s)
            self._stride = min(STRIDES[1], 1.4 * self._stride)
            self._pause_s, self._retry_s = RETRY_S, now_s + AGAIN_S
        else:
            self.estimate_bps = max(self.estimate_bps, carried_bps)
            self._stride = STRIDES[0]
            self._alarm_s = now_s
            self._delays.forget_trend()
            self._retry_s = max(self._retry_s, now_s + self._pause_s * (0.7 + 0.6 * self._chance()))
            self._pause_s = min(RETRY_MOST_S, 1.5 * self._pause_s)
