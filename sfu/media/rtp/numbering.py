"""Outgoing sequence numbers of an RTP stream. Pure."""

from __future__ import annotations

from struct import Struct

_seq_of = Struct("!H").unpack_from


class SequenceNumbers:
    """A track's outgoing numbers: the publisher's, without what it sent while muted. Extended ones: they do not wrap.

    A gap of 32,768 numbers looks to SRTP like a step back (RFC 3711 section 3.3.1) and stops the stream, and 65,536
    packets on, numbers come again: two packets encrypted under one number give both away.
    """

    __slots__ = ("_floor", "_started", "expected", "head", "shift")

    def __init__(self) -> None:
        self.head = 0  # the next packet's, if none is lost
        self.shift = 0  # outgoing number minus the publisher's, modulo 65,536
        self.expected = -1  # the publisher's own next number; -1 where it is not to be counted on: see `place`
        self._started = False
        self._floor = 0  # numbers before it are taken

    def leave_gap(self) -> None:
        """The next packet gets the last one's number plus 2, whatever its own: the one left out tells decoders that
        something is missing."""
        self.expected = -1

    def place(self, seq16: int) -> int:
        """The number of any packet; -1 if it is from before a gap, or so late that nobody waits for it."""
        if self.expected < 0:
            # a wrap before the first packet is one that no subscriber knows of: the first lap is empty
            self.head = self.head + 1 if self._started else seq16 + 0x10000
            self.shift = self.head - seq16
            self._floor = self.head if self._started else 0x10000
            self._started = True
        ahead = (seq16 + self.shift - self.head) & 0xFFFF
        if ahead < 0x8000:
            self.head += ahead + 1
            self.expected = (seq16 + 1) & 0xFFFF
            return self.head - 1
        number = self.head + ahead - 0x10000
        return number if number >= max(self._floor, self.head - HISTORY) else -1

    def number_of(self, seq16: int) -> int:
        """The number of a packet from the past, whether or not `place` would take it."""
        return self.head + ((seq16 + self.shift - self.head) & 0xFFFF) - 0x10000

    def _extended(self, packet: memoryview) -> int:
        """The number of a packet that carries its number already."""
        return self.head - ((self.head - int(_seq_of(packet, 2)[0])) & 0xFFFF)


HISTORY = 256
"""How far behind the newest packet one may be that comes late, or that somebody misses who has just come."""
