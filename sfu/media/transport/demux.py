"""The UDP port: one socket per local address, datagrams routed to their peers, strangers kept out.

From an unknown address only one thing is accepted: a connectivity check that names a peer's ufrag and proves knowledge
of its password. Everything else, and everything malformed, is counted and dropped before any library sees it. Even
then, the source address of a check may be forged. So a check alone takes no address away from another peer that was
heard there recently; that takes the answer to a check of the server's own.

There is one socket per address because a socket on 0.0.0.0 answers from the address of the route instead of the one
that was asked, and browsers drop such answers.

Workers may share the port. Worker 0 then works as if it were alone. All sockets of the other workers are connected, so
they receive from nobody else: per local address one that is connected to itself and only sends, and per address of a
peer one that receives. Between bind and connect such a socket may receive a stranger's datagram. Like everything that
proves to be for another worker, it is passed on by handover.py. An address belongs to the peer that was heard there
recently, whichever worker has that peer.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable, Container, Hashable, Iterable
from typing import Generic, TypeVar

from sfu.flood import FloodGate, Former
from sfu.media.transport.checks import is_response, named, parse_check
from sfu.media.transport.handover import MARK_CHARS, Handed, Handover, Handovers
from sfu.media.transport.ice import Agent
from sfu.media.transport.rows import Rows
from sfu.media.transport.sockets import MAX_DATAGRAM, Address, CandidatePair, Endpoint, PortableReceiver, Receiver

log = logging.getLogger("sfu.media")

READ_MOST = 256
"""Datagrams read before the event loop may turn to something else."""

NO_MORE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""The kernel's errors when there can be no further socket: 65,536 may share a port, and a process may open fewer
files."""

HELD_S = 10.0
"""How long an address remains a peer's after the last packet from there: browsers check a path in use at most 6 s apart
(RFC 7675 section 5.1)."""

STRANGER_PER_S, STRANGERS_PER_S = 100, 4000
"""Datagrams a second that are read from one address that is no peer's yet, and from all of them: a browser that looks
for a path sends 50, and 4,000 cost a twentieth of a core."""

T = TypeVar("T")


class Route(Generic[T]):
    """A peer at an address that it proved to be its own; `demuxer` takes its media. `receives` is the socket connected
    to that address, on workers that need one."""

    __slots__ = ("agent", "demuxer", "path", "receives", "seen_s")

    def __init__(self, agent: Agent, path: CandidatePair, demuxer: T, receives: Endpoint | None = None) -> None:
        self.agent, self.path, self.demuxer, self.receives, self.seen_s = agent, path, demuxer, receives, 0.0

    def seen(self, now_s: float) -> None:
        """An authenticated packet came from here."""
        self.seen_s = now_s
        self.agent.seen(self.path, now_s)

    def close(self) -> None:
        """Closes the socket that only this route uses. The caller has removed the route from all tables."""
        if self.receives is not None:
            _close(self.receives.socket)


OnMedia = Callable[[Rows, list[Route[T] | None]], Iterable[int]]
"""Takes the first len(routes) rows and the route of each row's sender, None if unknown. Owns the rows until it returns
the indices of those that are not SRTP or SRTCP of these peers."""


