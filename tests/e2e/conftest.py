"""Browsers and people for the tests of whole calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from people import FAKE_DEVICES, SMALL_CAMERA_JS, Person, launch
from playwright.sync_api import Browser, BrowserContext, Playwright, expect, sync_playwright
from process import Server

expect.set_options(timeout=15_000)  # as `eventually`: the machine may be busy


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """A browser with a fake camera and a fake microphone."""
    with launch(playwright, FAKE_DEVICES) as running:
        yield running


@pytest.fixture(scope="module")
def house() -> Iterator[Server]:
    """One server for all tests of a file, each of which has rooms of its own."""
    server = Server()
    try:
        yield server.start()
    finally:
        print(server.output)
        server.close()


@pytest.fixture
def person(browser: Browser) -> Iterator[Callable[..., Person]]:
    """Makes people; `allowed` is whether the browser lets pages use its devices, `on` another browser, `large` whether
    the camera is."""
    people: list[Person] = []

    def make(server: Server, name: str, *, allowed: bool = True, on: Browser = browser, large: bool = False) -> Person:
        permissions = ["camera", "microphone"] if allowed else []
        context = on.new_context(permissions=permissions, ignore_https_errors=True)
        if not large and isinstance(context, BrowserContext):  # our driver of Firefox knows no such scripts
            context.add_init_script(f"({SMALL_CAMERA_JS})()")
        people.append(Person(context, server, name))
        return people[-1]

    yield make
    problems = [f"{one.name}: {problem}" for one in people for problem in one.problems]
    for one in people:
        one.context.close()
    assert problems == []
