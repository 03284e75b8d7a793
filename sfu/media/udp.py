"""The worker's one UDP port: a socket for each local address, the peers told apart, and the gate against strangers.

A datagram from an unknown address can be one thing only: a connectivity check that names a peer's ufrag and proves to
know its password. Everything else, and everything malformed, is counted and dropped before any library sees it.

One socket an address, because a socket on 0.0.0.0 answers from the address of the route instead of the one asked, and
browsers drop such answers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections import Counter
from collections.abc import Iterable

import ifaddr

from sfu.media.ice import Address, Agent, Path, parse_check
from sfu.media.srtp import Packet

MAX_DATAGRAM = 1500
READ_BATCH = 64
"""Datagrams read of one socket before the loop may turn to something else."""
SOCKET_BUFFER = 4 << 20
"""A keyframe to 30 subscribers is 1 MB; Linux gives what net.core.rmem_max and wmem_max allow."""


class Endpoint:
    """One bound socket."""

    def __init__(self, address: str, port: int, counters: Counter[str]) -> None:
        """Raises OSError when the address and port cannot be had."""
        self.address = address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self.socket.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
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


class UdpPort:
    """All endpoints of a worker, and who is behind which address."""

    def __init__(self, counters: Counter[str]) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.port = 0
        self._counters = counters
        self._agents: dict[str, Agent] = {}
        self._paths: dict[tuple[Endpoint, Address], Agent] = {}  # keys equal Paths
        self._packet = Packet()

    def open(self, addresses: Iterable[str], port: int) -> list[str]:
        """Binds what is not bound yet, closes what is no longer wanted; returns the addresses that are new.

        Port 0 takes a free one, the same for all. Raises OSError naming the address that cannot be bound.
        """
        wanted, new = list(addresses), []
        for address in wanted:
            if address in self.endpoints:
                continue
            try:
                endpoint = Endpoint(address, port or self.port, self._counters)
            except OSError as error:
                raise OSError(error.errno, f"{address} UDP port {port or self.port}: {error.strerror}") from None
            self.port = endpoint.socket.getsockname()[1]
            self.endpoints[address] = endpoint
            asyncio.get_running_loop().add_reader(endpoint.socket, self._readable, endpoint)
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
        for path in [path for path in self._paths if path[0] is endpoint]:
            del self._paths[path]

    def register(self, agent: Agent) -> None:
        self._agents[agent.ufrag] = agent

    def unregister(self, agent: Agent) -> None:
        self._agents.pop(agent.ufrag, None)
        for path in agent.paths:
            if self._paths.get(path) is agent:
                del self._paths[path]

    def _readable(self, endpoint: Endpoint) -> None:
        packet, receive = self._packet, endpoint.socket.recvfrom_into
        for _ in range(READ_BATCH):
            try:
                n, address = receive(packet.view)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._counters["receive_failed"] += 1
                return
            if 0 < n <= MAX_DATAGRAM:
                packet.n = n
                self._received(endpoint, address, packet)
            else:
                self._counters["gate_length"] += 1

    def _received(self, endpoint: Endpoint, address: Address, packet: Packet) -> None:
        """RFC 7983: the first byte tells STUN, DTLS and SRTP apart."""
        first = packet.view[0]
        if first < 4:
            self._stun(Path(endpoint, address), bytes(packet.view[: packet.n]))
            return
        agent = self._paths.get((endpoint, address))
        if agent is None:
            self._counters["gate_stranger"] += 1
        elif 128 <= first < 192:
            if agent.on_media(packet):
                agent.seen((endpoint, address), time.monotonic())
        elif 20 <= first < 64:
            agent.dtls(bytes(packet.view[: packet.n]))
        else:
            self._counters["gate_protocol"] += 1

    def _stun(self, path: Path, data: bytes) -> None:
        check = parse_check(data)
        if check is None:
            self._counters["gate_stun_malformed"] += 1
            return
        agent = self._agents.get(check.ufrag)
        if agent is None or not check.verify(agent.pwd):
            self._counters["gate_stun_refused"] += 1
            return
        if self._paths.get(path) is not agent:
            self._paths[path] = agent  # an address is whose proof came last: behind one NAT it may change hands
            forgotten = agent.learn(path)
            if forgotten is not None and self._paths.get(forgotten) is agent:
                del self._paths[forgotten]
        agent.check(check, path, time.monotonic())


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
