"""Runs cases: a server, browsers behind emulated links, and what was seen there."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, Error, Page, Playwright, sync_playwright
from support.namespaces import Machine, ServerOn
from support.process import workers
from support.waiting import eventually

from networks.cases import Camera, Case, Change
from networks.emulator import Traffic
from networks.lab import PORT, SERVER, Lab

PATIENCE_S = 60.0
SETTLE_S, STEADY_S = 20.0, 4.0
"""How long pictures may take to become as large as they get, and how long they are watched then."""
_PAGE = Path(__file__).with_name("person.html").read_text()
_ALLOWED = ["camera", "microphone", "local-network-access"]
"""The last one since a page that Playwright provides is one from the internet, and the server's address is private."""
_SHOWN_JS = "() => Object.values(seen.frames).filter((frames) => frames.length).map((frames) => frames.at(-1)[1])"


@dataclass(slots=True)
class Person:
    """Somebody in the call: a page behind the link of a client."""

    name: str
    client: int
    page: Page
    problems: list[str] = field(default_factory=list)

    def shown(self) -> list[int]:
        """The heights of the pictures that it has."""
        found: list[int] = self.page.evaluate(_SHOWN_JS)
        return found

    def seen(self) -> dict[str, Any]:
        """What the page recorded (person.html), with times in seconds since 1970."""
        found: dict[str, Any] = self.page.evaluate("seen")
        return found | {"name": self.name, "client": self.client, "problems": self.problems}


@dataclass(frozen=True, slots=True)
class Recording:
    """What a case left: of the watchers and publishers, what their pages recorded; of the changed link, its traffic.
    Times are in seconds since 1970; `busy_pct` is of all processors."""

    case: Case
    began_s: float
    watchers: list[dict[str, Any]]
    publishers: list[dict[str, Any]]
    traffic: list[Traffic]
    busy_pct: float
    load: float


def record(cases: list[Case]) -> list[Recording]:
    """Runs cases at once; their `run` is the same. Raises AssertionError if there was no call."""
    with Stage(cases) as stage:
        return stage.play()


