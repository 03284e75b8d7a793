"""A shared screen in real browsers: layers of its own, and a hint of what is on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from people import Person
from support.process import Server
from support.waiting import eventually

pytestmark = pytest.mark.soak

People = Callable[..., Person]

_SCREEN_JS = """() => {
    const found = window.room.pc.getSenders().filter(({ track }) => track?.kind === 'video' && track.contentHint);
    const of = ({ rid, scaleResolutionDownBy, maxFramerate }) => [rid, scaleResolutionDownBy, maxFramerate ?? 0];
    return found.map((one) => [one.track.contentHint, one.getParameters().encodings.map(of)]);
}"""


CAPTURE_JS = """
const canvas = Object.assign(document.createElement('canvas'), { width: 1280, height: 720 });
const paint = canvas.getContext('2d');
setInterval(() => {
    paint.fillStyle = '#fff';
    paint.fillRect(0, 0, 1280, 720);
    paint.fillStyle = '#000';
    paint.fillText(`${performance.now()}`, 60, 90);
}, 200);
navigator.mediaDevices.getDisplayMedia = async () => {
    const stream = canvas.captureStream(5);
    const context = new AudioContext();
    const [tone, out] = [context.createOscillator(), context.createMediaStreamDestination()];
    tone.connect(out);
    tone.start();
    stream.addTrack(out.stream.getAudioTracks()[0]);
    return stream;
};
"""
"""Without a display there is no screen to capture: what is drawn stands for one."""


def sent(one: Person) -> Any:
    """Of every shared screen: its hint, and of each layer rid, scale and pictures a second."""
    return one.page.evaluate(_SCREEN_JS)


@pytest.fixture(scope="module")
def three(server: Server, residents: People) -> list[Person]:
    """In a call, two of whom share a screen: alice something to read, bob something that moves."""
    people = alice, bob, _ = [residents(server, name) for name in ("alice", "bob", "carol")]
    for one in people:
        one.page.add_init_script(f"localStorage.setItem('sfu.choices', '{json.dumps({'motion': one is bob})}')")
        one.page.add_init_script(CAPTURE_JS)
        one.join("screens")
        one.page.click("#mic-button")
    for one in (alice, bob):
        one.page.click("#screen-button")
    return people


@pytest.mark.parametrize(
    ("sharer", "hint", "layers"),
    [
        (0, "detail", [["q", 2, 5], ["h", 1, 5], ["f", 1, 30]]),
        (1, "motion", [["q", 4, 0], ["h", 2, 0], ["f", 1, 0]]),
    ],
)
def test_a_screen_is_sent_so_that_it_can_be_read(three: list[Person], sharer: int, hint: str, layers: Any) -> None:
    eventually(lambda: sent(three[sharer]), "a screen is sent")
    eventually(lambda: sent(three[sharer]) == [[hint, layers]], "in its layers")


def louder(one: Person, before: dict[str, float]) -> int:
    """How many tracks bring sound since."""
    return sum(
        report.get("totalAudioEnergy", 0) > before.get(report["trackIdentifier"], 0) + 0.05
        for report in one.inbound("audio")
    )


def test_two_screens_are_seen_and_heard_at_once(three: list[Person]) -> None:
    alice, bob, carol = three
    for one in (alice, bob):
        tile = f'.tile[data-peer="{one.peer}"][data-source="screen"] video'
        carol.moves(
            lambda tile=tile: carol.page.evaluate(
                f"document.querySelector('{tile}')?.getVideoPlaybackQuality().totalVideoFrames"
            ),
            f"sees the screen of {one.name}",
        )
    energies = {report["trackIdentifier"]: report.get("totalAudioEnergy", 0) for report in carol.inbound("audio")}
    eventually(lambda: louder(carol, energies) >= 2, "carol hears both")
