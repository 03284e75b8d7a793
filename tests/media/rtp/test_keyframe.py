from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.media.rtp import codecs
from sfu.media.rtp.keyframe import HOLD_MS, KeyframeRequests, starts_keyframe

PACKETS = json.loads((Path(__file__).parents[2] / "data" / "video_packets.json").read_text())
"""Beginnings of packets that Chromium sent through a server, by codec; `starts` is true for the first packet of the
first frame and of those that answered a request for a keyframe, which their size shows."""


def test_the_first_goes_out_at_once() -> None:
    requests = KeyframeRequests()
    assert requests.request(0.0) == 0
    assert requests.due(0.0)


def test_nothing_is_due_unasked_or_answered() -> None:
    requests = KeyframeRequests()
    assert not requests.wanted
    assert not requests.due(0.0)
    assert requests.request(1000.0) == 0
    assert requests.due(1000.0)
    assert requests.wanted
    requests.answered()
    assert not requests.wanted
    assert not requests.due(1000.0 + 10 * HOLD_MS)


def test_what_is_asked_in_the_hold_goes_out_once_at_its_end() -> None:
    requests = KeyframeRequests()
    assert requests.request(1000.0) == 0
    assert requests.due(1000.0)
    requests.answered()
    assert requests.request(1100.0) == HOLD_MS - 100
    assert requests.request(1200.0) < 0  # arranged already
    assert not requests.due(1000.0 + HOLD_MS - 1)
    assert requests.request(1000.0 + HOLD_MS - 1) < 0
    assert requests.due(1000.0 + HOLD_MS)
    assert not requests.due(1000.0 + HOLD_MS)
    requests.answered()
    assert requests.request(1000.0 + HOLD_MS) == HOLD_MS


@pytest.mark.parametrize("late_ms", [0.0, 1.0, 10 * HOLD_MS])
def test_after_the_hold_the_next_goes_out_at_once(late_ms: float) -> None:
    requests = KeyframeRequests()
    requests.request(0.0)
    assert requests.due(0.0)
    requests.answered()
    assert requests.request(HOLD_MS + late_ms) == 0
    assert requests.due(HOLD_MS + late_ms)


def test_what_nothing_answers_is_repeated_ever_less_often_and_not_for_ever() -> None:
    requests, now_ms, sent = KeyframeRequests(), 0.0, []
    requests.request(now_ms)
    while requests.wanted:
        now_ms += requests.wait_ms(now_ms)
        if requests.due(now_ms):
            sent.append(now_ms / HOLD_MS)
    assert sent == [0, 1, 3, 7, 15, 31]
    assert requests.request(now_ms) == 0  # who asks again begins again
    assert requests.due(now_ms)
    assert requests.wait_ms(now_ms) == HOLD_MS


@given(st.lists(st.tuples(st.integers(0, 9000), st.booleans()), max_size=60))
def test_every_request_is_served_and_none_too_soon(steps: list[tuple[int, bool]]) -> None:
    """Driven as a track drives it: a timer when there is something to wait for, `due` when it fires. Some are
    answered."""
    requests, now_ms = KeyframeRequests(), 0.0
    asked, sent, answers = list[float](), list[float](), list[float]()

    def until(end_ms: float) -> None:
        nonlocal now_ms
        while requests.wanted and now_ms + requests.wait_ms(now_ms) <= end_ms:
            now_ms += requests.wait_ms(now_ms)
            if requests.due(now_ms):
                sent.append(now_ms)
        now_ms = end_ms

    for gap_ms, answered in steps:
        until(now_ms + gap_ms)
        if answered:
            requests.answered()
            answers.append(now_ms)
        else:
            asked.append(now_ms)
            assert requests.request(now_ms) <= HOLD_MS
            until(now_ms)
    until(now_ms + HOLD_MS)
    assert all(later - sooner >= HOLD_MS for sooner, later in itertools.pairwise(sent))
    for at_ms in asked:
        assert any(at_ms <= served_ms <= at_ms + HOLD_MS for served_ms in sent + answers)


# --- which packet begins a keyframe -----------------------------------------------------------------------------------


def packet(pt: int, payload: str) -> bytes:
    return struct.pack("!BBHII", 0x80, 0x80 | pt, 1, 2, 3) + bytes.fromhex(payload)


@pytest.mark.parametrize("codec", ["vp8", "vp9", "av1", "h264"])
def test_captured_packets(codec: str) -> None:
    found = [starts_keyframe(bytes.fromhex(row["packet"])) for row in PACKETS[codec]]
    assert found == [row["starts"] for row in PACKETS[codec]]
    assert 2 <= sum(found) < len(found) / 2


VP8, VP9, AV1, H264 = (codec.payload_type for codec in (codecs.VP8, codecs.VP9, codecs.AV1, codecs.H264))


@pytest.mark.parametrize(
    ("pt", "payload", "starts"),
    [
        (VP8, "10 00 0000000000009d012a", True),
        (VP8, "10 01 0000000000009d012a", False),
        (VP9, "08 82", True),  # B
        (VP9, "48 82", False),  # P and B
        (VP9, "00 82", False),  # the rest of a frame
        (VP9, "88 05 82", True),  # 7 bits of picture id
        (VP9, "88 8515 82", True),  # 15 bits
        (VP9, "a8 8515 00 01 82", True),  # the lowest spatial layer
        (VP9, "a8 8515 10 01 82", True),  # its U bit
        (VP9, "a8 8515 03 01 82", False),  # the next one, which needs it
        (VP9, "28 02 01 82", False),
        (VP9, "28 e0 01 82", True),  # a high temporal layer
        (VP9, "88 8515", False),  # nothing behind the descriptor
        (VP9, "88 85", False),
        (VP9, "a8 85", False),
        (VP9, "", False),
        (AV1, "18 0a0b", True),  # N and W=1
        (AV1, "68 0b08", True),
        (AV1, "10 32ff", False),
        (AV1, "98 32ff", False),  # Z: the rest of a fragment
        (AV1, "18", False),
        (AV1, "", False),
        (H264, "67 42c0", True),  # a parameter set alone
        (H264, "65 b800", False),  # an IDR picture: useless without one
        (H264, "61 e000", False),
        (H264, "78 0002 67ff 0002 68ff", True),  # STAP-A
        (H264, "78 0002 09f0 0002 67ff", True),  # an access unit delimiter first
        (H264, "78 0002 68ff 0002 65ff", False),
        (H264, "78 ffff 68ff", False),
        (H264, "78 0000 0000 0000", False),
        (H264, "78 00", False),
        (H264, "7c 87 42", True),  # FU-A: begins
        (H264, "7c 07 42", False),  # goes on
        (H264, "7c 47 42", False),  # ends
        (H264, "7c 85 b8", False),  # an IDR picture's
        (H264, "7c", False),
        (H264, "67", False),
        (H264, "", False),
        (111, "10 00 0000000000009d012a", False),
        (97, "67 42c0 0000000000000000", False),
    ],
)
def test_descriptors(pt: int, payload: str, starts: bool) -> None:
    assert starts_keyframe(packet(pt, payload)) == starts


@given(st.sampled_from([VP8, VP9, AV1, H264, 0, 127]), st.binary(max_size=40))
def test_whatever_comes_is_a_beginning_or_not(pt: int, payload: bytes) -> None:
    whole = packet(pt, payload.hex())
    starts_keyframe(whole)
    for end in range(len(whole)):
        starts_keyframe(memoryview(whole)[:end])
    starts_keyframe(bytes([0x9F]) + whole[1:])
