"""Workers that share one UDP port: each gets its own peers' datagrams, whoever else there is."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import resource
import socket
import sys
from collections.abc import Iterator

import psutil
import pytest
from support.media_client import LOOPBACKS, Client, ProcessControl, check, clients, passes, run, until, worker_process
from support.ports import ALERT, MEDIA, Port, joined, opened, pairs, proof, sharing

from sfu import bridge
from sfu.media.transport import gate
from sfu.media.transport.gate import STRANGER_PER_S
from sfu.media.transport.handover import Handover, Handovers
from sfu.media.transport.ice import MAX_PATHS
from sfu.media.transport.sockets import PORTABLE, CandidatePair, Endpoint
from sfu.stun import MARK_CHARS, mark

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shares a port by sender")

WAYS = [*itertools.permutations(range(3), 2)]
"""From each worker to each other one."""


@pytest.fixture(params=[False, True], ids=["batches", "portable"], autouse=True)
def portable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setenv(PORTABLE, "1")


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def media(port: Port, sock: socket.socket) -> None:
    """What this socket sends is media of a peer of this worker."""
    known = len(port.media)
    sock.send(MEDIA)
    await until(lambda: len(port.media) > known, f"media: {port.counters}")


# --- whose a datagram is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_each_peers_packets_reach_its_worker(seed: int) -> None:
    chance = random.Random(seed)

    async def test() -> None:
        async with sharing(3, *LOOPBACKS) as ports:
            homes = [(chance.choice(ports), ports[0].sender(chance.choice(LOOPBACKS))) for _ in range(30)]
            peers = [(port, port.agent(), sock) for port, sock in homes]
            for port, agent, sock in peers:
                await port.prove(sock, agent)
                assert agent.ufrag.startswith(port.mark)
            order = peers * 5
            chance.shuffle(order)
            for _, _, sock in order:
                sock.send(MEDIA)
            await until(lambda: sum(len(port.media) for port in ports) == len(order), "all of it")
            for port in ports:
                assert sorted(map(id, port.owners)) == sorted(id(agent) for own, agent, _ in order if own is port)
                assert not port.counters
                assert not port.dropped

    run(test)


def test_strangers_reach_the_first_worker_only() -> None:
    async def test() -> None:
        async with sharing(3) as ports:
            peers = [(port, port.agent(), port.sender()) for port in ports for _ in range(5)]
            for port, agent, sock in peers:
                await port.prove(sock, agent)
            for _ in range(20):
                stranger = ports[0].sender()
                stranger.send(MEDIA)
                stranger.send(bytes(check("nobody00", "x" * 24)))
            for port in ports:  # named as one of a worker's: it is looked for there
                ports[0].sender().send(bytes(check(port.mark + "nobody", "x" * 24)))
            await ports[0].counted("gate_stranger", 20)
            await ports[0].counted("gate_stun_refused", 21)
            for port in ports[1:]:
                await port.counted("gate_stun_refused", 1)
                assert port.counters["gate_stranger"] == 0

    run(test)


def test_who_was_a_peer_a_moment_ago_is_no_stranger(caplog: pytest.LogCaptureFixture) -> None:
    """A browser that was dropped goes on sending for some seconds, to whichever worker the kernel then chooses."""

    async def test() -> None:
        async with sharing(3) as ports:
            peers = [(port, port.agent(), port.sender()) for port in ports]
            for port, agent, sock in peers:
                await port.prove(sock, agent)
                port.unregister(agent)
            for count, (_, _, sock) in enumerate(peers, 1):
                for n in range(2 * STRANGER_PER_S):
                    sock.send((MEDIA, ALERT)[n % 2])
                await ports[0].counted("gate_former", 2 * STRANGER_PER_S * count)
            again = ports[1].agent()
            await ports[1].prove(peers[2][2], again)  # a check is heard: the address may be another peer's by now
            peers[2][2].send(MEDIA)
            await until(lambda: ports[1].owners == [again], "its media")
            assert not ports[0].counters["gate_flood"] + ports[0].counters["gate_stranger"]
            assert not caplog.messages
            stranger = ports[0].sender()
            for _ in range(2 * STRANGER_PER_S):
                stranger.send(MEDIA)
            await until(lambda: "strangers_flood" in caplog.text, "a warning of a stranger")

    run(test)


@pytest.mark.parametrize("index", range(3))
def test_what_came_before_a_socket_was_connected_goes_where_it_belongs(index: int) -> None:
    """Where another socket has the shared port, too, what it sends there strays: the others' are connected to that."""

    async def test() -> None:
        async with sharing(3) as ports:
            agent, there = ports[index].agent(), ("127.0.0.1", ports[0].port)
            stray = Endpoint(*there, ports[0].counters, joins=True, peer=ports[0].sender().getsockname())
            ports[0].senders.append(stray.socket)
            stray.send(MEDIA, there)
            await ports[0].counted("gate_stranger", 1)
            stray.send(bytes(check(agent.ufrag, agent.pwd, nominate=False)), there)
            await until(lambda: agent.paths, "known by the check that strayed")
            assert sum(port.counters["gate_stranger"] for port in ports) == 1

    run(test)


