"""The page where browser features are missing: it opens, makes calls and names the missing feature."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from people import Person
from playwright.sync_api import Browser, expect
from support.process import Server
from support.waiting import eventually

WITHOUT = """
const drop = (from, ...names) => names.forEach((name) => delete from[name]);
const without = (of, ...names) => drop(of.prototype, ...names);
drop(Intl, ...%s);
drop(window, 'ResizeObserver', 'structuredClone', 'AudioContext', 'webkitAudioContext', 'visualViewport');
drop(window, 'Notification', 'requestIdleCallback', 'PerformanceObserver', 'CSSStyleSheet', 'BroadcastChannel');
without(Navigator, 'mediaDevices', 'clipboard', 'wakeLock', 'permissions', 'locks', 'connection', 'share', 'storage');
without(HTMLMediaElement, 'setSinkId');
without(HTMLVideoElement, 'requestVideoFrameCallback', 'requestPictureInPicture');
without(Element, 'requestFullscreen', 'animate', 'checkVisibility', 'scrollIntoViewIfNeeded');
without(Document, 'pictureInPictureEnabled', 'pictureInPictureElement', 'fullscreenEnabled', 'fullscreenElement');
without(Array, 'findLast', 'findLastIndex', 'toSorted', 'toReversed');
drop(AbortSignal, 'timeout', 'any');
drop(Object, 'groupBy', 'hasOwn');
drop(Map, 'groupBy');
drop(Promise, 'withResolvers');
for (const name of ['localStorage', 'sessionStorage']) {
    Object.defineProperty(window, name, { get() { throw new DOMException('', 'SecurityError'); } });
}
"""
INTL = ["['ListFormat', 'PluralRules']", "['ListFormat', 'PluralRules', 'NumberFormat', 'DateTimeFormat']"]
PANELS = {"people": ".person", "chat": "#chat-input", "stats": ".verdict"}
MENUS = ["moreMenu", "reactions", "settings", "invite", "shortcuts"]
_ACT_JS = "async ([name, ...given]) => void (await (await import('/app/page.js')).page.actions[name](...given))"


@pytest.mark.soak
@pytest.mark.parametrize("intl", INTL)
def test_a_call_without_what_browsers_may_lack(
    server: Server, room: str, person: Callable[..., Person], intl: str
) -> None:
    alice, bob = person(server, "alice"), person(server, "bob")
    failed: list[str] = []
    page = bob.page
    page.add_init_script(WITHOUT % intl)
    page.add_init_script("addEventListener('unhandledrejection', ({ reason }) => { throw reason; })")
    page.on("console", lambda line: failed.append(line.text) if "TypeError" in line.text else None)
    alice.join(room)
    page.goto(f"{server.url}/?room={room}")
    expect(page.locator("#preview-problem")).not_to_be_empty()
    expect(page.locator("#inside-names")).to_have_text("alice")
    page.fill("#name-input", "bob")
    page.click("#join-button")
    eventually(lambda: bob.peer, "bob is in the room")
    bob.sees(alice)
    for panel, content in PANELS.items():
        page.evaluate(_ACT_JS, ["panel", panel])
        expect(page.locator(f"#panel {content}").first).to_be_visible()
    page.evaluate(_ACT_JS, ["panel", "chat"])
    page.fill("#chat-input", "hello")
    page.press("#chat-input", "Enter")
    expect(alice.page.locator("#chat-count")).to_have_text("1")
    page.keyboard.press("Escape")
    for menu in MENUS:
        page.evaluate(_ACT_JS, [menu])
        expect(page.locator("dialog[open]")).to_be_visible()
        if menu == "invite":
            page.click("#invite .btn--primary")
            expect(page.locator("#invite [role=status]")).to_contain_text("Your browser doesn’t allow copying.")
        page.keyboard.press("Escape")
    for key in "fsmvhg":
        page.keyboard.press(key)
    page.evaluate(_ACT_JS, ["copyLink"])
    expect(page.locator(".toast", has_text="Your browser doesn’t allow copying.")).to_be_visible()
    page.set_viewport_size({"width": 700, "height": 500})
    inside = "document.querySelector('.tile').getBoundingClientRect().right <= innerWidth"
    eventually(lambda: page.evaluate(inside), "the tiles fit the smaller window")
    page.click("#leave-button")
    expect(page.locator("#end-title")).to_contain_text("You left")
    assert failed == []


def test_without_webrtc_the_page_says_so(server: Server, browser: Browser) -> None:
    context = browser.new_context(locale="en")
    page = context.new_page()
    failed: list[str] = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.add_init_script(
        "for (const name of ['RTCPeerConnection', 'MediaStream', 'MediaStreamTrack']) delete window[name]"
    )
    page.add_init_script("delete Navigator.prototype.mediaDevices")
    page.goto(f"{server.url}/?room=bare")
    page.fill("#name-input", "Sofia")
    page.click("#join-button")
    expect(page.locator("#end-title")).to_have_text("This browser doesn’t support calls")
    assert failed == []
    context.close()
