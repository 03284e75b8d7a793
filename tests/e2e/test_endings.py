"""The end of a call, and what a reload shows then: the same ending, or another try if its reason may be gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from people import Person
from playwright.sync_api import Page, expect
from support.process import Server
from support.variants import variants
from support.waiting import eventually
from venue import Venue

People = Callable[..., Person]

_COUNTED_JS = """
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
window.asked = 0;
navigator.mediaDevices.getUserMedia = (wanted) => (window.asked++, open(wanted));
"""
_FRAMED_JS = """
window.framed = false; // whether the call's frame was ever shown
const look = () => (window.framed ||= document.getElementById('call-view')?.hidden === false);
new MutationObserver(look).observe(document, { subtree: true, childList: true, attributeFilter: ['hidden'] });
"""
_STORED_JS = "Object.entries(sessionStorage).flat().join(' ')"
_MODERATE_JS = "([action, peer]) => window.room.send('moderate', { action, peer, source: null })"


@pytest.fixture
def alice(server: Server, person: People) -> Person:
    return person(server, "alice", quiet=True)


@pytest.fixture
def host(venue: Venue, room: str, server: Server, person: People) -> Person:
    """A moderator in the room."""
    return venue.enters(person(server, "host", quiet=True), room, permissions={"moderate": True})


def ending(page: Page, title: str) -> list[str]:
    """What is said and offered, once the ending with this title is shown."""
    expect(page.locator("#end-title")).to_have_text(title)
    return page.locator("#end-view").locator("h1, .lead, .actions button").all_inner_texts()


def stays(page: Page, title: str) -> list[str]:
    """The ending, which reloads do not change."""
    before = ending(page, title)
    for _ in range(2):
        page.reload()
        assert ending(page, title) == before
    return before


REMOVED, OVER, DELETED, REVOKED = (
    "You were removed from {room}",
    "The meeting is over",
    "The meeting has ended",
    "Your link was withdrawn",
)


@pytest.mark.parametrize("title", [REMOVED, *variants(OVER, DELETED, REVOKED)])
def test_a_reload_shows_the_same_ending(venue: Venue, host: Person, alice: Person, room: str, title: str) -> None:
    token, path = venue.token(room, "alice")
    venue.opens(alice, token)
    peer = eventually(lambda: alice.peer, "alice is in the room")
    if title is REMOVED:
        host.page.evaluate(_MODERATE_JS, ["remove", peer])
    elif title is OVER:
        venue.api("POST", f"/rooms/{room}/end")
    else:
        venue.api("DELETE", path if title is REVOKED else f"/rooms/{room}")
    said = stays(alice.page, title.format(room=room))
    assert "Rejoin" not in said
    assert "moderator" not in said[1]  # nothing tells the page who it was
    assert token not in alice.page.evaluate(_STORED_JS)


def test_a_link_that_cannot_be_used_asks_for_no_devices(
    venue: Venue, server: Server, person: People, room: str
) -> None:
    page = person(server, "alice").page
    page.add_init_script(_COUNTED_JS)
    token, path = venue.token(room, "alice")
    venue.api("DELETE", path)
    page.goto(f"{server.url}/?token={token}")
    assert ending(page, REVOKED)[2:] == ["Copy a message to send", "I have another link"]
    assert page.evaluate("window.asked") == 0
    venue.api("POST", "/rooms", {"room_id": room, "locked": True})
    page.goto(f"{server.url}/?token={venue.token(room, 'alice')[0]}")
    expect(page.locator("#join-button")).to_have_text("Check again")
    assert page.evaluate("window.asked") == 0
    venue.api("PUT", f"/rooms/{room}", {"locked": False})
    page.click("#join-button")
    expect(page.locator("#join-will")).to_have_text("You’ll join with your microphone and camera on.")


@pytest.mark.soak
def test_what_the_api_turns_off_no_moderator_did(venue: Venue, server: Server, person: People, room: str) -> None:
    alice = venue.enters(person(server, "alice"), room)
    eventually(lambda: alice.page.evaluate("window.room.connected"), "alice is heard")
    (one,) = venue.api("GET", f"/rooms/{room}/participants")[0]["items"]
    venue.api("POST", f"/rooms/{room}/participants/{one['session_id']}/mute", {"source": "microphone"})
    expect(alice.page.locator(".toast", has_text="The meeting organizer muted you.")).to_be_visible()


@pytest.mark.soak
def test_a_reload_lets_nobody_knock_again_who_was_declined(
    venue: Venue, host: Person, alice: Person, room: str
) -> None:
    venue.api("PUT", f"/rooms/{room}", {"lobby": True})
    venue.opens(alice, venue.token(room, "alice")[0])
    host.page.click("#people-button")
    host.page.get_by_role("button", name="Decline").click()
    assert stays(alice.page, "You were not let in")[2:] == ["Ask again", "Another room"]
    expect(host.page.locator(".lobby")).to_be_hidden()
    alice.page.click("[data-act=ask]")
    expect(host.page.locator(".lobby")).to_contain_text("alice")
    alice.page.go_back()
    assert ending(alice.page, "You stopped waiting")[1:] == [
        f"You’re no longer in the lobby of {room}.",
        "Ask again",
        "Another room",
    ]
    expect(host.page.locator(".lobby")).to_be_hidden()
    alice.page.click("[data-act=ask]")
    host.page.get_by_role("button", name="Admit").click()
    eventually(lambda: alice.peer, "alice is in the room")


def test_who_waits_sees_no_call_after_a_reload(venue: Venue, alice: Person, room: str) -> None:
    venue.api("POST", "/rooms", {"room_id": room, "lobby": True})
    venue.opens(alice, venue.token(room, "alice")[0])
    expect(alice.page.locator("#end-title")).to_have_text(f"You are in the lobby of {room}")
    alice.page.add_init_script(_FRAMED_JS)
    alice.page.reload()
    expect(alice.page.locator("#end-title")).to_have_text(f"You are in the lobby of {room}")
    eventually(lambda: alice.page.evaluate("window.room?.state === 'joining'"), "alice asks again")
    assert alice.page.evaluate("window.framed") is False
    venue.api("PUT", f"/rooms/{room}", {"lobby": False})
    expect(alice.page.locator("#call-view")).to_be_visible()


@pytest.mark.soak
def test_who_left_has_a_way_back_after_a_reload(venue: Venue, alice: Person, room: str) -> None:
    venue.enters(alice, room)
    alice.page.click("#leave-button")
    said = stays(alice.page, f"You left {room}")
    assert said == [f"You left {room}", "Your camera and microphone are off.", "Rejoin", "Another room"]
    alice.page.click("[data-act=rejoin]")
    eventually(lambda: alice.peer, "alice is in the room again")
    alice.page.reload()
    eventually(lambda: alice.peer, "and also after a reload")


@pytest.mark.soak
def test_who_left_with_a_link_for_one_visit_is_told_what_to_do(venue: Venue, alice: Person, room: str) -> None:
    token, _ = venue.token(room, "alice", single_use=True)
    venue.opens(alice, token)
    eventually(lambda: alice.peer, "alice is in the room")
    alice.page.click("#leave-button")
    expect(alice.page.locator("#end-text")).to_contain_text("open your invitation again or ask for a new one")
    said = stays(alice.page, f"You left {room}")
    assert said[2:] == ["Another room"]
    assert token not in alice.page.evaluate(_STORED_JS)


@pytest.mark.soak
def test_who_came_by_name_sees_the_ending_again_until_a_link_is_opened(
    server: Server, alice: Person, room: str
) -> None:
    alice.join(room)
    alice.page.click("#leave-button")
    stays(alice.page, f"You left {room}")
    alice.page.goto(f"{server.url}/?room={room}")
    for _ in range(2):
        expect(alice.page.locator("#join-title")).to_have_text(room)
        expect(alice.page.locator("#join-view")).to_be_visible()
        alice.page.reload()


@pytest.mark.soak
def test_a_reload_tries_again_what_may_be_possible_now(venue: Venue, host: Person, alice: Person, room: str) -> None:
    venue.api("PUT", f"/rooms/{room}", {"locked": True})
    venue.opens(alice, venue.token(room, "alice")[0])
    assert stays(alice.page, f"{room} is locked")[2:] == ["Try again", "Another room"]
    host.page.evaluate("window.room.send('room', { locked: false, lobby: null })")
    eventually(lambda: not host.page.evaluate("window.room.settings.locked"), "the room is unlocked")
    alice.page.reload()
    eventually(lambda: alice.peer, "alice is in the room")


@pytest.mark.soak
def test_who_ends_the_call_for_everyone_reads_so(host: Person, alice: Person, venue: Venue, room: str) -> None:
    venue.enters(alice, room)
    host.page.keyboard.press("p")
    host.page.get_by_role("button", name="Manage", exact=True).click()
    host.page.get_by_role("button", name="End for everyone").click()
    host.page.get_by_role("dialog", name="End the call for everyone?").get_by_role(
        "button", name="End for everyone"
    ).click()
    assert stays(host.page, OVER)[1] == "You ended it for everyone."
    assert ending(alice.page, OVER)[1] == "It was ended for everyone."
