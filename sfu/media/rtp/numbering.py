"""Outgoing sequence numbers of an RTP stream. Pure."""

from __future__ import annotations

from struct import Struct

_seq_of = Struct("!H").unpack_from


class SequenceNumbers:
    """A stream's outgoing sequence numbers: the publisher's, without those that it used while muted. They are extended
    and do not wrap.

    A gap of 32,768 numbers looks to SRTP like a step back (RFC 3711 section 3.3.1) and stops the stream. After 65,536
    packets numbers repeat, and two packets encrypted under one number give both away.
    """

    __slots__ = ("_floor", "_started", "expected", "head", "shift")

    def __init__(self) -> None:
        self.head = 0  # the next packet's number, if none is lost
        self.shift = 0  # outgoing number minus the publisher's, modulo 65,536
        self.expected = -1  # the publisher's next sequence number; -1 if unknown, see `place`
        self._started = False
        self._floor = 0  # lower numbers are already used

    def leave_gap(self) -> None:
        """Gives the next packet the last one's number plus 2, whatever its own: the number left out tells decoders that
        something is missing."""
        self.expected = -1

    def place(self, seq16: int) -> int:
        """The outgoing number of a packet; -1 if it precedes a gap, or is so late that nobody waits for it."""
        if self.expected < 0:
            # starts in the second lap: `_floor` then refuses packets from before a wrap, which no subscriber has seen
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
        """The outgoing number of an earlier packet, whether or not `place` would accept it."""
        return self.head + ((seq16 + self.shift - self.head) & 0xFFFF) - 0x10000

    def _extended(self, packet: memoryview) -> int:
        """The extended number of a packet that already carries its outgoing number."""
        return self.head - ((self.head - int(_seq_of(packet, 2)[0])) & 0xFFFF)


HISTORY = 256
"""How far behind the newest packet a late one may be, or one that a new subscriber requests."""
