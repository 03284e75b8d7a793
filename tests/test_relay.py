"""The bad network that other tests stand on: what it does to datagrams is what it was told, each time the same."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from support.process import free_port
from support.relay import CLEAN, HOST, SERVER_HOST, SILENT, Link, Relay, Shape
from support.waiting import eventually

N = 10_000
BAD = Shape(loss=0.1, duplicate=0.02, reorder=0.05, hold_s=0.03)


def fates(seed: str, shape: Shape, gap_s: float = 0.001, size: int = 1000) -> list[list[float]]:
    """Delays of the copies of N datagrams that come one a gap."""
    link = Link(seed)
    return [[at - i * gap_s for at in link.admit(size, shape, i * gap_s)] for i in range(N)]


def test_the_same_seed_decides_the_same() -> None:
    assert fates("1/0/up", BAD) == fates("1/0/up", BAD)
    assert fates("1/0/up", BAD) != fates("1/1/up", BAD)


def test_a_setting_leaves_what_the_others_decide() -> None:
    lost = [not fate for fate in fates("1", BAD)]
    assert [not fate for fate in fates("1", replace(BAD, duplicate=0.5, reorder=0.5, delay_s=0.1))] == lost
    more = [not fate for fate in fates("1", replace(BAD, loss=0.2))]
    assert all(now for before, now in zip(lost, more, strict=True) if before)


def test_shares_are_what_was_asked_for() -> None:
    found = fates("1", BAD)
    arrived = [fate for fate in found if fate]
    assert 0.09 < 1 - len(arrived) / N < 0.11
    assert 0.016 < sum(len(fate) == 2 for fate in arrived) / len(arrived) < 0.024
    assert 0.04 < sum(fate[0] > 1e-9 for fate in arrived) / len(arrived) < 0.06


def test_what_is_held_back_is_overtaken_but_not_for_longer_than_asked() -> None:
    held = [fate[0] for fate in fates("1", BAD) if fate and fate[0] > 1e-9]
    assert 0.025 < max(held) <= BAD.hold_s + 1e-9
    delayed = [fate[0] for fate in fates("1", replace(BAD, delay_s=0.2)) if fate]
    assert min(delayed) == pytest.approx(0.2)
    assert max(delayed) <= 0.2 + BAD.hold_s + 1e-9


def test_a_rate_is_kept_and_its_queue_is_bounded() -> None:
    narrow = Shape(rate_bps=1_000_000, queue_bytes=20_000)
    found = fates("1", narrow, gap_s=0.001)  # 8 Mbps
    arrivals = [i * 0.001 + fate[0] for i, fate in enumerate(found) if fate]
    assert arrivals == sorted(arrivals)
    assert len(arrivals) * 8000 / arrivals[-1] == pytest.approx(1_000_000, rel=0.02)
    assert max(fate[0] for fate in found if fate) <= 20_000 * 8 / 1_000_000 + 1e-6
    assert fates("1", narrow, gap_s=0.0081) == [[pytest.approx(0.008)]] * N  # what fits waits for itself only


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A UDP server."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind((SERVER_HOST, free_port()))
        listening.settimeout(5)
        yield listening


@pytest.fixture
def relay(server: socket.socket) -> Iterator[Relay]:
    with Relay(server.getsockname()[1]) as running:
        yield running


@pytest.fixture
def client(relay: Relay, server: socket.socket) -> Iterator[Callable[[], socket.socket]]:
    made: list[socket.socket] = []

    def make() -> socket.socket:
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made[-1].settimeout(5)
        made[-1].connect((HOST, server.getsockname()[1]))
        return made[-1]

    yield make
    for one in made:
        one.close()


def arrives(server: socket.socket, client: socket.socket, text: bytes) -> tuple[str, int]:
    """Sends up and back down; returns from where it came to the server."""
    client.send(text)
    data, address = server.recvfrom(100)
    assert data == text
    server.sendto(text[::-1], address)
    assert client.recv(100) == text[::-1]
    return address


def waiting(receiver: socket.socket) -> list[bytes]:
    """All that is there."""
    found = []
    receiver.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            found.append(receiver.recv(100))
    receiver.settimeout(5)
    return found


def test_each_client_has_an_address_of_its_own(server: socket.socket, client: Callable[[], socket.socket]) -> None:
    alice, bob = client(), client()
    first = arrives(server, alice, b"alice")
    assert arrives(server, bob, b"bob") != first
    assert arrives(server, alice, b"again") == first


def test_it_can_fall_silent_for_one_and_speak_again(
    relay: Relay, server: socket.socket, client: Callable[[], socket.socket]
) -> None:
    alice, bob = client(), client()
    relay.shape("up", SILENT, client=alice.getsockname()[1])
    alice.send(b"unheard")
    arrives(server, bob, b"bob")
    eventually(lambda: relay.counts.get("up_lost") == 1, "one is lost")
    relay.shape("up", CLEAN, client=alice.getsockname()[1])
    arrives(server, alice, b"alice")
    relay.shape("down", SILENT)
    alice.send(b"x")
    server.sendto(b"unheard", server.recvfrom(100)[1])
    eventually(lambda: relay.counts.get("down_lost") == 1, "one is lost on its way down")
    relay.shape("down", CLEAN)
    arrives(server, alice, b"alice")


def test_a_new_address_towards_the_server_ends_the_old_one(
    relay: Relay, server: socket.socket, client: Callable[[], socket.socket]
) -> None:
    alice = client()
    before = arrives(server, alice, b"alice")
    relay.rebind()
    with suppress(ConnectionRefusedError):
        server.sendto(b"to nobody", before)
    assert arrives(server, alice, b"alice") != before


def test_what_arrives_is_what_the_seed_says(
    relay: Relay, server: socket.socket, client: Callable[[], socket.socket]
) -> None:
    shape = Shape(loss=0.2, duplicate=0.1)
    relay.shape("up", shape)
    alice, link = client(), Link("1/0/up")
    expected = []
    for i in range(100):
        alice.send(b"%d" % i)
        expected += [b"%d" % i] * len(link.admit(2, shape, 0.0))
    eventually(lambda: relay.counts.get("up") == 100, "all went through")
    assert waiting(server) == expected


def test_it_holds_back_and_limits_by_the_clock(
    relay: Relay, server: socket.socket, client: Callable[[], socket.socket]
) -> None:
    alice = client()
    relay.shape("up", Shape(reorder=0.5, hold_s=0.02))
    sent = [b"%d" % i for i in range(50)]
    for text in sent:
        alice.send(text)
    got = [server.recv(100) for _ in sent]
    assert got != sent
    assert sorted(got) == sorted(sent)
    relay.shape("up", Shape(rate_bps=8_000, queue_bytes=50))  # a byte a millisecond
    for text in (b"a" * 20, b"b" * 20, b"c" * 20):
        alice.send(text)
    assert [server.recv(100)[:1] for _ in range(2)] == [b"a", b"b"]
    eventually(lambda: relay.counts["up_lost"] == 1, "the third found the queue full")
