"""What stands between a person and the call, in real browsers: each time a sentence says so, and a button helps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from people import FAKE_DEVICES, Person, launch
from playwright.sync_api import Browser, Playwright, expect
from support.process import Server
from support.waiting import eventually

People = Callable[..., Person]

_BUSY_JS = """
const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
window.busy = true; // what a browser says while another program holds the camera
navigator.mediaDevices.getUserMedia = async (asked) => {
    if (window.busy && asked.video) throw new DOMException('Could not start video source', 'NotReadableError');
    return real(asked);
};
"""
BUSY = "The camera can’t be started. Another app may be using it. Close that app, then try again."
_MICROPHONE_JS = "window.room.pc.getSenders().find((one) => one.track?.kind === 'audio')?.track.id"
_HAPPENS_JS = """async (type) => {
    const { page } = await import('/app/page.js');
    await page.actions.later(); // the rest of the page is here
    page.devices.track('microphone').dispatchEvent(new Event(type));
}"""
_HEARS_JS = "[...document.querySelectorAll('.tile:not(.is-self) video')].every((one) => !one.muted && !one.paused)"


@pytest.mark.soak
def test_a_camera_that_is_busy_can_be_tried_again(server: Server, person: People) -> None:
    alice = person(server, "alice")
    page = alice.page
    page.add_init_script(_BUSY_JS)
    page.goto(f"{server.url}/?room=busy")
    problem = page.locator("#preview-problem")
    expect(problem).to_contain_text(BUSY)
    expect(page.locator("#join-will")).to_have_text("You’ll join with your microphone on and your camera off.")
    page.evaluate("window.busy = false")
    problem.get_by_role("button", name="Try again").click()
    expect(page.locator("#preview-video")).to_be_visible()
    expect(problem).to_be_empty()

    alice.join("busy")  # straight in, and busy again
    said = page.locator(".toast", has_text=BUSY)
    again = said.get_by_role("button", name=re.compile("^Try again"))
    again.click()
    expect(again).to_be_visible()
    page.evaluate("window.busy = false")
    again.click()
    expect(page.locator(".tile.is-self.has-picture")).to_have_count(1)
    expect(said).to_have_count(0)


def test_a_microphone_that_a_phone_call_takes_can_be_taken_back(server: Server, person: People) -> None:
    page = person(server, "alice").join("phone").page
    before = eventually(lambda: page.evaluate(_MICROPHONE_JS), "a microphone is sent")
    taken = page.get_by_role("alert").filter(has_text="is using your microphone. Others can’t hear you.")
    page.evaluate(_HAPPENS_JS, "mute")
    expect(taken).to_be_visible()
    page.evaluate(_HAPPENS_JS, "unmute")  # the call is over
    expect(taken).to_have_count(0)
    page.evaluate(_HAPPENS_JS, "mute")
    taken.get_by_role("button", name="Turn it back on").click()
    eventually(lambda: page.evaluate(_MICROPHONE_JS) not in (None, before), "the microphone is opened anew")
    expect(taken).to_have_count(0)
    before = page.evaluate(_MICROPHONE_JS)
    page.evaluate(_HAPPENS_JS, "ended")  # some systems end the track instead
    expect(page.locator(".toast", has_text="as your microphone.")).to_be_visible()
    eventually(lambda: page.evaluate(_MICROPHONE_JS) not in (None, before), "another one is sent")


@pytest.fixture
def strict(playwright: Playwright) -> Iterator[Browser]:
    """A browser as people have it: no sound before the page is touched."""
    with launch(playwright, FAKE_DEVICES, "--autoplay-policy=document-user-activation-required") as running:
        yield running


@pytest.mark.soak
def test_sound_that_the_browser_holds_back_is_heard_after_a_tap(
    server: Server, person: People, strict: Browser
) -> None:
    alice = person(server, "alice").join("tap")
    listener = person(server, "lena", on=strict, quiet=True)
    with listener.page.expect_request(
        "**/call/deferred.js"
    ):  # and nothing is looked at: for the browser that is a touch
        listener.page.goto(f"{server.url}/?room=tap&username=lena")
    said = listener.page.locator(".toast", has_text="Your browser blocks sound until you click or tap.")
    expect(said).to_be_visible()
    assert not listener.page.evaluate(_HEARS_JS)
    said.get_by_role("button", name="Turn on sound").click()
    eventually(lambda: listener.page.evaluate(_HEARS_JS), "the sound plays")
    expect(said).to_have_count(0)
    listener.hears()
    listener.sees(alice)


@pytest.mark.soak
def test_a_picture_floats_above_other_windows_and_comes_back(server: Server, person: People) -> None:
    alice, bob = person(server, "alice", quiet=True).join("float"), person(server, "bob").join("float")
    alice.sees(bob)
    floats = f"document.pictureInPictureElement === document.querySelector('{alice.tile(bob)} video')"
    alice.page.click("#more-button")
    alice.page.get_by_role("menuitem", name="Picture in picture").click()
    eventually(lambda: alice.page.evaluate(floats), "bob's picture floats")
    alice.sees(bob)
    alice.page.click("#more-button")
    alice.page.get_by_role("menuitem", name="Leave picture in picture").click()
    eventually(lambda: alice.page.evaluate("document.pictureInPictureElement === null"), "it is back")
    alice.sees(bob)


def test_a_part_that_does_not_load_is_tried_again_and_then_by_a_button(server: Server, person: People) -> None:
    page = person(server, "alice", quiet=True).page
    failed: list[str] = []
    page.route("**/call/deferred.js", lambda route: route.abort() if failed.append(route.request.url) is None else None)
    page.goto(f"{server.url}/?room=part&username=alice")
    said = page.get_by_role("link", name="Try again")
    eventually(lambda: page.wait_for_timeout(1) or len(failed) == 2, "the page has loaded itself again")
    expect(page.get_by_text("Part of this page did not load.")).to_be_visible()
    page.unroute("**/call/deferred.js")
    said.click()
    expect(said).to_have_count(0)
    page.click("#chat-button")
    expect(page.locator("#chat-input")).to_be_focused()
    assert len(failed) == 2
