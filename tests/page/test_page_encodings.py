"""Which simulcast layers the page sends of a track, and what it tells the server about them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.node import run

from sfu.media.peer.publication import SCREEN
from sfu.protocol.client_messages import Sizes, decode

_LAYERS_JS = """
import { layersOf, sizesOf } from './public/client/encodings.js';
const [width, height, contentHint] = %s;
const layers = layersOf({ contentHint, getSettings: () => ({ width, height }) });
out({ layers, told: sizesOf('camera', layers) });
"""


def layers_of(width: int | None, height: int | None, hint: str = "") -> dict[str, Any]:
    found: dict[str, Any] = run(_LAYERS_JS % json.dumps([width, height, hint]))
    return found


CAMERAS = [
    ((320, 180), ["q 320x180 150"]),
    ((160, 120), ["q 160x120 100"]),
    ((424, 240), ["q 424x240 150"]),
    ((480, 270), ["q 240x135 100", "h 480x270 250"]),
    ((640, 360), ["q 320x180 150", "h 640x360 350"]),
    ((640, 480), ["q 320x240 150", "h 640x480 350"]),
    ((360, 640), ["q 180x320 150", "h 360x640 350"]),
    ((960, 540), ["q 240x135 100", "h 480x270 250", "f 960x540 1000"]),
    ((1280, 720), ["q 320x180 150", "h 640x360 350", "f 1280x720 1700"]),
    ((720, 1280), ["q 180x320 150", "h 360x640 350", "f 720x1280 1700"]),
    ((1920, 1080), ["q 480x270 250", "h 960x540 1000", "f 1920x1080 2500"]),
]


@pytest.mark.parametrize(("size", "expected"), CAMERAS)
def test_the_largest_layer_of_a_camera_is_all_of_it(size: tuple[int, int], expected: list[str]) -> None:
    found = layers_of(*size)
    told = decode(json.dumps({"event": "layers", "data": found["told"]}))
    assert isinstance(told, Sizes)
    assert [f"{one.rid} {one.width}x{one.height} {one.max_bps // 1000}" for one in told.layers] == expected
    scales = [layer["encoding"]["scaleResolutionDownBy"] for layer in found["layers"]]
    assert scales == [4, 2, 1][3 - len(scales) :]


def test_a_camera_of_unknown_size_has_all_layers_and_none_is_told() -> None:
    found = layers_of(None, None)
    assert found["told"] is None
    assert [layer["encoding"]["maxBitrate"] for layer in found["layers"]] == [150_000, 350_000, 1_700_000]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1920, 1080), [(960, 540, 5), (1920, 1080, 5), (1920, 1080, 30)]),
        ((640, 360), [(640, 360, 5), (640, 360, 30)]),
        ((320, 200), [(320, 200, 30)]),
    ],
)
def test_a_screen_has_fewer_pictures_before_fewer_lines(size: tuple[int, int], expected: list[tuple[int, ...]]) -> None:
    layers = layers_of(*size, "detail")["layers"]
    assert [(one["width"], one["height"], one["encoding"]["maxFramerate"]) for one in layers] == expected
    if len(layers) == 3:
        assert [one["encoding"]["maxBitrate"] for one in layers] == [bps for _, bps in SCREEN.values()]
