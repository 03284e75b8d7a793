from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sfu.media.rtp.numbering import SequenceNumbers


@given(
    st.integers(0, 0xFFFF),
    st.lists(st.tuples(st.integers(-30, 60), st.booleans()), min_size=1, max_size=80),
)
def test_no_number_stands_for_two_packets(start: int, steps: list[tuple[int, bool]]) -> None:
    """Whatever order packets come in and wherever the mutes are; and each mute leaves at least one number out."""
    numbering, ext, sent = SequenceNumbers(), start + 0x10000, dict[int, int]()
    last: int | None = None
    for step, mute in steps:
        if mute:
            numbering.leave_gap()
        ext += step
        number = numbering.place(ext & 0xFFFF)
        if number < 0:
            continue
        seq16 = number & 0xFFFF
        assert sent.setdefault(seq16, ext) == ext
        if mute and last is not None:
            assert (seq16 - last - 2) & 0xFFFF == 0
        if last is None or 0 < (seq16 - last) & 0xFFFF < 0x8000:
            last = seq16
