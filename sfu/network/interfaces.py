"""Local addresses: which ones browsers can reach, and when they change."""

from __future__ import annotations

import ipaddress
import re
import socket
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import ifaddr

_BRIDGES = re.compile(
    r"docker\d+|br-[0-9a-f]{12}|veth.*|podman\d+|cni.*|flannel.*|cali.*|cilium.*|kube-.*|weave.*|"  # containers
    r"virbr\d+.*|vnet\d+|vboxnet\d+|vmnet\d+|lxcbr\d+|lxdbr\d+|incusbr\d+|ve-.*|vb-.*"  # virtual machines
)
"""Interfaces that lead to containers and virtual machines of this machine. `br-lan` and `br0` lead further."""
_TUNNELS = re.compile(r"tailscale\d+|wg.*|tun\d+|tap\d+|utun\d+|zt.*|nebula\d+|ppp\d+")
"""Interfaces of private networks over the internet: their members reach the server there, and nobody else does."""

_IPV4_CHANGES, _IPV6_CHANGES = 0x10, 0x100
"""RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR (rtnetlink(7))."""


class Local(NamedTuple):
    """An address of this machine. `interface` is empty if no interface has it now."""

    address: str
    interface: str


def local_addresses(hosts: Iterable[str]) -> list[Local]:
    """The local addresses to listen on, those that most people can reach first: public ones, private ones, those of
    tunnels, those that only this machine can reach.

    Empty `hosts` mean all addresses; 0.0.0.0 or :: mean all of that family. IPv6 link-local ones are left out: browsers
    offer no candidate that reaches them.
    """
    hosts = list(hosts)
    unspecified = [host for host in hosts if ipaddress.ip_address(host).is_unspecified]
    families = {ipaddress.ip_address(host).version for host in unspecified} if hosts else {4, 6}
    names = {str(address): name for name, address in _interfaces()}
    found = [Local(host, names.get(host, "")) for host in hosts if host not in unspecified]
    for text, name in names.items():
        address = ipaddress.ip_address(text)
        if address.version in families and not (address.version == 6 and address.is_link_local):
            found.append(Local(text, name))
    return sorted(dict.fromkeys(found), key=_rank)


def useful(found: Sequence[Local]) -> list[Local]:
    """Those to tell browsers: all but loopback and the networks of containers, or all if there are no others."""
    return [local for local in found if not _is_inner(local)] or list(found)


def _interfaces() -> Iterable[tuple[str, str]]:
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            yield adapter.name, ip.ip if isinstance(ip.ip, str) else ip.ip[0]


def is_bridge(interface: str) -> bool:
    """Whether an interface of this name leads to containers and virtual machines of this machine only."""
    return _BRIDGES.fullmatch(interface) is not None


def _is_inner(local: Local) -> bool:
    return ipaddress.ip_address(local.address).is_loopback or is_bridge(local.interface)


def _rank(local: Local) -> tuple[bool, bool, bool, bool, int]:
    address = ipaddress.ip_address(local.address)
    tunnel = _TUNNELS.fullmatch(local.interface) is not None
    return address.is_loopback, _is_inner(local), tunnel, not address.is_global, address.version


def changes() -> socket.socket | None:
    """A socket that becomes readable when an address of this machine comes or goes, where the system has one
    (rtnetlink(7)); None elsewhere. The caller closes it, and discards what it reads."""
    if sys.platform != "linux":
        return None
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    try:
        sock.bind((0, _IPV4_CHANGES | _IPV6_CHANGES))
    except OSError:  # a sandbox may allow no more than to read addresses
        sock.close()
        return None
    return sock
