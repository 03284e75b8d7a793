"""Which local addresses there are, in which order, and which of them browsers are told."""

from __future__ import annotations

import ipaddress
import select
from collections.abc import Iterator

import pytest
from support.namespaces import Machine, skip_without_namespaces

from sfu.network.interfaces import Local, changes, local_addresses, useful

PATIENCE_S = 10.0


def addresses(hosts: list[str]) -> list[str]:
    return [local.address for local in local_addresses(hosts)]


def test_named_hosts_are_taken_as_they_are() -> None:
    assert local_addresses(["192.0.2.7"]) == [Local("192.0.2.7", "")]
    assert addresses(["127.0.0.1", "192.0.2.7", "127.0.0.1"]) == ["192.0.2.7", "127.0.0.1"]


@pytest.mark.parametrize(
    ("hosts", "versions"), [([], {4, 6}), (["0.0.0.0"], {4}), (["::"], {6}), (["0.0.0.0", "::"], {4, 6})]
)
def test_every_interface(hosts: list[str], versions: set[int]) -> None:
    found = [ipaddress.ip_address(address) for address in addresses(hosts)]
    assert {address.version for address in found} <= versions
    assert ("127.0.0.1" in map(str, found)) == (4 in versions)
    assert not any(address.is_unspecified for address in found)
    assert not any(address.version == 6 and address.is_link_local for address in found)
    loopback = [address.is_loopback for address in found]
    assert loopback == sorted(loopback)
    assert len(set(found)) == len(found)


def test_public_addresses_come_first() -> None:
    hosts = ["127.0.0.1", "10.0.0.1", "2606:4700::1111", "::1", "8.8.8.8"]
    assert addresses(hosts) == ["8.8.8.8", "2606:4700::1111", "10.0.0.1", "127.0.0.1", "::1"]


@pytest.fixture
def machine() -> Iterator[Machine]:
    skip_without_namespaces()
    made = Machine("host")
    yield made
    made.close()


def interface(machine: Machine, name: str, address: str) -> None:
    machine.ip(f"link add {name} type bridge")
    machine.address(name, address)


def test_what_leads_to_strangers_is_told_and_the_best_of_it_first(machine: Machine) -> None:
    for name, address in (
        ("docker0", "172.17.0.1/16"),
        ("br-0123456789ab", "8.8.8.8/24"),  # a container's network may have any addresses
        ("virbr0", "192.168.122.1/24"),
        ("tailscale0", "100.101.102.103/32"),
        ("br-lan", "192.168.1.5/24"),  # a router's own network
        ("eth0", "9.9.9.9/24"),
    ):
        interface(machine, name, address)
    with machine.within():
        found = local_addresses([])
    assert [local.address for local in useful(found)] == ["9.9.9.9", "192.168.1.5", "100.101.102.103"]
    assert {local.interface for local in found} == {
        "lo", "docker0", "br-0123456789ab", "virbr0", "tailscale0", "br-lan", "eth0"
    }  # fmt: skip


def test_what_leads_to_nobody_is_told_if_there_is_nothing_else(machine: Machine) -> None:
    interface(machine, "docker0", "172.17.0.1/16")
    with machine.within():
        found = local_addresses(["0.0.0.0"])
    assert [local.address for local in useful(found)] == ["172.17.0.1", "127.0.0.1"]


def test_the_system_tells_of_changes(machine: Machine) -> None:
    interface(machine, "eth0", "10.0.0.5/24")
    with machine.within():
        news = changes()
    assert news is not None
    with news:
        for change in ("addr add 10.0.0.6/24", "addr del 10.0.0.5/24", "addr add fd00::5/64"):
            assert not select.select([news], [], [], 0)[0]
            machine.ip(f"{change} dev eth0")
            assert select.select([news], [], [], PATIENCE_S)[0]
            while select.select([news], [], [], 0.5)[0]:  # IPv6 has a second message when no duplicate was found
                news.recv(65536)