class UdpPort(Generic[T]):
    """A worker's endpoints, and the routes behind them. `handovers` lead to the workers that share the port; `close`
    closes them. `joins`: another worker may have the port already; otherwise nobody else may."""

    def __init__(
        self,
        counters: dict[str, int],
        on_media: OnMedia[T],
        handovers: Handovers | None = None,
        *,
        joins: bool = False,
    ) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.port = 0
        self._handovers = handovers or Handovers()
        self._joins = joins
        self._stray = Stray()
        self._strangers = FloodGate(STRANGER_PER_S, STRANGERS_PER_S)
        self._former = Former()
        self._counters = counters
        self._on_media = on_media
        self._agents: dict[str, tuple[Agent, T]] = {}
        self._claims: dict[bytes, tuple[Agent, T]] = {}  # by the transaction ID that is to prove them; one per agent
        self._routes: dict[Endpoint, dict[Hashable, Route[T]]] = {}  # by `key` of the endpoint's receiver
        self._receivers: dict[tuple[int, bool], Receiver | PortableReceiver] = {}

    @property
    def mark(self) -> str:
        """The prefix of this worker's ufrags."""
        return self._handovers.mark

    def open(self, addresses: Iterable[str], port: int, named: Container[str] = ()) -> list[str]:
        """Binds addresses that are not bound yet and closes those that are no longer wanted; returns the new ones.

        Port 0 takes a free one, the same for all. Raises OSError naming the address that cannot be bound. An address
        that is not in `named` and not ready yet (IPv6 first looks for duplicates) is left for the next call instead.
        """
        wanted, new = list(addresses), []
        for address in wanted:
            if address in self.endpoints:
                continue
            try:
                endpoint = self._bind(address, port or self.port)
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
        for way in self._handovers.ways:
            asyncio.get_running_loop().add_reader(way.socket, self._handed_over, way)
        self._joins = bool(self._handovers.ways)  # for an address that appears later, another worker may be first
        return new

    def _bind(self, address: str, port: int) -> Endpoint:
        if self._handovers.home is not None:
            return Endpoint(address, port, self._counters, joins=True, peer=(address, port))
        endpoint = Endpoint(address, port, self._counters, joins=self._joins)
        if self._handovers.ways:
            endpoint.share()
        return endpoint

    def close(self) -> None:
        for endpoint in self.endpoints.values():
            self._close_endpoint(endpoint)
        self.endpoints.clear()
        for way in self._handovers.ways:
            _close(way.socket)

    def _close_endpoint(self, endpoint: Endpoint) -> None:
        _close(endpoint.socket)
        for route in self._routes.pop(endpoint).values():
            route.close()

    def register(self, agent: Agent, demuxer: T) -> None:
        self._agents[agent.ufrag] = agent, demuxer

    def forget(self, ufrag: str | None) -> None:
        """Checks with this ufrag count as strangers' from now on."""
        self._agents.pop(ufrag or "", None)

    def unregister(self, agent: Agent) -> None:
        for ufrag in agent.passwords:
            self.forget(ufrag)
        self._claims.pop(agent.claim or b"", None)
        for path in agent.paths:
            self._forget(agent, path)

    def _forget(self, agent: Agent, path: CandidatePair) -> None:
        routes = self._routes.get(path.endpoint, {})
        for key in [key for key, route in routes.items() if route.agent is agent and route.path == path]:
            routes.pop(key).close()
            self._former.add(key, time.monotonic())
            if self._handovers.home is not None:  # what still comes, comes to worker 0
                self._handovers.home.send(path, contested=True)

    def _receiver(self, endpoint: Endpoint) -> Receiver | PortableReceiver:
        which = endpoint.socket.family, endpoint.portable
        if which not in self._receivers:
            self._receivers[which] = PortableReceiver() if endpoint.portable else Receiver(which[0])
        return self._receivers[which]

    def _readable(
        self, endpoint: Endpoint, receiver: Receiver | PortableReceiver, known: dict[Hashable, Route[T]]
    ) -> None:
        left = READ_MOST
        # until nothing is left: reading again is cheaper than returning through the event loop
        while left > 0 and (n := receiver.receive(endpoint)) > 0:
            left -= n
            routes = receiver.senders(n, known)
            for i in self._on_media(receiver.rows, routes):
                self._received(endpoint, receiver, i, routes[i])

    def _readable_peer(
        self, connected: Endpoint, endpoint: Endpoint, receiver: Receiver | PortableReceiver,
        known: dict[Hashable, Route[T]],
    ) -> None:  # fmt: skip
        """Reads once: a single peer rarely has more waiting, and if it has, the loop calls again."""
        n = receiver.receive(connected)
        if n > 0:
            routes = receiver.senders(n, known)
            for i in self._on_media(receiver.rows, routes):
                self._received(endpoint, receiver, i, routes[i])

    def _handed_over(self, way: Handover) -> None:
        for handed in way.receive():
            endpoint = self.endpoints.get(handed.local)
            if endpoint is None:
                continue
            path, stray = CandidatePair(endpoint, handed.address), self._stray
            key, known = self._receiver(endpoint).key_of(handed.address), self._routes[endpoint]
            if not handed.data and handed.contested:
                self._former.add(key, time.monotonic())
            elif not handed.data:
                self._released(path, key, way)
            elif handed.data[0] < 4:
                self._stun(path, key, handed.data, handed)
            else:
                stray.load(handed, key)
                for i in self._on_media(stray.rows, [known.get(key)]):
                    self._received(endpoint, stray, i, known.get(key))

    def _released(self, path: CandidatePair, key: Hashable, way: Handover) -> None:
        """The address now belongs to a peer of another worker."""
        route = self._routes[path.endpoint].pop(key, None)
        if route is not None:
            route.close()
        for other in self._handovers.ways:
            if other is not way:
                other.send(path)

    def _received(
        self, endpoint: Endpoint, receiver: Receiver | PortableReceiver | Stray, i: int, route: Route[T] | None
    ) -> None:
        """Handles a datagram that is not media of a known peer. Its first byte tells STUN, DTLS and SRTP apart (RFC
        7983)."""
        if route is None and (self._comes_late(receiver, i) or self._floods(receiver, i)):
            return
        data = bytes(receiver.rows.row(i))
        if not 0 < len(data) <= MAX_DATAGRAM:
            self._counters["gate_length"] += 1
        elif data[0] < 4:
            self._stun(CandidatePair(endpoint, receiver.address(i)), receiver.key(i), data)
        elif route is None and self._handovers.home is not None:
            self._handovers.home.send(CandidatePair(endpoint, receiver.address(i)), data)
        elif route is None:
            self._counters["gate_stranger"] += 1
        elif 20 <= data[0] < 64:
            route.agent.dtls(data, route.path, time.monotonic())
        else:
            self._counters["gate_protocol"] += 1

    def _comes_late(self, receiver: Receiver | PortableReceiver | Stray, i: int) -> bool:
        """Whether to drop this datagram of a peer that has left. Its checks count: it may be coming back."""
        if bytes(receiver.rows.row(i)[:1]) < b"\x04" or not self._former.holds(receiver.key(i), time.monotonic()):
            return False
        self._counters["gate_former"] += 1
        return True

    def _floods(self, receiver: Receiver | PortableReceiver | Stray, i: int) -> bool:
        """Whether to drop this datagram, since strangers send too many: reading them all would cost peers their
        media."""
        now_s = time.monotonic()
        if self._strangers.admits(receiver.key(i), now_s):
            return False
        self._counters["gate_flood"] += 1
        if self._strangers.warns(now_s):
            log.warning("strangers_flood address=%s port=%d", *receiver.address(i)[:2])
        return True

    def _stun(self, path: CandidatePair, key: Hashable, data: bytes, handed: Handed | None = None) -> None:
        name, now_s = named(data), time.monotonic()
        if name is None:
            if not self._answered(path, key, data, now_s, handed=handed is not None):
                self._counters["gate_stun_malformed"] += 1
            return
        found = self._agents.get(name)
        route = self._routes[path.endpoint].get(key)
        contested = handed is not None and handed.contested
        if route is not None and (found is None or route.agent is not found[0]) and now_s - route.seen_s < HELD_S:
            contested = True
        if found is None and (way := self._handovers.to(name)) is not None:
            way.send(path, data, contested=contested)
            return
        check = None if found is None else parse_check(data)
        if found is None or check is None or check.ufrag != name or not check.verify(found[0].passwords[name]):
            self._counters["gate_stun_refused"] += 1
            return
        agent, demuxer = found
        if not agent.checks.take(now_s, 1):
            self._counters["gate_flood"] += 1
            return
        if contested or self._take(agent, demuxer, path, key, now_s, handed=handed is not None):
            claimed = agent.claim
            self.forget(agent.check(check, path, now_s, contested=contested))
            if agent.claim != claimed:
                self._claims.pop(claimed or b"", None)
                if agent.claim is not None:
                    self._claims[agent.claim] = found

    def _answered(self, path: CandidatePair, key: Hashable, data: bytes, now_s: float, *, handed: bool) -> bool:
        """Takes a response to a check of this worker, or passes it on if the check was another worker's; False if it is
        neither."""
        claim = self._claims.get(data[8:20])
        if claim is not None:
            proved = claim[0].handle_response(data, path, now_s)
            if proved:
                del self._claims[data[8:20]]
                self._take(*claim, path, key, now_s, handed=handed)
            return proved
        route = self._routes[path.endpoint].get(key)
        if route is not None and route.agent.handle_response(data, path, now_s):
            return True
        way = self._handovers.to(data[8 : 8 + MARK_CHARS].decode("latin-1")) if is_response(data) else None
        if way is not None:
            way.send(path, data)
        return way is not None

    def _take(
        self, agent: Agent, demuxer: T, path: CandidatePair, key: Hashable, now_s: float, *, handed: bool
    ) -> bool:
        """Assigns the address to this peer; behind one NAT it may have been another's. If the datagram was handed over
        (`handed`), the former peer may be on another worker, which is told. False if no socket can be opened for the
        address."""
        routes = self._routes[path.endpoint]
        route = routes.get(key)
        if route is None or route.agent is not agent:
            receives = route.receives if route is not None else None
            if receives is None and self._handovers.home is not None:
                receives = self._connect(path, routes)
                if receives is None:
                    self._counters["paths_refused"] += 1
                    return False
            routes[key] = route = Route(agent, path, demuxer, receives)
            forgotten = agent.add_pair(path)
            if forgotten is not None:
                self._forget(agent, forgotten)
        route.seen_s = now_s
        if handed:
            for way in self._handovers.ways:
                way.send(path)
        return True

    def _connect(self, path: CandidatePair, known: dict[Hashable, Route[T]]) -> Endpoint | None:
        """A socket that receives from one address only; None if it cannot be opened."""
        if path.address[1] == 0:
            return None  # cannot be answered, and a socket connected to port 0 receives from any port
        host, port = path.endpoint.address, self.port
        while True:
            try:
                connected = Endpoint(host, port, self._counters, joins=True, peer=path.address)
            except OSError as error:
                if error.errno not in NO_MORE or not self._forget_one():
                    return None
                continue
            receiver, loop = self._receiver(path.endpoint), asyncio.get_running_loop()
            loop.add_reader(connected.socket, self._readable_peer, connected, path.endpoint, receiver, known)
            return connected

    def _forget_one(self) -> bool:
        """Gives up the oldest path that its peer does not use; False if there is none."""
        for routes in self._routes.values():
            for route in routes.values():
                if route.path != route.agent.selected:
                    self._forget(route.agent, route.path)
                    return True
        return False


class Stray:
    """A datagram that another worker received, with a receiver's interface."""

    def __init__(self) -> None:
        self.rows = Rows(1)
        self._key: Hashable = None
        self._address: Address = ()

    def load(self, handed: Handed, key: Hashable) -> None:
        n = len(handed.data)
        self.rows.view[:n], self.rows.lengths[0] = handed.data, n
        self._key, self._address = key, handed.address

    def key(self, i: int) -> Hashable:
        return self._key

    def address(self, i: int) -> Address:
        return self._address


def _close(sock: socket.socket) -> None:
    asyncio.get_running_loop().remove_reader(sock)
    sock.close()
