"""The way of a call's media breaks, and another one is found."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from people import Person
from support.process import Server
from support.relay import HOST, SILENT, Relay
from support.waiting import eventually

Two = tuple[Person, Person]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server(public_ip=HOST)
    try:
        yield running.start()
    finally:
        running.close()


@pytest.fixture(scope="module", autouse=True)
def network(server: Server) -> Iterator[Relay]:
    """That all media goes through."""
    with Relay(server.port) as running:
        yield running


_PORTS_JS = """async () => {
    const stats = [...(await room.pc.getStats()).values()];
    return stats.filter((one) => one.type === 'local-candidate' && one.protocol === 'udp').map((one) => one.port);
}"""


def flows(two: Two) -> float:
    """Waits until new pictures move both ways; returns how long the first of them took, in seconds."""
    began = time.monotonic()
    before = [one.frames(other.peer) for one, other in (two, two[::-1])]
    for (one, other), count in zip((two, two[::-1]), before, strict=True):
        eventually(lambda one=one, other=other, count=count: one.frames(other.peer) > count, "a picture")  # type: ignore[misc]
    took_s = time.monotonic() - began
    for one, other in (two, two[::-1]):
        one.sees(other)
    return took_s


@pytest.mark.soak
def test_media_goes_on_when_a_router_forgets(two: Two, network: Relay) -> None:
    """Both come from other addresses then, and answer the server's check there."""
    alice, bob = two
    before = alice.peer, bob.peer
    network.rebind()
    print(f"media back after {flows(two):.1f} s")
    assert (alice.peer, bob.peer) == before


@pytest.mark.soak
def test_media_takes_another_path_when_its_own_dies(two: Two, network: Relay) -> None:
    alice, bob = two
    peer = alice.peer
    for port in alice.page.evaluate(_PORTS_JS):
        for direction in ("up", "down"):
            network.shape(direction, SILENT, port)  # type: ignore[arg-type]
    began = time.monotonic()
    eventually(lambda: alice.trouble == "media", "alice notices")
    flows(two)
    print(f"media back after {time.monotonic() - began:.1f} s")
    eventually(lambda: alice.trouble is None, "nothing is wrong any more")
    assert (alice.peer, bob.trouble) == (peer, None)
