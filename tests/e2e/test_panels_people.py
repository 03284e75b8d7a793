"""The people panel, and what moderators do, between real browsers: who is here, at the door, muted, removed."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from urllib.parse import quote

import pytest
import zxingcpp
from crowd import Crowd
from people import Person
from PIL import Image
from playwright.sync_api import Locator, expect
from support.process import Server
from support.waiting import eventually

Go = Callable[..., Person]


@pytest.fixture
def go(server: Server, crowd: Crowd, person: Callable[..., Person]) -> Go:
    """Sends somebody to a room with a token; they are in, unless the door is what the test is about."""

    def made(name: str, room: str, *, moderate: bool = False, enters: bool = True, quiet: bool = True) -> Person:
        one = person(server, name, quiet=quiet)
        one.page.goto(f"{server.url}/?token={crowd.token(room, name, permissions={'moderate': moderate})}&preview=off")
        if enters:
            eventually(lambda: one.peer, f"{name} is in {room}")
        return one

    return made


def row(one: Person, name: str) -> Locator:
    """Somebody's row in the open panel."""
    return one.page.locator(".person", has_text=name)


def opened(one: Person) -> Person:
    if not one.page.locator(".person").first.is_visible():
        one.page.click("#people-button")
    expect(one.page.locator(".person").first).to_be_visible()
    return one


def choose(one: Person, name: str, item: str) -> None:
    """Picks from the menu of somebody's row."""
    opened(one)
    row(one, name).get_by_role("button", name=f"More actions for {name}").click()
    one.page.get_by_role("menuitem", name=item).click()


def manage(one: Person) -> Locator:
    opened(one).page.get_by_role("button", name="Manage", exact=True).click()
    return one.page.get_by_role("dialog", name="Manage the room")


@pytest.mark.soak
def test_the_list_says_who_is_how(go: Go) -> None:
    bob = go("bob", "states", quiet=False)
    carol = go("carol", "states", quiet=False)
    alice = go("alice", "states", moderate=True)
    alice.page.keyboard.press("p")
    expect(alice.page.locator(".person__name bdi")).to_have_text(["alice (you)", "bob", "carol"])
    expect(row(alice, "bob").get_by_label("Microphone on")).to_be_visible()
    carol.page.keyboard.press("h")
    expect(alice.page.locator(".person__name bdi")).to_have_text(["alice (you)", "carol", "bob"])
    expect(row(alice, "carol")).to_contain_text("Hand raised")
    bob.page.keyboard.press("h")
    expect(row(alice, "bob").locator(".ord")).to_have_text("2")
    carol.page.keyboard.press("h")
    expect(row(alice, "bob").locator(".ord")).to_have_text("1")
    bob.page.keyboard.press("m")
    expect(row(alice, "bob").get_by_label("Microphone off")).to_be_visible()
    carol.page.keyboard.press("v")
    expect(row(alice, "carol")).to_contain_text("Camera off")
    expect(opened(bob).page.locator(".person__name bdi")).to_have_text(["bob (you)", "alice", "carol"])
    expect(row(bob, "alice")).to_contain_text("Moderator")
    expect(bob.page.get_by_role("button", name="Manage", exact=True)).to_be_hidden()
    carol.page.evaluate("room.leave()")
    expect(row(alice, "carol")).to_have_count(0)


