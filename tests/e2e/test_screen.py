"""A shared screen in real browsers: layers of its own, and a hint of what is on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from people import Person
from process import Server, eventually

pytestmark = pytest.mark.xdist_group("browser")

People = Callable[..., Person]

_SCREEN_JS = """() => {
    const found = window.room.pc.getSenders().filter(({ track }) => track?.kind === 'video' && track.contentHint);
    const of = ({ rid, scaleResolutionDownBy, maxFramerate }) => [rid, scaleResolutionDownBy, maxFramerate ?? 0];
    return found.map((one) => [one.track.contentHint, one.getParameters().encodings.map(of)]);
}"""


_CAPTURE_JS = """
const canvas = Object.assign(document.createElement('canvas'), { width: 1280, height: 720 });
const paint = canvas.getContext('2d');
setInterval(() => {
    paint.fillStyle = '#fff';
    paint.fillRect(0, 0, 1280, 720);
    paint.fillStyle = '#000';
    paint.fillText(`${performance.now()}`, 60, 90);
}, 200);
navigator.mediaDevices.getDisplayMedia = async () => canvas.captureStream(5);
"""
"""Without a display there is no screen to capture: what is drawn stands for one."""


def sent(one: Person) -> Any:
    """Of every shared screen: its hint, and of each layer rid, scale and pictures a second."""
    return one.page.evaluate(_SCREEN_JS)


@pytest.mark.parametrize(
    ("motion", "hint", "layers"),
    [
        (False, "detail", [["q", 2, 5], ["h", 1, 5], ["f", 1, 30]]),
        (True, "motion", [["q", 4, 0], ["h", 2, 0], ["f", 1, 0]]),
    ],
)
def test_a_screen_is_sent_so_that_it_can_be_read(
    server: Server, person: People, motion: bool, hint: str, layers: list[Any]
) -> None:
    alice, bob = person(server, "alice"), person(server, "bob")
    alice.page.add_init_script(f"localStorage.setItem('sfu.choices', '{json.dumps({'motion': motion})}')")
    alice.page.add_init_script(_CAPTURE_JS)
    for one in (alice, bob):
        one.join(hint)
    alice.page.click("#screen-button")
    eventually(lambda: sent(alice), "a screen is sent")
    eventually(lambda: sent(alice) == [[hint, layers]], "in its layers")
    frames = f'document.querySelector(\'.tile[data-peer="{alice.peer}"][data-source="screen"] video\')?.videoWidth'
    eventually(lambda: bob.page.evaluate(frames), "bob sees it")
