"""What one address may do how often. Pure, the clock is an argument; bounded, whatever comes."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network


def place(address: str) -> str:
    """What counts as one address: for IPv6 a /64, which one person may have whole."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((ip, 64), strict=False)) if isinstance(ip, IPv6Address) and not ip.ipv4_mapped else str(ip)
