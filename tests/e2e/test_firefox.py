"""Firefox in one call with Chromium, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from firefox import Firefox
from people import Person
from playwright.sync_api import expect
from process import Server, eventually

pytestmark = pytest.mark.xdist_group("browser")

People = Callable[..., Person]

_PEOPLE_JS = "[...document.querySelectorAll('.tile:not(.is-self)')].map((tile) => tile.getAttribute('aria-label'))"


@pytest.fixture(scope="module")
def firefox() -> Iterator[Firefox]:
    running = Firefox()
    yield running
    running.close()


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
