"""Finds out why a peer has no media path, from the paths of other peers and from the addresses involved.

A peer that is not reached leaves few traces. Four causes can be told apart: an advertised address that cannot be
reached from where the client is, a network in between that lets only a part through, and, if nothing arrives from the
client, whether others' media does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from ipaddress import IPv6Address, ip_address, ip_network

from sfu import bridge
from sfu.logs import line
from sfu.protocol.server_messages import Unreached, UnreachedCause

log = logging.getLogger("sfu.calls")

RECENT_S = 600.0
"""How long after a peer left its media path still shows that the server can be reached."""
WARN_S = 60.0
"""Minimum time between two warnings with the same cause; the others are logged as information."""

_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))
"""RFC 1918, RFC 6598 and RFC 4193."""

_ADVICE: dict[UnreachedCause, str] = {
    "address": "Set SFU_PUBLIC_IP to an address of this server that the client can send to.",
    "server": "Open UDP port {port} in the firewall, and set SFU_PUBLIC_IP if clients reach this server at another "
    "address.",
    "network": "Media of others arrives, so the network of this client probably blocks UDP{tcp}: a TURN server helps "
    "(SFU_TURN_URLS), and so may port 443 (SFU_TCP_PORT). If the client is in the same network as this server, add the "
    "address there to SFU_PUBLIC_IP.",
    "partial": "Packets of this client arrive, but a firewall drops what follows: allow UDP port {port} in both "
    "directions.",
}


class Scope(IntEnum):
    """From how far away an address can be reached."""

    MACHINE = 0
    LINK = 1
    NETWORK = 2
    INTERNET = 3


def scope_of(address: str) -> Scope:
    """The scope of an IP address; MACHINE for text that is none."""
    try:
        ip = ip_address(address)
    except ValueError:
        return Scope.MACHINE
    ip = (isinstance(ip, IPv6Address) and ip.ipv4_mapped) or ip
    if ip.is_loopback:
        return Scope.MACHINE
    if ip.is_link_local:
        return Scope.LINK
    return Scope.NETWORK if any(ip in network for network in _PRIVATE) else Scope.INTERNET


class Reach:
    """Remembers from where media paths came about. `tcp_port` takes media over TCP, 0 if none does. `seen` is the
    address that a STUN server sees this server at, if that is not advertised, else empty."""

    def __init__(self, clock: Callable[[], float], tcp_port: int, seen: Callable[[], str] = str) -> None:
        self._clock, self._tcp_port, self._seen = clock, tcp_port, seen
        self._here: dict[str, Scope] = {}  # by peer
        self._left_s: dict[Scope, float] = {}  # when the last peer of each scope left
        self._warned_s: dict[str, float] = {}  # by cause

    def connected(self, peer: str, address: str, transport: str) -> None:
        """The peer has a media path from `address`. One over TCP says nothing about the UDP port."""
        if transport == "udp":
            self._here[peer] = scope_of(address)

    def left(self, peer: str) -> None:
        if (scope := self._here.pop(peer, None)) is not None:
            self._left_s[scope] = self._clock()

    def unreached(self, event: bridge.Unreached, who: Mapping[str, str], client: str) -> Unreached:
        """Logs that there is no media path to the peer at `client`, and returns what to tell the peer.

        `who` has the fields of the log that say who it is.
        """
        cause = self.cause(client, event.hosts, heard=event.heard)
        hosts = [host for host in event.hosts if scope_of(host) >= scope_of(client)] or event.hosts
        addresses = tuple(f"[{host}]:{event.port}" if ":" in host else f"{host}:{event.port}" for host in hosts)
        about = {**who, "client": client, "advertised": ",".join(addresses)}
        tcp = ", and TCP except to known ports" if self._tcp_port else ", and media over TCP is off"
        advice = repr(_ADVICE[cause].format(port=event.port, tcp=tcp))
        level = logging.WARNING if self._warns(cause) else logging.INFO
        log.log(level, "%s", line("unreached", **about, cause=cause, advice=advice))
        return Unreached(cause, addresses, tcp=event.port == self._tcp_port)

    def cause(self, client: str, hosts: Sequence[str], *, heard: bool) -> UnreachedCause:
        """`heard`: the client's packets arrive. `hosts` are advertised."""
        scope = scope_of(client)
        if heard:
            return "partial"
        if scope > max(map(scope_of, hosts), default=Scope.MACHINE):
            return "address"
        since_s = self._clock() - RECENT_S
        recent = {*self._here.values(), *(other for other, left_s in self._left_s.items() if left_s > since_s)}
        if any(other >= scope for other in recent):
            return "network"
        return "address" if scope is Scope.INTERNET and self._seen() else "server"

    def _warns(self, cause: str) -> bool:
        now_s = self._clock()
        if now_s - self._warned_s.get(cause, -WARN_S) < WARN_S:
            return False
        self._warned_s[cause] = now_s
        return True
