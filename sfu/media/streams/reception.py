"""Packet loss on the way from a publisher: requested again (RFC 4585 section 6.2.1) and reported (RFC 3550 section
6.4). Pure: the clock is an argument; numbers are extended and do not wrap.

Of this only `burst` runs for packets that arrive in order, once for all that came together.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from sfu.media.rtp.numbering import HISTORY

REORDER_S = {"audio": 0.0, "video": 0.02}
"""A packet that was only overtaken comes by itself within this time. Audio cannot wait for that, and costs little."""
RETRY_S, RETRY_MIN_S = 0.1, 0.02
"""An answer takes a round trip; requesting again sooner brings the packet twice. RETRY_S applies until a round trip is
measured, and is the maximum."""
TRIES = {"audio": 4, "video": 10}
"""Where a fifth is lost each way, a third of all requests fail. After a few of them audio is too late to be played.
Video lacks every packet that never comes until the next keyframe, so it is worth as many as browsers make."""
LATE_S = 0.15
"""Sound that comes later than this after its successor is not used: a browser makes its buffer as long as the latest
packet, so the whole call would get late to save 20 ms of it."""

BURSTS = 100
"""Arrivals noted at most before they are processed."""


UNKNOWN = (0, 0.0, math.inf)
"""Stands for a packet that nobody missed, as those from before the first one."""


class Report(NamedTuple):
    """A report block without SSRC and highest number (RFC 3550 section 6.4.1)."""

    fraction: int  # lost since the last report, in 1/256
    lost: int  # since the stream began
    jitter: int  # in units of the stream's clock
    last_sr: int  # the middle 32 bits of the last sender report's NTP time
    delay: int  # since that report came, in 1/65,536 s


class Reception:
    """One stream on its way from its publisher."""

    __slots__ = (
        "_before",
        "_bursts",
        "_clock_rate",
        "_filled",
        "_jitter",
        "_late_s",
        "_lost",
        "_missing",
        "_reorder_s",
        "_retry_s",
        "_sr",
        "_transit",
        "_tries",
        "_ts",
        "hopeless",
        "repaired",
    )

    def __init__(self, kind: Literal["audio", "video"], clock_rate: int) -> None:
        self._clock_rate = clock_rate
        self._bursts: list[tuple[int, float]] = []
        self._reorder_s, self._tries, self._retry_s = REORDER_S[kind], TRIES[kind], RETRY_S
        self._late_s = LATE_S if kind == "audio" else math.inf
        self._missing: dict[int, tuple[int, float, float]] = {}  # times requested, when next due, and since when
        self._filled: dict[int, None] = {}  # not to be used if they come: requested and received since, or too late
        self._lost = 0
        self._before = (0, 0)  # received and lost at the last report
        self._jitter = 0.0
        self._transit: float | None = None
        self._ts = -1
        self._sr: tuple[int, float] | None = None
        self.repaired = 0  # requested and received
        self.hopeless = False  # a packet will never come: decoders need a keyframe

    # --- loss --------------------------------------------------------------------------------------------------------

    def skipped(self, first: int, end: int, now_s: float) -> None:
        """Numbers from `first` up to `end` are missing, as a later one has come. If they are too many to be requested,
        they are given up."""
        self._lost += end - first
        if end - first + len(self._missing) > HISTORY // 2:
            self._missing.clear()
            self.hopeless = True
            return
        for number in range(first, end):
            self._missing[number] = (0, now_s + self._reorder_s, now_s)

    def came(self, number: int, now_s: float) -> bool:
        """A packet from before the newest one has come. False if it must not be used: it is too late, or the requested
        packet and its retransmission both came, and two packets must not be encrypted under one number."""
        if number in self._filled or now_s - self._missing.get(number, UNKNOWN)[2] > self._late_s:
            return False
        self._lost -= 1
        tries, due_s, _ = self._missing.pop(number, UNKNOWN)
        if tries == 1:
            took_s = now_s - due_s + self._retry_s
            self._retry_s += (min(RETRY_S, max(RETRY_MIN_S, 2 * took_s)) - self._retry_s) / 8
        if tries:
            self.repaired += 1
            self._refuse(number)
        return True

    def _refuse(self, number: int) -> None:
        """From now on this packet must not be used."""
        self._filled[number] = None
        if len(self._filled) > HISTORY:  # older ones are too late for any use
            del self._filled[next(iter(self._filled))]

    def asked(self, number: int) -> bool:
        """Whether a retransmission of this number was requested; publishers also send others, to probe their uplink."""
        return bool(self._missing.get(number, (0,))[0])

    def forget(self) -> None:
        """The numbers begin anew: forgets what is missing."""
        self._missing.clear()

    def due(self, now_s: float) -> list[int]:
        """The numbers to request now. After enough tries a number is given up, which sets `hopeless` until the caller
        clears it."""
        asking: list[int] = []
        for number, (tries, due_s, since_s) in list(self._missing.items()):
            if due_s > now_s:
                continue
            if tries == self._tries or now_s - since_s > self._late_s:
                del self._missing[number]
                self.hopeless = True
                if self._late_s < math.inf:
                    self._refuse(number)
            else:
                self._missing[number] = (tries + 1, now_s + self._retry_s, since_s)
                asking.append(number)
        return asking

    def next_s(self) -> float | None:
        """When `due` next returns something; None while nothing is missing."""
        return min((due_s for _, due_s, _ in self._missing.values()), default=None)

    @property
    def lost(self) -> int:
        """Packets that the network lost since the stream began, repaired or not."""
        return self._lost + self.repaired

    # --- reports -----------------------------------------------------------------------------------------------------

    def burst(self, ts: int, now_s: float) -> None:
        """Packets with this timestamp arrived. They are only noted, since media waits to be forwarded; `jitter`
        processes them."""
        self._bursts.append((ts, now_s))
        if len(self._bursts) > BURSTS:
            self._look()

    def _look(self) -> None:
        """RFC 3550 appendix A.8, with one sample per timestamp, as in libwebrtc: the later packets of a frame are
        delayed by their sender's pacing."""
        bursts, self._bursts = self._bursts, []
        for ts, now_s in bursts:
            if ts == self._ts:
                continue
            self._ts = ts
            transit = now_s * self._clock_rate - ts
            if self._transit is not None:
                moved = abs(transit - self._transit)
                if moved < self._clock_rate:  # else the timestamps wrapped or began anew
                    self._jitter += (moved - self._jitter) / 16
            self._transit = transit

    def sender_report(self, ntp: int, now_s: float) -> None:
        """`ntp` is the 64-bit time of a sender report."""
        self._sr = (ntp >> 16 & 0xFFFFFFFF, now_s)

    @property
    def jitter(self) -> float:
        """In units of the stream's clock."""
        self._look()
        return self._jitter

    def report(self, received: int, now_s: float) -> Report:
        """`received` counts the stream's packets since it began, including repaired ones."""
        before_received, before_lost = self._before
        lost = self._lost - before_lost
        expected = received - before_received + lost
        self._before = (received, self._lost)
        fraction = min(255, max(0, lost) * 256 // expected) if expected > 0 else 0
        last_sr, came_s = self._sr or (0, now_s)
        delay = min(0xFFFFFFFF, int((now_s - came_s) * 65536))
        return Report(fraction, max(-0x800000, min(0x7FFFFF, self._lost)), int(self.jitter), last_sr, delay)