def test_media_that_strayed_is_media() -> None:
    async def test() -> None:
        ends = pairs(2)
        first, second = joined(0, ends[0]), Handover(ends[1][0], {})
        first.open(["127.0.0.1"], 0)
        try:
            agent, peer = first.agent(), first.sender()
            await first.prove(peer, agent)
            path = CandidatePair(first.endpoints["127.0.0.1"], peer.getsockname())
            second.send(path, MEDIA)
            await until(lambda: first.owners == [agent], f"media: {first.counters}")
            second.send(path, ALERT)
            assert await agent._recv() == ALERT
            second.send(path._replace(address=("127.0.0.1", 9)), MEDIA)
            await first.counted("gate_stranger", 1)
            second.send(path)  # it is another worker's peer's
            second.send(path, MEDIA)
            await first.counted("gate_stranger", 2)
        finally:
            first.close()
            for sock in (*ends[1], *first.senders):
                sock.close()

    run(test)


def test_answers_come_from_the_port_that_was_asked() -> None:
    async def test() -> None:
        async with sharing(3, *LOOPBACKS) as ports:
            for port, host in itertools.product(ports, LOOPBACKS):
                agent, sock = port.agent(), port.sender(host)  # connected: it takes nothing else
                response = await port.prove(sock, agent)
                assert response.attributes["XOR-MAPPED-ADDRESS"] == sock.getsockname()[:2]
                await agent._send(ALERT)
                assert sock.recv(2000) == ALERT

    run(test)


@pytest.mark.parametrize("index", range(3))
def test_a_peer_roams_and_restarts(index: int) -> None:
    async def test() -> None:
        async with sharing(3) as ports:
            port, others = ports[index], {0, 1, 2} - {index}
            agent, homes = port.agent(), [port.sender() for _ in range(4)]
            for n, sock in enumerate(homes):
                if n == 2:
                    assert agent.restart() is None
                    agent.answered(("client", "clientclientclientclient"))
                    port.register(agent, object())
                    assert agent.ufrag.startswith(port.mark)
                await port.prove(sock, agent)
                await media(port, sock)
            assert agent.selected is not None
            assert agent.selected.address == homes[-1].getsockname()
            assert set(port.owners) == {agent}
            assert not any(ports[other].media for other in others)

    run(test)


# --- whose an address is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("owner", "attacker"), WAYS)
def test_a_forged_source_takes_no_address_of_another_workers_peer(owner: int, attacker: int) -> None:
    async def test() -> None:
        async with sharing(3) as ports:
            port, others = ports[owner], ports[attacker]
            victim, forger, home = port.agent(), others.agent(), port.sender()
            await port.prove(home, victim)
            await others.prove(others.sender(), forger)
            selected, before = forger.selected, files()
            for _ in range(30):
                home.send(bytes(check(forger.ufrag, forger.pwd)))
                home.send(proof(forger.ufrag[:MARK_CHARS].encode() + bytes(10)))  # a guess
                await media(port, home)
            await until(lambda: others.counters["gate_stun_malformed"] == 30, f"all came: {others.counters}")
            assert set(port.owners) == {victim}
            assert not others.media
            assert (forger.selected, files()) == (selected, before)

    run(test)


