"""Every control stands inside the window, in whatever state and window the page is, and none is cut off."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from crowd import Crowd
from fits import OUTSIDE_JS
from people import Person
from playwright.sync_api import Page, expect
from support.process import Server, eventually

pytestmark = pytest.mark.xdist_group("browser")

WINDOWS = [(1280, 800), (640, 500), (844, 390), (480, 360), (390, 844), (320, 568), (400, 300), (280, 500)]
LONG = "Wolfeschlegelsteinhausenbergerdorffvoralternwarengewissenhaftsc"  # 63 letters
_TOAST_JS = """async (text) => {
    await (await import('/app/page.js')).page.actions.later();
    (await import('/ui/toasts.js')).toast('long', text, { action: { label: 'Turn it on', then() {} } });
}"""
_REFUSED_JS = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError'); }"
_TOAST_WIDTH_JS = "document.querySelector('.toast:last-child p').offsetWidth"


def check(page: Page, what: str) -> list[str]:
    """What is outside or cut off in any window."""
    found: dict[tuple[int, int], Any] = {}

    def fits(window: tuple[int, int]) -> bool:
        seen = found[window] = page.evaluate(OUTSIDE_JS)
        return seen["window"] == list(window) and seen["found"] == []

    for width, height in WINDOWS:
        page.set_viewport_size({"width": width, "height": height})
        try:
            eventually(partial(fits, (width, height)), what, 2)
        except AssertionError:
            continue
        del found[width, height]
    return [f"{what} {window}: {seen['found']}" for window, seen in found.items()]


def test_every_control_is_inside_the_window(server: Server, crowd: Crowd, person: Callable[..., Person]) -> None:
    alice = person(server, LONG, quiet=True).join("fits")
    guest = person(server, "guest")
    page = guest.page
    page.add_init_script(_REFUSED_JS)
    page.goto(f"{server.url}/?room=fits")
    expect(page.locator("#inside-names")).to_have_text(LONG)
    expect(page.locator("#preview-problem .btn")).to_be_visible()
    faults = check(page, "before the call, refused")
    alice.context.close()

    page.goto(f"{server.url}/?token={crowd.token('fits', 'guest')}&preview=off")
    eventually(lambda: guest.peer, "in the room")
    expect(page.locator("#invitation-text")).to_be_visible()
    faults += check(page, "alone, by invitation")
    guest.join("fits alone")
    expect(page.locator("#copy-link")).to_be_visible()
    faults += check(page, "alone, with a link")
    page.evaluate(_TOAST_JS, "Another app or a phone call is using your microphone. Others can’t hear you.")
    page.keyboard.press("c")
    expect(page.locator("#chat-input")).to_be_visible()
    faults += check(page, "a toast beside the chat")
    for width, height in ((480, 360), (400, 300)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate(_TOAST_WIDTH_JS) >= 80, "words stand beside each other"
    page.click("#leave-button")
    expect(page.locator("#end-title")).to_be_visible()
    faults += check(page, "left")
    assert faults == []
