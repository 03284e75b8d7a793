"""The page on a phone: cameras on both sides, a keyboard over the page, and nothing that only a computer has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crowd import Crowd
from people import QUIET_JS, camera_script
from phone import PHONE
from playwright.sync_api import Browser, Page, expect
from support.process import Server
from support.waiting import eventually

_TWO_SIDES_JS = """
window.asked = []; // as a phone does: a front and a back camera
delete MediaDevices.prototype.getDisplayMedia;
const { enumerateDevices, getUserMedia } = MediaDevices.prototype;
const camera = (deviceId, label) => ({ kind: 'videoinput', deviceId, groupId: '', label, toJSON() {} });
MediaDevices.prototype.enumerateDevices = async function () {
    const others = (await enumerateDevices.call(this)).filter(({ kind }) => kind !== 'videoinput');
    return [...others, camera('front', 'Front'), camera('back', 'Back'), camera('wide', 'Back, wide')];
};
MediaDevices.prototype.getUserMedia = async function ({ video, ...others }) {
    if (video) window.asked.push(video.facingMode ?? video.deviceId?.exact ?? '');
    const stream = await getUserMedia.call(this, { ...others, ...(video && { video: { height: 180 } }) });
    const facingMode = ['environment', 'back', 'wide'].includes(window.asked.at(-1)) ? 'environment' : 'user';
    const deviceId = facingMode === 'user' ? 'front' : 'back';
    for (const track of stream.getVideoTracks()) {
        const settings = track.getSettings.bind(track);
        track.getSettings = () => ({ ...settings(), facingMode, deviceId });
    }
    return stream;
};
"""
_KEYBOARD_JS = """(height) => {
    Object.defineProperty(visualViewport, 'height', { value: height, configurable: true }); // as on iOS
    visualViewport.dispatchEvent(new Event('resize'));
}"""


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(**PHONE, reduced_motion="reduce")
    context.add_init_script(_TWO_SIDES_JS)
    page = context.new_page()
    yield page
    context.close()


def mirrored(page: Page, selector: str) -> bool:
    found: bool = page.evaluate("(one) => getComputedStyle(document.querySelector(one)).transform", selector) != "none"
    return found


def test_the_camera_is_switched_before_and_in_a_call(phone: Page, server: Server, room: str) -> None:
    phone.goto(f"{server.url}/?room={room}")
    expect(phone.locator("#preview-video")).to_be_visible()
    assert mirrored(phone, "#preview-video")
    flip = phone.get_by_role("button", name="Switch camera")
    flip.click()
    eventually(lambda: phone.evaluate("window.asked") == ["", "environment"], "the back camera is asked for")
    eventually(lambda: not mirrored(phone, "#preview-video"), "what is before the phone is not mirrored")
    phone.fill("#name-input", "Sofia")
    phone.click("#join-button")
    eventually(lambda: phone.evaluate("window.room?.connected"), "in the room")
    own = '.tile.is-self[data-source="camera"] video'
    eventually(lambda: not mirrored(phone, own), "the own tile neither")
    phone.click("#more-button")
    phone.get_by_role("menuitem", name="Switch camera").click()
    eventually(lambda: phone.evaluate("window.asked.at(-1)") == "user", "the front camera is asked for")
    eventually(lambda: mirrored(phone, own), "the user is mirrored")


def test_what_a_phone_cannot_do_is_not_offered(phone: Page, server: Server, room: str) -> None:
    phone.goto(f"{server.url}/?room={room}&username=Sofia")
    eventually(lambda: phone.evaluate("window.room?.connected"), "in the room")
    phone.click("#more-button")
    expect(phone.get_by_role("menuitem", name="Settings")).to_be_visible()
    expect(phone.get_by_role("menuitem", name="Hand")).to_be_visible()
    for absent in ("Share", "Keyboard shortcuts"):
        expect(phone.get_by_role("menuitem", name=absent)).to_have_count(0)
    phone.get_by_role("menuitem", name="Settings").click()
    expect(phone.locator("[data-setting=motion]")).to_be_visible()
    expect(phone.locator("[data-setting=shortcuts]")).to_have_count(0)


def test_a_keyboard_over_the_page_leaves_the_chat_in_view(phone: Page, server: Server, room: str, crowd: Crowd) -> None:
    phone.add_init_script(QUIET_JS)
    phone.goto(f"{server.url}/?token={crowd.token(room, 'Sofia')}&preview=off")
    eventually(lambda: phone.evaluate("window.room?.connected"), "in the room")
    phone.click("#chat-button")
    for number in range(1, 31):
        phone.evaluate("(text) => window.room.chat(text)", f"line {number}")
    last = phone.locator(".message__text").last
    expect(last).to_have_text("line 30")
    phone.evaluate(_KEYBOARD_JS, 400)
    height = "document.getElementById('chat-input').getBoundingClientRect().bottom"
    eventually(lambda: phone.evaluate(height) <= 400, "the field is above the keyboard")
    expect(last).to_be_in_viewport()
    phone.evaluate(_KEYBOARD_JS, 823)
    eventually(lambda: phone.evaluate(height) > 400, "the call has the whole window again")


def test_a_preview_of_a_computer_has_no_such_button(server: Server, browser: Browser, room: str) -> None:
    context = browser.new_context(permissions=["camera", "microphone"])
    context.add_init_script(camera_script())
    page = context.new_page()
    page.goto(f"{server.url}/?room={room}")
    expect(page.locator("#preview-video")).to_be_visible()
    expect(page.locator("#join-camera option")).to_have_count(3)
    expect(page.locator("#flip-button")).to_be_hidden()
    context.close()
