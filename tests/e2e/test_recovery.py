"""What breaks and comes back by itself in a call: the server, a media worker, a WebSocket."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import pytest
from people import Person
from playwright.sync_api import expect
from support.process import Server, workers
from support.waiting import eventually
from test_speaking import sound
from wires import TcpWire

Two = tuple[Person, Person]

_WATCH_JS = """async () => {
    const { page } = await import('/app/page.js');
    await page.actions.later();
    const banner = document.querySelector('#banner');
    const said = (window.said = []);
    const look = () => banner.checkVisibility() && said.push(banner.innerText);
    const all = { attributes: true, childList: true, characterData: true, subtree: true };
    new MutationObserver(look).observe(banner, all);
    window.silences = 0; // looks at which media did not flow and the page said nothing
    setInterval(() => (window.silences += page.inCall && !page.room.connected && !banner.checkVisibility()), 20);
}"""
_WEAK_JS = """(peer) => {
    const { room } = window; // as the server tells it of a bad network
    room.dispatchEvent(new CustomEvent('quality', { detail: { peers: { [peer]: 2 }, cause: null } }));
}"""
CUT = "Others may not be able to hear you."
FLOWS = "You can still hear and see the others."
SILENT = "You can’t hear or see anyone until it is back."
STUCK = "Audio and video have stopped"


def watch(one: Person) -> None:
    """Notes what the banner says from now on."""
    one.page.evaluate(_WATCH_JS)


def said(one: Person) -> list[str]:
    """What the banner has said, each sentence once."""
    heard = "\n".join(one.page.evaluate("window.said"))
    return [sentence for sentence in (CUT, FLOWS, SILENT, STUCK) if sentence in heard]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server(hold_s="8")
    try:
        yield running.start()
    finally:
        running.close()


@pytest.fixture(scope="module")
def wire(server: Server) -> Iterator[TcpWire]:
    """What alice's page and WebSocket come through; her media does not."""
    made = TcpWire(server.port)
    yield made
    made.close()


@pytest.fixture(scope="module")
def front(wire: TcpWire) -> int:
    return wire.port


def back(two: Two, before: list[str | None]) -> None:
    """Waits until both are in the call again, as new peers, with moving pictures."""
    for one, old in zip(two, before, strict=True):
        eventually(partial(one.has_come_back, old), f"{one.name} is in the room again")
    for one, other in (two, two[::-1]):
        one.sees(other)
        one.hears()
        assert one.others() == [other.name]


@pytest.mark.soak
def test_both_are_back_after_the_server_was_killed(server: Server, two: Two) -> None:
    before = [one.peer for one in two]
    for one in two:
        watch(one)
    server.kill()
    for one in two:
        expect(one.page.locator("#banner")).to_contain_text(SILENT)
        assert said(one) == [CUT, SILENT], "nobody hears anybody, and nobody is told so"
    server.start()
    back(two, before)
    for one in two:
        one.page.locator("#banner").wait_for(state="hidden")


@pytest.mark.soak
def test_both_are_back_after_a_restart_in_order(server: Server, two: Two) -> None:
    before = [one.peer for one in two]
    assert server.stop() == 0
    server.start()
    back(two, before)


@pytest.mark.soak
def test_both_are_back_after_their_media_worker_died(server: Server, two: Two) -> None:
    before = [one.peer for one in two]
    for one in two:
        watch(one)
    (worker,) = workers(server.pid)
    worker.kill()
    back(two, before)
    for one in two:
        expect(one.page.locator("#banner")).to_be_hidden()
        assert one.page.evaluate("window.silences") == 0, "in again is not heard again"
    assert server.get("/health")["peers"] == 2


