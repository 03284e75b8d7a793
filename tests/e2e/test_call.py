"""Calls between real browsers through a real server: pictures, sound, chat, mute, and who does not get them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from people import FAKE_DEVICES, HERE, REFUSED, Person, launch
from playwright.sync_api import Playwright, expect
from support.process import Server
from support.waiting import eventually

People = Callable[..., Person]


Two = tuple[Person, Person]


def test_two_see_and_hear_each_other_and_a_third_elsewhere_gets_nothing(
    start_server: Callable[..., Server], person: People
) -> None:
    server = start_server("--self-signed")
    alice = person(server, "alice").join("team", HERE)
    carol = person(server, "carol").join("elsewhere", HERE)
    bob = person(server, "bob").join("team", HERE)
    assert alice.page.evaluate("isSecureContext")
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


def test_the_dialog_asks_for_room_and_name(server: Server, person: People, two: Two) -> None:
    alice, _ = two
    carol = person(server, "carol")
    carol.page.goto(server.url)
    carol.page.fill("#room-input", alice.room)
    carol.page.fill("#name-input", "carol")
    carol.page.click("#join-button")
    eventually(lambda: carol.peer, "carol is in the room")
    alice.sees(carol)
    carol.sees(alice)
    expect(carol.page.locator("#room-badge")).to_contain_text(alice.room)
    assert f"room={alice.room}" in carol.page.url


@pytest.mark.soak
def test_who_comes_later_sees_everybody_at_once(server: Server, person: People, two: Two) -> None:
    alice, bob = two
    carol = person(server, "carol").join(alice.room)
    for one, other in ((carol, alice), (carol, bob), (alice, carol), (bob, carol), (alice, bob), (bob, alice)):
        one.sees(other)


def test_chat_reaches_the_room_and_no_other(server: Server, room: str, person: People, two: Two) -> None:
    alice, bob = two
    carol = person(server, "carol", quiet=True).join(room)
    for one in (alice, bob, carol):
        one.page.click("#chat-button")
    text = "<b>Grüße</b> & 👋"
    alice.page.fill("#chat-input", text)
    alice.page.press("#chat-input", "Enter")
    for one in two:
        expect(one.page.locator("#chat-log")).to_contain_text(text)
    carol.page.fill("#chat-input", "alone here")
    carol.page.press("#chat-input", "Enter")
    expect(carol.page.locator("#chat-log")).to_contain_text("alone here")
    expect(carol.page.locator("#chat-log")).not_to_contain_text(text)
    expect(bob.page.locator("#chat-log")).not_to_contain_text("alone here")
    for one in two:
        one.page.keyboard.press("Escape")


def test_a_muted_microphone_is_shown_to_the_others(two: Two) -> None:
    alice, bob = two
    tile = bob.page.locator(bob.tile(alice))
    unmuted = re.compile("alice(, speaking|, main speaker)?(, weak network)?$")  # the fake microphone beeps
    expect(tile).to_have_attribute("aria-label", unmuted)
    alice.page.click("#mic-button")
    expect(tile).to_have_attribute("aria-label", re.compile("^alice, muted"))
    alice.page.click("#mic-button")
    expect(tile).to_have_attribute("aria-label", unmuted)
    bob.hears()


def test_a_camera_turned_off_and_on_again(two: Two) -> None:
    alice, bob = two
    alice.page.click("#camera-button")
    expect(bob.page.locator(f"{bob.tile(alice)}.has-picture")).to_have_count(0)
    alice.page.click("#camera-button")
    bob.sees(alice)


def streams(one: Person) -> list[tuple[Any, ...]]:
    """The videos that arrive."""
    return sorted((report["mid"], report["ssrc"], report["trackIdentifier"]) for report in one.inbound("video"))


def test_another_camera_is_seen_without_anything_being_negotiated(two: Two) -> None:
    alice, bob = two
    before = streams(bob)
    for one in two:
        one.page.evaluate("room.pc.addEventListener('signalingstatechange', () => (window.negotiated = true))")
    alice.chooses(camera=2)
    bob.sees(alice)
    assert streams(bob) == before
    assert [one.page.evaluate("window.negotiated") for one in two] == [None, None]
    alice.chooses(camera=0)


@pytest.mark.soak
def test_without_permission_one_joins_and_is_told(
    server: Server, person: People, two: Two, playwright: Playwright
) -> None:
    alice, _ = two
    with launch(playwright, FAKE_DEVICES, REFUSED) as wary:
        carol = person(server, "carol", on=wary).join(alice.room)
        carol.sees(alice)
        expect(carol.page.locator("#notices")).to_contain_text("Your browser is blocking the camera and microphone")
        expect(alice.page.locator(alice.tile(carol))).to_have_count(1)


@pytest.mark.soak
def test_without_a_secure_page_one_joins_and_is_told(server: Server, person: People, two: Two) -> None:
    alice, _ = two
    carol = person(server, "carol").join(alice.room, HERE)
    assert not carol.page.evaluate("isSecureContext")
    carol.sees(alice)
    expect(carol.page.locator("#notices")).to_contain_text("This page isn’t secure")


@pytest.mark.soak
def test_without_devices_one_joins_and_is_told(
    server: Server, person: People, two: Two, playwright: Playwright
) -> None:
    alice, _ = two
    with launch(playwright) as poor:
        carol = person(server, "carol", on=poor).join(alice.room)
        carol.sees(alice)
        carol.hears()
        expect(carol.page.locator("#notices")).to_contain_text("No camera or microphone found")
        expect(alice.page.locator(alice.tile(carol))).to_have_count(1)


@pytest.mark.soak
def test_with_a_microphone_only_one_is_heard(server: Server, room: str, person: People, playwright: Playwright) -> None:
    alice = person(server, "alice", quiet=True).join(room)
    with launch(playwright, "--use-fake-device-for-media-stream=device-count=0") as blind:
        carol = person(server, "carol", on=blind).join(room)
        alice.hears()
        expect(carol.page.locator("#notices")).to_contain_text("No camera found")
        expect(alice.page.locator(f"{alice.tile(carol)}:not(.has-picture)")).to_have_count(1)
