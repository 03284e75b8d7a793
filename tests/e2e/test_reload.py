"""A page in a call that is reloaded, or goes away and comes back, in a room that lets nobody else in."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from firefox import Firefox
from people import Person
from playwright.sync_api import expect
from support.process import Server
from support.waiting import eventually

People = Callable[..., Person]

LEAVES_JS = "window.leaves = []; room.addEventListener('left', ({ detail }) => leaves.push(detail.name))"


class House:
    """A server of our own, whose seats are held as long as usual, and its company."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._key = server.company("Reload House")

    def api(self, method: str, path: str, body: dict[str, Any]) -> Any:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        asked = urllib.request.Request(
            f"{self.server.url}/api/v1{path}", json.dumps(body).encode(), headers, method=method
        )
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return json.load(answer)

    def enters(self, one: Person, room: str) -> Person:
        """With a token for a single use; then the room is locked and has a lobby."""
        token = self.api("POST", "/tokens", {"room_id": room, "user_name": one.name, "single_use": True})["token"]
        one.page.goto(f"{self.server.url}/?token={token}&preview=off")
        eventually(lambda: one.peer, f"{one.name} is in {room}")
        return one

    def closes(self, room: str) -> None:
        self.api("PUT", f"/rooms/{room}", {"locked": True, "lobby": True})


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    running = Server()
    try:
        yield House(running.start())
    finally:
        running.close()


def test_a_reloaded_page_has_its_seat_again(house: House, room: str, person: People) -> None:
    alice, bob = house.enters(person(house.server, "alice"), room), house.enters(person(house.server, "bob"), room)
    house.closes(room)
    bob.sees(alice)
    bob.page.evaluate(LEAVES_JS)
    peer = alice.peer
    alice.page.reload()
    eventually(lambda: alice.peer, "alice is in the room again")
    assert alice.peer == peer
    bob.sees(alice)
    alice.sees(bob)
    assert bob.page.evaluate("leaves") == []


@pytest.mark.soak
def test_who_comes_back_to_the_page_is_in_the_call_again(house: House, room: str, person: People) -> None:
    alice = house.enters(person(house.server, "alice"), room)
    bob = house.enters(person(house.server, "bob", quiet=True), room)
    house.closes(room)
    address = alice.page.url
    alice.page.goto("about:blank")
    eventually(lambda: bob.others() == [], "the seat is given up")
    alice.page.go_back()
    eventually(lambda: alice.peer, "alice is in the room again")
    bob.sees(alice)
    alice.page.goto("about:blank")
    alice.page.goto(address)  # typed: the page asks first
    alice.page.click("#join-button")
    eventually(lambda: alice.peer, "alice is in the room again")


@pytest.mark.soak
def test_who_left_or_copies_the_tab_is_not(house: House, room: str, person: People) -> None:
    alice = house.enters(person(house.server, "alice"), room)
    house.closes(room)
    peer, stored = alice.peer, alice.page.evaluate("Object.entries(sessionStorage)")
    twin = alice.context.new_page()
    twin.add_init_script(f"for (const [key, value] of {json.dumps(stored)}) sessionStorage.setItem(key, value)")
    twin.goto(alice.page.url)
    twin.click("#join-button")
    expect(twin.locator("#end-title")).to_have_text("You are in this call in another tab")
    expect(twin.locator("#end-actions button")).to_have_text(["Move the call here"])
    assert alice.peer == peer
    for page, other in ((twin, alice.page), (alice.page, twin)):
        page.click("[data-act=move]")
        eventually(lambda page=page: page.evaluate("window.room?.state === 'joined'"), "the call is in this tab")
        assert page.evaluate("window.room.self") == peer
        expect(other.locator("#end-title")).to_have_text("You moved this call to another tab")
    alice.page.click("#leave-button")
    expect(alice.page.locator("#end-view")).to_be_visible()
    assert alice.page.evaluate("(room) => sessionStorage.getItem(`sfu.ticket/${room}`)", room) is None


@pytest.mark.soak
def test_a_copy_of_a_tab_can_join_as_somebody_else_where_anybody_can(house: House, room: str, person: People) -> None:
    alice = person(house.server, "alice", quiet=True).join(room)
    stored = alice.page.evaluate("Object.entries(sessionStorage)")
    twin = alice.context.new_page()
    twin.add_init_script(f"for (const [key, value] of {json.dumps(stored)}) sessionStorage.setItem(key, value)")
    twin.goto(alice.page.url)
    twin.click("#join-button")
    twin.click("[data-act=anew]")
    twin.fill("#name-input", "Bob")
    twin.click("#join-button")
    expect(alice.page.locator(".tile:not(.is-self) .plate bdi")).to_have_text("Bob")


@pytest.mark.soak
def test_firefox_has_its_seat_again(house: House, room: str, person: People, firefox: Firefox) -> None:
    fiona = house.enters(person(house.server, "fiona", on=firefox), room)
    house.closes(room)
    peer = fiona.peer
    fiona.page.goto(fiona.page.evaluate("location.href"))
    fiona.page.click("#join-button")
    eventually(lambda: fiona.peer, "fiona is in the room again")
    assert fiona.peer == peer


@pytest.fixture(autouse=True)
def logged(house: House) -> Iterator[None]:
    """The report of a test that failed has what this server logged meanwhile."""
    before = len(house.server.output)
    yield
    print(house.server.output[before:])
