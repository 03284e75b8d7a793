"""Microphones, cameras and speakers: the page describes each state truly, and shows the devices in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from people import Person, camera_script
from playwright.sync_api import Browser, Page, Route, expect
from support.process import Server
from support.variants import variants
from support.waiting import eventually

_DEVICES_JS = """
const { mediaDevices } = navigator;
const list = mediaDevices.enumerateDevices.bind(mediaDevices);
const open = mediaDevices.getUserMedia.bind(mediaDevices);
window.listed = (devices) => devices; // what the browser lists, and what it answers to a request
window.answer = null;
mediaDevices.enumerateDevices = async () => window.listed(await list());
mediaDevices.getUserMedia = (asked) => (window.answer ?? open)(asked);
"""
_DENY_JS = "window.answer = async () => { throw new DOMException('%s', 'NotAllowedError'); };"
_TRACK_JS = "import('/app/page.js').then(({ page }) => page.devices.track('microphone')?.[%r])"
_DEFAULT_MOVES_JS = """() => {
    window.listed = (devices) => devices.map((one) => ({ ...one.toJSON(), groupId: one.groupId + 'other' }));
    navigator.mediaDevices.dispatchEvent(new Event('devicechange'));
}"""
_UNPLUG_JS = """(label) => {
    window.listed = (devices) => devices.filter((one) => !one.label.endsWith(label));
    navigator.mediaDevices.dispatchEvent(new Event('devicechange'));
}"""
_PLUG_JS = """() => {
    window.listed = (devices) => devices;
    navigator.mediaDevices.dispatchEvent(new Event('devicechange'));
}"""
_SENT_JS = "(id) => window.room.pc.getSenders().some(({ track }) => track?.id === id)"
_SINK_JS = "document.querySelector('.tile:not(.is-self) video').sinkId"
_STARTING_JS = """window.answer = () => new Promise((_, reject) => {
    window.fail = () => reject(new DOMException('', 'NotReadableError'));
});"""
ON = "You’ll join with your microphone and camera on."
OFF = "You’ll join muted, with your camera off."


@pytest.fixture
def preview(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    """Opens the page before the call, after a script."""
    contexts = []

    def go(script: str = "", route: Callable[[Route], None] | None = None) -> Page:
        context = browser.new_context(permissions=["camera", "microphone"])
        contexts.append(context)
        context.add_init_script(camera_script())
        context.add_init_script(_DEVICES_JS + script)
        page = context.new_page()
        if route is not None:
            page.route(f"{server.url}/?*", route)
        page.goto(f"{server.url}/?room=devices")
        return page

    yield go
    for context in contexts:
        context.close()


def will(page: Page) -> str:
    return page.locator("#join-will").inner_text()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Permission denied", "Your browser is blocking the camera and microphone."),
        *variants(
            ("Permission dismissed", "Try again, then choose “Allow”."),
            ("Permission denied by system", "Allow it in the system’s privacy settings, then try again."),
        ),
    ],
)
def test_each_refusal_has_its_own_remedy(preview: Callable[..., Page], message: str, said: str) -> None:
    page = preview(_DENY_JS % message)
    problem = page.locator("#preview-problem")
    expect(problem).to_contain_text(said)
    expect(page.locator("#join-will")).to_have_text(OFF)
    page.evaluate("() => { window.answer = null; }")
    problem.get_by_role("button", name="Try again").click()
    expect(page.locator("#join-will")).to_have_text(ON)
    expect(problem).to_be_empty()


def test_a_device_that_is_allowed_again_says_nothing_of_the_other(preview: Callable[..., Page]) -> None:
    page = preview(_DENY_JS % "")
    page.fill("#name-input", "Sam")
    page.get_by_role("button", name="Join room").click()
    eventually(lambda: page.evaluate("window.room?.connected"), "in the room")
    page.evaluate("window.answer = null")
    page.locator("#mic-button").click()
    expect(page.locator("#mic-button.is-off")).to_have_count(0)
    page.evaluate("import('/app/page.js').then(({ page }) => page.actions.retry(['microphone']))")  # waits for toasts
    expect(page.locator(".toast", has_text="Your browser is blocking")).to_have_count(0)
    page.locator("#camera-button").click()
    expect(page.locator("#camera-button.is-off")).to_have_count(0)


def test_a_refusal_in_a_call_says_what_is_possible_there(preview: Callable[..., Page]) -> None:
    page = preview(_DENY_JS % "")
    page.fill("#name-input", "Sam")
    page.get_by_role("button", name="Join room").click()
    eventually(lambda: page.evaluate("window.room?.connected"), "in the room")
    page.locator("#mic-button").click()
    problem = page.locator(".toast", has_text="Your browser is blocking the camera and microphone.")
    expect(problem).to_contain_text("Without them, you can watch, listen and chat.")
    page.evaluate("window.answer = null")
    page.locator("#camera-button").click()
    expect(problem).to_have_count(0)


def test_a_policy_that_keeps_the_page_from_the_camera(preview: Callable[..., Page]) -> None:
    def bar(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, headers=response.headers | {"permissions-policy": "camera=()"})

    page = preview(route=bar)
    expect(page.locator("#join-will")).to_have_text("You’ll join with your microphone on and your camera off.")
    expect(page.locator("#preview-problem")).to_contain_text("The site that shows this page doesn’t let it use")
    expect(page.locator("#preview-problem button")).to_have_count(0)
    expect(page.locator("#join-camera option")).to_have_text("Access blocked")


def test_nothing_is_promised_while_devices_start(preview: Callable[..., Page]) -> None:
    page = preview(_STARTING_JS)
    expect(page.locator("#join-will")).to_have_text("Your devices turn on when they’re ready.")
    for source in ("microphone", "camera"):
        expect(page.locator(f"#join-{source} option")).to_have_text("Starting")
    eventually(lambda: page.evaluate("Boolean(window.fail)"), "the devices are requested")
    eventually(lambda: page.evaluate("window.fail()") or will(page) == OFF, "neither has started")
    expect(page.locator("#preview-problem")).to_contain_text("The camera and microphone can’t be started.")
    page.evaluate("() => { window.answer = null; }")
    page.locator("#join-camera").select_option(label="fake_device_2")  # another one may start
    expect(page.locator("#join-will")).to_have_text("You’ll join muted, with your camera on.")


def test_no_devices_at_all(preview: Callable[..., Page]) -> None:
    page = preview("window.listed = () => [];")
    expect(page.locator("#preview-problem")).to_contain_text("No camera or microphone found.")
    expect(page.locator("#join-will")).to_have_text(OFF)
    for source in ("microphone", "camera"):
        expect(page.locator(f"#join-{source} option")).to_have_text("None found")
    page.evaluate(_PLUG_JS)
    expect(page.locator("#join-camera option")).not_to_have_text(["None found"])


def test_a_device_in_use_is_shown_even_if_the_browser_does_not_list_it(preview: Callable[..., Page]) -> None:
    """As Chromium's alias for communications, or a device whose entry the browser has removed first."""
    page = preview()
    expect(page.locator("#join-will")).to_have_text(ON)
    shown = page.locator("#join-microphone option:checked")
    page.locator("#join-microphone").select_option(label="Fake Audio Input 2")
    eventually(lambda: page.evaluate(_TRACK_JS % "label") == "Fake Audio Input 2", "it is opened")
    page.evaluate(_UNPLUG_JS, "Audio Input 2")
    expect(page.locator("#join-microphone option")).to_have_count(3)
    expect(shown).to_have_text("Fake Audio Input 2")


