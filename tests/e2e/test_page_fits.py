"""In whatever state, window and language the page is: every control can be pressed, and no text lies on another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from crowd import NAMES, Crowd
from fits import OUTSIDE_JS
from people import QUIET_JS, Person
from playwright.sync_api import Browser, Page, expect
from support.process import Server
from support.waiting import eventually

WINDOWS = [
    (280, 400),
    (320, 568),
    (390, 700),
    (480, 360),
    (640, 360),
    (768, 1024),
    (900, 640),
    (1280, 720),
    (1440, 900),
]
LANGUAGES = ["de", "ar"]
LONG = "Wolfeschlegelsteinhausenbergerdorffvoralternwarengewissenhaftsc"  # 63 letters
HOST = {"permissions": {"moderate": True}}
_ACT_JS = "async ([name, ...given]) => void (await (await import('/app/page.js')).page.actions[name](...given))"
_TOAST_JS = """async () => {
    await (await import('/app/page.js')).page.actions.later();
    const { t } = await import('/i18n/texts.js');
    const { toast } = await import('/ui/toasts.js');
    toast('long', t('device.taken'), { action: { label: t('device.restore'), then() {} } });
}"""
_LOST_JS = """async () => {
    const { page } = await import('/app/page.js');
    Object.defineProperty(page.room, 'trouble', { value: 'all' });
    page.room.dispatchEvent(new CustomEvent('state', { detail: { state: 'joined' } }));
}"""
_MENU_JS = """async () => {
    const { page } = await import('/app/page.js');
    const [tile] = page.stage.tiles;
    page.actions.tileMenu(tile, tile.moreKey);
}"""
_REFUSED_JS = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError'); }"
_ASKING_JS = "navigator.mediaDevices.getUserMedia = () => new Promise(() => {})"
_TOAST_WIDTH_JS = "document.querySelector('.toast:last-child p').offsetWidth"
BEFORE = {"a room": "/?room=fits", "no room": "/", "a long name": f"/?room={LONG}"}
DEVICES = {"usual": "", "refused": _REFUSED_JS, "asking": _ASKING_JS}
DIALOGS = ["settings", "invite", "shortcuts"]
MENUS: dict[str, list[str]] = {
    "more": ["moreMenu"],
    "reactions": ["reactions"],
    "devices": ["deviceMenu", "microphone", "mic-button"],
}


def check(page: Page, what: str, act: Callable[[], Any] = lambda: None) -> list[str]:
    """What is wrong in any window. `act` brings a state about that ends with the window's size."""
    found: dict[tuple[int, int], Any] = {}

    def fits(window: tuple[int, int]) -> bool:
        seen = found[window] = page.evaluate(OUTSIDE_JS)
        return seen["window"] == list(window) and seen["found"] == []

    for width, height in WINDOWS:
        page.set_viewport_size({"width": width, "height": height})
        act()
        try:
            eventually(partial(fits, (width, height)), what, 10)
        except AssertionError:
            continue
        del found[width, height]
    return [f"{what} {window}: {seen['found']}" for window, seen in found.items()]


@pytest.fixture(params=LANGUAGES)
def visit(request: pytest.FixtureRequest, browser: Browser, server: Server) -> Any:
    """Opens a page of the server in a language, with a script before all of its own."""
    contexts = []

    def go(path: str, script: str = QUIET_JS, **options: Any) -> Page:
        usual = {"permissions": ["camera", "microphone"], "locale": request.param, "reduced_motion": "reduce"}
        context = browser.new_context(**usual | options)
        contexts.append(context)
        context.add_init_script(script)
        page = context.new_page()
        page.goto(server.url + path)
        return page

    yield go
    for context in contexts:
        context.close()


@pytest.mark.soak
def test_before_and_after_a_call(visit: Callable[..., Page], crowd: Crowd) -> None:
    faults = []
    broken = crowd.token("fits", "Sofia Marin")[:-8] + "AAAAAAAA"
    tokens = {"a token": crowd.token("fits", LONG)}
    tokens["a listener"] = crowd.token("fits", "Sofia Marin", permissions={"publish": False})
    for name, path in (BEFORE | {name: f"/?token={token}" for name, token in tokens.items()}).items():
        for device, script in DEVICES.items() if name == "a long name" else [("usual", "")]:
            page = visit(path, script)
            expect(page.locator("#join-devices select")).to_have_count(3)
            faults += check(page, f"before the call: {name}, {device}")
            page.context.close()
    page = visit(f"/?token={broken}")
    expect(page.locator("#end-title")).to_be_visible()
    faults += check(page, "after the call: a broken token")
    page = visit(f"/?room={LONG}&username={LONG}")
    eventually(lambda: page.evaluate("window.room?.connected"), "in the room")
    page.click("#leave-button")
    expect(page.locator("#end-title")).to_be_visible()
    faults += check(page, "after the call: left")
    assert faults == []


