from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.media.rtp import headers, vp9

PACKETS: dict[str, list[str]] = json.loads((Path(__file__).parents[2] / "data" / "svc_packets.json").read_text())
"""Beginnings of packets that Chromium sent to a server, by its `scalabilityMode`; all of each picture but the last."""


class Seen(NamedTuple):
    seq: int
    ts: int
    marker: bool
    found: vp9.Descriptor
    heights: tuple[int, ...]


def seen(mode: str) -> list[Seen]:
    rows = []
    for text in PACKETS[mode]:
        packet = bytes.fromhex(text)
        at = headers.payload_offset(packet, len(packet))
        found = vp9.read(packet, at)
        heights = vp9.heights(packet, at, found) if found.structured else ()
        _, second, seq, ts = struct.unpack_from("!BBHI", packet)
        rows.append(Seen(seq, ts, bool(second & 0x80), found, heights))
    return rows


@pytest.mark.parametrize("mode", PACKETS)
def test_captured_pictures_go_from_layer_to_layer_and_end_with_the_marker(mode: str) -> None:
    rows = seen(mode)
    assert {one.found.spatial for one in rows} == ({0, 1, 2} if mode == "L3T3_KEY" else {0, 1})
    for one, after in pairwise(rows):
        if (after.seq - one.seq) & 0xFFFF != 1:
            continue  # where two captures meet
        assert one.found.ends == after.found.begins
        if one.found.ends:
            assert one.marker == (one.ts != after.ts)
            assert after.found.spatial == (0 if one.marker else one.found.spatial + 1)
        else:
            assert not one.marker
            assert (one.ts, one.found.spatial) == (after.ts, after.found.spatial)


def test_captured_structures() -> None:
    told = [(one.heights, one.found.starts_keyframe) for mode in PACKETS for one in seen(mode) if one.found.structured]
    assert told == [((180, 360, 720), True), ((135, 270), True), ((135, 270), False)]
    keyframes = [one.seq for one in seen("L3T3_KEY") if one.found.starts_keyframe]
    assert keyframes == [seen("L3T3_KEY")[0].seq]


@pytest.mark.parametrize(
    ("text", "bits", "spatial", "following"),
    [
        ("08", "B", 0, 1),
        ("44", "PE", 0, 1),
        ("8c05", "BE", 0, 2),  # 7 bits of picture id
        ("8e8515", "BEV", 0, 3),  # 15 bits
        ("28e300", "B", 1, 3),  # a temporal layer, and an index of its lowest
        ("3ce5", "BE", 2, 2),  # F: no such index
        ("b88515ff", "B", 7, 4),
    ],
)
def test_descriptors(text: str, bits: str, spatial: int, following: int) -> None:
    found = vp9.read(bytes.fromhex("ffff" + text), 2)
    said = "".join(bit for bit, on in zip("PBEV", found, strict=False) if on)
    assert (said, found.spatial, found.following - 2) == (bits, spatial, following)


@pytest.mark.parametrize(
    ("text", "heights"),
    [
        ("0a 50 014000b4 02800168 050002d0", (180, 360, 720)),
        ("0a 10 014000b4", (180,)),
        ("0a 40", (0, 0, 0)),  # no sizes
        ("5a 02 30 014000b4 02800168", (180, 360)),  # behind one reference
        ("5a 03 05 02 10 014000b4", (180,)),  # behind three
        ("4a 10 014000b4", (180,)),  # without F there are none
    ],
)
def test_structures(text: str, heights: tuple[int, ...]) -> None:
    packet = bytes.fromhex(text)
    found = vp9.read(packet, 0)
    assert found.structured
    assert vp9.heights(packet, 0, found) == heights
    for end in range(len(packet)):
        with pytest.raises(IndexError):
            vp9.heights(packet[:end], 0, vp9.read(packet[:end], 0))


@given(st.binary(max_size=40))
def test_whatever_comes_is_read_or_is_cut_short(payload: bytes) -> None:
    try:
        found = vp9.read(payload, 0)
        assert 0 <= found.spatial < 8
        assert 1 <= len(vp9.heights(payload, 0, found)) <= 8
    except IndexError:
        pass
