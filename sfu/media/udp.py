"""The worker's one UDP port: a socket for each local address, the peers told apart, and the gate against strangers.

A datagram from an unknown address can be one thing only: a connectivity check that names a peer's ufrag and proves to
know its password. Everything else, and everything malformed, is counted and dropped before any library sees it. A
check's source address may be forged all the same, so it takes no address from another peer that was heard there
lately: that takes an answer to a check of ours.

One socket an address, because a socket on 0.0.0.0 answers from the address of the route instead of the one asked, and
browsers drop such answers.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import time
from collections.abc import Callable, Container, Hashable, Iterable
from typing import Generic, TypeVar

import ifaddr

from sfu.media.ice import Agent, named, parse_check
from sfu.media.sockets import MAX_DATAGRAM, Endpoint, Path, PortableReceiver, Receiver
from sfu.media.srtp import Rows

READ_MOST = 256
"""Datagrams before the loop may turn to something else."""

HELD_S = 10.0
"""How long an address stays a peer's after the last that came from there: browsers' checks of a path in use are no more
than 6 s apart (RFC 7675 section 5.1)."""

T = TypeVar("T")


class Route(Generic[T]):
    """A peer behind an address that proved to be its own; `inbound` takes its media."""

    __slots__ = ("agent", "inbound", "path", "seen_s")

    def __init__(self, agent: Agent, path: Path, inbound: T) -> None:
        self.agent, self.path, self.inbound, self.seen_s = agent, path, inbound, 0.0

    def seen(self, now_s: float) -> None:
        """Something authentic came this way."""
        self.seen_s = now_s
        self.agent.seen(self.path, now_s)


OnMedia = Callable[[Rows, list[Route[T] | None]], Iterable[int]]
"""Gets all that came, the first of the rows, and who sent what, as far as that is known. The rows are its own until it
returns which of them are no SRTP or SRTCP of these peers."""


class UdpPort(Generic[T]):
    """All endpoints of a worker, and who is behind which address."""

    def __init__(self, counters: dict[str, int], on_media: OnMedia[T]) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.port = 0
        self._counters = counters
        self._on_media = on_media
        self._agents: dict[str, tuple[Agent, T]] = {}
        self._claims: dict[bytes, tuple[Agent, T]] = {}  # by the transaction that is to prove them, one an agent
        self._routes: dict[Endpoint, dict[Hashable, Route[T]]] = {}  # by the receiver's `key`
        self._receivers: dict[tuple[int, bool], Receiver | PortableReceiver] = {}

    def open(self, addresses: Iterable[str], port: int, named: Container[str] = ()) -> list[str]:
        """Binds what is not bound yet, closes what is no longer wanted; returns the addresses that are new.

        Port 0 takes a free one, the same for all. Raises OSError naming the address that cannot be bound; only one that
        nobody `named` and that is not ready yet (IPv6 looks for duplicates first) is left for the next call.
        """
        wanted, new = list(addresses), []
        for address in wanted:
            if address in self.endpoints:
                continue
            try:
                endpoint = Endpoint(address, port or self.port, self._counters)
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and address not in named:
                    continue
                raise OSError(error.errno, f"{address} UDP port {port or self.port}: {error.strerror}") from None
            self.port = endpoint.socket.getsockname()[1]
            self.endpoints[address] = endpoint
            routes = self._routes[endpoint] = {}
            receiver = self._receiver(endpoint)
            asyncio.get_running_loop().add_reader(endpoint.socket, self._readable, endpoint, receiver, routes)
            new.append(address)
        for address in self.endpoints.keys() - set(wanted):
            self._close_endpoint(self.endpoints.pop(address))
        return new

    def close(self) -> None:
        for endpoint in self.endpoints.values():
            self._close_endpoint(endpoint)
        self.endpoints.clear()

    def _close_endpoint(self, endpoint: Endpoint) -> None:
        asyncio.get_running_loop().remove_reader(endpoint.socket)
        endpoint.socket.close()
        self._routes.pop(endpoint).clear()

    def register(self, agent: Agent, inbound: T) -> None:
        self._agents[agent.ufrag] = agent, inbound

    def forget(self, ufrag: str | None) -> None:
        """Checks with this ufrag are strangers' from now on."""
        self._agents.pop(ufrag or "", None)

    def unregister(self, agent: Agent) -> None:
        for ufrag in agent.passwords:
            self.forget(ufrag)
        self._claims.pop(agent.claim or b"", None)
        for path in agent.paths:
            self._forget(agent, path)

    def _forget(self, agent: Agent, path: Path) -> None:
        routes = self._routes.get(path.endpoint, {})
        for key in [key for key, route in routes.items() if route.agent is agent and route.path == path]:
            del routes[key]

    def _receiver(self, endpoint: Endpoint) -> Receiver | PortableReceiver:
        which = endpoint.socket.family, endpoint.portable
        if which not in self._receivers:
            self._receivers[which] = PortableReceiver() if endpoint.portable else Receiver(which[0])
        return self._receivers[which]

    def _readable(
        self, endpoint: Endpoint, receiver: Receiver | PortableReceiver, known: dict[Hashable, Route[T]]
    ) -> None:
        left = READ_MOST
        # until nothing is there: asking again is cheaper than coming back through the loop
        while left > 0 and (n := receiver.receive(endpoint)) > 0:
            left -= n
            routes = receiver.senders(n, known)
            for i in self._on_media(receiver.rows, routes):
                self._received(endpoint, receiver, i, routes[i])

    def _received(
        self, endpoint: Endpoint, receiver: Receiver | PortableReceiver, i: int, route: Route[T] | None
    ) -> None:
        """Anything but media of a peer. RFC 7983: the first byte tells STUN, DTLS and SRTP apart."""
        data = bytes(receiver.rows.row(i))
        if not 0 < len(data) <= MAX_DATAGRAM:
            self._counters["gate_length"] += 1
        elif data[0] < 4:
            self._stun(Path(endpoint, receiver.address(i)), receiver.key(i), data)
        elif route is None:
            self._counters["gate_stranger"] += 1
        elif 20 <= data[0] < 64:
            route.agent.dtls(data)
        else:
            self._counters["gate_protocol"] += 1

    def _stun(self, path: Path, key: Hashable, data: bytes) -> None:
        name, now_s = named(data), time.monotonic()
        if name is None:
            if not self._answered(path, key, data, now_s):
                self._counters["gate_stun_malformed"] += 1
            return
        agent, inbound = self._agents.get(name, (None, None))
        check = None if agent is None else parse_check(data)
        if agent is None or inbound is None or check is None or check.ufrag != name:
            self._counters["gate_stun_refused"] += 1
            return
        if not check.verify(agent.passwords[name]):
            self._counters["gate_stun_refused"] += 1
            return
        route = self._routes[path.endpoint].get(key)
        others = route is not None and route.agent is not agent
        contested = route is not None and others and now_s - route.seen_s < HELD_S
        if not contested:
            self._take(agent, inbound, path, key, now_s)
        claimed = agent.claim
        self.forget(agent.check(check, path, now_s, contested=contested))
        if agent.claim != claimed:
            self._claims.pop(claimed or b"", None)
            if agent.claim is not None:
                self._claims[agent.claim] = agent, inbound

    def _answered(self, path: Path, key: Hashable, data: bytes, now_s: float) -> bool:
        """Takes a response to a check of ours; False if it is none."""
        route = self._routes[path.endpoint].get(key)
        if route is not None and route.agent.took(data, path, now_s):
            return True
        agent, inbound = self._claims.get(data[8:20], (None, None))
        if agent is None or inbound is None or not agent.took(data, path, now_s):
            return False
        del self._claims[data[8:20]]
        self._take(agent, inbound, path, key, now_s)
        return True

    def _take(self, agent: Agent, inbound: T, path: Path, key: Hashable, now_s: float) -> None:
        """The address is this peer's: behind one NAT it may have been another's."""
        routes = self._routes[path.endpoint]
        route = routes.get(key)
        if route is None or route.agent is not agent:
            routes[key] = route = Route(agent, path, inbound)
            forgotten = agent.learn(path)
            if forgotten is not None:
                self._forget(agent, forgotten)
        route.seen_s = now_s


def interface_addresses(hosts: Iterable[str]) -> list[str]:
    """The local addresses to listen on, public ones first, loopback last. `hosts` empty, 0.0.0.0 or :: mean all (of
    that family). IPv6 link-local ones are left out: browsers offer no candidate that reaches them."""
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
