"""Media that finds no way to the server: the page's words for each cause, and the view of the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from people import Person
from playwright.sync_api import Browser, expect
from support.process import Server
from support.relay import CLEAN, HOST, SILENT, Direction, Relay
from support.waiting import eventually

People = Callable[..., Person]
Walled = tuple[Server, Relay]

BOTH: tuple[Direction, ...] = ("up", "down")
TITLE = "Audio and video can’t connect"
FAR = {"X-Forwarded-For": "198.51.100.7"}
"""A proxy's word that the client comes from the internet."""


@pytest.fixture
def walled(start_server: Callable[..., Server]) -> Iterator[Walled]:
    """A server whose pages load, behind a relay that lets no media through."""
    server = start_server(public_ip=HOST, trusted_proxies="127.0.0.1")
    with Relay(server.port) as relay:
        shape(relay, BOTH, passes=False)
        yield server, relay


def shape(relay: Relay, directions: tuple[Direction, ...], *, passes: bool) -> None:
    for direction in directions:
        relay.shape(direction, CLEAN if passes else SILENT)


def told(one: Person) -> str:
    """What the banner says, once it is about media that cannot connect."""
    banner = one.page.locator("#banner")
    expect(banner).to_contain_text(TITLE)
    return banner.inner_text()


def warnings(server: Server) -> list[str]:
    return [line for line in server.output.splitlines() if "level=WARNING" in line and " unreached " in line]


def test_a_closed_server_is_named_with_its_port_and_opened_without_leaving(walled: Walled, person: People) -> None:
    """Nobody is reached, so the user's network is not blamed."""
    server, relay = walled
    alice = person(server, "alice").join("wall")
    peer = alice.peer
    said = told(alice)
    assert alice.trouble == "unreached"
    assert "The server’s firewall or settings are the likely cause." in said
    assert f"allow UDP to {HOST}:{server.port}." in said
    assert "127.0.0.1" not in said
    (warning,) = warnings(server)
    assert "client=127.0.0.1" in warning
    assert f"advertised={HOST}:{server.port} cause=server" in warning
    shape(relay, BOTH, passes=True)
    eventually(lambda: alice.page.evaluate("window.room.connected"), "media flows")
    expect(alice.page.locator("#banner")).to_be_hidden()
    assert alice.peer == peer
    assert alice.trouble is None


@pytest.mark.soak
def test_a_network_that_blocks_media_is_told_from_a_closed_server(walled: Walled, person: People) -> None:
    server, relay = walled
    shape(relay, BOTH, passes=True)
    bob = person(server, "bob").join("blocked")
    eventually(lambda: bob.page.evaluate("window.room.connected"), "bob's media flows")
    shape(relay, BOTH, passes=False)
    alice = person(server, "alice").join("blocked")
    said = told(alice)
    assert "It works for others, so a firewall or VPN on your side is the likely cause." in said
    assert f"For the network administrator: allow UDP or TCP to {HOST}:{server.port}." in said


def test_others_see_whose_connection_is_lost_and_that_it_is_back(walled: Walled, person: People) -> None:
    """Long before the server gives the person up."""
    server, relay = walled
    shape(relay, BOTH, passes=True)
    alice, bob = person(server, "alice").join("lost"), person(server, "bob", quiet=True).join("lost")
    bob.sees(alice)
    peer = alice.peer
    shape(relay, BOTH, passes=False)
    tile = bob.page.locator(bob.tile(alice))
    expect(tile.locator(".why")).to_have_text("Connection lost")
    expect(tile).to_have_attribute("aria-label", re.compile("^alice, .*connection lost"))
    bob.page.keyboard.press("p")
    row = bob.page.locator(f'.person[data-peer="{peer}"]')
    expect(row).to_contain_text("Connection lost")
    shape(relay, BOTH, passes=True)
    expect(tile.locator(".why")).to_have_text("")
    expect(row).not_to_contain_text("Connection lost")
    bob.sees(alice)
    assert alice.peer == peer


