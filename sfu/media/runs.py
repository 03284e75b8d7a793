"""Packets become runs, as fanout.py sends them: neighbours, of one size but for a shorter last one. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from sfu.media.fanout import BURST
from sfu.media.srtp import ROW_BYTES, Rows

PAD_BYTES = 24
"""The most that a packet is padded to make a run whole: browsers split a frame into packets that differ by a byte."""


def make_run(rows: Rows, at: int, lengths: list[int], start: int, stop: int) -> int:
    """The end of the run that begins with packet `start` of those from row `at` on, at most `stop`: all of one size,
    only the last may be shorter.

    Those a few bytes shorter than others are padded in place (RFC 3550 section 5.1), in `lengths`, too.
    """
    end = min(stop, start + BURST)
    run = lengths[start:end]
    high, last = max(run), len(run) - 1
    if run.count(high) == (last if run[last] < high else last + 1):
        return end
    low = run[0]
    shorter = run.count(low)
    if run.index(high) == shorter == len(run) - run.count(high) and _pad_all(rows, at + start, low, high, shorter):
        lengths[start : start + shorter] = [high] * shorter
        return end
    return _make_run_one_by_one(rows, at, lengths, start, end)


def _make_run_one_by_one(rows: Rows, at: int, lengths: list[int], start: int, most: int) -> int:
    low = high = lengths[start]
    end = start + 1
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


def _pad_all(rows: Rows, at: int, low: int, high: int, n: int) -> bool:
    """What libwebrtc makes of a frame, packets of one size and then larger ones, by columns: it costs as much as one
    packet does. False if there is more to it."""
    first = rows.firsts[at]
    if high - low > PAD_BYTES or first & 0x20 or rows.firsts[at : at + n].tolist().count(first) < n:
        return False
    rows.firsts[at : at + n] = bytes([first | 0x20]) * n
    start, stop = at * ROW_BYTES, (at + n) * ROW_BYTES
    for byte in range(low, high - 1):
        rows.view[start + byte : stop : ROW_BYTES] = bytes(n)
    rows.view[start + high - 1 : stop : ROW_BYTES] = bytes([high - low]) * n
    return True


def _pad(view: memoryview, at: int, length: int, more: int) -> bool:
    padded = view[at + length - 1] if view[at] & 0x20 else 0
    if padded + more > 0xFF:
        return False
    view[at] |= 0x20
    view[at + length : at + length + more] = bytes(more - 1) + bytes([padded + more])
    return True


def gather(rows: Rows, spare: Rows, ids: Sequence[int]) -> None:
    """Copies rows that are no neighbours to where they are, the first ones of `spare`."""
    for j, i in enumerate(ids):
        packet = rows.row(i)
        spare.view[j * ROW_BYTES : j * ROW_BYTES + len(packet)] = packet
        spare.lengths[j] = len(packet)
