"""Groups packets into batches for UDP segmentation offload: consecutive, of equal size except for a shorter last one.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfu.media.transport.rows import GSO_PACKETS, ROW_BYTES, Rows

PAD_BYTES = 24
"""Padding per packet at most, to make a run uniform: browsers split a frame into packets that differ by a byte."""
_SAME = [memoryview(bytes([byte]) * GSO_PACKETS) for byte in range(256)]
"""Columns with the same byte in every packet."""


def take_batch(rows: Rows, at: int, lengths: list[int]) -> list[int]:
    """Lengths of the run that begins at row `at`: packets of one size, of which only the last may be shorter.

    Packets that are a few bytes shorter than others are padded in place (RFC 3550 section 5.1).
    """
    run = lengths[:GSO_PACKETS]
    first, last, n = run[0], run[-1], len(run)
    alike = run.count(first)
    if alike == n or (alike == n - 1 and last < first):
        return run
    if run.index(last) == alike == n - run.count(last) and first < last and _pad_all(rows, at, first, last, alike):
        return [last] * n
    return _take_batch_one_by_one(rows, at, run)


def _take_batch_one_by_one(rows: Rows, at: int, lengths: list[int]) -> list[int]:
    low = high = lengths[0]
    end, most = 1, len(lengths)
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
        for i in range(end - 1):
            if lengths[i] < high:
                if not _pad(rows.view, (at + i) * ROW_BYTES, lengths[i], high - lengths[i]):
                    return lengths[: i + 1]
                lengths[i] = high
    return lengths[:end]


def _pad_all(rows: Rows, at: int, low: int, high: int, n: int) -> bool:
    """Pads what libwebrtc makes of a frame, packets of one size and then larger ones, column by column: that costs as
    much as padding one packet. False if the packets are not like that."""
    first = rows.firsts[at]
    if high - low > PAD_BYTES or first & 0x20 or rows.firsts[at : at + n] != _SAME[first][:n]:
        return False
    rows.firsts[at : at + n] = _SAME[first | 0x20][:n]
    start, stop = at * ROW_BYTES, (at + n) * ROW_BYTES
    if high - low > 1:
        for byte in range(low, high - 1):
            rows.view[start + byte : stop : ROW_BYTES] = _SAME[0][:n]
    rows.view[start + high - 1 : stop : ROW_BYTES] = _SAME[high - low][:n]
    return True


def _pad(view: memoryview, at: int, length: int, more: int) -> bool:
    padded = view[at + length - 1] if view[at] & 0x20 else 0
    if padded + more > 0xFF:
        return False
    view[at] |= 0x20
    view[at + length : at + length + more] = bytes(more - 1) + bytes([padded + more])
    return True


def gather(rows: Rows, spare: Rows, ids: Sequence[int]) -> None:
    """Copies scattered rows into the first rows of `spare`."""
    for j, i in enumerate(ids):
        packet = rows.row(i)
        spare.view[j * ROW_BYTES : j * ROW_BYTES + len(packet)] = packet
        spare.lengths[j] = len(packet)
