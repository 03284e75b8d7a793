"""How the page comes, in a real browser: in few steps, and usable before devices are."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from people import Person
from phone import PHONE
from playwright.sync_api import Browser, Page, Route, expect
from support.process import Server
from support.variants import variants
from support.waiting import eventually

REQUESTS = 27
TRANSFERRED_BYTES = 60_000
"""Of the page and all that it needs before it is usable, packed: less than half a second of a slow 4G, 1.6 Mbit/s."""

_NO_DEVICES_JS = """
for (const name of ['getUserMedia', 'enumerateDevices']) navigator.mediaDevices[name] = () => new Promise(() => {});
"""
_SLOW_JS = """
window.slow = []; // what takes a phone tens of milliseconds each to make
for (const name of ['PluralRules', 'ListFormat', 'DateTimeFormat', 'NumberFormat']) {
    const construct = (...given) => (window.slow.push(name), Reflect.construct(...given));
    Intl[name] = new Proxy(Intl[name], { construct });
}
"""


class Held:
    """Answers nothing but the page itself, until `release`; `before` and `after` are what was asked for since."""

    def __init__(self, page: Page) -> None:
        self.before: dict[str, Route] = {}
        self.after: set[str] = set()
        self._page, self._released = page, False
        page.route("**/*", self._hold)

    def _hold(self, route: Route) -> None:
        path = urlsplit(route.request.url).path
        if self._released:
            self.after.add(path)
        elif path != "/":
            self.before[path] = route
            return
        route.continue_()

    def has(self, paths: set[str]) -> bool:
        self._page.wait_for_timeout(1)  # requests are told of meanwhile
        return paths <= set(self.before)

    def release(self, but: str = "") -> None:
        self._released = True
        for path, route in self.before.items():
            if path != but:
                route.continue_()


def weigh(page: Page) -> list[int]:
    """The bytes of every body that comes from now on."""
    sizes: list[int] = []
    page.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
    return sizes


def told(page: Page, url: str) -> set[str]:
    """Goes there, and returns what the server says the page will need."""
    response = page.goto(url, wait_until="commit")
    assert response
    return {f"/{name}" for name in re.findall("<([^>]+)>", response.headers.get("link", ""))}


def test_the_way_in_is_usable_two_round_trips_after_the_link(server: Server, browser: Browser) -> None:
    """Without its devices, and what shows them."""
    context = browser.new_context(**PHONE)
    page = context.new_page()
    page.add_init_script(_NO_DEVICES_JS)
    page.add_init_script(_SLOW_JS)
    held, sizes = Held(page), weigh(page)
    early = told(page, f"{server.url}/?room=quick")
    eventually(lambda: held.has(early), "all is asked for before any of it has come")
    held.release(but="/prejoin/preview.js")
    page.click("#join-button")
    expect(page.locator("#name-hint")).to_have_text("Enter your name so that others know who you are.")
    expect(page.locator("#join-will")).to_have_text("Your devices turn on when they’re ready.")
    expect(page.locator("#preview-video")).to_be_hidden()
    for source in ("camera", "microphone"):
        page.click(f".puck[data-toggle={source}]")
    expect(page.locator("#join-will")).to_have_text("You’ll join muted, with your camera off.")
    assert page.evaluate("window.slow") == []
    assert held.after <= {"/room-info", "/icon.svg"}
    assert len(held.before) <= REQUESTS
    assert sum(sizes) < TRANSFERRED_BYTES
    held.before["/prejoin/preview.js"].continue_()
    expect(page.locator("#join-microphone")).to_be_attached()
    context.close()


@pytest.mark.parametrize(
    "part", ["main.js", *variants("style.css", "launch.js", "base/dom.js", "lang/en.js", "prejoin/join.js")]
)
@pytest.mark.parametrize("times", [2, *variants(1)])
def test_a_part_that_does_not_come_is_asked_for_again(server: Server, browser: Browser, part: str, times: int) -> None:
    """As when the network changes meanwhile: the page reloads itself once, then there is a button."""
    context = browser.new_context(**PHONE)
    page = context.new_page()
    visits: list[str] = []
    page.on("request", lambda request: visits.append(request.url) if request.is_navigation_request() else None)
    page.route(f"**/{part}", lambda route: route.abort() if len(visits) <= times else route.continue_())
    page.goto(f"{server.url}/?room=again")
    if times > 1:
        eventually(lambda: page.wait_for_timeout(1) or len(visits) == 2, "the page has loaded itself again")
        expect(page.get_by_text("Part of this page did not load.")).to_be_visible()
        page.get_by_role("link", name="Try again").click()
    expect(page.locator("#join-button")).to_have_text("Join room")
    expect(page.locator("#join-button")).to_have_css("border-radius", "14px")
    context.close()


def test_a_page_whose_first_module_does_not_come_has_a_way_on(server: Server, browser: Browser) -> None:
    context = browser.new_context(**PHONE)
    page = context.new_page()
    page.route("**/boot.js", lambda route: route.abort())
    page.goto(f"{server.url}/?room=again")
    expect(page.get_by_text("Part of this page did not load.")).to_be_visible()
    page.unroute("**/boot.js")
    page.get_by_role("link", name="Try again").click()
    expect(page.locator("#join-button")).to_have_text("Join room")
    context.close()


@pytest.mark.soak
def test_a_link_into_a_call_asks_for_it_at_once(server: Server, person: Callable[..., Person]) -> None:
    alice = person(server, "alice")
    held, sizes = Held(alice.page), weigh(alice.page)
    early = told(alice.page, f"{server.url}/?room=at-once&username=alice")
    eventually(lambda: held.has(early), "all is asked for before any of it has come")
    held.release()
    eventually(lambda: alice.peer, "alice is in the room")
    assert held.after <= {"/icon.svg", "/ws", "/late/en.js", "/call/deferred.js"}
    assert len(held.before) <= REQUESTS
    assert sum(sizes) < TRANSFERRED_BYTES
