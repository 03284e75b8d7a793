"""A link with a token, in a real browser: what comes first, what the address bar keeps, and words when it is over."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crowd import Crowd
from people import Person
from playwright.sync_api import expect
from support.process import Server
from support.waiting import eventually
from venue import api

People = Callable[..., Person]


def test_a_link_with_a_token_leads_into_the_call(server: Server, person: People) -> None:
    key = server.company("Token House")
    wanted = {"room_id": "team", "user_name": "alice", "duration": 600}
    issued, headers = api(server, key, "POST", "/tokens", wanted)
    alice, bob = person(server, "alice"), person(server, "bob")
    alice.page.goto(f"{server.url}/?token={issued['token']}&preview=off")
    eventually(lambda: alice.peer, "alice is in the room")
    assert alice.page.url == f"{server.url}/?invited=team"
    expect(alice.page.locator("#room-badge")).to_contain_text("team")

    other, _ = api(server, key, "POST", "/tokens", wanted | {"user_name": "bob", "permissions": {"publish": False}})
    bob.page.goto(f"{server.url}/?token={other['token']}&preview=off")
    eventually(lambda: bob.peer, "bob is in the room")
    bob.sees(alice)
    assert alice.inbound("video") == []
    alice.page.reload()
    bob.sees(alice)

    api(server, key, "DELETE", "/" + headers["Location"])
    expect(alice.page.get_by_text("Your link was withdrawn")).to_be_visible()
    assert issued["token"] not in server.output


@pytest.mark.soak
def test_who_only_watches_waits_for_somebody_to_send(start_server: Callable[..., Server], person: People) -> None:
    """Until then nothing is offered, so the deadline of the first offer must not end the visit."""
    server = start_server(join_s="0.5")
    key = server.company("Hall")
    wanted = {"room_id": "hall", "user_name": "vera", "permissions": {"publish": False}}
    vera, alice = person(server, "vera"), person(server, "alice")
    vera.page.goto(f"{server.url}/?token={api(server, key, 'POST', '/tokens', wanted)[0]['token']}&preview=off")
    eventually(lambda: vera.peer, "vera is in the room")
    peer = vera.peer
    vera.page.click("#people-button")
    expect(vera.page.locator(".person__name bdi")).to_have_text(["vera (you)"])
    vera.page.wait_for_timeout(1_500)
    expect(vera.page.locator("#banner")).to_be_hidden()
    other = {"room_id": "hall", "user_name": "alice"}
    alice.page.goto(f"{server.url}/?token={api(server, key, 'POST', '/tokens', other)[0]['token']}&preview=off")
    eventually(lambda: alice.peer, "alice is in the room")
    vera.sees(alice)
    assert vera.peer == peer


ASKED_JS = """
window.asked = [];
const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = (wanted) => (window.asked.push(wanted), real(wanted));
"""


@pytest.mark.soak
def test_a_preview_comes_first_with_the_name_in_the_token(server: Server, crowd: Crowd, person: People) -> None:
    alice = person(server, "alice")
    page = alice.page
    page.goto(f"{server.url}/?token={crowd.token('preview', 'Alice Liddell')}")
    for _ in range(2):  # loading it again is no way in, either
        expect(page.locator("#preview-video")).to_be_visible()
        expect(page.locator("#join-title")).to_have_text("preview")
        expect(page.locator("#name-input")).to_have_value("Alice Liddell")
        assert not page.locator("#name-input").is_editable()
        assert page.url == f"{server.url}/?invited=preview"
        assert page.evaluate("window.room === undefined")
        page.reload()
    page.click("#join-button")
    eventually(lambda: alice.peer, "alice is in the room")
    assert page.evaluate("window.room.name") == "Alice Liddell"
    page.reload()
    eventually(lambda: alice.peer, "alice is in the room again")


@pytest.mark.soak
def test_who_only_watches_is_not_filmed(server: Server, crowd: Crowd, person: People) -> None:
    lena, talker = person(server, "lena"), person(server, "talker")
    page = lena.page
    page.add_init_script(ASKED_JS)
    page.goto(f"{server.url}/?token={crowd.token('watch', 'Lena', permissions={'publish': False})}")
    expect(page.locator("#preview-problem")).to_have_text("You were invited to watch and listen")
    expect(page.locator("#join-will")).to_have_text("You’ll watch and listen. Your microphone and camera stay off.")
    expect(page.locator(".puck:visible, #join-camera:visible, #join-microphone:visible")).to_have_count(0)
    page.click("#join-button")
    eventually(lambda: lena.peer, "lena is in the room")
    talker.page.goto(f"{server.url}/?token={crowd.token('watch', 'talker')}&preview=off")
    eventually(lambda: talker.peer, "somebody to watch is in the room")
    lena.sees(talker)
    expect(page.locator(".tile")).to_have_count(1)
    for key in ("m", "v", "s", " "):
        page.keyboard.press(key)
    assert page.evaluate("window.asked") == []
