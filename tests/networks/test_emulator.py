"""The emulated links do what the cases say: rate, queue, loss and delay, by datagrams between two machines."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from support.namespaces import skip_without_namespaces
from support.waiting import eventually

from networks.lab import DELAY_MS, SERVER, Lab

PORT = 27_900
BYTES = 972
"""Of a datagram, without its headers: 1,000 with them."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    skip_without_namespaces()
    made = Lab(1)
    yield made
    made.close()


@pytest.fixture
def ends(lab: Lab) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's and the client's, connected to each other."""
    with lab.server.within():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with lab.clients[1].within():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.bind((SERVER, PORT))
        client.bind(("10.77.1.2", PORT))
        server.connect(client.getsockname())
        client.connect(server.getsockname())
        client.settimeout(5)
        yield server, client


def carried(lab: Lab, way: str = "down") -> dict[str, float]:
    """Sums of the log."""
    found = [one for one in lab.emulator.traffic() if one.way == way]
    names = ("offered", "delivered", "delivered_bytes", "overflowed", "lost")
    return {name: sum(getattr(one, name) for one in found) for name in names} | {
        "longest_ms": max((one.longest_ms for one in found), default=0.0)
    }


def accounted(lab: Lab, count: int) -> dict[str, float]:
    """The sums once each of so many packets has met its fate."""

    def look() -> dict[str, float]:
        found = carried(lab)
        return found if found["delivered"] + found["overflowed"] + found["lost"] == count else {}

    return eventually(look, f"{count} packets are accounted for")


def test_a_packet_takes_the_delay(lab: Lab, ends: tuple[socket.socket, socket.socket]) -> None:
    server, client = ends
    sent_s = time.monotonic()
    server.send(bytes(BYTES))
    assert len(client.recv(2000)) == BYTES
    assert time.monotonic() - sent_s >= DELAY_MS * 1e-3
    assert accounted(lab, 1)["delivered_bytes"] == 1000


def test_a_full_queue_drops_what_comes_last(lab: Lab, ends: tuple[socket.socket, socket.socket]) -> None:
    """800 kbps carry a packet in 10 ms, so 100 ms of queue take ten, and one is being sent."""
    server, client = ends
    lab.emulator.set(1, "down", rate=800_000, queue=100)
    server.send(b"first")  # the setting and the packets come by different ways
    eventually(lambda: carried(lab)["delivered"] == 1, "the link is set")
    began_s = time.monotonic()
    for number in range(50):
        server.send(number.to_bytes(1, "big") * BYTES)
    found = accounted(lab, 51)
    assert 11 <= found["delivered"] - 1 < 30, "a busy machine sends slowly, so the queue drains meanwhile"
    assert found["longest_ms"] <= 100
    client.recv(2000)
    got = [client.recv(2000)[0] for _ in range(int(found["delivered"]) - 1)]
    assert got[:11] == list(range(11))
    assert got == sorted(got)
    assert time.monotonic() - began_s >= 0.1


@pytest.mark.parametrize("settings", [{"loss": 0.3}, {"burst": "0.1,0.2,0.9"}], ids=["random", "bursts"])
def test_loss_is_its_share_and_the_same_each_time(
    lab: Lab, ends: tuple[socket.socket, socket.socket], settings: dict[str, float | str]
) -> None:
    """Of the bursts a third of the time is bad, of which 0.9 are lost."""
    server, client = ends
    lab.emulator.set(1, "down", **settings)
    for _ in range(20):
        for _ in range(50):
            server.send(b"x")
        time.sleep(0.005)  # what a socket's buffer takes at once
    found = accounted(lab, 1000)
    assert found["lost"] == {"loss": 308, "burst": 295}[next(iter(settings))]
    assert found["overflowed"] == 0
    assert client.recv(10) == b"x"


def test_an_outage_ends(lab: Lab, ends: tuple[socket.socket, socket.socket]) -> None:
    server, client = ends
    lab.emulator.set(1, "both", block=1)
    eventually(lambda: server.send(b"lost") and carried(lab)["lost"] > 0, "nothing gets through")
    lab.emulator.set(1, "both", block=0)

    def through() -> bool:
        server.send(b"here")
        client.settimeout(0.2)
        try:
            return client.recv(10) == b"here"
        except TimeoutError:
            return False

    eventually(through, "packets get through again")


def test_a_client_moves_to_another_address(lab: Lab) -> None:
    lab.move(1)
    with lab.clients[1].within():
        moved = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with moved, lab.server.within():
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with other:
            other.bind((SERVER, PORT + 1))
            other.settimeout(5)
            moved.sendto(b"hello", (SERVER, PORT + 1))
            assert other.recvfrom(10) == (b"hello", ("10.78.1.2", moved.getsockname()[1]))