@pytest.mark.soak
def test_media_that_is_lost_and_finds_no_other_way(walled: Walled, person: People) -> None:
    """The reason for the loss gives way to the reason why there is no way back."""
    server, relay = walled
    shape(relay, BOTH, passes=True)
    alice = person(server, "alice").join("lost")
    eventually(lambda: alice.page.evaluate("window.room.connected"), "media flows")
    before = alice.peer
    shape(relay, BOTH, passes=False)
    eventually(lambda: alice.trouble == "media", "alice notices")
    eventually(partial(alice.has_come_back, before), "alice joins again", 60)
    assert "It works for others" in told(alice), "others were connected lately"
    assert alice.trouble == "unreached"


@pytest.mark.soak
def test_a_way_that_is_open_in_one_direction_only(walled: Walled, person: People) -> None:
    server, relay = walled
    shape(relay, ("up",), passes=True)
    alice = person(server, "alice").join("half")
    said = told(alice)
    assert "Only part of the data arrives." in said
    assert f"allow UDP to and from {HOST}:{server.port}." in said
    assert "cause=partial" in warnings(server)[0]
    shape(relay, BOTH, passes=True)
    peer = alice.peer
    alice.page.locator("#banner").get_by_role("button", name="Try now").click()
    eventually(lambda: alice.page.evaluate("window.room.connected"), "media flows")
    assert alice.peer == peer


@pytest.mark.soak
def test_an_address_that_only_the_server_can_reach(walled: Walled, person: People) -> None:
    server, _ = walled
    alice = person(server, "alice")
    alice.context.set_extra_http_headers(FAR)
    said = told(alice.join("private"))
    assert "The server gives out an address that can’t be reached from your network." in said
    assert f"set SFU_PUBLIC_IP to the public address instead of {HOST}:{server.port}." in said
    (warning,) = warnings(server)
    assert "client=198.51.100.7" in warning
    assert "cause=address" in warning
    assert "SFU_PUBLIC_IP" in warning


@pytest.mark.soak
def test_a_browser_that_sends_no_udp(walled: Walled, person: People, policed: Browser) -> None:
    """And finds no way over TCP either."""
    server, _ = walled
    alice = person(server, "alice", on=policed).join("policed")
    said = told(alice)
    assert "This browser doesn’t send audio and video over UDP." in said
    assert f"let WebRTC in this browser send UDP to {HOST}:{server.port}." in said


@pytest.fixture
def hasty(start_server: Callable[..., Server]) -> Iterator[Server]:
    """A walled server that gives up quickly."""
    server = start_server(public_ip=HOST, ice_s="0.5")
    with Relay(server.port) as relay:
        shape(relay, BOTH, passes=False)
        yield server


@pytest.mark.soak
def test_nobody_sees_somebody_without_media_join_and_leave_for_ever(hasty: Server, person: People) -> None:
    alice = person(hasty, "alice")
    alice.page.clock.install()
    alice.join("ever")

    def joins() -> int:
        alice.page.clock.run_for(1_000)
        return hasty.output.count("joined room=")

    eventually(lambda: joins() and alice.page.evaluate("window.room.stalled"), "alice has given up")
    assert hasty.output.count("joined room=") == 3

    def says() -> bool:
        alice.page.clock.run_for(1_000)
        return f"allow UDP to {HOST}:{hasty.port}." in told(alice)

    eventually(says, "the page names the address")
    alice.page.clock.run_for(600_000)
    assert alice.page.evaluate("window.room.stalled")
    alice.page.locator("#banner").get_by_role("button", name="Try now").click()
    eventually(lambda: hasty.output.count("joined room=") == 4, "alice tries again")
    eventually(lambda: alice.page.evaluate("window.room.stalled"), "and gives up at once")
    assert alice.page.evaluate("window.room.error.code") == "ice_timeout"
