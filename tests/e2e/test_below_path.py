"""The whole product below a path of another site, behind real proxies with the files of `deploy`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin

import pytest
from people import Person
from playwright.sync_api import expect
from support.process import Server
from support.proxies import SITES, running
from support.waiting import eventually

pytestmark = pytest.mark.soak

People = Callable[..., Person]

_ELEMENT_JS = """([address, room]) => {
    const call = document.createElement('video-room');
    call.setAttribute('room', room);
    call.setAttribute('name', 'carol');
    document.body.replaceChildren(call);
    return import(address);
}"""


class Place(NamedTuple):
    server: Server
    address: str
    """Of the page, with a slash at its end."""


@pytest.fixture(scope="module", params=[name for name, site in SITES.items() if site.path])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    path = SITES[request.param].path
    kept = {"base_path": path} if SITES[request.param].kept else {}
    server = Server(trusted_proxies="127.0.0.1", **kept)
    with running(request.param, server.port, tmp_path_factory.mktemp(request.param)) as port:
        server.env["SFU_ALLOWED_ORIGINS"] = f"https://127.0.0.1:{port}"
        yield Place(server.start(), f"https://127.0.0.1:{port}{path}/")
    print(server.output)
    server.close()


def enters(one: Person, place: Place, query: str) -> Person:
    """Opens a link below the path. Whatever its page asks of that site must be below the path, too."""
    asked: list[str] = []
    one.page.on("request", lambda request: asked.append(request.url))
    one.page.on("websocket", lambda socket: asked.append(socket.url.replace("wss:", "https:")))
    one.page.goto(place.address + query)
    eventually(lambda: one.peer, f"{one.name} is in the room")
    assert [url for url in asked if not url.startswith((place.address, "blob:", "data:"))] == []
    return one


def test_a_call_with_a_file_an_invitation_and_a_reload(place: Place, person: People, tmp_path: Path) -> None:
    alice = enters(person(place.server, "alice"), place, "?room=team&username=alice")
    bob = person(place.server, "bob")
    bob.page.goto(f"{place.address}?room=team")
    expect(bob.page.locator("#inside-names")).to_have_text(re.compile("alice"))  # told by /room-info
    bob.page.fill("#name-input", "bob")
    bob.page.click("#join-button")
    eventually(lambda: bob.peer, "bob is in the room")
    alice.sees(bob)
    bob.sees(alice)

    alice.page.click("#chat-button")
    alice.page.set_input_files("#chat-files", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"hello"})
    bob.page.click("#chat-button")
    with bob.page.expect_download() as download:
        bob.page.get_by_role("link", name=re.compile("a.txt")).click()
    download.value.save_as(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_bytes() == b"hello"

    link = alice.page.evaluate("import('./app/page.js').then(({ page }) => page.link)")
    assert link == f"{place.address}?room=team"
    bob.page.reload()
    eventually(lambda: bob.peer, "bob is in the room again")
    bob.sees(alice)


def test_a_call_returns_after_the_server_restarts(place: Place, person: People) -> None:
    alice = enters(person(place.server, "alice"), place, "?room=again&username=alice")
    before = alice.peer
    alice.page.click("#chat-button")
    expect(alice.page.locator("#chat-input")).to_be_visible()  # with this, the page has loaded all its parts
    place.server.stop()
    place.server.start()
    eventually(lambda: alice.has_come_back(before), "alice is in the room again")


def test_the_element_and_the_description_of_the_api(place: Place, person: People) -> None:
    alice = enters(person(place.server, "alice"), place, "?room=element&username=alice")
    other = person(place.server, "carol")
    other.page.goto(f"{place.address}api/v1/docs")
    expect(other.page.locator("#issue_token")).to_contain_text("/api/v1/tokens")
    description = other.page.evaluate("fetch('openapi.json').then((answer) => answer.json())")
    root = urljoin(f"{place.address}api/v1/openapi.json", description["servers"][0]["url"])
    assert root == place.address
    other.page.goto(urljoin(place.address, "/"))  # the page of the site, whatever the proxy has there
    other.page.evaluate(_ELEMENT_JS, [f"{place.address}embed.js", "element"])
    expect(alice.page.locator(".tile:not(.is-self) .plate")).to_have_text(re.compile("carol"))
