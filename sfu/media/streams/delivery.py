"""Loss, jitter and round-trip time of a down track, from receiver reports (RFC 3550 section 6.4). Pure: the clock is an
argument; reports come about once a second, nothing runs per packet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sfu.media.rtp.rtcp import ReportBlock

SENDER_REPORTS = 8
"""Sender reports remembered; browsers send one a second or fewer, and a receiver answers the last it got."""
LOSS_WEIGHT = 0.3
"""Weight of the newest report in `loss`, which thus covers about the last five seconds."""
ROUND_TRIP_WEIGHT = 0.4
REPORTS = 3
"""Loss is what exceeds the highest of this many earlier reports. One report may lag behind the server's count: a number
that the publisher lost is a gap to the server before the subscriber counts it. Many would hide loss after a subscriber
began to count anew."""
JITTER_MAX_S, ROUND_TRIP_MAX_S = 10.0, 10.0
"""Reported values above these are nonsense."""


class Sent(NamedTuple):
    """What one subscriber was sent so far, without retransmissions."""

    packets: int
    following: int  # extended number of the next one; it also counts packets that never came from the publisher
    n_bytes: int


class Delivery:
    """Delivery of a stream, or of its layers in turn, to one subscriber. `expected` and `lost` only grow.

    Loss is what is lost between server and subscriber. A report counts more, since the subscriber also misses the
    packets that the publisher lost; and less, since a packet resent under its own number counts as received.
    """

    __slots__ = (
        "_missing", "_packets", "_reported_s", "_resent", "_sender_reports", "_sent_bytes",
        "bitrate_bps", "expected", "jitter_s", "loss", "lost", "resent", "round_trip_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self.expected = self.lost = 0  # packets that reports were about; resent ones count twice
        self.loss: float | None = None  # fraction, smoothed; None before the second report
        self.jitter_s = 0.0
        self.round_trip_s: float | None = None  # smoothed; None until a sender report was answered
        self.bitrate_bps = 0.0  # sent between the last two reports
        self.resent = 0  # packets resent under their own number, counted by the sender
        self._packets = self._sent_bytes = self._resent = 0  # at the last report
        # lists: a deque takes 600 bytes, and a room of 10 has 90 of these
        self._missing: list[int] = []  # at the last reports: sent and not received, up to a constant
        self._reported_s: float | None = None
        self._sender_reports: list[tuple[int, float]] = []

    def sender_report(self, last_sr: int, now_s: float) -> None:
        """A publisher's sender report was passed on; `last_sr` is the middle 32 bits of its NTP time, by the
        publisher's clock and not the server's."""
        self._sender_reports.append((last_sr, now_s))
        del self._sender_reports[:-SENDER_REPORTS]

    def reported(self, block: ReportBlock, clock_rate: int, sent: Sent, now_s: float) -> None:
        """Takes a report block. How many packets it covers is the server's count and not the report's, so a false
        report can claim no more than that all were lost."""
        missing = block.lost - (sent.following - sent.packets) + self.resent
        expected = sent.packets + self.resent - self._packets - self._resent
        if expected > 0 and self._missing:
            lost = max(0, min(expected, missing - max(self._missing)))
            self.expected += expected
            self.lost += lost
            before = lost / expected if self.loss is None else self.loss
            self.loss = before + (lost / expected - before) * LOSS_WEIGHT
        self._missing.append(missing)
        del self._missing[:-REPORTS]
        if self._reported_s is not None and now_s > self._reported_s:
            self.bitrate_bps = max(0, sent.n_bytes - self._sent_bytes) * 8 / (now_s - self._reported_s)
        self._packets, self._sent_bytes, self._resent, self._reported_s = sent.packets, sent.n_bytes, self.resent, now_s
        self.jitter_s = min(block.jitter / clock_rate, JITTER_MAX_S)
        self._answered(block, now_s)

    def _answered(self, block: ReportBlock, now_s: float) -> None:
        sent_s = next((sent_s for last_sr, sent_s in reversed(self._sender_reports) if last_sr == block.last_sr), None)
        if not block.last_sr or sent_s is None:
            return
        round_trip_s = now_s - sent_s - block.delay / 65536
        if not -1e-3 <= round_trip_s <= ROUND_TRIP_MAX_S:  # the subscriber's clock may run a little faster
            return
        before_s = round_trip_s if self.round_trip_s is None else self.round_trip_s
        self.round_trip_s = max(0.0, before_s + (round_trip_s - before_s) * ROUND_TRIP_WEIGHT)
