"""A page that knows pion sfu-ws's three events only gets a full call, with its like and with our page."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator

import elsewhere
import pytest
from people import Person
from support.process import Server
from support.waiting import eventually

People = Callable[..., Person]


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The origin of a site that is not our server."""
    with elsewhere.site() as origin:
        yield origin


@pytest.fixture(scope="module")
def server(site: str) -> Iterator[Server]:
    """A server that the site's pages may use."""
    running = Server(allowed_origins=site)
    try:
        yield running.start()
    finally:
        running.close()


@pytest.fixture
def bare(server: Server, site: str, room: str, person: People) -> People:
    """Makes people who enter the room by way of the site."""

    def make(name: str) -> Person:
        made = person(server, name)
        socket = f"ws://127.0.0.1:{server.port}/ws?room={room}&username={name}"
        made.page.goto(f"{site}/?{urllib.parse.urlencode({'socket': socket})}")
        return made

    return make


def frames(person: Person) -> list[int]:
    """Frames shown so far, a number for each video on the bare page."""
    found: list[int] = person.page.evaluate("window.shown?.() ?? []")
    return found


def sees_moving(person: Person, pictures: int) -> None:
    eventually(lambda: len(frames(person)) == pictures, f"{person.name} has {pictures} pictures")
    person.moves(lambda: min(frames(person)), f"sees {pictures} pictures")


@pytest.mark.soak
def test_two_bare_pages_call_each_other(bare: People) -> None:
    alice, bob = bare("alice"), bare("bob")
    sees_moving(alice, 1)
    sees_moving(bob, 1)
    for one in (alice, bob):
        assert set(one.page.evaluate("events")) <= {"offer", "candidate"}
    bob.page.close()
    eventually(lambda: frames(alice) == [], "the picture of who left is gone")


def test_a_bare_page_and_ours_call_each_other(server: Server, room: str, bare: People, person: People) -> None:
    alice = bare("alice")
    full = person(server, "full").join(room)
    sees_moving(alice, 1)
    (peer,) = full.page.evaluate("[...room.participants.keys()]")
    full.moves(lambda: full.frames(peer), "sees the bare page")
    full.hears()
    assert full.others() == ["alice"]
