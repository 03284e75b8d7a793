"""Firefox in one call with Chromium, both ways, and how the page looks in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from firefox import Firefox
from fits import OUTSIDE_JS
from people import Person
from playwright.sync_api import expect
from support.process import Server
from support.waiting import eventually

People = Callable[..., Person]

_PEOPLE_JS = "[...document.querySelectorAll('.tile:not(.is-self)')].map((tile) => tile.getAttribute('aria-label'))"
WINDOWS = [(390, 844), (844, 390), (1280, 800)]


def test_firefox_and_chromium_see_hear_and_read_each_other(
    server: Server, room: str, person: People, firefox: Firefox
) -> None:
    fiona = person(server, "fiona", on=firefox).join(room)
    carl = person(server, "carl").join(room)
    for one, other in ((fiona, carl), (carl, fiona)):
        one.sees(other)
        one.hears()

    for one in (carl, fiona):
        one.page.click("#chat-button")
    carl.page.fill("#chat-input", "Hello Firefox")
    carl.page.press("#chat-input", "Enter")
    eventually(lambda: "Hello Firefox" in fiona.page.evaluate("document.querySelector('#chat-log').innerText"), "chat")
    fiona.page.click("#chat-input")
    fiona.page.type("Hello Chromium\n")
    expect(carl.page.locator("#chat-log")).to_contain_text("Hello Chromium")

    carl.page.click("#leave-button")
    eventually(lambda: fiona.page.evaluate(_PEOPLE_JS) == [], "carl's tile is gone")


@pytest.mark.soak
def test_nothing_is_outside_firefox_or_cut_off(server: Server, person: People, firefox: Firefox) -> None:
    """The page and a call in it, upright and across on a phone, and on a desktop."""

    def shown(good: dict[str, Any]) -> bool:
        found.append(page.evaluate(OUTSIDE_JS))
        return bool(found[-1] == good)

    def fits(what: str) -> None:
        for window in WINDOWS:
            page.resize(*window)
            good = {"window": list(window), "few": False, "found": []}
            with suppress(AssertionError):
                eventually(partial(shown, good), what)
            assert found[-1] == good, what

    found: list[Any] = []
    fiona = person(server, "fiona", on=firefox)
    page: Any = fiona.page
    page.goto(f"{server.url}/?room=layout")
    eventually(lambda: page.evaluate("document.querySelector('#join-microphone')?.value"), "the devices are listed")
    fits("before the call")
    fiona.join("layout")
    fits("alone")
    carl = person(server, "carl").join("layout")
    fiona.sees(carl)
    fits("in a call")
    page.click("#chat-button")
    eventually(lambda: page.evaluate("document.activeElement.id") == "chat-input", "the chat is open")
    fits("with the chat")
