"""Transport-wide feedback: tells a publisher when each packet arrived, so that its browser can estimate its uplink.
Pure.

The publisher numbers every packet of its transport (draft-holmer-rmcat-transport-wide-cc-extensions-01), and the server
reports every FEEDBACK_MS which packets arrived and when. Without it Chromium stays at about 300 kbps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, groupby
from struct import Struct

FEEDBACK_MS = 50.0
REPORT_PACKETS = 240
"""How far a number may be from the first pending one; a larger jump starts a new report. This bounds a report to 2 x
240 arrivals of 2 bytes among 3 x 240 statuses (1,200 bytes, one datagram), however the publisher numbers its
packets."""
TICK_US = 250
TICK_S = TICK_US / 1e6
REFERENCE_US = 64_000

_head = Struct("!HH")
_u16 = Struct("!H")
_i16 = Struct("!h")

MISSING, SMALL, LARGE = 0, 1, 2
_ALL_SMALL = [0b11 << 14 | sum(SMALL << 12 - 2 * i for i in range(n)) for n in range(7)]
"""The only status chunk needed for n < 7 packets that all have small deltas; seven or more are a run."""


class TransportFeedback:
    """Arrivals of one publisher's transport since the last report."""

    __slots__ = ("_arrivals", "_came", "_count", "_last_ext", "_next_ext")

    def __init__(self) -> None:
        self._came: list[tuple[Sequence[int], float]] = []  # sequence numbers and arrival times, not processed yet
        self._arrivals: dict[int, int] = {}
        self._last_ext = -1
        self._next_ext = -1  # the next report's first number: one after the last one reported
        self._count = 0

    def arrived(self, seqs: Sequence[int], now_s: float) -> None:
        """Packets with these transport-wide sequence numbers arrived at `now_s`, a monotonic clock. They are only
        noted, since media waits to be forwarded; `report` processes them."""
        self._came.append((seqs, now_s))
        if len(self._came) > REPORT_PACKETS:
            self._look()

    def _look(self) -> None:
        came, self._came = self._came, []
        for seq16, now_us in [(seq16, round(now_s * 1e6)) for seqs, now_s in came for seq16 in seqs]:
            around = self._last_ext if self._last_ext >= 0 else seq16 + 0x10000
            ext = around + ((seq16 - around + 0x8000) & 0xFFFF) - 0x8000
            if ext < self._next_ext:
                continue  # already reported as missing, which cannot be taken back
            if self._arrivals and not -REPORT_PACKETS < ext - next(iter(self._arrivals)) < REPORT_PACKETS:
                self._arrivals.clear()
                self._next_ext = -1
            self._last_ext = max(self._last_ext, ext)
            self._arrivals.setdefault(ext, now_us)

    def report(self) -> bytes:
        """The FCI of one feedback packet for all pending arrivals, which it clears; empty if there are none."""
        return self._in_order() or self._whatever_came()

    def _in_order(self) -> bytes:
        """The report if all packets came in order, as nearly all do: processed burst by burst. Empty if they did
        not."""
        first = end = self._next_ext
        if self._arrivals or not self._came or first < 0 or self._last_ext != first - 1:
            return b""
        at_us = reference_us = round(self._came[0][1] * 1e6) // REFERENCE_US * REFERENCE_US
        deltas = bytearray()
        for seqs, now_s in self._came:
            n, seq16 = len(seqs), seqs[0]
            ticks = (round(now_s * 1e6) - at_us) // TICK_US
            if seq16 != end & 0xFFFF or not 0 <= ticks <= 0xFF or list(seqs) != list(range(seq16, seq16 + n)):
                return b""
            deltas.append(ticks)
            deltas += bytes(n - 1)
            at_us += ticks * TICK_US
            end += n
        n = end - first
        if n > REPORT_PACKETS:
            return b""
        self._came, self._next_ext, self._last_ext = [], end, end - 1
        chunk = SMALL << 13 | n if n >= 7 else _ALL_SMALL[n]
        return self._packed(first, n, reference_us // REFERENCE_US, _u16.pack(chunk) + deltas)

    def _whatever_came(self) -> bytes:
        self._look()
        if not self._arrivals:
            return b""
        seqs = sorted(self._arrivals)
        first = seqs[0]
        if 0 <= self._next_ext <= first < self._next_ext + REPORT_PACKETS:
            first = self._next_ext
        times, self._arrivals = self._arrivals, {}
        reference = times[seqs[0]] // REFERENCE_US
        statuses, deltas, at_us = [], b"", reference * REFERENCE_US
        for ext in range(first, seqs[-1] + 1):
            if ext not in times:
                statuses.append(MISSING)
                continue
            ticks = (times[ext] - at_us) // TICK_US
            if not -0x8000 <= ticks < 0x8000:
                ticks = max(-0x8000, min(0x7FFF, ticks))
            at_us += ticks * TICK_US  # rounding errors do not add up
            small = 0 <= ticks <= 0xFF
            statuses.append(SMALL if small else LARGE)
            deltas += bytes([ticks]) if small else _i16.pack(ticks)
        self._next_ext = seqs[-1] + 1
        return self._packed(first, len(statuses), reference, _chunks(statuses) + deltas)

    def _packed(self, first: int, n: int, reference: int, body: bytes) -> bytes:
        head = _head.pack(first & 0xFFFF, n) + (reference & 0xFFFFFF).to_bytes(3, "big") + bytes([self._count])
        self._count = (self._count + 1) & 0xFF
        fci = head + body
        return fci + bytes(-len(fci) % 4)


def _chunks(statuses: list[int]) -> bytes:
    """Packet status chunks (section 3.1.3 and 3.1.4): long runs as run lengths, the rest as vectors of seven
    symbols."""
    out = b""
    at = 0
    runs = [(status, len(list(group))) for status, group in groupby(statuses)]
    while runs:
        status, length = runs[0]
        if length >= 7:
            out += _u16.pack(status << 13 | min(length, 0x1FFF))
            taken = min(length, 0x1FFF)
        else:
            symbols = statuses[at : at + 7]
            word = 0b11 << 14
            for i, symbol in enumerate(symbols):
                word |= symbol << (12 - 2 * i)
            out += _u16.pack(word)
            taken = len(symbols)
        at += taken
        while taken:
            status, length = runs[0]
            used = min(taken, length)
            taken -= used
            runs[0:1] = [(status, length - used)] if length > used else []
    return out


def report_number(fci: bytes) -> int:
    """The count of a feedback packet, modulo 256: a gap means that feedback was lost. Raises ValueError if the FCI is
    truncated."""
    if len(fci) < 8:
        raise ValueError("cut transport-wide feedback")
    return fci[7]


def arrivals(fci: bytes) -> tuple[list[int], list[int]]:
    """The packets that a feedback packet reports as received: their numbers, which ascend and do not wrap among
    themselves, and their arrivals in ticks of TICK_S by the receiver's clock, whose origin is unknown and which wraps
    at 2^24 x 64 ms.

    Each costs the receiver a byte or two, so the result is shorter than the FCI, however many packets it claims to
    have missed. Raises ValueError if the FCI is truncated.
    """
    if len(fci) < 8:
        raise ValueError("cut transport-wide feedback")
    first, count = _head.unpack_from(fci)
    numbers, large, at = _received(fci, first, count)
    reference = int.from_bytes(fci[4:7], "big") * (REFERENCE_US // TICK_US)
    ticks: list[int] = list(fci[at : at + len(numbers)]) if not large else _deltas(fci, at, len(numbers), large)
    if len(ticks) < len(numbers):
        raise ValueError("cut transport-wide feedback")
    if ticks:
        ticks[0] += reference
    return numbers, list(accumulate(ticks))


def _received(fci: bytes, first: int, count: int) -> tuple[list[int], set[int], int]:
    """The numbers received among `count` from `first` on, the indexes of those with a large delta, and where the status
    chunks end (section 3.1.2)."""
    numbers: list[int] = []
    large: set[int] = set()
    at, end = 8, first + count
    while first < end:
        if at + 2 > len(fci):
            raise ValueError("cut transport-wide feedback")
        word = fci[at] << 8 | fci[at + 1]
        at += 2
        if word & 0x8000:
            offsets, wide, n = _vector(word)
            if first + n > end:
                offsets = tuple(offset for offset in offsets if first + offset < end)
            large.update(len(numbers) + i for i in wide if i < len(offsets))
            numbers += [first + offset for offset in offsets]
        else:
            n, status = word & 0x1FFF, word >> 13
            if status in (SMALL, LARGE):
                if len(numbers) + min(n, end - first) > len(fci):
                    raise ValueError("more arrivals than transport-wide feedback has bytes for")
                if status == LARGE:
                    large.update(range(len(numbers), len(numbers) + min(n, end - first)))
                numbers += range(first, min(first + n, end))
        first += n
    return numbers, large, at


@lru_cache(maxsize=0x4000)
def _vector(word: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Of a status vector chunk (section 3.1.4): the offsets received, which of these have a large delta, and how many
    symbols it has."""
    bits, size = (2, 7) if word & 0x4000 else (1, 14)
    statuses = [word >> bits * (size - 1 - i) & (1 << bits) - 1 for i in range(size)]
    offsets = tuple(i for i, status in enumerate(statuses) if status in (SMALL, LARGE))
    return offsets, tuple(i for i, offset in enumerate(offsets) if statuses[offset] == LARGE), size


def _deltas(fci: bytes, at: int, n: int, large: set[int]) -> list[int]:
    """Receive deltas of n packets in ticks, of one byte each, or of two (section 3.1.5)."""
    ticks: list[int] = []
    for i in range(n):
        if at + 1 + (i in large) > len(fci):
            raise ValueError("cut transport-wide feedback")
        ticks.append(_i16.unpack_from(fci, at)[0] if i in large else fci[at])
        at += 1 + (i in large)
    return ticks
