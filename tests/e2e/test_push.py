"""Push-to-talk in real browsers: what the space bar opened its end closes, whatever that end is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from crowd import Crowd
from firefox import Firefox
from people import Person
from playwright.sync_api import Page, expect
from support.process import Server
from support.variants import variants
from support.waiting import eventually

_REST_JS = "async () => void (await (await import('/app/page.js')).page.actions.later())"
_OPEN_JS = "window.room.pc.getSenders().some((one) => one.track?.kind === 'audio' && one.track.enabled)"
_KEPT_JS = "JSON.parse(localStorage.getItem('sfu.choices')).microphoneOff"
_HIDDEN_JS = """(hidden) => {
    Object.defineProperty(document, 'hidden', { configurable: true, value: hidden });
    document.dispatchEvent(new Event('visibilitychange'));
}"""
_MUTES_JS = """(name) => {
    const { peer } = [...window.mod.participants.values()].find((one) => one.name === name);
    window.mod.send('moderate', { action: 'mute', peer, source: null });
}"""
_MODERATOR_JS = """async (token) => {
    const { Room } = await import('/protocol.js');
    window.mod = new Room({ url: new URL('/ws', location.href), token });
    window.mod.join();
}"""
_BLANK_JS = """(type) => document.activeElement.dispatchEvent(
    new KeyboardEvent(type, { key: '\\u00a0', code: 'Space', bubbles: true, cancelable: true }))"""
_CYRILLIC_JS = """() => document.activeElement.dispatchEvent(
    new KeyboardEvent('keydown', { key: 'ь', code: 'KeyM', bubbles: true, cancelable: true }))"""


@pytest.fixture(scope="module")
def alice(server: Server, residents: Callable[..., Person], crowd: Crowd) -> Iterator[Person]:
    """Muted by a click, in a room with a moderator."""
    made = residents(server, "alice")
    made.page.goto(f"{server.url}/?token={crowd.token('push', 'alice')}&preview=off")
    eventually(lambda: made.peer, "alice is in the room")
    made.page.evaluate(_REST_JS)
    made.page.click("#mic-button")
    crowd.page.evaluate(_MODERATOR_JS, crowd.token("push", "mod", permissions={"moderate": True, "publish": False}))
    eventually(lambda: crowd.page.evaluate("window.mod.participants.size") == 1, "the moderator sees alice")
    yield made
    crowd.page.evaluate("window.mod.leave()")


def is_muted(page: Page) -> None:
    expect(page.locator("#mic-button")).to_have_attribute("aria-label", "Unmute")
    assert not page.evaluate(_OPEN_JS)


def talks(page: Page) -> None:
    expect(page.locator("#mic-button")).to_have_attribute("aria-label", "Mute")
    eventually(lambda: page.evaluate(_OPEN_JS), "the microphone is open")


def open_chat(page: Page) -> None:
    page.click("#chat-button")
    expect(page.locator("#chat-input")).to_be_focused()
    page.locator("#tiles").click(position={"x": 5, "y": 5})


def into_the_chat(page: Page, _: Crowd) -> None:
    page.click("#chat-input")
    page.keyboard.down(" ")  # it repeats itself
    is_muted(page)
    expect(page.locator("#chat-input")).to_have_value("")


ENDS: dict[str, Callable[[Page, Crowd], object]] = {
    "release": lambda page, _: page.keyboard.up(" "),
    "repeat, then release": lambda page, _: (page.keyboard.down(" "), page.keyboard.up(" ")),
    "another window": lambda page, _: page.evaluate("dispatchEvent(new Event('blur'))"),
    "hidden": lambda page, _: page.evaluate(_HIDDEN_JS, True),
    "a menu": lambda page, _: page.click("#more-button"),
    "a dialog": lambda page, _: page.keyboard.press(","),
    "a text field": into_the_chat,
    "a key that the system keeps for itself": lambda page, _: page.keyboard.press("Control"),
    "the mute key": lambda page, _: page.keyboard.press("m"),
    "a moderator": lambda _, crowd: crowd.page.evaluate(_MUTES_JS, "alice"),
}
QUICK = ("release", "another window", "a dialog", "a text field", "a moderator")
"""One of each kind."""


@pytest.mark.parametrize("end", [*QUICK, *variants(*(end for end in ENDS if end not in QUICK))])
def test_whatever_ends_it_closes_the_microphone(alice: Person, crowd: Crowd, end: str) -> None:
    page = alice.page
    if end == "a text field":
        open_chat(page)
    else:
        page.locator("#tiles").click(position={"x": 5, "y": 5})
    is_muted(page)
    page.keyboard.down(" ")
    talks(page)
    ENDS[end](page, crowd)
    is_muted(page)
    page.keyboard.down(" ")  # repeats itself until it is let go
    page.keyboard.up(" ")
    is_muted(page)
    page.evaluate(_HIDDEN_JS, False)
    while page.locator("dialog[open]").count():
        page.keyboard.press("Escape")
    if end == "a text field":
        page.click("#chat-button")


@pytest.mark.parametrize("key", ["#hand-button", *variants("#mic-button", "#chat-button")])
def test_a_key_that_was_clicked_is_not_pressed_by_it(alice: Person, key: str) -> None:
    page = alice.page
    for _ in range(2):  # there and back
        page.click(key)
    is_muted(page)
    page.keyboard.down(" ")
    talks(page)
    page.keyboard.up(" ")
    is_muted(page)
    expect(page.locator("#hand-button")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#panel")).to_be_hidden()


def test_a_key_that_the_keyboard_leads_to_is_pressed(alice: Person) -> None:
    page = alice.page
    page.click("#tiles", position={"x": 5, "y": 5})
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "hand-button":
            break
    page.keyboard.press(" ")
    expect(page.locator("#hand-button")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press(" ")
    expect(page.locator("#hand-button")).to_have_attribute("aria-pressed", "false")
    is_muted(page)


def test_other_layouts_have_the_same_keys(alice: Person) -> None:
    page = alice.page
    page.locator("#tiles").click(position={"x": 5, "y": 5})
    page.evaluate(_BLANK_JS, "keydown")
    talks(page)
    page.evaluate(_BLANK_JS, "keyup")
    is_muted(page)
    page.evaluate(_CYRILLIC_JS)
    talks(page)
    page.evaluate(_CYRILLIC_JS)
    is_muted(page)


def test_nothing_of_it_is_kept_for_the_next_call(alice: Person) -> None:
    page = alice.page
    page.locator("#tiles").click(position={"x": 5, "y": 5})
    page.keyboard.down(" ")
    talks(page)
    page.click("#leave-button")
    page.keyboard.up(" ")
    page.get_by_role("button", name="Rejoin").click()
    eventually(lambda: alice.peer, "alice is in the room again")
    expect(page.locator("#mic-button")).to_have_attribute("aria-label", "Unmute")
    assert page.evaluate(_KEPT_JS) is True


@pytest.mark.soak
def test_firefox_does_the_same(server: Server, room: str, person: Callable[..., Person], firefox: Firefox) -> None:
    page: Any = person(server, "fiona", on=firefox).join(room).page
    label = "document.querySelector('#mic-button').ariaLabel"
    page.evaluate(_REST_JS)
    for key in ("#mic-button", "#hand-button"):
        page.click(key)
        page.press(" ", down=True)
        eventually(lambda: page.evaluate(label) == "Mute", "fiona talks")
        page.press(" ", down=False)
        eventually(lambda: page.evaluate(label) == "Unmute", "fiona is muted")
        assert not page.evaluate(_OPEN_JS)
    assert page.evaluate("document.querySelector('#hand-button').ariaPressed") == "true"
