"""Calls between real browsers through a real server: pictures, sound, chat, mute, and who does not get them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from people import FAKE_DEVICES, HERE, REFUSED, Person, launch
from playwright.sync_api import Playwright, expect
from process import Server, eventually

pytestmark = pytest.mark.xdist_group("browser")

People = Callable[..., Person]


def test_two_see_and_hear_each_other_and_a_third_elsewhere_gets_nothing(
    start_server: Callable[..., Server], person: People
) -> None:
    server = start_server()
    alice = person(server, "alice").join("team")
    carol = person(server, "carol").join("elsewhere")
    bob = person(server, "bob").join("team")
    for one, other in ((alice, bob), (bob, alice)):
        one.sees(other)
        one.hears()
        assert one.others() == [other.name]
    assert carol.others() == []
    assert [report for kind in ("audio", "video") for report in carol.inbound(kind) if report["packetsReceived"]] == []
    assert server.get("/health")["peers"] == 3
    assert server.get("/metrics")["rooms_active"] == 2

    bob.page.click("#leave-button")
    expect(alice.page.locator(".tile:not(.is-self)")).to_have_count(0)
    expect(alice.page.locator(".tile.is-self")).to_have_count(1)
    eventually(lambda: server.get("/health")["peers"] == 2, "the server knows that one left")


def test_the_dialog_asks_for_room_and_name(server: Server, person: People) -> None:
    alice = person(server, "alice").join("team-meeting")
    bob = person(server, "bob")
    bob.page.goto(server.url)
    bob.page.fill("#room-input", "team-meeting")
    bob.page.fill("#name-input", "bob")
    bob.page.click("#join-button")
    alice.sees(bob)
    bob.sees(alice)
    expect(bob.page.locator("#room-badge")).to_contain_text("team-meeting")
    assert "room=team-meeting" in bob.page.url


def test_who_comes_later_sees_everybody_at_once(server: Server, room: str, person: People) -> None:
    people = [person(server, name).join(room) for name in ("alice", "bob")]
    people[0].sees(people[1])
    people.append(person(server, "carol").join(room))
    for one in people:
        for other in people:
            if one is not other:
                one.sees(other)


def test_chat_reaches_the_room_and_no_other(server: Server, room: str, person: People) -> None:
    alice, bob, carol = (person(server, name) for name in ("alice", "bob", "carol"))
    for one, where in ((alice, room), (bob, room), (carol, f"not-{room}"[:64])):
        one.join(where)
        one.page.click("#chat-button")
    expect(alice.page.locator(alice.tile(bob))).to_have_count(1)
    text = "<b>Grüße</b> & 👋"
    alice.page.fill("#chat-input", text)
    alice.page.press("#chat-input", "Enter")
    for one in (alice, bob):
        expect(one.page.locator("#chat-log")).to_contain_text(text)
    carol.page.fill("#chat-input", "alone here")
    carol.page.press("#chat-input", "Enter")
    expect(carol.page.locator("#chat-log")).to_contain_text("alone here")
    expect(carol.page.locator("#chat-log")).not_to_contain_text(text)
    expect(bob.page.locator("#chat-log")).not_to_contain_text("alone here")


def test_a_muted_microphone_is_shown_to_the_others(server: Server, room: str, person: People) -> None:
    alice, bob = person(server, "alice").join(room), person(server, "bob").join(room)
    bob.sees(alice)
    tile = bob.page.locator(bob.tile(alice))
    unmuted = re.compile("alice(, speaking|, main speaker)?(, weak network)?$")  # the fake microphone beeps
    expect(tile).to_have_attribute("aria-label", unmuted)
    alice.page.click("#mic-button")
    expect(tile).to_have_attribute("aria-label", re.compile("^alice, muted"))
    alice.page.click("#mic-button")
    expect(tile).to_have_attribute("aria-label", unmuted)
    bob.hears()


def test_a_camera_turned_off_and_on_again(server: Server, room: str, person: People) -> None:
    alice, bob = person(server, "alice").join(room), person(server, "bob").join(room)
    bob.sees(alice)
    alice.page.click("#camera-button")
    expect(bob.page.locator(f"{bob.tile(alice)}.has-picture")).to_have_count(0)
    alice.page.click("#camera-button")
    bob.sees(alice)


def test_another_camera_is_seen_without_anything_being_negotiated(server: Server, room: str, person: People) -> None:
    alice, bob = person(server, "alice").join(room), person(server, "bob").join(room)
    bob.sees(alice)
    (before,) = bob.inbound("video")
    for one in (alice, bob):
        one.page.evaluate("room.pc.addEventListener('signalingstatechange', () => (window.negotiated = true))")
    alice.chooses(camera=2)
    bob.sees(alice)
    (after,) = bob.inbound("video")
    assert [after[key] for key in ("ssrc", "trackIdentifier", "mid")] == [
        before[key] for key in ("ssrc", "trackIdentifier", "mid")
    ]
    assert [one.page.evaluate("window.negotiated") for one in (alice, bob)] == [None, None]


def test_a_call_through_tls(start_server: Callable[..., Server], person: People) -> None:
    server = start_server("--self-signed")
    alice, bob = person(server, "alice").join("team", HERE), person(server, "bob").join("team", HERE)
    assert alice.page.evaluate("isSecureContext")
    alice.sees(bob)
    bob.sees(alice)


def test_without_permission_one_joins_and_is_told(
    server: Server, room: str, person: People, playwright: Playwright
) -> None:
    alice = person(server, "alice").join(room)
    with launch(playwright, FAKE_DEVICES, REFUSED) as wary:
        bob = person(server, "bob", on=wary).join(room)
        bob.sees(alice)
        expect(bob.page.locator("#notices")).to_contain_text("Your browser is blocking the camera and microphone")
        expect(alice.page.locator(alice.tile(bob))).to_have_count(1)


def test_without_a_secure_page_one_joins_and_is_told(server: Server, room: str, person: People) -> None:
    alice = person(server, "alice").join(room)
    bob = person(server, "bob").join(room, HERE)
    assert not bob.page.evaluate("isSecureContext")
    bob.sees(alice)
    expect(bob.page.locator("#notices")).to_contain_text("This page isn’t secure")


def test_without_devices_one_joins_and_is_told(
    server: Server, room: str, person: People, playwright: Playwright
) -> None:
    alice = person(server, "alice").join(room)
    with launch(playwright) as poor:
        bob = person(server, "bob", on=poor).join(room)
        bob.sees(alice)
        bob.hears()
        expect(bob.page.locator("#notices")).to_contain_text("No camera or microphone found")
        expect(alice.page.locator(alice.tile(bob))).to_have_count(1)


def test_with_a_microphone_only_one_is_heard(server: Server, room: str, person: People, playwright: Playwright) -> None:
    alice = person(server, "alice").join(room)
    with launch(playwright, "--use-fake-device-for-media-stream=device-count=0") as blind:
        bob = person(server, "bob", on=blind).join(room)
        alice.hears()
        expect(bob.page.locator("#notices")).to_contain_text("No camera found")
        expect(alice.page.locator(f"{alice.tile(bob)}:not(.has-picture)")).to_have_count(1)
