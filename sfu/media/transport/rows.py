"""Packet buffers, one datagram a row: received, decrypted, rewritten, encrypted and sent in place."""

from __future__ import annotations

import sys
from array import array
from typing import NamedTuple

from pylibsrtp._binding import ffi

ROW_BYTES = 1728
"""The same in a batch, with room to pad. Not a power of two: equal header offsets would share a few sets of the
cache."""
READ_BATCH = 64
"""Datagrams read at a time."""
GSO_PACKETS = 32
"""Packets of a run. 32 of 1,516 bytes are under the 64 KB and 64 segments that a message may have."""


def _sequences() -> memoryview:
    numbers = array("H", [*range(0x10000), *range(READ_BATCH)])
    if sys.byteorder == "little":
        numbers.byteswap()
    return memoryview(numbers)


SEQUENCES = _sequences()
"""All sequence numbers one after the other, and once more as many as a batch has, in the order that their bytes have in
a packet: what `Rows.seqs` shows of packets that follow each other is a slice of it."""


class Lengths(NamedTuple):
    """Where something else keeps 32-bit lengths: the address of the first, the bytes from one to the next, and all of
    them as a column."""

    address: int
    step: int
    column: memoryview


class Rows:
    """`count` packets in one piece of memory that libsrtp and the kernel work on.

    Row i begins at `view[i * ROW_BYTES]`; `lengths[i]` bytes of it are in use. `pointers` and `length_pointers` are
    what libsrtp takes; for a libsrtp function f, `any(map(f, handles, pointers, length_pointers))` is one loop in C.
    With `lengths` it reads and writes them in the very structure that the kernel does, and nobody copies them.
    Columns: `firsts[i]` and `seconds[i]` are the first bytes of packet i, `seqs[i]` its sequence number in this
    machine's order of bytes.
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
        """What is in use of row i."""
        return self.view[i * ROW_BYTES : i * ROW_BYTES + self.lengths[i]]