def test_a_moderator_mutes_asks_and_removes(go: Go) -> None:
    alice, bob = go("alice", "rule", moderate=True), go("bob", "rule", quiet=False)
    expect(row(opened(alice), "bob").get_by_label("Microphone on")).to_be_visible()
    choose(alice, "bob", "Mute")
    expect(bob.page.get_by_text("alice muted you.")).to_be_visible()
    expect(bob.page.locator("#mic-button")).to_have_accessible_name("Unmute")
    assert bob.page.evaluate("room.pc.getSenders().every(({ track }) => track?.kind !== 'audio' || !track.enabled)")
    expect(row(alice, "bob").get_by_label("Microphone off")).to_be_visible()

    choose(alice, "bob", "Ask to unmute")
    asked = bob.page.get_by_role("alert").filter(has_text="alice asks you to unmute")
    expect(bob.page.locator("#mic-button")).to_have_accessible_name("Unmute")  # nobody else turns it on
    asked.get_by_role("button", name=re.compile("^Unmute")).click()
    expect(bob.page.locator("#mic-button")).to_have_accessible_name("Mute")

    choose(alice, "bob", "Remove from the room")
    dialog = alice.page.get_by_role("dialog", name="Remove bob?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    alice.page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    assert bob.peer
    choose(alice, "bob", "Remove from the room")
    dialog.get_by_role("button", name="Remove").click()
    expect(bob.page.get_by_role("heading", name="You were removed from rule")).to_be_visible()
    expect(row(alice, "bob")).to_have_count(0)


def test_who_waits_at_the_door_is_admitted_or_not(go: Go) -> None:
    alice = go("alice", "door", moderate=True)
    switch = manage(alice).get_by_role("switch", name="Lobby")
    switch.click()
    expect(switch).to_be_checked()
    announced = alice.page.locator("#manage #announcer")  # a modal dialog mutes what is outside
    expect(announced).to_contain_text("The lobby is on")
    expect(announced).not_to_contain_text("locked")
    alice.page.keyboard.press("Escape")
    expect(alice.page.locator("body > #announcer")).to_be_attached()
    alice.page.click("#people-button")  # closes it: the door is seen from outside, too
    bob = go("bob", "door", enters=False)
    expect(bob.page.get_by_text("You are in the lobby of door")).to_be_visible()
    asks = alice.page.get_by_role("alert").filter(has_text="bob is waiting to join")
    expect(alice.page.locator("#people-button")).to_have_accessible_name("People, 1 waiting to join")
    asks.get_by_role("button", name="Admit").click()
    eventually(lambda: bob.peer, "bob is in")
    expect(alice.page.locator("#people-count")).to_be_hidden()

    carol = go("carol", "door", enters=False)
    expect(alice.page.get_by_role("alert").filter(has_text="carol is waiting to join")).to_be_visible()
    lobby = opened(alice).page.locator(".lobby")
    expect(lobby).to_contain_text("carol")
    expect(alice.page.locator(".toast", has_text="carol")).to_have_count(0)  # the panel says it
    lobby.get_by_role("button", name="Decline").click()
    expect(carol.page.get_by_role("heading", name="You were not let in")).to_be_visible()
    expect(lobby).to_be_hidden()
    expect(alice.page.get_by_text("is waiting to join")).to_have_count(0)


@pytest.mark.soak
def test_what_the_server_refuses_is_told_in_the_readers_language(go: Go) -> None:
    bob = go("bob", "refuse")
    bob.page.evaluate("async () => (await import('/app/page.js')).page.actions.later()")
    bob.page.evaluate("async () => (await import('/i18n/texts.js')).speak('de')")
    bob.page.evaluate("room.send('end_call', {})")
    expect(bob.page.locator(".toast")).to_have_text(["Dazu fehlt dir die Berechtigung."])
    bob.page.evaluate("room.send('nonsense', {})")
    expect(bob.page.locator(".toast")).to_have_text(["Das hat nicht geklappt. Versuche es gleich noch einmal."])


@pytest.mark.soak
def test_a_locked_room_and_the_end_for_everyone(go: Go) -> None:
    alice, bob = go("alice", "end", moderate=True), go("bob", "end")
    manage(alice).get_by_role("switch", name="Lock the room").click()
    expect(bob.page.locator("#badge-lock")).to_be_visible()
    alice.page.keyboard.press("Escape")
    carol = go("carol", "end", enters=False)
    expect(carol.page.get_by_role("heading", name="end is locked")).to_be_visible()

    manage(alice).get_by_role("button", name="End for everyone").click()
    confirm = alice.page.get_by_role("dialog", name="End the call for everyone?")
    confirm.get_by_role("button", name="End for everyone").click()
    for one in (alice, bob):
        expect(one.page.get_by_role("heading", name="The meeting is over")).to_be_visible()


@pytest.mark.soak
def test_the_preview_says_why_a_room_is_closed(
    server: Server, crowd: Crowd, person: Callable[..., Person], go: Go
) -> None:
    """And its button does what it says."""
    alice = go("alice", "shut", moderate=True)

    def turn(switch: str) -> None:
        manage(alice).get_by_role("switch", name=switch).click()
        alice.page.keyboard.press("Escape")

    page = person(server, "carol", quiet=True).page
    button, will = page.locator("#join-button"), page.locator("#join-will")
    turn("Lobby")
    page.goto(f"{server.url}/?token={crowd.token('shut', 'carol')}")
    expect(page.locator("#inside")).to_contain_text("This room has a lobby")
    expect(button).to_have_text("Ask to join")
    expect(will).to_have_text("You’ll join muted, with your camera off.")
    turn("Lock the room")
    page.reload()
    expect(page.locator("#inside")).to_contain_text("shut is locked")
    expect(button).to_have_text("Check again")
    expect(will).to_have_text("")
    turn("Lobby")
    turn("Lock the room")
    button.click()
    expect(button).to_have_text("Join room")
    expect(page.locator("#inside")).to_contain_text("1 person is in the room")
    assert page.evaluate("window.room === undefined")
    button.click()
    eventually(lambda: page.evaluate("window.room?.connected"), "carol is in the room")


def test_the_link_is_copied_and_read_by_a_phone(server: Server, person: Callable[..., Person]) -> None:
    alice = person(server, "alice", quiet=True).join(quote("Größe & Maß"))
    alice.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened(alice).page.get_by_role("button", name="Invite").click()
    dialog = alice.page.get_by_role("dialog", name="Invite people")
    dialog.get_by_role("button", name="Copy").click()
    expect(dialog.get_by_role("status")).to_have_text("Link copied")
    link = alice.page.evaluate("navigator.clipboard.readText()")
    assert link.endswith("/?room=Gr%C3%B6%C3%9Fe+%26+Ma%C3%9F")
    code = dialog.get_by_role("img", name="QR code of the link").screenshot()
    (found,) = zxingcpp.read_barcodes(Image.open(io.BytesIO(code)).convert("L"))
    assert found.text == link
    alice.page.keyboard.press("Escape")
    expect(alice.page.get_by_role("button", name="Invite")).to_be_focused()