@pytest.mark.soak
def test_alone_in_a_call(visit: Callable[..., Page], crowd: Crowd) -> None:
    faults = []
    for name, path in {
        "a link": "/?room=fits alone&username=Sofia",
        "an invitation": crowd.token("fits", "Sofia"),
    }.items():
        page = visit(path if path.startswith("/") else f"/?token={path}&preview=off")
        expect(page.locator("#invitation-text")).to_be_visible()
        faults += check(page, f"alone, by {name}")
    page.evaluate(_TOAST_JS)
    page.evaluate(_ACT_JS, ["panel", "chat"])
    expect(page.locator("#chat-input")).to_be_visible()
    faults += check(page, "alone, a toast beside the chat")
    for width, height in ((480, 360), (400, 300)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate(_TOAST_WIDTH_JS) >= 80, "words stand beside each other"
    assert faults == []


@pytest.mark.soak
@pytest.mark.parametrize("phone", [False, True])
def test_in_a_call(visit: Callable[..., Page], crowd: Crowd, room: str, phone: bool) -> None:
    crowd.join(room, [*NAMES[:3], LONG])
    page = visit(f"/?token={crowd.token(room, LONG, **HOST)}&preview=off", has_touch=phone, is_mobile=phone)
    expect(page.locator(".tile")).to_have_count(5)
    page.evaluate(_ACT_JS, ["later"])
    faults = check(page, "a call")
    page.evaluate("window.room.send('room', { locked: null, lobby: true })")
    crowd.knock(room, [NAMES[5], NAMES[6]])
    page.evaluate(_ACT_JS, ["panel", "people"])
    expect(page.locator(".lobby .person")).to_have_count(2)
    for panel in ("people", "chat", "stats"):
        if panel != "people":
            page.evaluate(_ACT_JS, ["panel", panel])
        faults += check(page, f"the panel {panel}")
    page.evaluate(_ACT_JS, ["panel", "stats"])
    for name in DIALOGS:
        page.evaluate(_ACT_JS, [name])
        faults += check(page, f"the dialog {name}")
        page.keyboard.press("Escape")
    for name, act in MENUS.items():
        faults += check(page, f"the menu {name}", partial(page.evaluate, _ACT_JS, act))
        page.keyboard.press("Escape")
    faults += check(page, "the menu of a tile", partial(page.evaluate, _MENU_JS))
    page.keyboard.press("Escape")
    page.evaluate(_LOST_JS)
    faults += check(page, "reconnecting")
    assert faults == []


def test_others_with_long_names_leave_the_form_where_it_is(server: Server, person: Callable[..., Person]) -> None:
    alice = person(server, LONG, quiet=True).join("fits names")
    page = person(server, "guest").page
    page.goto(f"{server.url}/?room=fits names")
    expect(page.locator("#inside-names")).to_have_text(LONG)
    assert check(page, "before the call, with somebody inside") == []
    assert alice.peer


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_the_way_out_of_a_toast_stays_beside_its_button(server: Server, browser: Browser, language: str) -> None:
    """At 360 px, where text and buttons do not fit in one row."""
    context = browser.new_context(viewport={"width": 360, "height": 640}, locale=language)
    page = context.new_page()
    page.add_init_script(QUIET_JS)
    page.goto(f"{server.url}/?room=toast-{language}&username=alice")
    eventually(lambda: page.evaluate("window.room?.state === 'joined'"), "alice is in the room")
    page.evaluate(_TOAST_JS)
    tops = "(line) => [...line.querySelectorAll('button')].map((one) => one.getBoundingClientRect().top)"
    action, close = page.locator(".toast[data-id=long]").evaluate(tops)
    assert abs(action - close) < 10
    context.close()
