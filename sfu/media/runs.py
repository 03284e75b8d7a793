"""Packets become runs, as fanout.py sends them: neighbours, of one size but for a shorter last one. Pure."""

from __future__ import annotations

from sfu.media.fanout import BURST
from sfu.media.srtp import ROW_BYTES, Rows

PAD_BYTES = 24
"""The most that a packet is padded to make a run whole: browsers split a frame into packets that differ by a byte."""


def make_run(rows: Rows, at: int, lengths: list[int], start: int, stop: int) -> int:
    """The end of the run that begins with packet `start` of those from row `at` on, at most `stop`: all of one size,
    only the last may be shorter.

    Those a few bytes shorter than others are padded in place (RFC 3550 section 5.1), in `lengths`, too.
    """
    low = high = lengths[start]
    end, most = start + 1, min(stop, start + BURST)
    while end < most:
        length = lengths[end]
        if length > high:
            if length - low > PAD_BYTES:
                break
            high = length
        elif length < low:
            if high - length > PAD_BYTES:
                end += 1
                break
            low = length
        end += 1
    if low != high:
        for i in range(start, end - 1):
            if lengths[i] < high:
                if not _pad(rows.view, (at + i) * ROW_BYTES, lengths[i], high - lengths[i]):
                    return i + 1
                lengths[i] = high
    return end


def _pad(view: memoryview, at: int, length: int, more: int) -> bool:
    padded = view[at + length - 1] if view[at] & 0x20 else 0
    if padded + more > 0xFF:
        return False
    view[at] |= 0x20
    view[at + length : at + length + more] = bytes(more - 1) + bytes([padded + more])
    return True


def gather(rows: Rows, spare: Rows, ids: list[int]) -> list[int]:
    """Makes rows that are no neighbours such, in `spare`; returns their places there."""
    for j, i in enumerate(ids):
        packet = rows.row(i)
        spare.view[j * ROW_BYTES : j * ROW_BYTES + len(packet)] = packet
        spare.lengths[j] = len(packet)
    return list(range(len(ids)))
