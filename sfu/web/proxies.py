"""Trusted proxies: their addresses, and the client address and scheme in their headers.

A proxy adds an entry for whoever sent it the request, and passes on the entries before. So the headers are read from
right to left, for as long as the author of an entry is a proxy that the settings name.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_address

from sfu.limits.rates import place

log = logging.getLogger("sfu.proxies")

Headers = Iterable[tuple[bytes, bytes]]

X_FORWARDED = {"for": b"x-forwarded-for", "proto": b"x-forwarded-proto"}
"""The older header for each parameter of Forwarded (RFC 7239)."""
SECURE = {"https": True, "wss": True, "http": False, "ws": False}
"""Schemes in forwarding headers. Traefik writes `wss` and `ws` for WebSockets."""
NODE = re.compile(r"(?:\[(.*)\]|([^:]*))(?::[\w.-]+)?", re.ASCII)
"""An address that may have a port, which need not be a number (RFC 7239 section 6). A bare IPv6 address has none."""
WARNED = 16
"""Most addresses to warn about. Strangers can send forwarding headers, too."""

_HINT = "If this is your proxy, name its address in SFU_TRUSTED_PROXIES."


SEEN, SEEN_S = 16, 3600.0
"""Most addresses to remember of each kind, and for how long."""


@dataclass
class Seen:
    """Who sent forwarding headers lately, for `sfu doctor`: by address, and when it last did."""

    believed: dict[str, float] = field(default_factory=dict)
    ignored: dict[str, float] = field(default_factory=dict)

    def note(self, address: str, *, trusted: bool) -> None:
        """Remembers the address, in place of the one that was silent for the longest time."""
        seen, now_s = self.believed if trusted else self.ignored, time.monotonic()
        seen.pop(address, None)
        if len(seen) >= SEEN:
            del seen[next(iter(seen))]
        seen[address] = now_s

    def lately(self, *, trusted: bool) -> tuple[str, ...]:
        """The addresses of the last SEEN_S, the last one last."""
        since_s = time.monotonic() - SEEN_S
        return tuple(
            address for address, at_s in (self.believed if trusted else self.ignored).items() if at_s > since_s
        )


@dataclass
class Proxies:
    """The proxies in `networks`."""

    networks: Sequence[IPv4Network | IPv6Network]
    seen: Seen = field(default_factory=Seen)
    _warned: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.trusts_everybody:
            log.warning("proxies=everybody hint=%r", _EVERYBODY)

    @property
    def trusts_everybody(self) -> bool:
        """Whether the networks cover all addresses of IPv4 or of IPv6, so that anybody can forge an address."""
        four = collapse_addresses([one for one in self.networks if isinstance(one, IPv4Network)])
        six = collapse_addresses([one for one in self.networks if isinstance(one, IPv6Network)])
        return any(one.prefixlen == 0 for one in four) or any(one.prefixlen == 0 for one in six)

    def trusts(self, address: str) -> bool:
        """Whether `address`, an IP address, is a proxy's."""
        ip = _unmapped(ip_address(address))
        return any(ip in network for network in self.networks)

    def client(self, peer: str, secure: bool, headers: Headers) -> tuple[str, bool]:
        """The client's address, and whether it used https. `peer` and `secure` are those of the connection."""
        headers = list(headers)
        senders, schemes = (_entries(headers, parameter) for parameter in ("for", "proto"))
        trusted = self.trusts(peer)
        if senders or schemes:
            self.seen.note(peer, trusted=trusted)
        if not trusted:
            if senders or schemes:
                self.warn("forwarding_headers_ignored", peer)
            return peer, secure
        address, believed = peer, 0
        for sender in reversed(senders):
            if not self.trusts(address):
                break
            believed += 1
            if (found := node_address(sender)) is None:
                break
            address = found
        scheme = schemes[-min(believed or 1, len(schemes))] if schemes else ""
        return address, SECURE.get(scheme.lower(), secure)

    def warn(self, event: str, address: str, hint: str = _HINT) -> None:
        """Tells the operator, once for each event and address, since a proxy that nobody named is easily overlooked."""
        key = event, place(address)
        if key not in self._warned and len(self._warned) < WARNED:
            self._warned.add(key)
            log.warning("%s address=%s hint=%r", event, address, hint)


_EVERYBODY = "SFU_TRUSTED_PROXIES trusts every address, so anybody can forge theirs: name your proxies only."


def _entries(headers: Headers, parameter: str) -> list[str]:
    """What the proxies say about one parameter, the nearest proxy last. X-Forwarded headers go before Forwarded."""
    return members(headers, X_FORWARDED[parameter]) or [
        _parameters(element).get(parameter, "") for element in members(headers, b"forwarded")
    ]


def _parameters(element: str) -> dict[str, str]:
    """The parameters of one element of Forwarded.

    Quotes bind nothing: no address or scheme contains a comma or semicolon, and with a quote that is never closed a
    client could swallow the proxy's entry.
    """
    pairs = (pair.partition("=") for pair in element.split(";"))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def node_address(text: str) -> str | None:
    """The IP address in an entry such as `203.0.113.7:4711`; None for other names, such as `unknown` or `_hidden`."""
    match = NODE.fullmatch(text)
    try:
        ip = _unmapped(ip_address((match[1] or match[2]) if match else text))
    except ValueError:
        return None
    return str(IPv6Address(int(ip)) if isinstance(ip, IPv6Address) else ip)  # without a zone, which may be any text


def _unmapped(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip


def members(headers: Headers, name: bytes) -> list[str]:
    """The members of a comma-separated header, which may span several lines (RFC 9110 section 5.6.1)."""
    lines = [value.decode("latin1") for key, value in headers if key == name]
    return [member.strip() for line in lines for member in line.split(",") if member.strip()]
