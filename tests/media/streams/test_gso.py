from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sfu.media.streams.fanout import GSO_PACKETS
from sfu.media.streams.gso import PAD_BYTES, take_batch
from sfu.media.transport.rows import ROW_BYTES, Rows


@given(st.lists(st.integers(20, 60), min_size=1, max_size=80))
def test_runs_are_whole(sizes: list[int]) -> None:
    """All of one size, but for a shorter last one; padding is what a receiver takes off again."""
    rows = Rows(len(sizes))
    for i, size in enumerate(sizes):
        rows.view[i * ROW_BYTES : i * ROW_BYTES + size] = b"\x80" + bytes([i]) * (size - 1)
    start = 0
    while start < len(sizes):
        run = take_batch(rows, start, sizes[start:])
        end = start + len(run)
        assert 1 <= len(run) <= GSO_PACKETS
        assert set(run[:-1]) <= {run[0]}
        assert run[-1] <= run[0]
        for i, length in zip(range(start, end), run, strict=True):
            packet = rows.view[i * ROW_BYTES : i * ROW_BYTES + length]
            padding = packet[-1] if packet[0] & 0x20 else 0
            assert padding <= PAD_BYTES
            assert bytes(packet[1 : length - padding]) == bytes([i]) * (sizes[i] - 1)
        start = end
