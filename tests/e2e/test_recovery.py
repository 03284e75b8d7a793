"""What breaks and comes back by itself: the server, a media worker, a WebSocket, the path of the media."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from people import Person
from playwright.sync_api import expect
from process import Server, eventually, workers
from relay import HOST, SILENT, Relay
from wires import TcpWire

pytestmark = pytest.mark.xdist_group("browser")

People = Callable[..., Person]


@pytest.fixture
def call(server: Server, person: People) -> tuple[Person, Person]:
    alice, bob = person(server, "alice").join("team"), person(server, "bob").join("team")
    alice.sees(bob)
    bob.sees(alice)
    return alice, bob


def back(call: tuple[Person, Person], before: list[str | None]) -> None:
    """Waits until both are in the call again, as new peers, with moving pictures."""
    for one, old in zip(call, before, strict=True):
        eventually(partial(one.has_come_back, old), f"{one.name} is in the room again", 30)
    for one, other in (call, call[::-1]):
        one.sees(other)
        one.hears()
        assert one.others() == [other.name]


def test_both_are_back_after_the_server_was_killed(server: Server, call: tuple[Person, Person]) -> None:
    before = [one.peer for one in call]
    server.kill()
    for one in call:
        one.page.locator("#banner").wait_for(state="visible")
    server.start()
    back(call, before)
    for one in call:
        one.page.locator("#banner").wait_for(state="hidden")


def test_both_are_back_after_a_restart_in_order(server: Server, call: tuple[Person, Person]) -> None:
    before = [one.peer for one in call]
    assert server.stop() == 0
    server.start()
    back(call, before)


def test_both_are_back_after_their_media_worker_died(server: Server, call: tuple[Person, Person]) -> None:
    before = [one.peer for one in call]
    (worker,) = workers(server.pid)
    worker.kill()
    back(call, before)
    assert server.get("/health")["peers"] == 2


@pytest.fixture
def server(start_server: Callable[..., Server]) -> Server:
    return start_server(hold_s="6")


@pytest.fixture
def wire(server: Server) -> Iterator[TcpWire]:
    """What alice's page and WebSocket come through; her media does not."""
    made = TcpWire(server.port)
    yield made
    made.close()


@pytest.fixture
def wired(server: Server, person: People, wire: TcpWire) -> tuple[Person, Person]:
    alice, bob = person(server, "alice").join("team", port=wire.port), person(server, "bob").join("team")
    alice.sees(bob)
    bob.sees(alice)
    return alice, bob


def test_a_broken_websocket_is_resumed_and_nobody_notices(
    server: Server, wired: tuple[Person, Person], wire: TcpWire
) -> None:
    alice, bob = wired
    peer = alice.peer
    bob.page.evaluate("window.left = 0; room.addEventListener('left', () => (window.left += 1))")
    wire.up = False
    eventually(lambda: alice.trouble == "connection", "alice notices")
    expect(alice.page.locator("#banner")).to_be_visible()
    alice.page.click("#mic-button")
    alice.page.click("#camera-button")
    alice.moves(lambda: alice.frames(bob.peer), "sees bob still, whose picture")
    wire.up = True
    eventually(lambda: alice.trouble is None, "alice has resumed")
    assert alice.peer == peer
    expect(alice.page.locator("#banner")).to_be_hidden()
    expect(bob.page.locator(bob.tile(alice))).to_have_attribute("aria-label", "alice, muted, no picture")
    assert bob.page.evaluate("window.left") == 0
    bob.page.click("#mic-button")  # and what is said on the new connection arrives
    expect(alice.page.locator(alice.tile(bob))).to_have_attribute("aria-label", "bob, muted")
    alice.page.click("#camera-button")
    bob.sees(alice)


def test_who_cannot_resume_joins_again_as_muted_as_before(
    server: Server, wired: tuple[Person, Person], wire: TcpWire
) -> None:
    alice, bob = wired
    peer = alice.peer
    alice.page.click("#mic-button")
    expect(bob.page.locator(bob.tile(alice))).to_have_attribute("aria-label", "alice, muted")
    wire.up = False
    eventually(lambda: alice.trouble == "connection", "alice notices")
    eventually(lambda: bob.others() == [], "alice is waited for no more", 20)
    wire.up = True
    eventually(partial(alice.has_come_back, peer), "alice is in the room again", 20)
    bob.sees(alice)
    expect(bob.page.locator(bob.tile(alice))).to_have_attribute("aria-label", "alice, muted")


@pytest.fixture
def relay(start_server: Callable[..., Server]) -> Iterator[tuple[Server, Relay]]:
    """A server, and the network that all media goes through."""
    server = start_server(public_ip=HOST)
    with Relay(server.port) as running:
        yield server, running


_PORTS_JS = """async () => {
    const stats = [...(await room.pc.getStats()).values()];
    return stats.filter((one) => one.type === 'local-candidate' && one.protocol === 'udp').map((one) => one.port);
}"""


def flows(call: tuple[Person, Person]) -> float:
    """Waits until new pictures move both ways; returns how long the first of them took, in seconds."""
    began = time.monotonic()
    before = [one.frames(other.peer) for one, other in (call, call[::-1])]
    for (one, other), count in zip((call, call[::-1]), before, strict=True):
        eventually(lambda one=one, other=other, count=count: one.frames(other.peer) > count, "a picture", 20)  # type: ignore[misc]
    took_s = time.monotonic() - began
    for one, other in (call, call[::-1]):
        one.sees(other)
    return took_s


def test_media_takes_another_path_when_its_own_dies(relay: tuple[Server, Relay], person: People) -> None:
    server, network = relay
    alice, bob = call = person(server, "alice").join("team"), person(server, "bob").join("team")
    flows(call)
    peer = alice.peer
    for port in alice.page.evaluate(_PORTS_JS):
        for direction in ("up", "down"):
            network.shape(direction, SILENT, port)  # type: ignore[arg-type]
    began = time.monotonic()
    eventually(lambda: alice.trouble == "media", "alice notices")
    flows(call)
    print(f"media back after {time.monotonic() - began:.1f} s")
    eventually(lambda: alice.trouble is None, "nothing is wrong any more")
    assert (alice.peer, bob.trouble) == (peer, None)


def test_media_goes_on_when_a_router_forgets(relay: tuple[Server, Relay], person: People) -> None:
    """Both come from other addresses then, and answer the server's check there."""
    server, network = relay
    alice, bob = call = person(server, "alice").join("team"), person(server, "bob").join("team")
    flows(call)
    before = alice.peer, bob.peer
    network.rebind()
    print(f"media back after {flows(call):.1f} s")
    assert (alice.peer, bob.peer) == before
