"""A receive stream: one RTP stream as it arrives from its publisher, its statistics, and the feedback it needs."""

from __future__ import annotations

import asyncio
from typing import Literal

from sfu.media.rtp import rtcp
from sfu.media.rtp.keyframe import KeyframeRequests
from sfu.media.rtp.numbering import SequenceNumbers
from sfu.media.streams.counted import Counted
from sfu.media.streams.reception import Reception
from sfu.media.transport.transport import Transport

TOO_MUCH = "too_much"
"""A reason to mute a stream other than its publisher's wish (intake.py)."""
NOTHING, ASKED, BROKEN = range(3)
"""What decoders of a stream lack: nothing; a keyframe that was requested (ASKED); or a keyframe because packets were
lost for good (BROKEN), which is requested with every burst until it comes."""
CLOCK_RATES = {"audio": 48_000, "video": 90_000}


class ReceiveStream(SequenceNumbers):
    """Requests missing packets and keyframes, and reports to the publisher how its packets arrived."""

    __slots__ = (
        "_asking", "_counters", "_keyframes", "_lacks", "_muted_for", "_seen", "_timer", "bytes", "clock_rate", "kind",
        "levels", "levels_sum", "muted", "packets", "publisher", "reception", "refused", "refused_bytes", "remote_ssrc",
    )  # fmt: skip

    def __init__(self, publisher: Transport, kind: Literal["audio", "video"], counters: dict[str, int]) -> None:
        super().__init__()
        self.publisher, self.kind = publisher, kind
        self.clock_rate = CLOCK_RATES[kind]
        self.remote_ssrc: int | None = None
        self.muted = False
        self._muted_for: frozenset[str] = frozenset()  # reasons to be muted
        self.reception = Reception(kind, self.clock_rate)
        self.packets = self.bytes = 0  # forwarded
        self.refused = self.refused_bytes = 0  # packets and bytes that came while muted, since `take_came`
        self._seen = (0, 0)  # packets and bytes forwarded at the last `take_came`
        self.levels = self.levels_sum = 0  # number and sum of audio levels since `take_level`
        self._counters = counters
        self._lacks = NOTHING
        self._keyframes = KeyframeRequests()
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.TimerHandle | None = None

    def set_muted(self, muted: bool, reason: str = "") -> None:
        """Mutes or unmutes for one reason. A stream muted for any reason is not forwarded, whatever the publisher
        sends. Unmuting leaves decoders with a gap, so it requests a keyframe."""
        self._muted_for = self._muted_for | {reason} if muted else self._muted_for - {reason}
        if self.muted != bool(self._muted_for):
            self.muted = not self.muted
            self.restart()

    def restart(self) -> None:
        """Another stream takes the place of this one, with numbers of its own."""
        self.leave_gap()
        self.reception.forget()
        self.request_keyframe()

    def take_level(self) -> float | None:
        """The mean audio level since the last call in dBov; None if none came."""
        if not self.levels:
            return None
        mean, self.levels, self.levels_sum = -self.levels_sum / self.levels, 0, 0
        return mean

    def take_came(self) -> tuple[int, int]:
        """Packets and bytes that came since the last call, forwarded or not."""
        (packets, n_bytes), self._seen = self._seen, (self.packets, self.bytes)
        refused, refused_bytes, self.refused, self.refused_bytes = self.refused, self.refused_bytes, 0, 0
        if refused and TOO_MUCH in self._muted_for:
            self._counters["packets_over_limit"] += refused
        return self.packets - packets + refused, self.bytes - n_bytes + refused_bytes

    def close(self) -> None:
        for timer in (self._timer, self._asking):
            if timer is not None:
                timer.cancel()

    # --- what is missing ----------------------------------------------------------------------------------------------

    def place(self, seq16: int) -> int:
        expected, head = self.expected, self.head
        number = super().place(seq16)
        if number > head and expected >= 0:
            now_s = asyncio.get_running_loop().time()
            self.reception.skipped(head, number, now_s)
            if self._asking is None:
                self._ask_again_later(now_s)
        elif 0 <= number < head and not self.reception.came(number, asyncio.get_running_loop().time()):
            return -1
        return number

    def _ask_again_later(self, now_s: float) -> None:
        due_s = self.reception.next_s()
        wait = None if due_s is None else max(0.0, due_s - now_s) + 0.001  # timers may run a moment early
        self._asking = None if wait is None else asyncio.get_running_loop().call_later(wait, self._ask_again)

    def _ask_again(self) -> None:
        """Sends a NACK for missing packets; for packets given up, requests a keyframe."""
        now_s = asyncio.get_running_loop().time()
        numbers = self.reception.due(now_s)
        if numbers and self.remote_ssrc is not None:
            self._counters["nack_sent"] += 1
            self.publisher.send_rtcp(rtcp.nack(self.remote_ssrc, ((n - self.shift) & 0xFFFF for n in numbers)))
        if self.reception.hopeless:
            self.reception.hopeless = False
            self._break()
            self.request_keyframe()
        self._ask_again_later(now_s)

    def _break(self) -> None:
        if self.kind == "video":
            self._lacks = BROKEN

    def counted(self) -> Counted:
        """Counters of this stream on its way from the publisher, for the publisher's quality."""
        reception = self.reception
        expected = self.packets + reception.lost - reception.repaired
        return Counted(id(self), expected, reception.lost, self.bytes, reception.jitter / self.clock_rate)

    def report_block(self) -> bytes | None:
        """The report block about this stream for the publisher (RFC 3550 section 6.4.1). None before a packet has
        come."""
        if self.remote_ssrc is None or not self.packets:
            return None
        now_s = asyncio.get_running_loop().time()
        said = self.reception.report(self.packets, now_s)
        return rtcp.report_block(
            self.remote_ssrc, said.fraction, said.lost, self.head - 1 - self.shift, said.jitter, said.last_sr,
            said.delay,
        )  # fmt: skip

    # --- keyframes ----------------------------------------------------------------------------------------------------

    @property
    def watched(self) -> bool:
        """Whether anybody could make use of a keyframe."""
        return True

    def request_keyframe(self) -> None:
        """For any subscriber, as often as it likes. The publisher gets requests at the rate of keyframe.py, until a
        keyframe comes."""
        if self.kind != "video" or self.muted:
            return
        wait_ms = self._keyframes.request(asyncio.get_running_loop().time() * 1e3)
        if wait_ms == 0:
            self._ask()
        elif wait_ms > 0:
            self._ask_in(wait_ms)

    def _ask_in(self, wait_ms: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait_ms / 1e3 + 0.001, self._ask_if_watched)

    def _ask_if_watched(self) -> None:
        if self.watched:
            self._ask()
        else:
            self._has_keyframe()

    def _ask(self) -> None:
        if self.muted or self.remote_ssrc is None or self.publisher.ready() is None:
            # nothing has arrived yet, or no request can be sent; a stream begins with a keyframe anyway
            self._keyframes = KeyframeRequests()
            return
        now_ms = asyncio.get_running_loop().time() * 1e3
        if self._keyframes.due(now_ms):
            self._counters["pli_sent"] += 1
            self._lacks = max(self._lacks, ASKED)
            self.publisher.send_rtcp(rtcp.pli(self.remote_ssrc))
        if self._keyframes.wanted:
            self._ask_in(self._keyframes.wait_ms(now_ms))
        elif self._lacks == ASKED:
            self._lacks = NOTHING

    def _has_keyframe(self) -> None:
        """A keyframe begins, or nobody needs one any more."""
        self._lacks = NOTHING
        self._keyframes.answered()