class Stage:
    """The people of one run. Each case has a client for its watchers, and each camera one."""

    def __init__(self, cases: list[Case]) -> None:
        self._cases = cases
        self._kept = contextlib.ExitStack()
        self._publishers: dict[str, list[Person]] = {}
        self._watchers: dict[str, list[Person]] = {}
        self._clients: dict[str, int] = {}  # by case: whose link changes
        self._next = 1

    def __enter__(self) -> Stage:
        try:
            self._lab = Lab(self._needed())
            self._kept.callback(self._lab.close)
            self._server: ServerOn = self._kept.enter_context(self._lab.serving())
            playwright = self._kept.enter_context(sync_playwright())
            self._enter(playwright)
        except BaseException:
            self._kept.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    def _room(self, case: Case) -> str:
        return case.name if case.uplink else case.run

    def _needed(self) -> int:
        rooms = {self._room(case): case for case in self._cases}
        return sum(len(set(case.cameras)) for case in rooms.values()) + len(self._cases)

    def _client(self) -> int:
        self._next += 1
        return self._next - 1

    def _enter(self, playwright: Playwright) -> None:
        for case in self._cases:
            room = self._room(case)
            if room not in self._publishers:
                self._publishers[room] = list(self._publish(playwright, case, room))
        for case in self._cases:
            client = self._client()
            browser = self._browser(playwright, client, 180, loud=False)
            names = [f"{case.name}-{i}" for i in range(case.watchers)]
            self._watchers[case.name] = [
                self._person(browser, client, name, self._room(case), lines=case.lines) for name in names
            ]
            self._clients[case.name] = self._publishers[self._room(case)][0].client if case.uplink else client
        for case in self._cases:
            count = len(self._publishers[self._room(case)])
            for person in self._watchers[case.name]:
                what = f"{person.name} sees {count} pictures"
                eventually(lambda person=person, count=count: len(person.shown()) == count, what, PATIENCE_S)

    def _publish(self, playwright: Playwright, case: Case, room: str) -> Iterator[Person]:
        """Cameras that are alike share a browser and a link."""
        browsers: dict[Camera, tuple[Browser, int]] = {}
        for i, camera in enumerate(case.cameras):
            if camera not in browsers:
                client = self._client()
                browsers[camera] = self._browser(playwright, client, camera.lines, loud=camera.loud), client
            browser, client = browsers[camera]
            name = "speaker" if camera.loud else f"camera-{i}"
            person = self._person(browser, client, name, room, send=camera.lines)
            eventually(lambda person=person: person.page.evaluate("room.connected"), f"{name} sends", PATIENCE_S)
            yield person

    def _browser(self, playwright: Playwright, client: int, lines: int, *, loud: bool) -> Browser:
        browser = self._lab.browser(playwright, client, lines, loud=loud)
        self._kept.callback(_closed, browser)
        return browser

    def _person(self, browser: Browser, client: int, name: str, room: str, **query: int) -> Person:
        context = browser.new_context(permissions=_ALLOWED, ignore_https_errors=True)
        page = context.new_page()
        person = Person(name, client, page)
        page.on("pageerror", lambda error: person.problems.append(str(error)))
        page.route("**/networks-person?*", lambda route: route.fulfill(body=_PAGE, content_type="text/html"))
        words = urllib.parse.urlencode({"name": name, "room": room, **query})
        page.goto(f"https://{SERVER}:{PORT}/networks-person?{words}")
        eventually(lambda: page.evaluate("window.room?.state === 'joined'"), f"{name} is in {room}", PATIENCE_S)
        return person

    def play(self) -> list[Recording]:
        self._settle()
        psutil.cpu_percent()
        began_s, clock_s = time.time(), time.monotonic()
        changes = [(change.at_s, case, change) for case in self._cases for change in case.changes]
        for at_s, case, change in sorted(changes, key=lambda planned: planned[0]):
            self._wait(clock_s + at_s)
            self._act(self._clients[case.name], change)
        self._wait(clock_s + max(case.seconds for case in self._cases))
        busy_pct, load = psutil.cpu_percent(), os.getloadavg()[0]
        traffic = self._lab.emulator.traffic()
        publishers = {room: [person.seen() for person in people] for room, people in self._publishers.items()}
        return [
            Recording(
                case,
                began_s,
                [person.seen() for person in self._watchers[case.name]],
                publishers[self._room(case)],
                [one for one in traffic if one.client == self._clients[case.name]],
                busy_pct,
                load,
            )
            for case in self._cases
        ]

    def _settle(self) -> None:
        """Waits until no picture has grown for a while."""
        deadline, largest, since = time.monotonic() + SETTLE_S, 0, time.monotonic()
        while time.monotonic() < min(deadline, since + STEADY_S):
            heights = sum(sum(person.shown()) for people in self._watchers.values() for person in people)
            if heights > largest:
                largest, since = heights, time.monotonic()
            self._wait(time.monotonic() + 0.5)

    def _wait(self, until: float) -> None:
        """Keeps Playwright's events going, on a page that is there all the time."""
        page = next(iter(self._publishers.values()))[0].page
        if (left := until - time.monotonic()) > 0:
            page.wait_for_timeout(left * 1e3)

    def _act(self, client: int, change: Change) -> None:
        if change.settings:
            self._lab.emulator.set(client, change.way, **change.settings)
        elif change.act == "move":
            self._lab.move(client)
        elif change.act == "kill":
            max(workers(self._server.pid), key=lambda worker: sum(worker.cpu_times()[:2])).kill()  # which has the call
        elif change.act == "download":
            self._kept.enter_context(download(self._lab.server, self._lab.clients[client]))


@contextlib.contextmanager
def download(server: Machine, client: Machine) -> Iterator[None]:
    """A TCP connection over which the server sends to the client all that gets through."""
    with server.within():
        listening = socket.create_server((SERVER, PORT + 1))
    with client.within():
        receiving = socket.create_connection((SERVER, PORT + 1))
    sending, _ = listening.accept()
    threads = [
        threading.Thread(target=work, daemon=True) for work in (lambda: _pour(sending), lambda: _drain(receiving))
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for sock in (sending, receiving):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for sock in (sending, receiving, listening):
            sock.close()


def _pour(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(bytes(16_384))


def _drain(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(65_536):
            pass


def _closed(browser: Browser) -> None:
    with contextlib.suppress(Error):  # it may have died with its machine
        browser.close()
