"""The UDP port of a worker for tests, alone or shared with others', and peers that only send."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator

from aioice import stun

from sfu.media.transport.demux import UdpPort
from sfu.media.transport.gate import Route
from sfu.media.transport.handover import Handover, Handovers
from sfu.media.transport.ice import Agent
from sfu.media.transport.rows import Rows
from support.media_client import CLIENT_PWD, CLIENT_UFRAG, check, rtp_packet
from support.waiting import until

CLIENT_HELLO = struct.pack("!BHHIHH", 22, 0xFEFD, 0, 0, 1, 60) + bytes([1]) + bytes(59)
ALERT = struct.pack("!BHHIHH", 21, 0xFEFD, 0, 0, 1, 2) + bytes([2, 40])
MEDIA = rtp_packet(1, 7)


class Port(UdpPort):
    """A UdpPort, what its agents were given, and addresses to send to it from."""

    def __init__(self, handovers: Handovers | None = None, *, joins: bool = False) -> None:
        self.counters: Counter[str] = Counter()
        super().__init__(self.counters, self._on_media, handovers, joins=joins)
        self.media: list[bytes] = []
        self.owners: list[Agent] = []  # whose each of them was
        self.authentic = True
        self.senders: list[socket.socket] = []
        self.dropped: Counter[str] = Counter()  # on the ways to others

    def agent(self) -> Agent:
        agent = Agent(lambda path: None, mark=self.mark)
        agent.answered((CLIENT_UFRAG, CLIENT_PWD))
        self.register(agent, object())
        return agent

    def _on_media(self, rows: Rows, routes: list[Route | None]) -> list[int]:
        others = []
        for i, route in enumerate(routes):
            packet = bytes(rows.row(i))
            if route is None or not 128 <= packet[0] < 192:
                others.append(i)
                continue
            self.media.append(packet)
            self.owners.append(route.agent)
            if self.authentic:
                route.seen(time.monotonic())
        return others

    def sender(self, host: str = "127.0.0.1") -> socket.socket:
        """A socket of somebody's, connected to this port."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((host, 0))
        sock.connect((host, self.port))
        sock.settimeout(5)
        self.senders.append(sock)
        return sock

    async def prove(self, sock: socket.socket, agent: Agent, *, nominate: bool = True) -> stun.Message:
        """Sends an authentic check and returns the response; where it is to move the peer or to take another's
        address, answers the check that comes."""
        sock.send(bytes(check(agent.ufrag, agent.pwd, nominate=nominate)))
        response = stun.parse_message(await asyncio.to_thread(sock.recv, 2000))
        if agent._wanted is not None and agent._wanted.path.address == sock.getsockname():
            request = stun.parse_message(await asyncio.to_thread(sock.recv, 2000))
            sock.send(proof(request.transaction_id))
            await until(lambda: agent._wanted is None, "proved")
        return response

    async def counted(self, name: str, count: int) -> None:
        await until(lambda: self.counters[name] == count, f"{name} is {count}: {self.counters}")


def proof(transaction_id: bytes) -> bytes:
    """What a client answers to a check of ours."""
    answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, transaction_id)
    answer.add_message_integrity(CLIENT_PWD.encode())
    return bytes(answer)


@contextlib.asynccontextmanager
async def sharing(n: int, *addresses: str) -> AsyncIterator[list[Port]]:
    """The ports of n workers that share one."""
    made: list[Port] = []
    with contextlib.ExitStack() as stack:
        for index, ends in enumerate(pairs(n)):
            made.append(joined(index, ends))
            stack.callback(made[-1].close)
            made[-1].open(addresses or ["127.0.0.1"], made[0].port)
        yield made
        for port in made:
            for sock in port.senders:
                sock.close()


def pairs(n: int) -> list[list[socket.socket]]:
    """What the control plane gives each of n workers."""
    made = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(n - 1)]
    return [[ours for ours, _ in made], *([theirs] for _, theirs in made)]


def joined(index: int, ends: list[socket.socket], *, again: bool = False) -> Port:
    """The port of one of them, `again` after another process of the same worker."""
    dropped: Counter[str] = Counter()
    port = Port(Handovers(index, [Handover(end, dropped) for end in ends]), joins=again or index > 0)
    port.dropped = dropped
    return port


@contextlib.asynccontextmanager
async def opened(*addresses: str) -> AsyncIterator[Port]:
    port = Port()
    port.open(addresses or ["127.0.0.1"], 0)
    try:
        yield port
    finally:
        port.close()
        for sock in port.senders:
            sock.close()
