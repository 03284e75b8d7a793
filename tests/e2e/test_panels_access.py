"""Whether everybody can use the page: axe in every state and both themes, the keyboard alone, and what is read out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from crowd import Crowd
from people import Person
from playwright.sync_api import Page, expect
from support.node import package
from support.process import Server
from support.waiting import eventually

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
EVERYTHING: dict[str, Any] = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": TAGS}}
COLOURS: dict[str, Any] = {"resultTypes": ["violations"], "runOnly": {"type": "rule", "values": ["color-contrast"]}}

_SAME_JS = """() => {
    const scope = [...document.querySelectorAll('dialog[open]')].at(-1) ?? document.body;
    const named = {};
    axe.setup(document);
    for (const one of scope.querySelectorAll('button, a[href], input, select, textarea')) {
        if (!one.checkVisibility({ visibilityProperty: true })) continue;
        const name = axe.commons.text.accessibleText(one).trim().toLowerCase();
        (named[name] ??= new Set()).add(one.href ?? one);
    }
    axe.teardown();
    return Object.entries(named).filter(([, ones]) => ones.size > 1).map(([name]) => name);
}"""
"""The names that several of the controls in reach share, except links to the same place."""


class Checks:
    """Runs axe and keeps what it finds; what does not depend on the theme is looked at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __call__(self, page: Page, state: str, part: str = "html") -> None:
        """`part` selects what is new in this state."""
        if not page.evaluate("'axe' in window"):
            page.evaluate(package("axe-core/axe.min.js"))
        self.found += [f"{state}: several controls are named {name!r}" for name in page.evaluate(_SAME_JS)]
        for theme, options in (("dark", EVERYTHING), ("light", COLOURS)):
            page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            for one in page.evaluate("(asked) => axe.run(...asked)", [part, options])["violations"]:
                self.found += [f"{state}, {theme}: {one['id']} {node['html'][:160]}" for node in one["nodes"]]


def leave_dialog(page: Page) -> None:
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)


@pytest.mark.soak
def test_axe_finds_nothing_in_any_state(server: Server, crowd: Crowd, person: Callable[..., Person]) -> None:
    check, sofia, room = Checks(), person(server, "Sofia"), "Design review"
    page = sofia.page
    page.goto(f"{server.url}/?room={room}")
    expect(page.locator("#preview-video")).to_be_visible()
    check(page, "join")
    page.goto(f"{server.url}/?token={crowd.token(room, 'Sofia', permissions={'moderate': True})}&preview=off")
    eventually(lambda: sofia.peer, "Sofia is in")
    check(page, "alone")
    crowd.join(room, ["Amira Haddad"], sound=True)
    expect(page.locator(".tile")).to_have_count(2)

    page.keyboard.press("c")
    expect(page.locator("#chat-input")).to_be_focused()
    page.fill("#chat-input", "The plan: https://example.org/plan")
    page.press("#chat-input", "Enter")
    page.set_input_files("#chat-files", files=[{"name": "notes.pdf", "mimeType": "application/pdf", "buffer": b"x"}])
    expect(page.locator("a.filecard")).to_be_visible()
    check(page, "chat", "#panel")

    page.keyboard.press("Escape")
    page.keyboard.press("p")
    page.get_by_role("button", name="Manage", exact=True).click()
    page.get_by_role("switch", name="Lobby").click()
    check(page, "manage", "dialog[open]")
    page.get_by_role("button", name="End for everyone").click()
    expect(page.get_by_role("dialog", name="End the call for everyone?")).to_be_visible()
    check(page, "confirm", "dialog[open]")
    leave_dialog(page)
    crowd.page.evaluate("window.crowd.get('Amira Haddad').send('hand', { raised: true })")
    crowd.page.evaluate("window.crowd.get('Amira Haddad').send('chat', { text: 'hello' })")
    expect(page.locator("#chat-count")).to_be_visible()
    check(page, "unread and raised hand", "#call-view")
    waiting = person(server, "Sam", quiet=True)
    waiting.page.goto(f"{server.url}/?token={crowd.token(room, 'Sam')}&preview=off")
    expect(page.locator(".lobby")).to_be_visible()
    check(waiting.page, "in the lobby")
    crowd.knock(room, ["Ines"])
    expect(page.get_by_role("button", name="Admit Ines")).to_be_visible()
    check(page, "people, lobby and toast", "#call-view")
    page.get_by_role("button", name="More actions for Amira Haddad").click()
    check(page, "menu of a person", "dialog[open]")
    leave_dialog(page)
    page.get_by_role("button", name="Invite", exact=True).click()
    expect(page.get_by_role("dialog", name="Invite people")).to_be_visible()
    check(page, "invite without a link", "dialog[open]")
    leave_dialog(page)

    for key, state in (("?", "shortcuts"), (",", "settings"), ("r", "reactions")):
        page.keyboard.press(key)
        expect(page.locator("dialog[open]")).to_be_visible()
        check(page, state, "dialog[open]")
        leave_dialog(page)
    page.click("#more-button")
    check(page, "more", "dialog[open]")
    leave_dialog(page)
    page.keyboard.press("i")
    expect(page.locator(".stream").first).to_be_visible()
    check(page, "connection", "#panel")
    page.click("#leave-button")
    expect(page.locator("#end-title")).to_be_visible()
    check(page, "left")
    sofia.join(room)
    check(page, "alone, with a link", "#invitation")
    page.keyboard.press("p")
    page.get_by_role("button", name="Invite", exact=True).click()
    expect(page.get_by_role("img", name="QR code of the link")).to_be_visible()
    check(page, "invite", "dialog[open]")
    assert "\n".join(check.found) == ""


