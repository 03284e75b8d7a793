"""The browser's Back in a call: it closes what is open, then leaves, and one press leads back into the call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crowd import Crowd
from people import Person
from playwright.sync_api import expect
from support.process import Server
from support.waiting import eventually


def test_back_leaves_with_a_way_back(server: Server, room: str, person: Callable[..., Person]) -> None:
    alice = person(server, "alice", quiet=True)
    page = alice.page
    page.goto(f"{server.url}/health")
    page.goto(f"{server.url}/?room={room}")
    page.fill("#name-input", "alice")
    page.click("#join-button")
    for _ in range(2):  # as often as one likes
        eventually(lambda: alice.peer, "in the room")
        page.go_back()
        expect(page.locator("#end-title")).to_have_text(f"You left {room}")
        page.click("[data-act=rejoin]")
    eventually(lambda: alice.peer, "in the room")
    page.reload()
    eventually(lambda: alice.peer, "in the room after a reload")
    page.go_back()
    expect(page.locator("#end-title")).to_be_visible()
    page.go_back()
    expect(page).to_have_url(f"{server.url}/health")


@pytest.mark.soak
def test_back_ends_no_stay_for_good(server: Server, crowd: Crowd, room: str, person: Callable[..., Person]) -> None:
    """With a token for one visit, in a room that is locked meanwhile."""
    alice, bob = (person(server, name, quiet=True) for name in ("alice", "bob"))
    for one in (bob, alice):
        token = crowd.token(room, one.name, single_use=True, permissions={"moderate": one is bob})
        one.page.goto(f"{server.url}/health")
        one.page.goto(f"{server.url}/?token={token}&preview=off")
        eventually(lambda one=one: one.peer, f"{one.name} is in the room")
    bob.page.evaluate("window.room.send('room', { locked: true })")
    eventually(lambda: alice.page.evaluate("window.room.settings.locked"), "the room is locked")
    alice.page.go_back()
    expect(alice.page.locator("#end-title")).to_have_text(f"You left {room}")
    alice.page.click("[data-act=rejoin]")
    eventually(lambda: alice.peer, "alice is in the room again")


@pytest.mark.soak
def test_back_after_leaving_leads_to_the_form(server: Server, room: str, person: Callable[..., Person]) -> None:
    alice = person(server, "alice", quiet=True).join(room)
    alice.page.click("#leave-button")
    expect(alice.page.locator("#end-title")).to_be_visible()
    alice.page.go_back()
    expect(alice.page.locator("#join-button")).to_be_visible()
    expect(alice.page.locator("#name-input")).to_have_value("alice")


@pytest.mark.soak
def test_back_closes_a_dialog_or_a_panel_first(server: Server, room: str, person: Callable[..., Person]) -> None:
    alice = person(server, "alice", quiet=True).join(room)
    page = alice.page
    page.click("#chat-button")
    expect(page.locator("#chat-input")).to_be_visible()
    page.keyboard.press("Escape")
    page.click("#chat-button")
    page.click("#more-button")
    for open_ in ("dialog[open]", "#panel"):
        expect(page.locator(open_)).to_be_visible()
        page.evaluate("history.back()")
        expect(page.locator(open_)).to_be_hidden()
        eventually(lambda: page.evaluate("history.state?.call"), "the call is still the page's entry")
        assert alice.peer
    page.go_back()
    expect(page.locator("#end-title")).to_be_visible()