def test_a_broken_websocket_is_resumed_and_nobody_notices(two: Two, wire: TcpWire) -> None:
    alice, bob = two
    peer = alice.peer
    watch(alice)
    bob.page.evaluate("window.left = 0; room.addEventListener('left', () => (window.left += 1))")
    wire.up = False
    eventually(lambda: alice.trouble == "connection", "alice notices")
    expect(alice.page.locator("#banner")).to_contain_text(FLOWS)
    alice.page.click("#mic-button")
    alice.page.click("#camera-button")
    alice.moves(lambda: alice.frames(bob.peer), "sees bob still, whose picture")
    wire.up = True
    eventually(lambda: alice.trouble is None, "alice has resumed")
    assert alice.peer == peer
    assert said(alice) == [CUT, FLOWS]
    expect(alice.page.locator("#banner")).to_be_hidden()
    expect(bob.page.locator(bob.tile(alice))).to_have_attribute("aria-label", "alice, muted, no video")
    assert bob.page.evaluate("window.left") == 0
    bob.page.click("#mic-button")  # and what is said on the new connection arrives
    expect(alice.page.locator(alice.tile(bob))).to_have_attribute("aria-label", "bob, muted")
    alice.page.click("#camera-button")
    bob.sees(alice)
    for one in two:
        one.page.click("#mic-button")


@pytest.mark.soak
def test_who_cannot_resume_joins_again_as_muted_as_before(two: Two, wire: TcpWire) -> None:
    alice, bob = two
    peer = alice.peer
    alice.page.click("#mic-button")
    expect(bob.page.locator(bob.tile(alice))).to_have_attribute("aria-label", "alice, muted")
    wire.up = False
    eventually(lambda: alice.trouble == "connection", "alice notices")
    eventually(lambda: bob.others() == [], "alice is waited for no more")
    wire.up = True
    eventually(partial(alice.has_come_back, peer), "alice is in the room again")
    bob.sees(alice)
    expect(bob.page.locator(bob.tile(alice))).to_have_attribute("aria-label", "alice, muted")
    alice.page.click("#mic-button")


def test_the_banner_says_of_media_what_was_measured(server: Server, two: Two, wire: TcpWire) -> None:
    """The WebSocket and the media path, each lost alone and both."""
    alice, bob = two
    banner = alice.page.locator("#banner")
    (worker,) = workers(server.pid)
    watch(alice)
    worker.suspend()
    try:
        expect(banner).to_contain_text(STUCK)
        assert said(alice) == [STUCK]
        wire.up = False
        expect(banner).to_contain_text(SILENT)
        assert FLOWS not in said(alice)
    finally:
        worker.resume()
        wire.up = True
    alice.sees(bob)
    expect(banner).to_be_hidden()


@pytest.mark.soak
def test_who_speaks_is_not_shown_while_the_connection_is_cut_off(server: Server, two: Two, wire: TcpWire) -> None:
    """The WebSocket alone, the media path alone, then the whole server."""
    alice, bob = two
    sound(bob)
    ring = alice.page.locator(f"{alice.tile(bob)}.is-speaking")
    lit = alice.page.locator(".is-speaking, .is-dominant, .plate__weak:not(.is-gone)")
    expect(ring).to_have_count(1)
    eventually(lambda: alice.page.evaluate("window.room.quality"), "the server tells of the quality")
    alice.page.evaluate(_WEAK_JS, bob.peer)
    expect(alice.page.locator(alice.tile(bob))).to_have_attribute("aria-label", re.compile("weak network"))
    wire.up = False
    expect(lit).to_have_count(0)
    expect(alice.page.locator(alice.tile(bob))).to_have_attribute("aria-label", "bob")
    wire.up = True
    expect(ring).to_have_count(1)

    (worker,) = workers(server.pid)
    worker.suspend()
    try:
        expect(lit).to_have_count(0)
    finally:
        worker.resume()
    expect(ring).to_have_count(1)

    before = [one.peer for one in two]
    server.kill()
    for one in two:
        expect(one.page.locator(".is-speaking")).to_have_count(0)
    server.start()
    back(two, before)
    expect(alice.page.locator(f"{alice.tile(bob)}.is-speaking")).to_have_count(1)
