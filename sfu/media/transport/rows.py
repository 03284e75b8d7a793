"""Packet buffers, one datagram per row: received, decrypted, rewritten, encrypted and sent in place."""

from __future__ import annotations

import sys
from array import array
from typing import NamedTuple

from pylibsrtp._binding import ffi

ROW_BYTES = 1728
"""The same for all rows, with room for padding. Not a power of two: equal header offsets would share a few sets of the
cache."""
READ_BATCH = 64
"""Datagrams read at a time."""
GSO_PACKETS = 32
"""Packets per run at most. 32 of 1,516 bytes are below the 64 KB and 64 segments that a message may have."""


def _sequences() -> memoryview:
    numbers = array("H", [*range(0x10000), *range(READ_BATCH)])
    if sys.byteorder == "little":
        numbers.byteswap()
    return memoryview(numbers)


SEQUENCES = _sequences()
"""All sequence numbers in order, followed by the first READ_BATCH of them again, in network byte order. `Rows.seqs` of
consecutive packets equals a slice of it."""


class Lengths(NamedTuple):
    """32-bit lengths kept in another structure: the address of the first, the bytes from one to the next, and all of
    them as a column."""

    address: int
    step: int
    column: memoryview


class Rows:
    """`count` packets in one piece of memory that libsrtp and the kernel work on.

    Row i begins at `view[i * ROW_BYTES]`; `lengths[i]` bytes of it are in use. `pointers` and `length_pointers` are
    what libsrtp takes; for a libsrtp function f, `any(map(f, handles, pointers, length_pointers))` is one loop in C.
    With `lengths`, libsrtp reads and writes the very structure that the kernel uses, so lengths are never copied.
    Columns: `firsts[i]` and `seconds[i]` are the first two bytes of packet i; `seqs[i]` is its sequence number, read in
    this machine's byte order.
    """

    def __init__(self, count: int, lengths: Lengths | None = None) -> None:
        self.count = count
        self._memory = ffi.new("char[]", count * ROW_BYTES)
        self.address = int(ffi.cast("uintptr_t", self._memory))
        if lengths is None:
            self._lengths = ffi.new("int[]", count)
            column = memoryview(ffi.buffer(self._lengths)).cast("B").cast("i")
            lengths = Lengths(int(ffi.cast("uintptr_t", self._lengths)), 4, column)
        self.lengths = lengths.column
        self.length_pointers = [ffi.cast("int *", lengths.address + i * lengths.step) for i in range(count)]
        self.pointers = [ffi.cast("void *", self.address + i * ROW_BYTES) for i in range(count)]
        self.view = memoryview(ffi.buffer(self._memory)).cast("B")
        self.firsts, self.seconds = self.view[::ROW_BYTES], self.view[1::ROW_BYTES]
        self.seqs = self.view.cast("H")[1 :: ROW_BYTES // 2]

    def row(self, i: int) -> memoryview:
        """The part of row i that is in use."""
        return self.view[i * ROW_BYTES : i * ROW_BYTES + self.lengths[i]]
