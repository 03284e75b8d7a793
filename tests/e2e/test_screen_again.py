"""A screen is shared, stopped and shared again, in real browsers; a call of its own, so that nothing else draws."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crowd import Crowd
from firefox import Firefox
from people import Person
from playwright.sync_api import expect
from support.process import Server
from support.variants import variants
from support.waiting import eventually
from test_screen import CAPTURE_JS

People = Callable[..., Person]

_SMALL_JS = CAPTURE_JS.replace("1280", "640").replace("720", "360")
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
TIMES = [2, *variants(5)]

_CAPTURED_JS = """
const capture = navigator.mediaDevices.getDisplayMedia;
navigator.mediaDevices.getDisplayMedia = async (asked) => {
    const stream = await capture(asked);
    window.captured = stream.getTracks();
    return stream;
};
"""


@pytest.mark.soak
def test_a_moderator_ends_a_share(server: Server, crowd: Crowd, person: People) -> None:
    mod, alice = person(server, "mod", quiet=True), person(server, "alice", quiet=True)
    alice.page.add_init_script(CAPTURE_JS)
    alice.page.add_init_script(_CAPTURED_JS)
    for one, more in ((mod, {"moderate": True}), (alice, {})):
        one.page.goto(f"{server.url}/?token={crowd.token('stopped', one.name, permissions=more)}&preview=off")
        eventually(lambda one=one: one.peer, f"{one.name} is in the room")  # type: ignore[misc]
    alice.page.click("#screen-button")
    screens = mod.page.locator(".tile[data-source=screen]")
    expect(screens).to_have_count(1)
    mod.page.keyboard.press("p")
    mod.page.locator("#panel").get_by_role("button", name="More actions for alice").click()
    mod.page.get_by_role("menuitem", name="Stop their screen share").click()
    said = alice.page.locator(".toast", has_text="mod stopped your screen share. You can share again.")
    expect(said).to_be_visible()
    assert alice.page.evaluate("window.captured.map((one) => one.readyState)") == ["ended", "ended"]
    expect(screens).to_have_count(0)
    expect(alice.page.locator(".tile[data-source=screen]")).to_have_count(0)
    expect(alice.page.locator("#screen-button")).to_have_attribute("aria-pressed", "false")
    expect(alice.page.locator("#screen-button")).to_have_attribute("aria-disabled", "false")


def shares_again(sharer: Person, others: list[Person], times: int, until: Callable[[], object]) -> None:
    """Somebody shares a screen and stops, again and again; each time the others see it, and nobody comes or goes."""
    people = [sharer, *others]
    peers = [one.peer for one in people]
    for one in people:
        one.page.evaluate(_WATCH_JS)
    for _ in range(times):
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


@pytest.mark.parametrize("times", TIMES)
def test_a_screen_is_shared_again_and_again_in_a_locked_room(
    server: Server, person: People, crowd: Crowd, times: int
) -> None:
    people = alice, *others = [person(server, name, quiet=True) for name in ("alice", "bob")]
    for one in people:
        one.page.add_init_script(_SMALL_JS)
        one.page.goto(
            f"{server.url}/?token={crowd.token('again', one.name, permissions={'moderate': one is alice})}&preview=off"
        )
        eventually(lambda one=one: one.peer, f"{one.name} is in")
    alice.page.evaluate("window.room.send('room', { locked: true })")
    eventually(lambda: alice.page.evaluate("window.room.settings.locked"), "the room is locked")
    shares_again(alice, others, times, lambda: alice.page.evaluate(_REPORTED_JS))


@pytest.mark.soak
def test_firefox_shares_a_screen_again_and_again(server: Server, person: People, room: str, firefox: Firefox) -> None:
    fiona, carl = person(server, "fiona", on=firefox, quiet=True), person(server, "carl", quiet=True).join(room)
    fiona.join(room)
    fiona.page.evaluate(f"void (() => {{ {_SMALL_JS} }})()")
    shares_again(fiona, [carl], 5, lambda: fiona.page.evaluate(_REPORTED_JS))