@pytest.mark.soak
def test_controls_that_do_different_things_have_different_names(
    server: Server, crowd: Crowd, person: Callable[..., Person], room: str
) -> None:
    check, sofia, sam = Checks(), person(server, "Sofia", quiet=True), person(server, "Sam", quiet=True)
    page = sofia.page
    for one in (sofia, sam):
        token = crowd.token(room, one.name, permissions={"moderate": one is sofia})
        one.page.goto(f"{server.url}/?token={token}&preview=off")
        eventually(lambda one=one: one.peer, f"{one.name} is in")  # type: ignore[misc]
        one.page.click("#chat-button")
        notes = {"name": "notes.pdf", "mimeType": "application/pdf", "buffer": b"x"}
        one.page.set_input_files("#chat-files", files=[notes])
    expect(page.locator("a.filecard")).to_have_count(2)
    page.route("**/files", lambda route: route.abort())
    letters = [{"name": name, "mimeType": "text/plain", "buffer": b"x"} for name in ("a.txt", "b.txt")]
    page.set_input_files("#chat-files", files=letters)
    expect(page.locator(".uploads").get_by_role("button", name="Try again")).to_have_count(2)
    check(page, "files", "#panel")
    page.keyboard.press("Escape")
    crowd.join(room, ["Amira Haddad"])
    crowd.page.evaluate("window.crowd.get('Amira Haddad').send('hand', { raised: true })")
    crowd.page.evaluate("window.crowd.get('Amira Haddad').send('chat', { text: 'hello' })")
    page.evaluate("room.send('room', { locked: null, lobby: true })")
    eventually(lambda: page.evaluate("room.settings.lobby"), "the lobby is on")
    crowd.knock(room, ["Ines"])
    expect(page.locator(".toast")).to_have_count(3)
    check(page, "toasts", "#call-view")
    page.click("#people-button")
    crowd.knock(room, ["Noor"])
    expect(page.get_by_role("button", name="Admit Noor")).to_be_visible()
    check(page, "people", "#call-view")
    assert "\n".join(check.found) == ""


LANGUAGES = ["de", "es", "fr", "ar"]
_SPEAK_JS = "async (language) => (await import('/i18n/texts.js')).speak(language)"


@pytest.mark.soak
def test_axe_finds_nothing_in_the_other_languages(server: Server, crowd: Crowd, person: Callable[..., Person]) -> None:
    check, sofia, room = Checks(), person(server, "Sofia", quiet=True), "Langues"
    page = sofia.page
    page.goto(f"{server.url}/?room={room}")
    expect(page.locator("#join-devices select")).not_to_have_count(0)
    for language in LANGUAGES:
        page.evaluate(_SPEAK_JS, language)
        check(page, f"join in {language}")
    page.goto(f"{server.url}/?token={crowd.token(room, 'Sofia', permissions={'moderate': True})}&preview=off")
    eventually(lambda: sofia.peer, "Sofia is in")
    crowd.join(room, ["Amira Haddad"])
    page.evaluate("async () => (await import('/app/page.js')).page.actions.later()")
    page.keyboard.press("h")
    crowd.page.evaluate("window.crowd.get('Amira Haddad').send('chat', { text: 'hello' })")
    expect(page.locator("#chat-count")).to_be_visible()
    page.evaluate("room.send('room', { locked: null, lobby: true })")
    eventually(lambda: page.evaluate("room.settings.lobby"), "the lobby is on")
    crowd.knock(room, ["Sam"])
    expect(page.locator(".toast--ask")).to_be_visible()
    for language in LANGUAGES:
        page.evaluate(_SPEAK_JS, language)
        check(page, f"call in {language}", "#call-view")
        for key in ("p", "c", "i"):
            page.keyboard.press(key)
            expect(page.locator("#panel")).to_be_visible()
            check(page, f"panel {key} in {language}", "#panel")
            page.keyboard.press("Escape")
        for key in (",", "?", "r"):
            page.keyboard.press(key)
            expect(page.locator("dialog[open]")).to_be_visible()
            check(page, f"dialog {key} in {language}", "dialog[open]")
            leave_dialog(page)
    assert "\n".join(check.found) == ""


def walk(page: Page, target: str) -> None:
    """Presses Tab until the element of this id has the focus."""
    for _ in range(20):
        if page.evaluate("document.activeElement?.id") == target:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {target}")


def test_the_keyboard_alone_leads_through_a_call(server: Server, person: Callable[..., Person]) -> None:
    alice = person(server, "alice", quiet=True).join("keys")
    bob = person(server, "bob")
    page = bob.page
    page.goto(f"{server.url}/?room=keys")
    expect(page.locator("#name-input")).to_be_visible()
    walk(page, "name-input")
    page.keyboard.type("bob")
    page.keyboard.press("Enter")
    eventually(lambda: bob.peer, "bob is in")
    expect(alice.page.locator("#announcer")).to_contain_text("bob joined")
    page.keyboard.press("m")
    expect(page.locator("#mic-button")).to_have_accessible_name("Unmute")
    page.keyboard.press("c")
    expect(page.locator("#chat-input")).to_be_focused()
    page.keyboard.type("hello, c and m are letters here")
    page.keyboard.press("Enter")
    log = page.get_by_role("log")
    expect(log).to_contain_text("hello, c and m are letters here")
    expect(log).to_have_attribute("aria-live", "polite")
    page.keyboard.press("Escape")
    expect(page.locator("#chat-button")).to_be_focused()
    walk(page, "leave-button")
    page.keyboard.press("Enter")
    expect(page.locator("#end-title")).to_have_text("You left keys")
    expect(page.locator("#end-title")).to_be_focused()
