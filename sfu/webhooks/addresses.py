"""Addresses that webhooks may reach: public ones only, so that no company reaches the network behind this server.

A name is resolved once for a connection, and the connection goes to the address that was looked at. So a name that
resolves to something else a moment later (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

import httpcore
import trio

LOOKUPS = 16
"""Most names that are looked up at once. Each takes a thread, and slow ones must not take those of others."""
ADDRESSES = 4
"""Most addresses of a name that are tried."""
EMBEDDED = {IPv6Network("64:ff9b::/96"): 0, IPv6Network("2002::/16"): 80, IPv6Network("::/96"): 0}
"""Networks whose addresses stand for one of IPv4, and how many bits follow it: NAT64, 6to4, and the old form."""


class AddressRefused(httpcore.ConnectError):
    """The name has no address that a webhook may reach."""


def is_public(address: str) -> bool:
    """Whether an address, as text, is one of the internet. Addresses that stand for one of IPv4 are judged as that."""
    try:
        found = ip_address(address)
    except ValueError:  # with a zone, so it is of a link
        return False
    if isinstance(found, IPv6Address):
        inside = _embedded(found)
        if inside is not None:
            return is_public(str(inside))
    return found.is_global and not found.is_multicast


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    for network, shift in EMBEDDED.items():
        if address in network:
            return IPv4Address((int(address) >> shift) & 0xFFFFFFFF)
    return None


def fault(url: str, *, allow_private: bool) -> str:
    """What is wrong with the URL of a webhook; empty if nothing is. Names are resolved only when something is sent."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        return "must begin with https://"
    if not host or port == 0:
        return "has no host"
    if parts.username is not None or parts.password is not None:
        return "must not contain a user name or password"
    if parts.fragment:
        return "must not contain a fragment"
    try:
        ip_address(host)
    except ValueError:
        return ""
    return "" if allow_private or is_public(host) else "is an address that is not public"


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to public addresses only, unless private ones are allowed. Raises AddressRefused."""

    def __init__(self, *, allow_private: bool) -> None:
        self._plain, self._allow_private = httpcore.TrioBackend(), allow_private
        self._threads = trio.CapacityLimiter(LOOKUPS)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        found = await self._resolved(host, port)
        allowed = [address for address in found if self._allow_private or is_public(address)]
        if not allowed:
            raise AddressRefused(f"{host} has no public address")
        for address in allowed[:-1][: ADDRESSES - 1]:
            try:
                return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._plain.connect_tcp(allowed[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise AddressRefused(path)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def _resolved(self, host: str, port: int) -> list[str]:
        """The addresses of a name, in the order in which the system would try them. Raises httpcore.ConnectError."""
        look = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = await trio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=self._threads)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error}") from error
        return list(dict.fromkeys(str(address[0]) for _, _, _, _, address in found))
