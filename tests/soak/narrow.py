"""A subscriber whose way down becomes narrow for a while: which layer it gets, how soon, and how steadily.

The publisher is a real browser that sends three layers; the way is narrowed by a relay that queues and then drops.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from people import FAKE_DEVICES, Person, launch
from playwright.sync_api import sync_playwright
from support.process import Server
from support.relay import CLEAN, HOST, Relay, Shape

WAYS = {250_000: 180, 550_000: 360}
"""Bits a second that the way carries, and the height of the largest layer that fits: of Chromium's fake camera at 15
frames a second the three take about 130, 320 and 650 kbps."""
FULL = 720
GOALS = {"settle_s": 5.0, "switches_per_10_s": 1.0, "up_s": 15.0, "audio_lost": 0.0}
NO_DEVICES_JS = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError'); }"
"""For the subscriber: one processor has enough to do with one camera."""
WAIT_S, LOOK_S = 40.0, 0.1


def run(steady_s: float, seed: int) -> list[dict[str, Any]]:
    """A row for each way."""
    server = Server(public_ip=HOST, limits="off").start()
    try:
        with Relay(server.port, seed) as relay, _call(server) as (alice, bob):
            bob.sees(alice)
            bob.shows(alice, FULL)
            _until(bob, FULL)
            return [{"rate_bps": rate} | _narrowed(relay, bob, rate, steady_s) for rate in WAYS]
    finally:
        server.close()


@contextmanager
def _call(server: Server) -> Iterator[tuple[Person, Person]]:
    with sync_playwright() as playwright, launch(playwright, FAKE_DEVICES) as browser:
        contexts = [browser.new_context(permissions=["camera", "microphone"]) for _ in range(2)]
        alice, bob = (Person(context, server, name) for context, name in zip(contexts, ("alice", "bob"), strict=True))
        bob.context.add_init_script(NO_DEVICES_JS)
        yield alice.join("narrow"), bob.join("narrow")


def _narrowed(relay: Relay, bob: Person, rate_bps: int, steady_s: float) -> dict[str, Any]:
    lost = _audio_lost(bob)
    relay.shape("down", Shape(rate_bps=rate_bps, delay_s=0.02), bob.media_port)
    settle_s = _until(bob, WAYS[rate_bps])
    heights = list(_watch(bob, steady_s))
    switches = sum(a != b for a, b in pairwise(heights))
    lost = _audio_lost(bob) - lost
    relay.shape("down", CLEAN, bob.media_port)
    return {
        "settle_s": settle_s,
        "layer": WAYS[rate_bps],
        "on_it_pct": 100 * heights.count(WAYS[rate_bps]) / len(heights),
        "switches_per_10_s": 10 * switches / steady_s,
        "audio_lost": lost,
        "up_s": _until(bob, FULL),
    }


def _height(bob: Person) -> int:
    return int(next((report.get("frameHeight", 0) for report in bob.inbound("video")), 0))


def _audio_lost(bob: Person) -> int:
    """Packets that never came (RFC 3550 section 6.4.1), retransmissions included."""
    return sum(int(report["packetsLost"]) for report in bob.inbound("audio"))


def _until(bob: Person, height: int) -> float:
    """How long it takes until the picture has this height; WAIT_S if that is longer."""
    began_s = time.monotonic()
    while _height(bob) != height and time.monotonic() < began_s + WAIT_S:
        bob.page.wait_for_timeout(LOOK_S * 1e3)
    return time.monotonic() - began_s


def _watch(bob: Person, seconds: float) -> Iterator[int]:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        yield _height(bob)
        bob.page.wait_for_timeout(LOOK_S * 1e3)


def table(rows: list[dict[str, Any]]) -> str:
    columns = list(rows[0])
    head = "".join(f"{column:>18}" for column in columns)
    goals = "".join(f"{f'{GOALS[column]:g} ≥' if column in GOALS else '':>18}" for column in columns)
    return "\n".join([head, *("".join(f"{row[column]:>18.2f}" for column in columns) for row in rows), goals])


def missed(rows: list[dict[str, Any]]) -> list[str]:
    return [
        f"{key} at {row['rate_bps'] / 1e3:.0f} kbps is {row[key]:.1f}, not {goal:g}"
        for row in rows
        for key, goal in GOALS.items()
        if row[key] > goal
    ]
