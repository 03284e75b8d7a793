from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from sfu.web.frames import FrameCounter


def frame(payload: bytes, *, client: bool) -> bytes:
    return bytes(FrameProtocol(client=client, extensions=[])._serialize_frame(Opcode.BINARY, payload))


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536]), st.booleans()), max_size=5),
    st.lists(st.integers(0, 400_000), max_size=20),
)
def test_frames_are_counted_however_they_are_split(frames: list[tuple[int, bool]], cuts: list[int]) -> None:
    data = b"".join(frame(bytes(size), client=client) for size, client in frames)
    ends = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    counter = FrameCounter()
    counts = [counter.count(data[start:end]) for start, end in pairwise(ends)]
    assert sum(counts) == len(frames)


@given(st.binary(max_size=300))
def test_any_bytes_never_raise(data: bytes) -> None:
    assert 0 <= FrameCounter().count(data) <= len(data)
