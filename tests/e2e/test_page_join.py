"""Before the call, in real browsers: the preview, what is remembered, languages, refusals, and how much is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from crowd import Crowd
from people import HERE, Person, camera_script
from playwright.sync_api import Browser, Page, Route, expect
from support.process import Server
from support.variants import variants
from support.waiting import eventually
from venue import Venue

FIRST_LOAD_BYTES = 158_000
REST = re.compile(r"/(before|late)/\w+\.js$")
"""The texts of what loads once a call stands."""
USUAL: dict[str, Any] = {"permissions": ["camera", "microphone"], "viewport": {"width": 1280, "height": 800}}


@pytest.fixture
def visit(browser: Browser, server: Server) -> Callable[..., Page]:
    """Opens a page of the server; the test fails if the page fails, or is stopped by its own policy."""
    pages: list[tuple[Any, list[str]]] = []

    def go(path: str, **options: Any) -> Page:
        context = browser.new_context(**USUAL | options)
        context.add_init_script(camera_script(plain=False))
        page, problems = context.new_page(), []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if "Policy" in message.text else None)
        pages.append((context, problems))
        page.goto(server.url + path)
        return page

    yield go  # type: ignore[misc]
    for context, _ in pages:
        context.close()
    assert [problem for _, problems in pages for problem in problems] == []


def test_one_field_and_one_button(visit: Callable[..., Page]) -> None:
    page = visit("/?room=one-field")
    expect(page.locator("#join-title")).to_have_text("one-field")
    expect(page.locator("#join-form input:visible")).to_have_count(1)
    expect(page.locator("#preview-video")).to_be_visible()
    expect(page.locator("#join-microphone option")).not_to_have_count(0)
    expect(page.locator("#join-devices .hint").first).to_have_text("We can hear you")
    expect(page.locator("#join-will")).to_have_text("You’ll join with your microphone and camera on.")
    page.click("#join-button")
    expect(page.locator("#name-hint")).to_have_text("Enter your name so that others know who you are.")
    page.fill("#name-input", "Sofia")
    page.press("#name-input", "Enter")
    eventually(lambda: page.evaluate("window.room?.state === 'joined'"), "in the room")


def test_a_link_in_place_of_a_name_is_opened(visit: Callable[..., Page]) -> None:
    page = visit("/")
    page.fill("#name-input", "Sofia")
    page.fill("#room-input", page.url + "?room=pasted")
    page.press("#room-input", "Enter")
    expect(page.locator("#join-title")).to_have_text("pasted")


def test_what_was_chosen_is_remembered(visit: Callable[..., Page]) -> None:
    page = visit("/?room=remember")
    expect(page.locator("#preview-video")).to_be_visible()
    page.click(".puck[data-toggle=microphone]")
    page.click(".puck[data-toggle=camera]")
    expect(page.locator("#preview-video")).to_be_hidden()
    page.fill("#name-input", "Sofia")
    page.click("#join-button")
    eventually(lambda: page.evaluate("window.room?.connected"), "in the room")
    expect(page.locator("#mic-button")).to_have_attribute("aria-label", "Unmute")
    page.goto(page.url.replace("remember", "other"))
    expect(page.locator("#name-input")).to_have_value("Sofia")
    expect(page.locator("#join-will")).to_have_text("You’ll join muted, with your camera off.")
    expect(page.locator("#preview-video")).to_be_hidden()


@pytest.mark.parametrize(
    ("locale", "direction", "button"),
    [
        ("ar-EG", "rtl", "الانضمام إلى الغرفة"),
        *variants(("de-AT", "ltr", "Raum betreten"), ("fr", "ltr", "Rejoindre la salle"), ("nl", "ltr", "Join room")),
    ],
)
def test_the_page_speaks_the_readers_language(
    visit: Callable[..., Page], locale: str, direction: str, button: str
) -> None:
    page = visit("/?room=words", locale=locale)
    expect(page.locator("#join-button")).to_have_text(button)
    expect(page.locator("html")).to_have_attribute("dir", direction)
    page.click("#join-view .language")
    page.get_by_role("menuitemradio", name="Español").click()
    expect(page.locator("#join-button")).to_have_text("Entrar en la sala")
    page.reload()
    expect(page.locator("#join-button")).to_have_text("Entrar en la sala")


@pytest.mark.soak
def test_days_are_written_as_in_the_readers_country(visit: Callable[..., Page]) -> None:
    script = "async () => (await import('/i18n/texts.js')).day(Date.UTC(2026, 10, 30, 12))"
    written = [visit("/?room=days", locale=locale).evaluate(script) for locale in ("en-US", "en-GB", "de-AT")]
    assert written == ["Monday, November 30", "Monday 30 November", "Montag, 30. November"]


def counting(page: Page) -> dict[str, int]:
    """The bytes of every response from now on, uncompressed, by address."""
    loaded: dict[str, int] = {}
    page.on("response", lambda response: loaded.update({response.url: len(response.body())}) if response.ok else None)
    return loaded


def check_light(loaded: dict[str, int], server: Server, language: str) -> None:
    named = {url.removeprefix(server.url).partition("?")[0]: size for url, size in loaded.items()}
    assert len(named) == len(loaded)
    assert all(url.startswith("/") for url in named), "nothing comes from elsewhere"
    assert [url for url in named if url.startswith("/lang/")] == [f"/lang/{language}.js"]
    assert sum(named.values()) < FIRST_LOAD_BYTES, named


def test_the_first_load_is_light(visit: Callable[..., Page], server: Server) -> None:
    page = visit("/health")
    loaded = counting(page)
    page.goto(f"{server.url}/?room=light")
    expect(page.locator("#preview-video")).to_be_visible()
    expect(page.locator("#join-devices .hint").first).to_have_text("We can hear you")
    assert not any(url.endswith(("/call/call.js", "/call/deferred.js", "/call/settings.js")) for url in loaded)
    check_light(loaded, server, "en")


@pytest.mark.parametrize("language", ["en", *variants("ar")])  # Arabic has the largest file
def test_a_link_straight_into_a_call_loads_as_little(
    visit: Callable[..., Page], server: Server, person: Callable[..., Person], language: str
) -> None:
    """Until the call stands: in the room, and the first of the others is seen."""
    person(server, "alice").join(f"straight {language}")
    page = visit("/health", locale=language)
    loaded = counting(page)
    rest: list[Route] = []
    page.route(REST, lambda route: rest.append(route))
    with page.expect_request(REST):
        page.goto(f"{server.url}/?room=straight {language}&username=bob")
    assert page.evaluate("window.room.connected")
    expect(page.locator(".tile.has-picture:not(.is-self)")).to_have_count(1)
    check_light(loaded, server, language)
    for route in rest:
        route.continue_()
    page.unroute(REST)
    page.click("#chat-button")
    expect(page.locator("#chat-input")).to_be_focused()


def test_what_is_typed_while_the_chat_loads_is_for_the_chat(visit: Callable[..., Page], server: Server) -> None:
    page = visit("/health")
    rest: list[Route] = []
    page.route("**/call/deferred.js", lambda route: rest.append(route))
    with page.expect_request("**/call/deferred.js"):
        page.goto(f"{server.url}/?room=early&username=bob")
    page.keyboard.press("c")
    page.keyboard.type("hm, vx")  # each of the first four is a shortcut, or might be one
    page.keyboard.press("Backspace")
    page.keyboard.press("Space")
    for route in rest:
        route.continue_()
    page.unroute(REST)
    expect(page.locator("#chat-input")).to_be_focused()
    expect(page.locator("#chat-input")).to_have_value("hm, v ")
    expect(page.locator("#mic-button")).to_have_attribute("aria-label", "Mute")
    expect(page.locator("#camera-button")).to_have_attribute("aria-label", "Stop video")
    expect(page.locator("dialog[open]")).to_have_count(0)
    page.keyboard.type("ok")
    expect(page.locator("#chat-input")).to_have_value("hm, v ok")


def test_a_link_that_is_no_token_says_what_to_do(visit: Callable[..., Page]) -> None:
    page = visit("/?token=broken", locale="en")
    expect(page.locator("#end-title")).to_have_text("This link doesn’t work")
    page.click("[data-act=another_link]")
    expect(page.locator("#join-form")).to_be_visible()
    assert "token" not in page.url


@pytest.mark.soak
def test_a_full_room_is_waited_for(start_server: Callable[..., Server], person: Callable[..., Person]) -> None:
    server = start_server(max_peers="1")
    alice, bob = (person(server, name, quiet=True) for name in ("alice", "bob"))
    alice.join("team")
    bob.page.goto(f"{server.url}/?room=team&username=bob")
    expect(bob.page.locator("#end-title")).to_have_text("The room is full")
    expect(bob.page.locator("#end-countdown")).to_contain_text("Trying again in")
    alice.page.click("#leave-button")
    bob.page.click("[data-act=now]")
    eventually(lambda: bob.peer, "bob is in the room")
    expect(bob.page.locator("#call-view")).to_be_visible()


@pytest.mark.parametrize("secure", [True, False])
def test_an_insecure_page_links_to_a_secure_one_if_there_is_one(server: Server, browser: Browser, secure: bool) -> None:
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("requestfailed", lambda request: asked.append(request.url))
    if secure:  # as behind a proxy with a certificate
        page.route("https://**/health", lambda route: route.fulfill(body="{}"))
    page.goto(f"http://{HERE}:{server.port}/?room=insecure")
    link = page.locator("#preview-problem a")
    expect(link).to_have_attribute("href", f"https://{HERE}:{server.port}/?room=insecure")
    if not secure:
        eventually(lambda: page.wait_for_timeout(1) or any("https:" in url for url in asked), "it was tried")
    expect(link).to_be_visible(visible=secure)
    context.close()


@pytest.mark.parametrize(("touch", "empty"), [(False, "name-input"), *variants((True, "join-button"))])
def test_the_focus_is_where_one_goes_on(visit: Callable[..., Page], touch: bool, empty: str) -> None:
    page = visit("/?room=focus", has_touch=touch, is_mobile=touch)
    expect(page.locator(f"#{empty}")).to_be_focused()
    assert page.locator(f"#{empty}").evaluate("(one) => one.matches(':focus-visible')")
    page.evaluate("localStorage.setItem('sfu.name', 'Sofia')")
    page.reload()
    expect(page.locator("#join-button")).to_be_focused()


@pytest.mark.soak
def test_what_people_write_has_its_own_direction(
    visit: Callable[..., Page], person: Callable[..., Person], server: Server
) -> None:
    name, room = "ليلى", "غرفة"
    person(server, name, quiet=True).join(room)
    page = visit(f"/?room={room}")
    expect(page.locator("#inside-names")).to_have_text(f"\u2068{name}\u2069")
    page.fill("#name-input", "نور")
    for one in ("#name-input", "#join-title"):
        expect(page.locator(one)).to_have_css("direction", "rtl")
    page.click("#join-button")
    expect(page.locator(".tile:not(.is-self) .plate bdi")).to_have_css("direction", "rtl")
    page.click("#chat-button")
    page.fill("#chat-input", "مرحبا")
    expect(page.locator("#chat-input")).to_have_css("direction", "rtl")
    page.press("#chat-input", "Enter")
    expect(page.locator(".message__text")).to_have_css("unicode-bidi", "plaintext")


def test_a_link_that_fails_offers_a_request_to_send(server: Server, browser: Browser, crowd: Crowd) -> None:
    token = crowd.token("team", "alice", duration=60)
    head, body, signature = token.split(".")
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{server.url}/?token={head}.{body}.{signature[::-1]}&preview=off")
    expect(page.locator("#end-title")).to_have_text("This link doesn’t work")
    page.click("[data-act=request]")
    expect(page.locator("[data-act=request]")).to_have_text("Copied")
    assert "team" in page.evaluate("navigator.clipboard.readText()")
    context.close()


_STANDING_JS = """
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = (asked) => new Promise((allow, reject) => { // a question that nobody answers yet
    window.answer = (name) => (name ? reject(new DOMException('', name)) : open(asked).then(allow));
});
"""


@pytest.mark.parametrize(("touch", "where"), [(False, "below the address bar"), *variants((True, "on the screen"))])
def test_while_the_browser_asks_the_page_says_so(visit: Callable[..., Page], touch: bool, where: str) -> None:
    page = visit("/health", permissions=None, has_touch=touch, is_mobile=touch)
    page.add_init_script(_STANDING_JS)
    page.goto(page.url.replace("/health", "/?room=asking"))
    problem = page.locator("#preview-problem")
    expect(problem).to_contain_text("Your browser is asking for access to your camera and microphone.")
    expect(problem).to_contain_text(where)
    expect(problem.locator(".ask")).to_be_visible()
    expect(page.locator("#join-will")).to_have_text("Your devices turn on once you allow them.")
    for source in ("microphone", "camera"):
        expect(page.locator(f"#join-{source} option")).to_have_text("Waiting for permission")
    page.evaluate("window.answer('NotAllowedError')")
    expect(problem).to_contain_text("Your browser is blocking the camera and microphone.")
    expect(page.locator("#join-will")).to_have_text("You’ll join muted, with your camera off.")


@pytest.mark.soak
@pytest.mark.parametrize("straight", [False, True])
def test_who_does_not_wait_for_the_question_gets_in_and_is_reminded(visit: Callable[..., Page], straight: bool) -> None:
    """Camera and microphone turn on once it is answered; until then their keys say why they do not."""
    page = visit("/health", permissions=None)
    page.add_init_script(_STANDING_JS)
    page.goto(page.url.replace("/health", "/?room=not-waiting" + ("&username=Sofia" if straight else "")))
    if not straight:
        expect(page.locator(".ask")).to_be_visible()
        page.fill("#name-input", "Sofia")
        page.click("#join-button")
    eventually(lambda: page.evaluate("window.room?.connected"), "in the room")
    toasts = page.locator(".toast", has_text="Your browser is asking for access to your camera and microphone.")
    expect(toasts).to_contain_text("below the address bar")
    for key, source, press in (("mic", "microphone", "m"), ("camera", "camera", "v")):
        asking = (
            f"Your browser is asking for access to your {source}. Choose “Allow” in the prompt below the address bar."
        )
        button = page.locator(f"#{key}-button")
        expect(button).to_have_attribute("title", asking)
        expect(button).to_have_class(re.compile("is-off"))
        for press_it in (
            lambda button=button: button.click(force=True),
            lambda press=press: page.keyboard.press(press),
        ):
            press_it()
            told = page.locator(".toast", has_text=asking)
            told.get_by_role("button").click()
            expect(told).to_have_count(0)
    page.evaluate("window.answer()")
    expect(page.locator("#mic-button")).to_have_accessible_name("Mute")
    expect(page.locator("#mic-button")).to_have_attribute("title", "Mute (M)")
    expect(page.locator("#camera-button")).to_have_accessible_name("Stop video")
    expect(toasts).to_have_count(0)


def test_the_microphone_in_use_is_the_one_that_is_shown(visit: Callable[..., Page]) -> None:
    page = visit("/?room=in-use")
    expect(page.locator("#preview-video")).to_be_visible()
    used = "import('/app/page.js').then(({ page }) => page.devices.track('microphone').label)"
    shown = page.locator("#join-microphone option:checked")
    eventually(lambda: shown.inner_text() == page.evaluate(used), "it is shown")


_COMES_BACK_JS = "document.dispatchEvent(new Event('visibilitychange'))"


@pytest.mark.soak
def test_the_preview_notices_what_changes_meanwhile(visit: Callable[..., Page], venue: Venue, room: str) -> None:
    """By itself after a while, and at once for whoever comes back to the tab."""
    venue.api("POST", "/rooms", {"room_id": room})
    page = visit("/health")
    page.clock.install()
    page.goto(f"{venue.server.url}/?token={venue.token(room, 'Sofia')[0]}")
    button, count = page.locator("#join-button"), page.locator("#inside-count")
    expect(button).to_have_text("Join room")
    for wait in (lambda: page.clock.fast_forward(15_000), lambda: page.evaluate(_COMES_BACK_JS)):
        for setting, label, said in (
            ("locked", "Check again", f"{room} is locked"),
            ("lobby", "Ask to join", "This room has a lobby"),
        ):
            venue.api("PUT", f"/rooms/{room}", {setting: True})
            wait()
            expect(button).to_have_text(label)
            expect(count).to_have_text(said)
            venue.api("PUT", f"/rooms/{room}", {setting: False})
            wait()
            expect(button).to_have_text("Join room")
            expect(count).to_have_text("No one is in the room yet")
        venue.is_active(False)
        wait()
        expect(count).to_have_text("This room is closed")
        venue.is_active(True)
        wait()
        expect(button).to_have_text("Join room")
