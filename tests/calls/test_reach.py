"""The causes that the server tells apart if a peer has no media path, and its log."""

from __future__ import annotations

import logging

import pytest

from sfu import bridge
from sfu.calls.reach import RECENT_S, WARN_S, Reach, Scope, scope_of
from sfu.protocol.server_messages import Unreached


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reach(clock: Clock) -> Reach:
    return Reach(clock, 8080)


PUBLIC, CLIENT = "203.0.113.9", "198.51.100.7"


@pytest.mark.parametrize(
    ("address", "scope"),
    [
        ("127.0.0.1", Scope.MACHINE),
        ("::1", Scope.MACHINE),
        ("::ffff:127.0.0.1", Scope.MACHINE),
        ("", Scope.MACHINE),
        ("unix:", Scope.MACHINE),
        ("169.254.1.1", Scope.LINK),
        ("fe80::1", Scope.LINK),
        ("fe80::1%eth0", Scope.LINK),
        ("10.0.0.5", Scope.NETWORK),
        ("172.17.0.2", Scope.NETWORK),
        ("192.168.1.9", Scope.NETWORK),
        ("::ffff:192.168.1.9", Scope.NETWORK),
        ("100.64.0.1", Scope.NETWORK),
        ("fd00::1", Scope.NETWORK),
        ("172.32.0.1", Scope.INTERNET),
        (PUBLIC, Scope.INTERNET),
        ("2001:db8::1", Scope.INTERNET),
    ],
)
def test_from_how_far_an_address_can_be_reached(address: str, scope: Scope) -> None:
    assert scope_of(address) is scope


@pytest.mark.parametrize(
    ("client", "hosts", "cause"),
    [
        (CLIENT, ("10.0.0.5", "172.17.0.1"), "address"),
        (CLIENT, ("127.0.0.1",), "address"),
        ("192.168.1.9", ("127.0.0.1",), "address"),
        (CLIENT, ("fd00::1",), "address"),
        (CLIENT, ("10.0.0.5", PUBLIC), "server"),
        ("192.168.1.9", ("10.0.0.5",), "server"),
        ("127.0.0.1", (PUBLIC,), "server"),
    ],
)
def test_private_addresses_told_to_a_client_from_further_away(
    reach: Reach, client: str, hosts: tuple[str, ...], cause: str
) -> None:
    assert reach.cause(client, hosts, heard=False) == cause


def test_whether_others_are_reached_tells_the_server_from_the_network(reach: Reach, clock: Clock) -> None:
    reach.connected("a", "127.0.0.1", "udp")  # shows nothing about the internet
    assert reach.cause(CLIENT, (PUBLIC,), heard=False) == "server"
    reach.connected("b", "198.51.100.8", "udp")
    assert reach.cause(CLIENT, (PUBLIC,), heard=False) == "network"
    assert reach.cause("192.168.1.9", (PUBLIC,), heard=False) == "network"
    clock.now_s += 2 * RECENT_S
    assert reach.cause(CLIENT, (PUBLIC,), heard=False) == "network", "b is still there"
    reach.left("b")
    reach.left("nobody")
    clock.now_s += RECENT_S - 1
    assert reach.cause(CLIENT, (PUBLIC,), heard=False) == "network"
    clock.now_s += 1
    assert reach.cause(CLIENT, (PUBLIC,), heard=False) == "server"


def test_media_over_tcp_says_nothing_about_the_udp_port(reach: Reach) -> None:
    reach.connected("b", "198.51.100.8", "tcp")
    assert reach.cause(CLIENT, (PUBLIC,), heard=False) == "server"
    reach.left("b")
    assert reach.cause(CLIENT, (PUBLIC,), heard=False) == "server"


@pytest.mark.parametrize(
    ("tcp_port", "told", "said"), [(8080, True, "except"), (443, False, "except"), (0, False, "TCP is off")]
)
def test_tcp_is_named_where_media_can_take_it(
    clock: Clock, caplog: pytest.LogCaptureFixture, tcp_port: int, told: bool, said: str
) -> None:
    reach = Reach(clock, tcp_port)
    reach.connected("b", "198.51.100.8", "udp")
    assert unreached(reach, PUBLIC) == Unreached("network", (f"{PUBLIC}:8080",), told)
    assert said in caplog.text


def test_a_client_that_is_heard_is_reached_in_part(reach: Reach) -> None:
    reach.connected("b", "198.51.100.8", "udp")
    assert reach.cause(CLIENT, ("10.0.0.5",), heard=True) == "partial"


def unreached(reach: Reach, *hosts: str, heard: bool = False) -> Unreached:
    return reach.unreached(
        bridge.Unreached("p", heard, hosts, 8080), {"room": "'c/team'", "peer": "p", "name": "'Al ice'"}, CLIENT
    )


def test_the_warning_names_both_ends_and_the_setting(reach: Reach, caplog: pytest.LogCaptureFixture) -> None:
    told = unreached(reach, "10.0.0.5", "fd00::1")
    assert told == Unreached("address", ("10.0.0.5:8080", "[fd00::1]:8080"), tcp=True)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    who = "room='c/team' peer=p name='Al ice'"
    for named in (CLIENT, "advertised=10.0.0.5:8080,[fd00::1]:8080", who, "SFU_PUBLIC_IP"):
        assert named in record.getMessage()


def test_warnings_are_as_rare_as_their_causes(reach: Reach, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for heard in (False, False, True):
        unreached(reach, PUBLIC, heard=heard)
    clock.now_s += WARN_S
    unreached(reach, PUBLIC)
    warning, info = logging.WARNING, logging.INFO
    assert [record.levelno for record in caplog.records] == [warning, info, warning, warning]
    assert all("8080" in record.getMessage() for record in caplog.records)


def test_an_address_that_a_stun_server_contradicts_is_named(clock: Clock) -> None:
    reach = Reach(clock, 8080, lambda: PUBLIC)
    assert reach.cause(CLIENT, ("203.0.113.77",), heard=False) == "address"
    assert reach.cause("192.168.1.9", ("203.0.113.77",), heard=False) == "server", "who is near may have another way"
    reach.connected("b", "198.51.100.8", "udp")
    assert reach.cause(CLIENT, ("203.0.113.77",), heard=False) == "network", "others reach it there"
