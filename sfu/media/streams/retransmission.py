"""Retransmission: a buffer of recent packets, and how much of it one subscriber may request. Pure: the clock is an
argument; numbers are extended and do not wrap.

Packets are kept in the runs in which they were sent (fanout.py): storing costs little per packet, and finding costs
only when one is requested.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from operator import itemgetter
from struct import Struct

from sfu.media.rtp.numbering import HISTORY
from sfu.media.transport.rows import ROW_BYTES

HISTORY_S = 2.0
HISTORY_BYTES = 1_000_000
HISTORY_RUNS = 512
"""The most that a stream remembers: two seconds of 3 Mbps, since a packet may get lost three times where a round trip
takes 0.3 s; and no more runs than a search should visit."""
PACKET_BYTES, RUN_BYTES = 60, 250
"""Memory that a packet takes beside its own bytes, and a run beside its packets."""
ROUND_TRIP_S = 0.05
"""Assumed round trip to a subscriber until it has been measured."""
ANSWERED_ROUND_TRIPS = 0.85
"""A request that comes this much of a round trip after the last answer was sent without knowing of it, or because that
is lost: Chromium asks every 0.1 s while it does not know the round trip."""
SHARE, SHARE_S, SHARE_BYTES = 0.25, 0.5, 4_000
"""Retransmissions may take a quarter of what a limited downlink carries; at once what that is in half a second, or a
few packets."""
FREE_SHARE, FREE_BYTES = 0.3, 50_000
"""Likewise of what a downlink is sent that is not limited: enough for a loss of a fifth, of the retransmissions, too.
When a downlink becomes narrow all at once, most of it gets lost, and it is some time before that is known."""

_first = itemgetter(0)
_seq_of = Struct("!H").unpack_from

_STEP = 16  # bytes; the next multiple is copied, so that few cutters serve all lengths
_cutters = [Struct(f"{n}s{ROW_BYTES - n}x").iter_unpack for n in range(0, ROW_BYTES + 1, _STEP)]
"""Each takes the first n bytes of every row, in C."""

Run = tuple[float, int, int, int, list[bytes]]
"""Time, number of the first packet, how many numbers from there to the last, bytes counted per packet, and the packets.
Some packets may be missing, and a few more bytes may follow each. Not a NamedTuple, which takes three times as long to
make for every lone packet."""


class RetransmissionBuffer:
    """The runs of a stream's last HISTORY_S. A late packet is a run of its own."""

    __slots__ = ("_bytes", "runs")

    def __init__(self) -> None:
        self.runs: deque[Run] = deque()
        self._bytes = 0

    def store(self, first: int, span: int, rows: memoryview, lengths: Sequence[int], now_s: float) -> None:
        """Takes one packet per row, all of one length except a shorter last one. Their numbers ascend from `first`; the
        last one's is `first + span - 1`."""
        runs, size, n = self.runs, lengths[0], len(lengths)
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
        for _, first, span, each, packets in reversed(self.runs):
            ahead = number - first
            if 0 <= ahead < span:
                at = min(ahead, len(packets) - 1)
                while (ahead_at := (_seq_of(packets[at], 2)[0] - first) & 0xFFFF) > ahead:
                    at -= 1
                if ahead_at == ahead:
                    return packets[at][: each - PACKET_BYTES]
        return None

    def forgot(self, number: int) -> bool:
        """Whether this number precedes all that is remembered."""
        return bool(self.runs) and number < self.runs[0][1]

    def since(self, at_s: float) -> list[list[bytes]]:
        """The runs of packets from this time on, the oldest first; late packets are runs of their own."""
        return [packets for run_s, _, _, _, packets in self.runs if run_s >= at_s]


class RetransmissionBudget:
    """How many bytes may be sent again to a peer. It starts full."""

    __slots__ = ("_at_s", "_left", "_sent_bytes")

    def __init__(self) -> None:
        self._left, self._at_s, self._sent_bytes = float("inf"), 0.0, 0

    def take(self, n_bytes: int, rate_bps: float, sent_bytes: int, now_s: float) -> bool:
        """Takes `n_bytes` of its share; False if less is left. `rate_bps` is what its downlink carries, 0 if that is
        not limited; `sent_bytes` is what it was sent so far."""
        per_s = SHARE * rate_bps / 8
        if rate_bps:
            earned, most = (now_s - self._at_s) * per_s, max(per_s * SHARE_S, SHARE_BYTES)
        else:
            earned, most = FREE_SHARE * max(0, sent_bytes - self._sent_bytes), FREE_BYTES
        self._left = min(most, self._left + earned)
        self._at_s, self._sent_bytes = now_s, sent_bytes
        if self._left < n_bytes:
            return False
        self._left -= n_bytes
        return True


class RetransmissionLimiter:
    """When packets were last resent to a subscriber. If it requests one twice within a round trip, the first answer is
    still on its way."""

    __slots__ = ("_at_s",)

    def __init__(self) -> None:
        self._at_s: dict[int, float] = {}  # the oldest first

    def due(self, number: int, round_trip_s: float, now_s: float) -> bool:
        """Whether to resend now."""
        return now_s - self._at_s.get(number, float("-inf")) >= round_trip_s * ANSWERED_ROUND_TRIPS

    def answered(self, number: int, now_s: float) -> None:
        """A packet is sent again now."""
        self._at_s.pop(number, None)
        self._at_s[number] = now_s
        if len(self._at_s) > HISTORY:
            del self._at_s[next(iter(self._at_s))]
