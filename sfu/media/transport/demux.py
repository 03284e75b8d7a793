"""The UDP port: one socket per local address. gate.py decides whose a datagram is.

There is one socket per address because a socket on 0.0.0.0 answers from the address of the route instead of the one
that was asked, and browsers drop such answers.

Workers may share the port. Worker 0 then works as if it were alone. All sockets of the other workers are connected, so
they receive from nobody else: per local address one that is connected to itself and only sends, and per address of a
peer one that receives. Between bind and connect such a socket may receive a stranger's datagram. Like everything that
proves to be for another worker, it is passed on by handover.py.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Hashable, Iterable

from sfu.media.transport.gate import Gate, OnMedia, Route, T
from sfu.media.transport.handover import Handed, Handover, Handovers
from sfu.media.transport.rows import Rows
from sfu.media.transport.sockets import Address, CandidatePair, Endpoint, PortableReceiver, Receiver, Wire

READ_MOST = 256
"""Datagrams read before the event loop may turn to something else."""

NO_MORE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""The kernel's errors when there can be no further socket: 65,536 may share a port, and a process may open fewer
files."""


class UdpPort(Gate[T]):
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
        super().__init__(counters, handovers or Handovers())
        self.endpoints: dict[str, Endpoint] = {}
        self.port = 0
        self._joins = joins
        self._stray = Stray()
        self._on_media = on_media
        self._receivers: dict[tuple[int, bool], Receiver | PortableReceiver] = {}

    def open(self, addresses: Iterable[str], port: int) -> list[str]:
        """Binds addresses that are not bound yet and closes those that are no longer wanted; returns the new ones.

        Port 0 takes a free one, the same for all. Raises OSError naming the address that cannot be bound. An address
        that is not ready yet (IPv6 first looks for duplicates) is left for the next call instead.
        """
        wanted, new = list(addresses), []
        for address in wanted:
            if address in self.endpoints:
                continue
            try:
                endpoint = self._bind(address, port or self.port)
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    continue
                raise OSError(error.errno, f"{address} UDP port {port or self.port}: {error.strerror}") from None
            self.port = endpoint.socket.getsockname()[1]
            self.endpoints[address] = endpoint
            routes, receiver = self.enter(endpoint), self._receiver(endpoint)
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
        self.questions.close()
        for endpoint in self.endpoints.values():
            self._close_endpoint(endpoint)
        self.endpoints.clear()
        for way in self._handovers.ways:
            asyncio.get_running_loop().remove_reader(way.socket)
            way.socket.close()

    def _close_endpoint(self, endpoint: Endpoint) -> None:
        endpoint.close()
        for route in self._routes.pop(endpoint).values():
            route.close()
            route.agent.lose(route.path)

    def _receiver(self, endpoint: Wire) -> Receiver | PortableReceiver:
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
                self.received(endpoint, receiver, i, routes[i])

    def _readable_peer(
        self, connected: Endpoint, endpoint: Wire, receiver: Receiver | PortableReceiver,
        known: dict[Hashable, Route[T]],
    ) -> None:  # fmt: skip
        """Reads once: a single peer rarely has more waiting, and if it has, the loop calls again."""
        n = receiver.receive(connected)
        if n > 0:
            routes = receiver.senders(n, known)
            for i in self._on_media(receiver.rows, routes):
                self.received(endpoint, receiver, i, routes[i])

    def _handed_over(self, way: Handover) -> None:
        for handed in way.receive():
            endpoint = self.endpoints.get(handed.local)
            if endpoint is None:
                continue
            path, stray = CandidatePair(endpoint, handed.address), self._stray
            key, known = self._receiver(endpoint).key_of(handed.address), self._routes[endpoint]
            if not handed.data and handed.contested:
                self.was_here(key)
            elif not handed.data:
                self._released(path, key, way)
            elif handed.data[0] < 4:
                self.stun(path, key, handed.data, handed)
            else:
                stray.load(handed, key)
                for i in self._on_media(stray.rows, [known.get(key)]):
                    self.received(endpoint, stray, i, known.get(key))

    def _released(self, path: CandidatePair, key: Hashable, way: Handover) -> None:
        """The address now belongs to a peer of another worker."""
        route = self._routes[path.endpoint].pop(key, None)
        if route is not None:
            route.close()
        for other in self._handovers.ways:
            if other is not way:
                other.send(path)

    def receive_from(self, path: CandidatePair) -> Wire | None:
        if path.endpoint.own or self._handovers.home is None:
            return super().receive_from(path)
        return self._connect(path)

    def _connect(self, path: CandidatePair) -> Endpoint:
        """A socket that receives from one address only."""
        if path.address[1] == 0:
            raise OSError  # cannot be answered, and a socket connected to port 0 receives from any port
        host, port = path.endpoint.address, self.port
        while True:
            try:
                connected = Endpoint(host, port, self._counters, joins=True, peer=path.address)
            except OSError as error:
                if error.errno not in NO_MORE or not self.forget_one():
                    raise
                continue
            receiver, known = self._receiver(path.endpoint), self._routes[path.endpoint]
            loop = asyncio.get_running_loop()
            loop.add_reader(connected.socket, self._readable_peer, connected, path.endpoint, receiver, known)
            return connected


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