@pytest.mark.parametrize(("former", "latter"), [*WAYS, (1, 1)])
@pytest.mark.parametrize("silent", [False, True])
def test_an_address_goes_over_to_another_workers_peer(
    former: int, latter: int, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the one before was heard lately, by the answer to a check; there, and back."""
    if silent:
        monkeypatch.setattr(gate, "HELD_S", 0.0)

    async def test() -> None:
        async with sharing(3) as ports:
            nat = ports[0].sender()
            for index in (former, latter, former):
                agent = ports[index].agent()
                await ports[index].prove(nat, agent)
                await until(lambda: agent.selected, "there")  # noqa: B023 -- awaited here
                others = [port for port in ports if port is not ports[index]]
                # for a moment both have a socket for the address, and the kernel may choose the one that is about to go
                while not ports[index].owners or ports[index].owners[-1] is not agent:
                    nat.send(MEDIA)
                    await asyncio.sleep(0.01)
                known = [len(port.media) for port in others]
                await media(ports[index], nat)
                assert [len(port.media) for port in others] == known

    run(test)


# --- workers, servers and addresses that come and go ------------------------------------------------------------------


@pytest.mark.parametrize("gone", range(3))
def test_a_worker_is_started_again(gone: int) -> None:
    """Its peers come again; those of others notice nothing."""

    async def test() -> None:
        ends = pairs(3)
        ports = [joined(index, [end.dup() for end in own]) for index, own in enumerate(ends)]
        try:
            for port in ports:
                port.open(["127.0.0.1"], ports[0].port)
            peers = [(port, port.agent(), port.sender()) for port in ports]
            for port, agent, sock in peers:
                await port.prove(sock, agent)
            former, _, sock = peers.pop(gone)
            former.close()
            for port, _, own in peers:
                await media(port, own)
            new = joined(gone, [end.dup() for end in ends[gone]], again=True)
            new.senders = former.senders
            ports[gone] = new
            new.open(["127.0.0.1"], former.port)
            await new.prove(sock, new.agent())
            for port, _, own in [*peers, (new, None, sock)]:
                await media(port, own)
        finally:
            for port in ports:
                port.close()
            for made in (*ends[0], *ends[1], *ends[2], *(sock for port in ports for sock in port.senders)):
                made.close()

    run(test)


def test_a_second_server_gets_no_share() -> None:
    async def test() -> None:
        async with sharing(2) as ports, opened() as alone:
            for taken, again in itertools.product((ports[0].port, alone.port), (False, True)):
                if taken == ports[0].port and again:
                    continue  # that is how a worker of the same server is started again
                ends = pairs(2)
                second = joined(0, ends[0], again=again)
                with pytest.raises(OSError, match=rf"127\.0\.0\.1 UDP port {taken}: Address already in use"):
                    second.open(["127.0.0.1"], taken)
                second.close()
                ends[1][0].close()

    run(test)


def test_addresses_that_go_take_their_sockets_with_them() -> None:
    async def test() -> None:
        async with sharing(2, "127.0.0.1") as ports:
            before = files()
            for port in reversed(ports):  # each looks by itself; this one may be the first
                assert port.open(["127.0.0.1", "127.0.0.2"], port.port) == ["127.0.0.2"]
            agent = ports[1].agent()
            for sock in [ports[1].sender(host) for host in ("127.0.0.1", "127.0.0.2", "127.0.0.2")]:
                await ports[1].prove(sock, agent)
                await media(ports[1], sock)
            for port in ports:
                port.open(["127.0.0.1"], port.port)
            for sock in ports[1].senders:
                sock.close()
            assert files() == before + 1  # the path that is left
            ports[1].unregister(agent)
            assert files() == before

    run(test)


class Processes:
    """Worker processes that share a port, with a room of two in each."""

    def __init__(self, n: int, stack: contextlib.AsyncExitStack) -> None:
        self.ends, self.port = pairs(n), 0
        self.stack = stack
        self.controls: list[ProcessControl] = []
        self.rooms: list[list[Client]] = []
        self._numbers = itertools.count(1, 100)
        for sock in itertools.chain(*self.ends):
            stack.callback(sock.close)

    async def start(self, index: int, *, again: bool = False) -> ProcessControl:
        handovers = [sock.fileno() for sock in self.ends[index]]
        made = worker_process(port=self.port, index=index, handovers=handovers, joins=again or index > 0)
        control = await self.stack.enter_async_context(made)
        self.port = (await control.event(bridge.Ready)).port
        return control

    async def room(self, control: ProcessControl) -> list[Client]:
        return await self.stack.enter_async_context(clients(control, "a", "b"))

    async def talk(self, one: Client, other: Client) -> None:
        """Media gets through both ways."""
        for sender, receiver in ((one, other), (other, one)):
            await passes(sender, receiver, next(self._numbers))


def test_calls_on_every_worker_need_one_port() -> None:
    """And the first worker's death is nothing to the others' calls; who comes later finds its way as before."""

    async def test() -> None:
        async with contextlib.AsyncExitStack() as stack:
            processes = Processes(3, stack)
            controls = [await processes.start(index) for index in range(3)]
            rooms = [await processes.room(control) for control in controls]
            for room in rooms:
                await processes.talk(*room)
            sockets = [
                sock for control in controls for sock in psutil.Process(control.process.pid).net_connections("udp")
            ]
            assert {sock.laddr.port for sock in sockets} == {processes.port}
            assert len(sockets) == 1 + 2 * (1 + 2)  # what all come to; what sends, and one a peer
            for control in controls:
                soft, hard = psutil.Process(control.process.pid).rlimit(psutil.RLIMIT_NOFILE)
                assert soft == hard
            controls[0].process.kill()
            await asyncio.to_thread(controls[0].process.wait)
            for room in rooms[1:]:
                await processes.talk(*room)
            controls[0] = await processes.start(0, again=True)
            for control in controls:
                later = await stack.enter_async_context(clients(control, "c", "d", room="later"))
                await processes.talk(*later)
            for room in rooms[1:]:
                await processes.talk(*room)

    run(test)


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_path_that_is_forgotten_closes_its_socket() -> None:
    async def test() -> None:
        async with sharing(2) as ports:
            before, port = files(), ports[1]
            agent, socks = port.agent(), [port.sender() for _ in range(MAX_PATHS + 5)]
            for n, sock in enumerate(socks):
                await port.prove(sock, agent, nominate=n == 0)
            assert files() == before + len(socks) + MAX_PATHS
            for sock in (socks[0], socks[-1]):
                await media(port, sock)
            port.unregister(agent)
            assert files() == before + len(socks)

    run(test)


@pytest.fixture
def few_files() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("few_files")
def test_where_no_file_is_left_the_oldest_path_that_is_not_used_goes() -> None:
    async def test() -> None:
        async with sharing(2) as ports:
            port = ports[1]
            agents, socks = [port.agent() for _ in range(4)], [port.sender() for _ in range(8)]
            for agent, sock in zip(agents[:3], socks, strict=False):
                await port.prove(sock, agent)
            await port.prove(socks[3], agents[0], nominate=False)
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            highest = max(map(int, os.listdir("/proc/self/fd")))
            gap = os.open("/dev/null", os.O_RDONLY)  # where the listing's own was, or another that is free
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(highest, gap) + 1, hard))
            held = []
            while True:
                try:
                    held.append(os.dup(gap))
                except OSError:
                    break
            try:
                socks[4].send(bytes(check(agents[1].ufrag, agents[1].pwd, nominate=False)))
                await until(lambda: len(port._routes[port.endpoints["127.0.0.1"]]) == 4, "still four")
                await until(lambda: len(agents[1].paths) == 2, "the new one is among them")
                await port.prove(socks[5], agents[3])
                assert agents[3].selected, "and a new peer's"
                socks[6].send(bytes(check(agents[3].ufrag, agents[3].pwd, nominate=False)))
                await port.counted("paths_refused", 1)
                for sock in (*socks[:3], socks[5]):
                    await media(port, sock)
                assert port.owners == agents
            finally:
                for fd in (gap, *held):
                    os.close(fd)

    run(test)


def test_a_flood_for_a_worker_that_does_not_read_is_dropped() -> None:
    async def test() -> None:
        ends = pairs(2)
        first = joined(0, ends[0])
        first.open(["127.0.0.1"], 0)
        try:
            agent, peer, stranger = first.agent(), first.sender(), first.sender()
            await first.prove(peer, agent)
            flood = bytes(check(mark(1) + "nobody", "x" * 24))

            def full() -> bool:
                for _ in range(50):
                    stranger.send(flood)
                return first.dropped["handovers_dropped"] > 100

            await until(full, "full")
            await media(first, peer)
        finally:
            first.close()
            for sock in (*ends[1], *first.senders):
                sock.close()

    run(test)


def test_from_port_0_comes_nobody() -> None:
    """A socket that is connected to port 0 of an address gets what comes from any of its ports."""

    async def test() -> None:
        ends = pairs(2)
        async with opened() as other:
            second, first = joined(1, ends[1]), Handover(ends[0][0], {})
            second.open(["127.0.0.1"], other.port + 1 if other.port < 65535 else 65534)
            try:
                agent = second.agent()
                path = CandidatePair(second.endpoints["127.0.0.1"], ("127.0.0.1", 0))
                first.send(path, bytes(check(agent.ufrag, agent.pwd)))
                await second.counted("paths_refused", 1)
                assert not agent.paths
            finally:
                second.close()
                ends[0][0].close()

    run(test)


# --- the marks --------------------------------------------------------------------------------------------------------


def test_every_worker_has_a_mark_of_its_own() -> None:
    marks = [mark(index) for index in range(256)]
    assert len(set(marks)) == 256
    assert all(len(one) == MARK_CHARS and one.isalnum() and one.isascii() for one in marks)


def test_a_worker_that_is_alone_hands_nothing_over() -> None:
    for index in (0, 3):  # where workers cannot share a port, each is alone
        alone = Handovers(index)
        assert alone.mark == mark(index)
        assert alone.home is alone.to("anybody") is alone.to("") is alone.to(mark(1)) is None
