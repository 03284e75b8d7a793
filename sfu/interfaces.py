"""Local addresses that browsers can reach."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

import ifaddr


def interface_addresses(hosts: Iterable[str]) -> list[str]:
    """The local addresses to listen on, public ones first, loopback last. Empty `hosts` mean all addresses; 0.0.0.0 or
    :: mean all of that family. IPv6 link-local ones are left out: browsers offer no candidate that reaches them."""
    hosts = list(hosts)
    found: list[str] = [host for host in hosts if not ipaddress.ip_address(host).is_unspecified]
    families = (
        {4, 6}
        if not hosts
        else {ipaddress.ip_address(h).version for h in hosts if ipaddress.ip_address(h).is_unspecified}
    )
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            address = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            parsed = ipaddress.ip_address(address)
            if parsed.version in families and not (parsed.version == 6 and parsed.is_link_local):
                found.append(address)

    def rank(address: str) -> tuple[bool, bool, int]:
        parsed = ipaddress.ip_address(address)
        return parsed.is_loopback, not parsed.is_global, parsed.version

    return sorted(dict.fromkeys(found), key=rank)