def test_the_default_microphone_follows_the_system(server: Server, person: Callable[..., Person]) -> None:
    alice = person(server, "alice")
    alice.page.add_init_script(_DEVICES_JS)
    page = alice.join("default").page
    before = eventually(lambda: page.evaluate(_TRACK_JS % "id"), "the microphone is on")
    page.evaluate("import('/app/page.js').then(({ page }) => page.actions.later())")
    page.evaluate(_DEFAULT_MOVES_JS)
    expect(page.locator(".toast", has_text="Now using Fake Default Audio Input as your microphone.")).to_be_visible()
    after = page.evaluate(_TRACK_JS % "id")
    assert after not in (None, before)
    eventually(lambda: page.evaluate(_SENT_JS, after), "the new one is sent")


@pytest.mark.soak
def test_a_speaker_that_is_gone_is_not_played_on(server: Server, person: Callable[..., Person]) -> None:
    bob = person(server, "bob").join("speaker")
    alice = person(server, "alice")
    alice.page.add_init_script(_DEVICES_JS)
    page = alice.join("speaker").page
    alice.sees(bob)
    page.keyboard.press(",")
    speaker = page.locator("#settings-speaker")
    speaker.select_option(label="Fake Audio Output 2")
    chosen = eventually(lambda: page.evaluate(_SINK_JS), "it is played on")
    page.evaluate(_UNPLUG_JS, "Audio Output 2")
    expect(speaker.locator("option:checked")).to_have_text("System default")
    eventually(lambda: page.evaluate(_SINK_JS) == "", "the default is played on")
    page.evaluate(_PLUG_JS)
    expect(speaker.locator("option:checked")).to_have_text("Fake Audio Output 2")
    eventually(lambda: page.evaluate(_SINK_JS) == chosen, "it is played on again")
