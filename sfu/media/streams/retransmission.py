"""Retransmission: a buffer of recent packets, and how much of it one subscriber may request. Pure: the clock is an
argument; numbers are extended, they do not wrap.

What is kept is kept by runs, as they were sent (fanout.py), so that keeping costs little a packet, and finding costs
those who ask.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from operator import itemgetter
from struct import Struct

from sfu.media.rtp.numbering import HISTORY
from sfu.media.transport.rows import ROW_BYTES

HISTORY_S = 1.0
HISTORY_BYTES = 200_000
HISTORY_RUNS = 512
"""What a track remembers at most: a second of 1.5 Mbps in frames, and no more runs than a search should look at."""
PACKET_BYTES, RUN_BYTES = 60, 250
"""What a packet takes beside its own bytes, and a run beside its packets."""
ROUND_TRIP_S = 0.05
"""To a subscriber, while it has not been measured."""

_first = itemgetter(0)
_seq_of = Struct("!H").unpack_from

_STEP = 16  # bytes; as many are copied as the next multiple, so that few cutters do for all lengths
_cutters = [Struct(f"{n}s{ROW_BYTES - n}x").iter_unpack for n in range(0, ROW_BYTES + 1, _STEP)]
"""Each takes the first bytes of every row, in C."""

Run = tuple[float, int, int, int, list[bytes]]
"""When, the number of the first packet, how many numbers from there to the last, the bytes that each packet takes, and
the packets, of which some may be missing, with a few bytes more behind them. No NamedTuple, which takes three times as
long to make, for every lone packet."""


class RetransmissionBuffer:
    """The runs of a track's last HISTORY_S. What came late is a run of its own."""

    __slots__ = ("_bytes", "_runs")

    def __init__(self) -> None:
        self._runs: deque[Run] = deque()
        self._bytes = 0

    def store(self, first: int, span: int, rows: memoryview, lengths: Sequence[int], now_s: float) -> None:
        """A packet a row, all of one length, only the last may be shorter; numbers in order, from `first` on, the last
        of them `span` - 1 later."""
        runs, size, n = self._runs, lengths[0], len(lengths)
        if n == 1:
            packets = [bytes(rows[:size])]
        else:
            packets = list(map(_first, _cutters[(size + _STEP - 1) // _STEP](rows)))
            if lengths[-1] < size:
                packets[-1] = packets[-1][: lengths[-1]]
        each = size + PACKET_BYTES
        runs.append((now_s, first, span, each, packets))
        self._bytes += each * n + RUN_BYTES
        while self._bytes > HISTORY_BYTES or now_s - runs[0][0] > HISTORY_S or len(runs) > HISTORY_RUNS:
            _, _, _, each, packets = runs.popleft()
            self._bytes -= each * len(packets) + RUN_BYTES

    def find(self, number: int) -> bytes | None:
        for _, first, span, each, packets in reversed(self._runs):
            ahead = number - first
            if 0 <= ahead < span:
                at = min(ahead, len(packets) - 1)
                while (ahead_at := (_seq_of(packets[at], 2)[0] - first) & 0xFFFF) > ahead:
                    at -= 1
                if ahead_at == ahead:
                    return packets[at][: each - PACKET_BYTES]
        return None


class RetransmissionLimiter:
    """When a subscriber was sent something again: asked twice within a round trip, it has the first answer still to
    come."""

    __slots__ = ("_at_s",)

    def __init__(self) -> None:
        self._at_s: dict[int, float] = {}  # the oldest first

    def due(self, number: int, round_trip_s: float, now_s: float) -> bool:
        """Whether to answer now, which then counts as done."""
        if now_s - self._at_s.get(number, float("-inf")) < round_trip_s:
            return False
        self._at_s.pop(number, None)
        self._at_s[number] = now_s
        if len(self._at_s) > HISTORY:
            del self._at_s[next(iter(self._at_s))]
        return True
