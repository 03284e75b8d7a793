"""What every estimator of a downlink takes and tells. One works from the subscriber's own estimate (estimator.py), the
other from what arrived (send_side.py). Pure: the clock is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sfu.media.bandwidth.delays import Group


class Downlink(Protocol):
    """One per subscriber. Methods that return bool: True if `allowed_bps` fell, so that the layers are to be chosen at
    once."""

    @property
    def estimate_bps(self) -> float:
        """What the downlink carries: all RTP bytes, sound included."""

    @property
    def allowed_bps(self) -> float:
        """What video may take of it."""

    @property
    def limited(self) -> bool:
        """Whether the downlink has shown that it carries only so much."""

    @property
    def jammed(self) -> bool:
        """Whether there was a queue, not only loss, and more has not been allowed since."""

    @property
    def speaks(self) -> bool:
        """Whether the client says what it receives, so that the estimate is more than a guess from losses."""

    @property
    def probe_bps(self) -> float:
        """Bitrate to send now beside the videos, to learn whether the downlink carries it; mostly 0."""

    def sent(self, video_bytes: int, sound_bytes: int, now_s: float) -> None:
        """Takes the bytes sent so far in all, probes and retransmissions included; called a few times a second and
        before each `acknowledged`."""

    def acknowledged(self, groups: Sequence[Group], now_s: float, *, whole: bool = True) -> bool:
        """Takes what one feedback reports as received, in the order in which it was sent. Not `whole`: feedback before
        it was lost."""

    def remb(self, bps: float, now_s: float) -> bool:
        """Takes the client's own estimate."""

    def loss(self, fraction: float, now_s: float) -> bool:
        """Takes the smoothed loss of a video from a receiver report."""

    def round_trip(self, seconds: float, sent_s: float, now_s: float) -> bool:
        """Takes a round trip that began at `sent_s`."""

    def refused(self, now_s: float) -> None:
        """The path took less than was sent, so the server dropped video itself."""

    def asks(self, now_s: float) -> bool:
        """Whether to measure a round trip now."""

    def want(self, next_bps: float, now_s: float, *, can_probe: bool = True) -> None:
        """Takes the bitrate of video that would be sent if it were allowed, 0 if nothing more is wanted. Begins a probe
        when it is due. `can_probe`: there is something to send for it."""
