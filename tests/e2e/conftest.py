"""Browsers and people for the tests of whole calls."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from crowd import Crowd
from firefox import Firefox
from people import FAKE_DEVICES, FILE_BYTES, People, Person, launch
from playwright.sync_api import Browser, Playwright, expect, sync_playwright
from support.process import Server
from venue import Venue

expect.set_options(timeout=30_000)  # as `eventually`: the machine may be busy


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process runs all of these tests: it starts one browser, and two would keep the pictures of both waiting."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """A browser with a fake camera and a fake microphone."""
    with launch(playwright, FAKE_DEVICES) as running:
        yield running


@pytest.fixture
def policed(playwright: Playwright) -> Iterator[Browser]:
    """A browser whose administrator does not let WebRTC send UDP."""
    with launch(playwright, FAKE_DEVICES, "--force-webrtc-ip-handling-policy=disable_non_proxied_udp") as running:
        yield running


@pytest.fixture(scope="package")
def firefox() -> Iterator[Firefox]:
    """The other engine; it is started once, since that takes it seconds."""
    running = Firefox()
    yield running
    running.close()


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """One server for all these tests. It does not wait for those who closed their page without a word."""
    running = Server(hold_s="1", file_bytes=str(FILE_BYTES))
    try:
        yield running.start()
    finally:
        running.close()


@pytest.fixture(autouse=True)
def told(server: Server) -> Iterator[None]:
    """The report of a test that failed has what the server logged meanwhile."""
    before = len(server.output)
    yield
    print(server.output[before:])


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """A room that only this test uses."""
    return re.sub(r"\W+", "-", request.node.name)[-60:].strip("-")


@pytest.fixture
def person(browser: Browser) -> Iterator[People]:
    """Makes people who go when the test is over."""
    people = People(browser)
    yield people
    people.go()


@pytest.fixture(scope="module")
def residents(browser: Browser) -> Iterator[People]:
    """Makes people who stay for a module's tests."""
    people = People(browser)
    yield people
    people.go()


@pytest.fixture(scope="module")
def front(server: Server) -> int:
    """The port that alice of the two comes through."""
    return server.port


@pytest.fixture
def two(
    request: pytest.FixtureRequest, server: Server, residents: People, front: int
) -> Iterator[tuple[Person, Person]]:
    """Alice and bob in a call that a module's tests share: each leaves it as it was, and one that fails ends it."""
    failed = request.session.testsfailed
    if not residents.here:
        room = f"{request.module.__name__}-{failed}"
        try:
            alice, bob = residents(server, "alice").join(room, port=front), residents(server, "bob").join(room)
            alice.sees(bob)
            bob.sees(alice)
        except BaseException:
            residents.go()
            raise
    alice, bob = residents.here
    yield alice, bob
    if request.session.testsfailed > failed:
        residents.go()


@pytest.fixture(scope="package")
def crowd(browser: Browser, server: Server) -> Iterator[Crowd]:
    """Everybody who is in a room of its company without a page."""
    made = Crowd(browser, server)
    yield made
    made.context.close()


@pytest.fixture
def venue(server: Server) -> Venue:
    return Venue(server)


@pytest.fixture(autouse=True)
def nobody_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """A crowd goes with its test: its pictures cost every later one their time."""
    yield
    if "crowd" in request.fixturenames:
        request.getfixturevalue("crowd").leave()
