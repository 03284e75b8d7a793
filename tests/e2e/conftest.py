"""Browsers and people for the tests of whole calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from people import FAKE_DEVICES, LINES, Person, camera_script, launch
from playwright.sync_api import Browser, BrowserContext, Playwright, expect, sync_playwright
from process import Server

expect.set_options(timeout=15_000)  # as `eventually`: the machine may be busy


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """A browser with a fake camera and a fake microphone."""
    with launch(playwright, FAKE_DEVICES) as running:
        yield running


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """One server for all these tests, each of which has rooms of its own."""
    running = Server()
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
def person(browser: Browser) -> Iterator[Callable[..., Person]]:
    """Makes people; `on` is another browser, `lines` are the camera's."""
    people: list[Person] = []

    def make(server: Server, name: str, *, on: Browser = browser, lines: int = LINES) -> Person:
        context = on.new_context(permissions=["camera", "microphone"], ignore_https_errors=True)
        if isinstance(context, BrowserContext):  # our driver of Firefox knows no such scripts
            context.add_init_script(camera_script(lines))
        people.append(Person(context, server, name))
        return people[-1]

    yield make
    problems = [f"{one.name}: {problem}" for one in people for problem in one.problems]
    for one in people:
        one.context.close()
    assert problems == []
