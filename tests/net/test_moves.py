"""Addresses that change in the middle of a call: its people find each other again, and nobody leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from people import Person
from playwright.sync_api import Browser
from support.namespaces import ServerOn
from support.waiting import eventually

from net.cases import CASES, NAT, RELAY, SERVER, STUN_PORT
from net.lab import Lab
from net.trial import together

PAGE, NEW = "203.0.113.10", "203.0.113.11"
"""The address that the page is loaded from, which stays, and the one that media has after the change."""
OPEN = next(case for case in CASES if case.name == "open")
OWN = replace(OPEN, server=(f"{SERVER}/24", f"{PAGE}/24"), page=PAGE)
BEHIND = replace(
    next(case for case in CASES if case.name == "nat-stun"), page=PAGE,
    nat=NAT.replace(f"tcp ip daddr {SERVER}", f"tcp ip daddr {{ {SERVER}, {PAGE} }}"),
    settings={"stun": f"{RELAY}:{STUN_PORT}", "tcp_port": "0"},
)  # fmt: skip
pytestmark = pytest.mark.soak


def moved(server: ServerOn) -> str:
    """The line about the change."""
    lines = [line for line in server.output.splitlines() if " addresses_changed " in line]
    return next((line for line in lines if f"{NEW}(" in line), "")


def stay(alice: Person, bob: Person) -> tuple[str | None, str | None]:
    alice.sees(bob)
    return alice.peer, bob.peer


def test_an_address_of_the_server_is_replaced(lab: Lab, browsers: tuple[Browser, Browser]) -> None:
    lab.prepare(OWN)
    lab.server.keeps_secondaries()
    with together(lab, OWN, *browsers) as (server, bob, alice):
        peers = stay(alice, bob)
        lab.server.ip(f"addr del {SERVER}/24 dev eth0")
        lab.server.ip(f"addr add {NEW}/24 dev eth0")
        eventually(lambda: moved(server), "the change is logged")
        assert stay(alice, bob) == peers
        assert server.output.count(" joined room=") == 2


def test_a_nat_in_front_of_the_server_gets_another_address(lab: Lab, browsers: tuple[Browser, Browser]) -> None:
    lab.prepare(BEHIND)
    with together(lab, BEHIND, *browsers) as (server, bob, alice):
        peers = stay(alice, bob)
        lab.gate.rules(BEHIND.nat.replace(SERVER, NEW))
        line = eventually(lambda: moved(server), "the server learns the new address", 60)
        assert f"{NEW}(SFU_STUN)" in line
        assert stay(alice, bob) == peers
        assert server.output.count(" joined room=") == 2
