"""The worker's one UDP port: a socket for each local address, the peers told apart, and the gate against strangers.

A datagram from an unknown address can be one thing only: a connectivity check that names a peer's ufrag and proves to
know its password. Everything else, and everything malformed, is counted and dropped before any library sees it.

One socket an address, because a socket on 0.0.0.0 answers from the address of the route instead of the one asked, and
browsers drop such answers.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import time
from collections.abc import Callable, Container, Hashable, Iterable

import ifaddr

from sfu.media import libc
from sfu.media.ice import Address, Agent, Path, parse_check
from sfu.media.srtp import READ_BATCH, ROW_BYTES, Lengths, Rows

MAX_DATAGRAM = 1500
NAME_WORDS = libc.NAME_BYTES // 8
READ_MOST = 256
"""Datagrams before the loop may turn to something else."""
SOCKET_BUFFER = 4 << 20
"""A keyframe to 30 subscribers is 1 MB; without privilege Linux gives what net.core.rmem_max and wmem_max allow."""
PORTABLE = "SFU_PORTABLE_UDP"
"""Set in the environment, Linux does without the system calls that only it has."""


class Endpoint:
    """One bound socket. `portable`: without recvmmsg and sendmmsg."""

    def __init__(self, address: str, port: int, counters: dict[str, int], *, portable: bool | None = None) -> None:
        """Raises OSError when the address and port cannot be had."""
        self.address = address
        self.portable = libc.lib is None or PORTABLE in os.environ if portable is None else portable
        self.routes: dict[Hashable, Route] = {}  # by the receiver's `key`
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.fd = self.socket.fileno()
        try:
            if family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            _enlarge(self.socket, socket.SO_RCVBUF, libc.SO_RCVBUFFORCE)
            _enlarge(self.socket, socket.SO_SNDBUF, libc.SO_SNDBUFFORCE)
            self.socket.setblocking(False)
            self.socket.bind((address, port))
        except OSError:
            self.socket.close()
            raise
        self._counters = counters

    def send(self, data: bytes | memoryview, address: Address) -> None:
        """One datagram, or none: a full kernel buffer or a vanished route is counted, never waited for."""
        try:
            self.socket.sendto(data, address)
        except BlockingIOError:
            self._counters["send_buffer_full"] += 1
        except OSError:
            self._counters["send_failed"] += 1


def _enlarge(sock: socket.socket, option: int, forced: int) -> None:
    if libc.lib is not None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, SOCKET_BUFFER)
            return
        except PermissionError:
            pass  # only root goes beyond the system's limit
    sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)


class Route:
    """A peer behind an address that proved to be its own."""

    __slots__ = ("agent", "path", "seen_s")

    def __init__(self, agent: Agent, path: Path) -> None:
        self.agent, self.path, self.seen_s = agent, path, 0.0

    def seen(self, now_s: float) -> None:
        """Something authentic came this way."""
        self.seen_s = now_s
        self.agent.seen(self.path, now_s)


class Receiver:
    """Reads up to READ_BATCH datagrams with one system call into `rows`; one for all sockets of a family. What is
    longer than MAX_DATAGRAM is cut to one byte more."""

    def __init__(self, family: int) -> None:
        ffi, n = libc.ffi, READ_BATCH
        self._recvmmsg, self._no_timeout = libc.lib.recvmmsg, ffi.NULL
        self._names = ffi.new("char[]", n * libc.NAME_BYTES)
        self._iov = ffi.new("struct iovec[]", n)
        self._messages = ffi.new("struct mmsghdr[]", n)
        at, step = ffi.offsetof("struct mmsghdr", "msg_len"), ffi.sizeof("struct mmsghdr")
        column = memoryview(ffi.buffer(self._messages)).cast("B").cast("i")[at // 4 :: step // 4]
        self.rows = Rows(n, Lengths(libc.address_of(self._messages) + at, step, column))
        for i in range(n):
            self._iov[i].iov_base = ffi.cast("void *", self.rows.address + i * ROW_BYTES)
            self._iov[i].iov_len = MAX_DATAGRAM + 1
            header = self._messages[i].msg_hdr
            header.msg_name, header.msg_namelen = self._names + i * libc.NAME_BYTES, libc.NAME_BYTES
            header.msg_iov, header.msg_iovlen = self._iov + i, 1
        self._view = memoryview(ffi.buffer(self._names)).cast("B")
        self._words = self._view.cast("Q")
        # family, port and IPv4 address are the first word; IPv6 has flow (0 on arrival) instead, and two words of
        # address
        self._columns = [self._words[w::NAME_WORDS] for w in range(1 if family == socket.AF_INET else 3)]

    def receive(self, endpoint: Endpoint) -> int:
        """How many were there; none when the kernel reports an error of an earlier send."""
        return self._recvmmsg(endpoint.fd, self._messages, READ_BATCH, libc.MSG_DONTWAIT, self._no_timeout)  # type: ignore[no-any-return]

    def senders(self, n: int, known: dict[Hashable, Route]) -> list[Route | None]:
        """Who sent the first n, of those who are known by their `key`."""
        words = self._words
        # shifted by one name, they are as before where all are the same
        if n == 1 or words[NAME_WORDS : n * NAME_WORDS] == words[: (n - 1) * NAME_WORDS]:
            return [known.get(self.key(0))] * n
        if len(self._columns) == 1:
            return [*map(known.get, self._columns[0][:n].tolist())]
        return [*map(known.get, zip(*(column[:n].tolist() for column in self._columns), strict=True))]

    def key(self, i: int) -> Hashable:
        """What tells a sender from others."""
        at = i * NAME_WORDS
        return self._words[at] if len(self._columns) == 1 else tuple(self._words[at : at + 3])

    def address(self, i: int) -> Address:
        return libc.address(self._view[i * libc.NAME_BYTES : (i + 1) * libc.NAME_BYTES].tobytes())


class PortableReceiver:
    """The same with what every system has."""

    def __init__(self) -> None:
        self.rows = Rows(READ_BATCH)
        self._addresses: list[Address] = []

    def receive(self, endpoint: Endpoint) -> int:
        rows, receive = self.rows, endpoint.socket.recvfrom_into
        self._addresses.clear()
        try:
            for i in range(READ_BATCH):
                at = i * ROW_BYTES
                rows.lengths[i], address = receive(rows.view[at : at + MAX_DATAGRAM + 1])
                self._addresses.append(address)
        except OSError:
            pass  # nothing more, or an error of an earlier send
        return len(self._addresses)

    def senders(self, n: int, known: dict[Hashable, Route]) -> list[Route | None]:
        return [*map(known.get, self._addresses[:n])]

    def key(self, i: int) -> Hashable:
        return self._addresses[i]

    def address(self, i: int) -> Address:
        return self._addresses[i]


OnMedia = Callable[[Rows, list[Route | None]], Iterable[int]]
"""Gets all that came, the first of the rows, and who sent what, as far as that is known. The rows are its own until it
returns which of them are no SRTP or SRTCP of these peers."""


class UdpPort:
    """All endpoints of a worker, and who is behind which address."""

    def __init__(self, counters: dict[str, int], on_media: OnMedia) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.port = 0
        self._counters = counters
        self._on_media = on_media
        self._agents: dict[str, Agent] = {}
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
            asyncio.get_running_loop().add_reader(endpoint.socket, self._readable, endpoint, self._receiver(endpoint))
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
        endpoint.routes.clear()

    def register(self, agent: Agent) -> None:
        self._agents[agent.ufrag] = agent

    def forget(self, ufrag: str | None) -> None:
        """Checks with this ufrag are strangers' from now on."""
        self._agents.pop(ufrag or "", None)

    def unregister(self, agent: Agent) -> None:
        for ufrag in agent.passwords:
            self.forget(ufrag)
        for path in agent.paths:
            self._forget(agent, path)

    @staticmethod
    def _forget(agent: Agent, path: Path) -> None:
        routes = path.endpoint.routes
        for key in [key for key, route in routes.items() if route.agent is agent and route.path == path]:
            del routes[key]

    def _receiver(self, endpoint: Endpoint) -> Receiver | PortableReceiver:
        which = endpoint.socket.family, endpoint.portable
        if which not in self._receivers:
            self._receivers[which] = PortableReceiver() if endpoint.portable else Receiver(which[0])
        return self._receivers[which]

    def _readable(self, endpoint: Endpoint, receiver: Receiver | PortableReceiver) -> None:
        left = READ_MOST
        # until nothing is there: asking again is cheaper than coming back through the loop
        while left > 0 and (n := receiver.receive(endpoint)) > 0:
            left -= n
            routes = receiver.senders(n, endpoint.routes)
            for i in self._on_media(receiver.rows, routes):
                self._received(endpoint, receiver, i, routes[i])

    def _received(self, endpoint: Endpoint, receiver: Receiver | PortableReceiver, i: int, route: Route | None) -> None:
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
        check = parse_check(data)
        if check is None:
            route = path.endpoint.routes.get(key)
            if route is None or not route.agent.took(data, path, time.monotonic()):
                self._counters["gate_stun_malformed"] += 1
            return
        agent = self._agents.get(check.ufrag)
        if agent is None or not check.verify(agent.passwords[check.ufrag]):
            self._counters["gate_stun_refused"] += 1
            return
        route = path.endpoint.routes.get(key)
        if route is None or route.agent is not agent:
            # an address is whose proof came last: behind one NAT it may change hands
            path.endpoint.routes[key] = Route(agent, path)
            forgotten = agent.learn(path)
            if forgotten is not None:
                self._forget(agent, forgotten)
        self.forget(agent.check(check, path, time.monotonic()))


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
