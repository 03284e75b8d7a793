"""How soon it is there: the picture of who begins to speak, sound and picture after a path died, another camera.

A receiver's own page takes the times, at the frames that it presents.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from crowd import NAMES, SAY_JS, VOICE_JS, Crowd
from people import FAKE_DEVICES, Person, camera_script, launch
from playwright.sync_api import Browser, sync_playwright
from support.process import Server
from support.relay import CLEAN, HOST, SILENT, Relay
from support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

GOALS = {"speaker seen": 1.0, "media back": 5.0, "camera replaced": 0.5}
"""Seconds. The last one is the longest time without a new picture: a blink takes 0.3, and the camera some frames."""
PEOPLE, LAST_N = 12, 4
REST_S = 3.0

_SEEN_JS = """(name) => {
    window.seen = new Promise((done) => {
        const look = () => {
            const tiles = [...document.querySelectorAll('.tile.has-picture')];
            const tile = tiles.find((one) => one.getAttribute('aria-label').startsWith(name));
            const video = tile?.querySelector('video');
            if (video?.videoWidth) video.requestVideoFrameCallback(() => done(Date.now()));
            else setTimeout(look, 10);
        };
        look();
    });
}"""
_UNSEEN_JS = """(name) => ![...document.querySelectorAll('.tile.has-picture')]
    .some((tile) => tile.getAttribute('aria-label').startsWith(name))"""
_WATCH_JS = """(peer) => {
    const video = document.querySelector(`.tile[data-peer="${peer}"][data-source="camera"] video`);
    window.gaps = [];
    let last = performance.now();
    const frame = () => {
        const now = performance.now();
        window.gaps.push(now - last);
        last = now;
        video.requestVideoFrameCallback(frame);
    };
    video.requestVideoFrameCallback(frame);
}"""
"""The times between the pictures of a peer, in milliseconds; the one that lasts counts when it ends."""
_PORTS_JS = """async () => [...(await room.pc.getStats()).values()]
    .filter((one) => one.type === 'local-candidate' && one.protocol === 'udp').map((one) => one.port)"""


def run(times: int) -> list[dict[str, Any]]:
    """A row for each goal, of so many times."""
    measures: dict[str, Callable[[Browser], Iterator[Callable[[int], float]]]] = {
        "speaker seen": _speaker,
        "media back": _broken,
        "camera replaced": _replaced,
    }
    rows = []
    with sync_playwright() as playwright, launch(playwright, FAKE_DEVICES) as browser:
        for name, measure in measures.items():
            with contextmanager(measure)(browser) as once:
                found = sorted(once(n) for n in range(times))
            rows.append(
                {"what": name, "median_s": statistics.median(found), "worst_s": found[-1], "goal_s": GOALS[name]}
            )
    return rows


def _speaker(browser: Browser) -> Iterator[Callable[[int], float]]:
    """Somebody whose picture is not among the four that are sent begins to speak."""
    server = Server(last_n=str(LAST_N)).start()
    names = NAMES[: PEOPLE - 1]
    crowd, eva = Crowd(browser, server), Person(browser.new_context(), server, "eva")
    try:
        crowd.join("team", names)
        for name in names:
            crowd.page.evaluate(VOICE_JS, name)
        eva.page.goto(f"{server.url}/?token={crowd.token('team', 'eva', permissions={'publish': False})}&preview=off")
        eventually(lambda: eva.page.locator(".tile.has-picture:not(.is-self)").count() == LAST_N, "eva sees four", 30)

        def once(_number: int) -> float:
            time.sleep(REST_S)
            name = next(one for one in names if eva.page.evaluate(_UNSEEN_JS, one))
            eva.page.evaluate(_SEEN_JS, name)
            began_ms = crowd.page.evaluate(f"(asked) => {{ ({SAY_JS})(asked); return Date.now(); }}", [name, 1])
            seen_ms = eva.page.evaluate("window.seen")
            crowd.page.evaluate(SAY_JS, [name, 0])
            return float(seen_ms - began_ms) / 1e3

        yield once
    finally:
        crowd.context.close()
        eva.context.close()
        server.close()


@contextmanager
def _two(browser: Browser, server: Server) -> Iterator[tuple[Person, Person]]:
    people = [
        Person(browser.new_context(permissions=["camera", "microphone"]), server, name) for name in ("alice", "bob")
    ]
    for one in people:
        one.context.add_init_script(camera_script())
        one.join("team")
    alice, bob = people
    try:
        bob.sees(alice)
        alice.sees(bob)
        yield alice, bob
    finally:
        for one in people:
            with suppress(Exception):
                one.context.close()


def _broken(browser: Browser) -> Iterator[Callable[[int], float]]:
    """Nothing that alice sends arrives any more, nor what is sent to her, until her browser uses other ports."""
    server = Server(public_ip=HOST, limits="off").start()
    try:
        with Relay(server.port) as network, _two(browser, server) as (alice, bob):

            def once(_number: int) -> float:
                time.sleep(REST_S)
                bob.page.evaluate(_WATCH_JS, alice.peer)
                ports = alice.page.evaluate(_PORTS_JS)
                for port in ports:
                    for direction in ("up", "down"):
                        network.shape(direction, SILENT, port)  # type: ignore[arg-type]
                longest = eventually(
                    lambda: bob.page.evaluate("gaps.some((ms) => ms > 1000) && Math.max(...gaps)"), "a picture", 30
                )
                for port in ports:
                    for direction in ("up", "down"):
                        network.shape(direction, CLEAN, port)  # type: ignore[arg-type]
                return float(longest) / 1e3

            yield once
    finally:
        server.close()


def _replaced(browser: Browser) -> Iterator[Callable[[int], float]]:
    """Alice chooses another camera in the settings."""
    server = Server(limits="off").start()
    try:
        with _two(browser, server) as (alice, bob):

            def once(number: int) -> float:
                time.sleep(REST_S)
                bob.page.evaluate(_WATCH_JS, alice.peer)
                alice.chooses(camera=0 if number % 2 else 2)
                time.sleep(REST_S)
                return float(bob.page.evaluate("Math.max(...gaps)")) / 1e3

            yield once
    finally:
        server.close()


def table(rows: list[dict[str, Any]]) -> str:
    head = f"{'seconds until':>20}{'median':>10}{'worst':>10}{'goal':>10}"
    return "\n".join(
        [head, *("{what:>20}{median_s:>10.2f}{worst_s:>10.2f}{goal_s:>8g} ≥".format(**row) for row in rows)]
    )


def missed(rows: list[dict[str, Any]]) -> list[str]:
    return [
        f"{row['what']} after {row['median_s']:.1f} s, not {row['goal_s']:g}"
        for row in rows
        if row["median_s"] > row["goal_s"]
    ]
