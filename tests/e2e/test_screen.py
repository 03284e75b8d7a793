"""A shared screen in real browsers: layers of its own, and a hint of what is on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from crowd import Crowd
from firefox import Firefox
from people import QUIET_JS, Person
from playwright.sync_api import expect
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
_SMALL_JS = _CAPTURE_JS.replace("1280", "640").replace("720", "360")

_REPORTED_JS = """async () => {
    const sender = window.room.pc.getSenders().find(({ track }) => track?.kind === 'video' && track.contentHint);
    return [...await sender?.getStats() ?? []].filter(([, { type }]) => type === 'remote-inbound-rtp').length;
}"""
"""Of how many layers of its screen the server has told it that they arrive, after which Chromium names them no more."""
_WATCH_JS = (
    "void (window.lefts = [], window.room.addEventListener('left', ({ detail }) => window.lefts.push(detail.name)))"
)
_WIDTH_JS = """(peer) => {
    const tile = document.querySelector(`.tile[data-peer="${peer}"][data-source="screen"]`);
    return tile ? tile.querySelector('video')?.videoWidth ?? 0 : -1;
}"""
TIMES = 5


def sent(one: Person) -> Any:
    """Of every shared screen: its hint, and of each layer rid, scale and pictures a second."""
    return one.page.evaluate(_SCREEN_JS)


@pytest.fixture(scope="module")
def three(server: Server, residents: People) -> list[Person]:
    """In a call, two of whom share a screen: alice something to read, bob something that moves."""
    people = alice, bob, _ = [residents(server, name) for name in ("alice", "bob", "carol")]
    for one in people:
        one.page.add_init_script(f"localStorage.setItem('sfu.choices', '{json.dumps({'motion': one is bob})}')")
        one.page.add_init_script(_CAPTURE_JS)
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


_CAPTURED_JS = """
const capture = navigator.mediaDevices.getDisplayMedia;
navigator.mediaDevices.getDisplayMedia = async (asked) => {
    const stream = await capture(asked);
    window.captured = stream.getTracks();
    return stream;
};
"""


def test_a_moderator_ends_a_share(server: Server, crowd: Crowd, person: People) -> None:
    mod, alice = person(server, "mod", quiet=True), person(server, "alice", quiet=True)
    alice.page.add_init_script(_CAPTURE_JS)
    alice.page.add_init_script(_CAPTURED_JS)
    for one, more in ((mod, {"moderate": True}), (alice, {})):
        one.page.goto(f"{server.url}/?token={crowd.token('stopped', one.name, permissions=more)}&preview=off")
        eventually(lambda one=one: one.peer, f"{one.name} is in the room")  # type: ignore[misc]
    alice.page.click("#screen-button")
    screens = mod.page.locator(".tile[data-source=screen]")
    expect(screens).to_have_count(1)
    mod.page.keyboard.press("p")
    mod.page.locator("#panel").get_by_role("button", name="More for alice").click()
    mod.page.get_by_role("menuitem", name="Stop their screen share").click()
    said = alice.page.locator(".toast", has_text="mod stopped your screen share. You can share again.")
    expect(said).to_be_visible()
    assert alice.page.evaluate("window.captured.map((one) => one.readyState)") == ["ended", "ended"]
    expect(screens).to_have_count(0)
    expect(alice.page.locator(".tile[data-source=screen]")).to_have_count(0)
    expect(alice.page.locator("#screen-button")).to_have_attribute("aria-pressed", "false")
    expect(alice.page.locator("#screen-button")).to_have_attribute("aria-disabled", "false")


def shares_again(sharer: Person, others: list[Person], until: Callable[[], object]) -> None:
    """Somebody shares a screen and stops, again and again; each time the others see it, and nobody comes or goes."""
    people = [sharer, *others]
    peers = [one.peer for one in people]
    for one in people:
        one.page.evaluate(_WATCH_JS)
    for _ in range(TIMES):
        sharer.page.click("#screen-button")
        for one in others:
            one.sees(sharer, "screen")
            eventually(lambda one=one: one.page.evaluate(_WIDTH_JS, sharer.peer) >= 320, "in one of its sizes")
        eventually(until, "it is shared for a while")
        sharer.page.click("#screen-button")
        for one in others:
            eventually(lambda one=one: one.page.evaluate(_WIDTH_JS, sharer.peer) == -1, "the screen is gone")
    assert [one.peer for one in people] == peers
    assert [one.page.evaluate("window.lefts") for one in people] == [[]] * len(people)


def test_a_screen_is_shared_again_and_again_in_a_locked_room(server: Server, person: People, crowd: Crowd) -> None:
    people = alice, *others = [person(server, name, quiet=True) for name in ("alice", "bob", "carol")]
    for one in people:
        one.page.add_init_script(_SMALL_JS)
        one.page.goto(
            f"{server.url}/?token={crowd.token('again', one.name, permissions={'moderate': one is alice})}&preview=off"
        )
        eventually(lambda one=one: one.peer, f"{one.name} is in")
    alice.page.evaluate("window.room.send('room', { locked: true })")
    eventually(lambda: alice.page.evaluate("window.room.settings.locked"), "the room is locked")
    shares_again(alice, others, lambda: alice.page.evaluate(_REPORTED_JS))


@pytest.fixture(scope="module")
def firefox() -> Iterator[Firefox]:
    running = Firefox()
    yield running
    running.close()


def test_firefox_shares_a_screen_again_and_again(server: Server, person: People, room: str, firefox: Firefox) -> None:
    fiona, carl = person(server, "fiona", on=firefox), person(server, "carl", quiet=True).join(room)
    fiona.page.goto(server.url)
    fiona.page.evaluate(QUIET_JS)
    fiona.join(room)
    fiona.page.evaluate(f"void (() => {{ {_SMALL_JS} }})()")
    shares_again(fiona, [carl], lambda: fiona.page.evaluate(_REPORTED_JS))
