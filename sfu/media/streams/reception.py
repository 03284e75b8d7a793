"""Packet loss on the way from a publisher: requested again (RFC 4585 section 6.2.1) and reported (RFC 3550 section
6.4). Pure: the clock is an argument; numbers are extended, they do not wrap.

Nothing here runs for a packet that comes in its turn but `burst`, once for all that came together.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from sfu.media.rtp.numbering import HISTORY

REORDER_S = {"audio": 0.0, "video": 0.02}
"""A packet that is only overtaken comes by itself within this time. Sound cannot wait for that, and costs little."""
RETRY_S, RETRY_MIN_S = 0.1, 0.02
"""An answer takes a round trip; asking sooner brings the packet twice. RETRY_S while none has been measured, and at
most."""
TRIES = {"audio": 4, "video": 10}
"""Where a fifth is lost each way, a third of all tries fail. Sound is too late to be played after a few of them, but a
picture lacks every packet that never comes until the next keyframe, so it is worth as many as browsers make."""

BURSTS = 100
"""Arrivals noted at most, before they are looked at."""


class Report(NamedTuple):
    """What a report block says but for SSRC and highest number (RFC 3550 section 6.4.1)."""

    fraction: int  # of 256, since the last report
    lost: int  # since the track began
    jitter: int  # in the track's clock
    last_sr: int  # the middle 32 bits of its NTP time
    delay: int  # since it came, in 1/65,536 s


class Reception:
    """One track's way from its publisher."""

    __slots__ = (
        "_before",
        "_bursts",
        "_clock_rate",
        "_filled",
        "_jitter",
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
        self._missing: dict[int, tuple[int, float]] = {}  # times asked for, and when next
        self._filled: dict[int, None] = {}  # asked for and come since, oldest first
        self._lost = 0
        self._before = (0, 0)  # received and lost at the last report
        self._jitter = 0.0
        self._transit: float | None = None
        self._ts = -1
        self._sr: tuple[int, float] | None = None
        self.repaired = 0  # asked for and come
        self.hopeless = False  # something will never come: decoders need a keyframe

    # --- loss --------------------------------------------------------------------------------------------------------

    def skipped(self, first: int, end: int, now_s: float) -> None:
        """Numbers from `first` up to `end` have not come, one after them has. What is too much to be worth asking for
        is given up."""
        self._lost += end - first
        if end - first + len(self._missing) > HISTORY // 2:
            self._missing.clear()
            self.hopeless = True
            return
        for number in range(first, end):
            self._missing[number] = (0, now_s + self._reorder_s)

    def came(self, number: int, now_s: float) -> bool:
        """A number from before the newest one. False if it is not to be used: the packet that was asked for and its
        retransmission may both come, and two packets under one number must not be encrypted."""
        if number in self._filled:
            return False
        self._lost -= 1
        tries, due_s = self._missing.pop(number, (0, 0.0))
        if tries == 1:
            took_s = now_s - due_s + self._retry_s
            self._retry_s += (min(RETRY_S, max(RETRY_MIN_S, 2 * took_s)) - self._retry_s) / 8
        if tries:
            self.repaired += 1
            self._filled[number] = None
            if len(self._filled) > HISTORY:  # older ones are too late for any use
                del self._filled[next(iter(self._filled))]
        return True

    def asked(self, number: int) -> bool:
        """Whether a retransmission of it is what we want: publishers send others, to probe their way."""
        return bool(self._missing.get(number, (0,))[0])

    def forget(self) -> None:
        """The numbers begin anew."""
        self._missing.clear()

    def due(self, now_s: float) -> list[int]:
        """What to ask for now. After enough tries a number is given up, which `hopeless` says until it is read."""
        asking: list[int] = []
        for number, (tries, due_s) in list(self._missing.items()):
            if due_s > now_s:
                continue
            if tries == self._tries:
                del self._missing[number]
                self.hopeless = True
            else:
                self._missing[number] = (tries + 1, now_s + self._retry_s)
                asking.append(number)
        return asking

    def next_s(self) -> float | None:
        """When `due` has something to say; None while nothing is missing."""
        return min((due_s for _, due_s in self._missing.values()), default=None)

    @property
    def lost(self) -> int:
        """By the network since the track began, repaired or not."""
        return self._lost + self.repaired

    # --- reports -----------------------------------------------------------------------------------------------------

    def burst(self, ts: int, now_s: float) -> None:
        """Packets of this time arrived. Only noted, for packets wait; `jitter` looks at it."""
        self._bursts.append((ts, now_s))
        if len(self._bursts) > BURSTS:
            self._look()

    def _look(self) -> None:
        """RFC 3550 appendix A.8, one sample a time, as libwebrtc takes it: what follows of a frame is late by the pace
        at which its sender sends it."""
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
        """In the track's clock."""
        self._look()
        return self._jitter

    def report(self, received: int, now_s: float) -> Report:
        """`received` counts the track's packets since it began, repaired ones too."""
        before_received, before_lost = self._before
        lost = self._lost - before_lost
        expected = received - before_received + lost
        self._before = (received, self._lost)
        fraction = min(255, max(0, lost) * 256 // expected) if expected > 0 else 0
        last_sr, came_s = self._sr or (0, now_s)
        delay = min(0xFFFFFFFF, int((now_s - came_s) * 65536))
        return Report(fraction, max(-0x800000, min(0x7FFFFF, self._lost)), int(self.jitter), last_sr, delay)
