"""Transport-wide numbers towards subscribers: one counter for all video packets of a worker, and what was sent under
each number.

A number is written once, where a packet arrives (ingress.py), and is the same for all subscribers, since numbers of
their own would cost every copy. So a subscriber sees gaps where packets were not for it. Its browser only reports which
numbers came, and when (draft-holmer-rmcat-transport-wide-cc-extensions-01); a gap is never taken for a loss. A packet
that is sent alone, such as a retransmission, takes a number of its own.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from struct import Struct

from sfu.media.bandwidth.delays import Group
from sfu.media.rtp import codecs, headers
from sfu.media.rtp.twcc import TICK_S
from sfu.media.transport.rows import READ_BATCH

NUMBERS = 0x10000
"""Numbers wrap at 16 bits. A worker that receives 30,000 packets a second needs two seconds for a round; feedback about
a packet comes within one."""
ELEMENT = codecs.TRANSPORT_CC_ID << 4 | 1
"""First byte of the header-extension element: two bytes follow (RFC 8285 section 4.2)."""
NO_NUMBER = NUMBERS + READ_BATCH
WORDS = memoryview(array("I", [*(ELEMENT << 24 | (n & 0xFFFF) << 8 for n in range(NO_NUMBER)), *[0] * READ_BATCH]))
"""The element with each number, in order, as the first word of an extension block; READ_BATCH more of them, so that
those of a burst are a slice. From NO_NUMBER on there are READ_BATCH words of padding, for sound."""
_two_words, _write_word = Struct("!II").unpack_from, Struct("!I").pack_into
_EXTENDED = 0x10  # of the first byte: an extension, no CSRCs
_END = headers.RTP_HEADER + 8  # of the first word of an extension block

TOGETHER_TICKS = 20
"""Packets that arrive within 5 ms belong together (draft-ietf-rmcat-gcc-02 section 5.2). On a narrow downlink, each one
takes longer, and is a group."""

Burst = tuple[int, float, list[int]]
"""The extended number of its first packet, when it was sent, in seconds, and the length of each of its packets in
bytes. The numbers ascend."""
_NEVER: Burst = (-NUMBERS, 0.0, [])


class SendHistory:
    """One per worker. `next` is the next extended number. `bursts[number]` is the burst that began with this 16-bit
    number most recently. Whoever numbers packets moves `next` on and enters their burst: `write` does for one packet,
    the fast path of ingress.py for many."""

    __slots__ = ("bursts", "next")

    def __init__(self) -> None:
        self.next = 0
        self.bursts: list[Burst] = [_NEVER] * NUMBERS

    def write(self, packet: bytearray | memoryview, now_s: float) -> None:
        """Gives a packet that is sent alone, now, a number of its own. Its extension block must begin with an element
        for it, or with a word of padding; any other packet stays as it is."""
        if packet[0] & 0x1F != _EXTENDED or len(packet) < _END:
            return
        block, word = _two_words(packet, headers.RTP_HEADER)
        if block >> 16 != headers.ONE_BYTE_PROFILE or not block & 0xFFFF or (word and word >> 24 != ELEMENT):
            return
        number = self.next & 0xFFFF
        self.bursts[number] = self.next, now_s, [len(packet)]
        self.next += 1
        _write_word(packet, _END - 4, WORDS[number] | word & 0xFF)

    def match(self, numbers: Sequence[int], ticks: Sequence[int]) -> list[Group]:
        """What arrived, of packets with these numbers, at these times (see twcc.arrivals). Those that were never sent,
        or too long ago, are left out.

        Packets of a burst that arrive together are one group, for this is called for each feedback of each subscriber.
        """
        groups: list[Group] = []
        at, count, newest = 0, len(numbers), self.next - 1
        if not count:
            return groups
        shift = newest - ((newest - numbers[0]) & 0xFFFF) - numbers[0]
        while at < count and (number := numbers[at] + shift) <= newest:
            burst = self.bursts[number & 0xFFFF]  # mostly its first packet arrived
            first, sent_s, lengths = burst if burst[0] == number else self._burst(number)
            start, at = at, bisect_left(numbers, first + len(lengths) - shift, at + 1)
            if not lengths:
                continue
            n, tick = at - start, ticks[start]
            if not 0 <= ticks[at - 1] - tick <= TOGETHER_TICKS:
                for number, tick in zip(numbers[start:at], ticks[start:at], strict=True):
                    groups.append((sent_s, lengths[number + shift - first], 1, tick * TICK_S))
            elif n == len(lengths):
                groups.append((sent_s, sum(lengths), n, tick * TICK_S))
            else:
                n_bytes = sum([lengths[number + shift - first] for number in numbers[start:at]])
                groups.append((sent_s, n_bytes, n, tick * TICK_S))
        return groups

    def _burst(self, number: int) -> Burst:
        """The burst that has this extended number; one without packets if there is none."""
        for first in range(number, number - READ_BATCH, -1):
            burst = self.bursts[first & 0xFFFF]
            if burst[0] == first and number - first < len(burst[2]):
                return burst
        return _NEVER
