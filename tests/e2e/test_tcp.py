"""Calls of browsers whose network or policy blocks UDP: their media goes over TCP, on the port of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from firefox import Firefox
from people import Person, in_call
from playwright.sync_api import Browser, expect
from support.process import Server
from support.relay import HOST
from support.waiting import eventually
from wires import TcpWire

People = Callable[..., Person]

WIDE_BPS, NARROW_BPS = 20e6, 250e3
"""The largest layer of Chromium's fake camera takes about 350 kbps, at 8 frames a second, and the next one half."""
_DELAY_JS = """async () => {
    const reports = [...((await window.room.pc?.getStats())?.values() ?? [])];
    return reports.find((one) => one.type === 'candidate-pair' && one.nominated)?.currentRoundTripTime ?? 0;
}"""


def video(one: Person, name: str) -> int:
    """A number of the report about the video that arrives."""
    return max((int(report.get(name, 0)) for report in one.inbound("video")), default=0)


def transports(server: Server) -> list[str]:
    """Of the peers that were connected, in order."""
    lines = [line for line in server.output.splitlines() if " connected room=" in line]
    return [line.rpartition("transport=")[2].split()[0] for line in lines]


def test_a_browser_without_udp_is_in_a_call_and_knows_how(
    start_server: Callable[..., Server], person: People, policed: Browser
) -> None:
    server = start_server("--self-signed", workers="2")
    bob = person(server, "bob").join("mixed")
    alice = person(server, "alice", on=policed).join("mixed")
    in_call(alice, bob)
    assert sorted(transports(server)) == ["tcp", "udp"]
    for one, way in ((alice, "TCP"), (bob, "UDP")):
        one.page.keyboard.press("i")
        panel = one.page.get_by_role("complementary", name="Connection")
        expect(panel.locator(".verdict")).to_contain_text(f"Connected over {way}.")


@pytest.fixture
def blocked(start_server: Callable[..., Server]) -> Iterator[tuple[Server, TcpWire]]:
    """A server whose pages load, and whose media has no way but the wire."""
    server = start_server(public_ip=HOST)
    wire = TcpWire(server.port, (HOST, server.port))
    yield server, wire
    wire.close()


@pytest.mark.soak
def test_a_slow_connection_gets_a_smaller_picture_instead_of_a_late_one(
    blocked: tuple[Server, TcpWire], person: People
) -> None:
    """TCP shows no loss, only delay."""
    server, wire = blocked
    wire.rate_bps = WIDE_BPS
    alice = person(server, "alice", lines=720).join("slow")
    bob = person(server, "bob", quiet=True).join("slow")
    bob.sees(alice)
    bob.shows(alice, 720)
    eventually(lambda: video(bob, "frameHeight") == 720, "bob gets the largest layer", 60)
    wire.rate_bps = NARROW_BPS
    eventually(lambda: video(bob, "frameHeight") < 720, "bob gets a smaller one", 60)
    bob.moves(lambda: video(bob, "framesDecoded"), "sees it")
    eventually(lambda: 0 < bob.page.evaluate(_DELAY_JS) < 0.5, "nothing waits any more", 60)


@pytest.mark.soak
def test_a_call_over_tcp_survives_its_connections(
    blocked: tuple[Server, TcpWire], person: People, firefox: Firefox
) -> None:
    server, wire = blocked
    alice = person(server, "alice").join("blocked")
    fiona = person(server, "fiona", on=firefox).join("blocked")
    in_call(alice, fiona)
    assert transports(server) == ["tcp", "tcp"]
    peers = alice.peer, fiona.peer
    wire.up = False
    eventually(lambda: alice.trouble == "media", "alice notices")
    wire.up = True
    eventually(lambda: alice.trouble is None, "alice has another connection", 60)
    in_call(alice, fiona)
    assert (alice.peer, fiona.peer) == peers
