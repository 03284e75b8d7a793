"""Media over TCP: whose a connection is, frames in and out, and what becomes of a peer that does not read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator

import pytest
from aioice import stun
from support.media_client import CLIENT_PWD, Client, check, local_worker, rtp_packet, run, until
from support.ports import ALERT, MEDIA, Port, opened, proof
from support.tcp import Door, TcpClient, TcpIce, door, frame

from sfu import bridge
from sfu.media.transport import tcp
from sfu.media.transport.ice import Agent
from sfu.media.transport.rows import READ_BATCH
from sfu.media.transport.sockets import MAX_DATAGRAM
from sfu.media.transport.tcp import REST, SPARE, VIDEO, Connection, TcpPort

SOUND = rtp_packet(1, 7, pt=111)
VIDEO_BYTES = 1200
RESET = struct.pack("ii", 1, 0)


class Caller:
    """A connection of a client's, as bytes. It has little room for what is not read."""

    def __init__(self, entrance: Door) -> None:
        self._entrance = entrance

    async def __aenter__(self) -> Caller:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        await asyncio.get_running_loop().sock_connect(sock, self._entrance.address)
        self.reader, self.writer = await asyncio.open_connection(sock=sock)
        self.address = self.writer.get_extra_info("sockname")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    def send(self, *messages: bytes) -> None:
        self.writer.write(b"".join(map(frame, messages)))

    async def receive(self) -> bytes:
        return await self.reader.readexactly(int.from_bytes(await self.reader.readexactly(2)))

    async def ended(self) -> bool:
        with contextlib.suppress(ConnectionResetError):
            return await asyncio.wait_for(self.reader.read(), 5) == b""
        return True

    async def prove(self, agent: Agent) -> stun.Message:
        """Becomes this agent's path; returns the response to its check."""
        self.send(bytes(check(agent.ufrag, agent.pwd)))
        response = stun.parse_message(await self.receive())
        request = stun.parse_message(await self.receive())
        self.send(proof(request.transaction_id))
        await until(lambda: agent.selected and agent.selected.address == self.address, "selected")
        return response


@contextlib.asynccontextmanager
async def both() -> AsyncIterator[tuple[Port, Door]]:
    """A port for UDP and TCP, and the door that connections come through."""
    async with opened() as port, door() as entrance:
        tcp = TcpPort(port, port.counters, port._on_media, socket.socket(fileno=entrance.file))
        try:
            yield port, entrance
        finally:
            tcp.close()
            assert list(port._routes) == list(port.endpoints.values())


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


def connections(port: Port) -> list[Connection]:
    return [wire for wire in port._routes if isinstance(wire, Connection)]


# --- whose a connection is --------------------------------------------------------------------------------------------


def test_a_connection_that_begins_with_an_authentic_check_is_a_path() -> None:
    async def test() -> None:
        async with both() as (port, entrance), Caller(entrance) as caller:
            agent = port.agent()
            response = await caller.prove(agent)
            assert response.attributes["XOR-MAPPED-ADDRESS"] == caller.address
            assert response.check_message_integrity(agent.pwd.encode())
            assert agent.transport == "tcp"
            await agent._send(ALERT)
            assert await caller.receive() == ALERT
            caller.send(ALERT, MEDIA)
            assert await agent._recv() == ALERT
            await until(lambda: port.owners == [agent], f"media: {port.counters}")
            assert port.counters == {"tcp_connections": 1}

    run(test)


def test_any_other_beginning_is_closed_and_leaves_nothing() -> None:
    async def test() -> None:
        async with both() as (port, entrance):
            agent, before = port.agent(), files()
            whole = bytes(check(agent.ufrag, agent.pwd))
            strangers = [
                bytes(check(agent.ufrag, "x" * 24)),
                bytes(check(port.mark + "nobody", agent.pwd)),
                whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
                whole[:60],
                proof(bytes(12)),
                MEDIA,
                ALERT,
                b"",
            ]
            for message in strangers:
                async with Caller(entrance) as caller:
                    caller.send(message, whole)  # what follows is not read
                    assert await caller.ended()
            await until(lambda: files() == before, "no descriptor stays")
            assert not agent.paths
            assert agent.last_seen_s == 0
            assert not port.media

    run(test)


def test_a_connection_that_is_reset_before_it_arrives() -> None:
    async def test() -> None:
        async with both() as (port, entrance):
            agent, before = port.agent(), files()
            for _ in range(20):
                with socket.create_connection(entrance.address) as sock:
                    sock.sendall(frame(bytes(check(agent.ufrag, agent.pwd))))
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            async with Caller(entrance) as caller:
                await caller.prove(agent)
            await until(lambda: not agent.paths and files() == before, "all gone")
            assert not connections(port)

    run(test)


def test_an_unknown_ufrag_on_an_open_connection_is_refused() -> None:
    """Also if another worker could know it: that one has its own connections."""

    async def test() -> None:
        async with both() as (port, entrance), Caller(entrance) as caller:
            agent = port.agent()
            await caller.prove(agent)
            caller.send(bytes(check("zznobody", "x" * 24)), bytes(check(agent.ufrag, "x" * 24)), MEDIA)
            await until(lambda: port.media, "media")
            assert port.counters["gate_stun_refused"] == 2

    run(test)


def test_a_peer_has_few_connections_beside_the_one_in_use() -> None:
    async def test() -> None:
        async with both() as (port, entrance), contextlib.AsyncExitStack() as stack:
            agent = port.agent()
            callers = [await stack.enter_async_context(Caller(entrance)) for _ in range(2 + SPARE + 3)]
            await callers[0].prove(agent)
            for caller in callers[1:]:
                caller.send(bytes(check(agent.ufrag, agent.pwd, nominate=False)))
                await caller.receive()
            for caller in callers[1:-SPARE]:
                assert await caller.ended()
            assert [path.address for path in agent.paths] == [c.address for c in (callers[0], *callers[-SPARE:])]
            callers[0].send(MEDIA)
            await until(lambda: port.media, "the one in use stays")

    run(test)


def test_the_connections_of_a_peer_end_with_it() -> None:
    async def test() -> None:
        async with both() as (port, entrance), Caller(entrance) as caller, Caller(entrance) as other:
            agent, another, before = port.agent(), port.agent(), files()
            await caller.prove(agent)
            await other.prove(another)
            port.unregister(agent)
            assert await caller.ended()
            assert len(connections(port)) == 1
            assert files() == before - 1
            other.send(MEDIA)
            await until(lambda: port.owners == [another], "the other peer's stays")

    run(test)


# --- what comes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 700, 100_000])
def test_frames_arrive_however_they_are_cut(size: int) -> None:
    packets = [rtp_packet(seq16, 7, bytes(seq16 * 7 % 300)) for seq16 in range(3 * READ_BATCH)]
    packets[5] = rtp_packet(5, 7, bytes(MAX_DATAGRAM - 12))
    if size < 3:
        packets = packets[:8]
    data = b"".join(frame(packet) + frame(b"") * (k % 5 == 0) for k, packet in enumerate(packets))

    async def test() -> None:
        async with both() as (port, entrance), Caller(entrance) as caller:
            await caller.prove(port.agent())
            sock = caller.writer.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(data), size):
                caller.writer.write(data[at : at + size])
                if size < 700:
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
            await until(lambda: len(port.media) == len(packets), f"all: {len(port.media)} {port.counters}")
            assert port.media == packets

    run(test)


@pytest.mark.parametrize("length", [MAX_DATAGRAM + 1, 0xFFFF])
def test_a_frame_that_is_no_datagram_ends_the_connection(length: int) -> None:
    async def test() -> None:
        async with both() as (port, entrance), Caller(entrance) as caller, Caller(entrance) as other:
            agent, another = port.agent(), port.agent()
            await caller.prove(agent)
            await other.prove(another)
            caller.writer.write(length.to_bytes(2) + MEDIA)
            assert await caller.ended()
            assert not agent.paths
            assert port.counters["gate_length"] == 1
            other.send(MEDIA)
            await until(lambda: port.owners == [another], "others go on")

    run(test)


def test_garbage_in_frames_is_counted_and_dropped() -> None:
    async def test() -> None:
        async with both() as (port, entrance), Caller(entrance) as caller:
            agent = port.agent()
            await caller.prove(agent)
            for first in (*range(4, 20), *range(64, 128), *range(192, 256)):
                caller.send(bytes([first]) * 50)
            caller.send(b"\0" * 50, proof(bytes(12)), MEDIA)
            await until(lambda: port.media == [MEDIA], f"media: {port.counters}")
            assert (port.counters["gate_protocol"], port.counters["gate_stun_malformed"]) == (144, 2)

    run(test)


# --- where media goes -------------------------------------------------------------------------------------------------


def test_media_follows_the_last_nomination_between_udp_and_tcp() -> None:
    async def test() -> None:
        async with both() as (port, entrance), Caller(entrance) as caller:
            agent, udp = port.agent(), port.sender()
            await caller.prove(agent)
            await port.prove(udp, agent)
            assert agent.transport == "udp"
            await agent._send(ALERT)
            assert udp.recv(2000) == ALERT
            await caller.prove(agent)
            assert agent.transport == "tcp"
            await agent._send(ALERT)
            assert await caller.receive() == ALERT

    run(test)


@pytest.mark.parametrize("ends", ["closed", "reset"])
def test_after_a_connection_the_next_check_moves_media(ends: str) -> None:
    """Firefox nominates only once; its next check need not wait for a silence."""

    async def test() -> None:
        async with both() as (port, entrance), Caller(entrance) as caller, Caller(entrance) as second:
            agent = port.agent()
            await caller.prove(agent)
            if ends == "reset":
                caller.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            caller.writer.close()
            await until(lambda: not agent.paths, "gone")
            await agent._send(ALERT)  # to nowhere
            assert port.counters["send_failed"] == 1
            second.send(bytes(check(agent.ufrag, agent.pwd, nominate=False)))
            await second.receive()
            second.send(proof(stun.parse_message(await second.receive()).transaction_id))
            await until(lambda: agent.selected and agent.selected.address == second.address, "moved")

    run(test)


# --- what leaves ------------------------------------------------------------------------------------------------------


def selected(agent: Agent) -> Connection:
    assert agent.selected is not None
    assert isinstance(agent.selected.endpoint, Connection)
    return agent.selected.endpoint


def fill(connection: Connection, numbers: list[int]) -> None:
    """Puts video until no more is taken; `numbers` are those of the packets that were."""
    with contextlib.suppress(BlockingIOError):
        while True:
            number = len(numbers)
            connection.put(rtp_packet(number & 0xFFFF, 7, number.to_bytes(4) + bytes(VIDEO_BYTES - 16)), ())
            numbers.append(number)


def test_who_does_not_read_gets_whole_packets_or_none() -> None:
    async def test() -> None:
        async with both() as (port, entrance), Caller(entrance) as caller:
            agent = port.agent()
            await caller.prove(agent)
            caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
            connection, sent = selected(agent), list[int]()
            fill(connection, sent)
            assert connection._waiting_bytes <= VIDEO.n_bytes + VIDEO_BYTES + 2
            for _ in range(2000):
                agent.selected.endpoint.send(SOUND, ())  # type: ignore[union-attr]
            assert port.counters["send_buffer_full"] == 0, "there is room for sound where there is none for video"
            caller.writer.transport.resume_reading()  # type: ignore[attr-defined]
            got = [await caller.receive() for _ in range(len(sent) + 2000)]
            assert [int.from_bytes(packet[12:16]) for packet in got if packet != SOUND] == sent
            assert got.count(SOUND) == 2000
            assert got.index(SOUND) < len(sent) - 100, "it overtakes what waits"
            assert got[-1] != SOUND
            await until(lambda: not connection._waiting_bytes, "nothing waits")
            connection.put(ALERT, ())
            assert await caller.receive() == ALERT

    run(test)


def test_what_waits_too_long_lets_nothing_follow() -> None:
    """However little it is: a call has no use for packets that come late."""

    async def test() -> None:
        async with both() as (port, entrance), Caller(entrance) as caller:
            agent = port.agent()
            await caller.prove(agent)
            caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
            connection, refused = selected(agent), set[str]()

            def put(what: str, data: bytes) -> set[str]:
                try:
                    connection.put(data, ())
                except BlockingIOError:
                    refused.add(what)
                return refused

            fill(connection, [])
            await until(lambda: put("video", MEDIA), "video is refused")
            assert put("sound", SOUND) == {"video"}
            await until(lambda: put("sound", SOUND) == {"video", "sound"}, "sound is refused")
            assert connection._waiting_bytes < REST.n_bytes
            caller.writer.transport.resume_reading()  # type: ignore[attr-defined]
            while connection._waiting_bytes:
                await caller.receive()
            connection.put(MEDIA, ())
            while await caller.receive() != MEDIA:
                pass

    run(test)


def test_a_connection_that_is_stuck_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its peer may have another one."""
    monkeypatch.setattr(tcp, "STUCK_S", 0.5)

    async def test() -> None:
        async with both() as (port, entrance), Caller(entrance) as caller, Caller(entrance) as second:
            agent = port.agent()
            await caller.prove(agent)
            caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
            connection = selected(agent)
            fill(connection, [])

            def closed() -> bool:
                connection.send(MEDIA, ())
                return connection.closed

            await until(closed, "closed")
            assert not agent.paths
            refused = connection.refused
            with pytest.raises(OSError, match="descriptor"):
                connection.put(MEDIA, ())
            assert connection.refused == refused
            await second.prove(agent)
            assert selected(agent) is not connection

    run(test)


# --- calls ------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def call() -> AsyncIterator[tuple[Client, TcpClient, Client]]:
    """Two with UDP, and one between them without, all connected in a room."""
    async with door() as entrance, local_worker(connections=entrance.file, tcp_port=entrance.address[1]) as control:
        tcp = TcpClient(control, "tcp")
        tcp.door = entrance
        made = (Client(control, "one"), tcp, Client(control, "two"))
        try:
            for client in made:
                await client.start()
            for client in made:
                await client.takes_from(*({"one", "tcp", "two"} - {client.id}))
            peers = control.worker.peers.values()
            await until(
                lambda: all(len(t.down_tracks) == 2 for peer in peers for t in peer.published.values()), "attached"
            )
            yield made
        finally:
            for client in made:
                await client.aclose()


KEYFRAME, WITHIN = b"\x10" + bytes(99), b"\0" + bytes(99)


def test_a_call_over_tcp_and_udp() -> None:
    async def test() -> None:
        async with call() as (one, tcp, two):
            assert [event.transport for event in one.control.seen if hasattr(event, "transport")] == [  # type: ignore[attr-defined]
                "udp", "tcp", "udp",
            ]  # fmt: skip
            for publisher, subscribers in ((one, (tcp, two)), (tcp, (one, two))):
                for seq16 in range(40):
                    await publisher.send_rtp(
                        "camera", seq16, KEYFRAME if seq16 == 0 else WITHIN, timestamp=seq16 * 3000
                    )
                for subscriber in subscribers:
                    got = [await subscriber.rtp() for _ in range(40)]
                    assert [packet.sequence_number for packet in got] == list(range(40))

    run(test)


def test_a_subscriber_that_stops_reading_harms_nobody_and_continues_at_a_keyframe() -> None:
    async def test() -> None:
        async with call() as (one, tcp, two):
            assert isinstance(tcp.ice, TcpIce)
            worker = one.control.worker  # type: ignore[attr-defined]
            connection = selected(worker.peers["tcp"].agent)
            tcp.ice.reads.clear()
            await one.send_rtp("camera", 0, KEYFRAME)
            sent = 1
            while not worker.counters["send_buffer_full"]:
                for _ in range(20):
                    await one.send_rtp("camera", sent & 0x7FFF, b"\0" + bytes(1000), timestamp=sent)
                    sent += 1
                    await two.rtp()
            (track,) = (t for t in worker.peers["one"].published.values() if t.source == "camera")
            assert track.down_tracks["tcp"].waiting
            assert connection._waiting_bytes < REST.n_bytes
            await until(lambda: worker.peers["tcp"].subscriber.down.limited, "it is known to be slow")
            assert not worker.peers["two"].subscriber.down.limited
            tcp.ice.reads.set()
            await until(lambda: not connection._waiting_bytes, "it has read")
            first = await tcp.rtp()
            numbers, payload = [first.sequence_number], b""
            while payload != KEYFRAME:  # which the publisher sends again and again: video may be paused for a while
                await one.send_rtp("camera", sent & 0x7FFF, KEYFRAME, timestamp=sent)
                sent += 1
                await two.rtp()
                with contextlib.suppress(TimeoutError):
                    while payload != KEYFRAME:
                        packet = await asyncio.wait_for(tcp.rtp(), 0.2)
                        numbers, payload = [*numbers, packet.sequence_number], packet.payload
            assert numbers == [(numbers[0] + k) & 0xFFFF for k in range(len(numbers))], "without a gap"

    run(test)


def test_a_client_restarts_ice_on_a_new_connection() -> None:
    async def test() -> None:
        async with call() as (one, tcp, _):
            old = tcp.ice
            await tcp.control.send(bridge.RestartIce("tcp"))
            await until(lambda: tcp.server()[1] != old.ufrag, "new credentials")  # type: ignore[union-attr]
            assert isinstance(old, TcpIce)
            fresh = TcpIce(tcp.door.address, *tcp.server()[1:])
            fresh._inbox = old._inbox
            await fresh.rebind()
            await fresh.check()
            agent = one.control.worker.peers["tcp"].agent  # type: ignore[attr-defined]
            await until(lambda: agent.selected.address == fresh.address, "moved")
            old.close()
            tcp.ice = fresh
            await one.send_rtp("camera", 0, KEYFRAME)
            await tcp.rtp()

    run(test)


def test_the_password_of_a_client_is_not_the_servers() -> None:
    async def test() -> None:
        async with both() as (port, entrance), Caller(entrance) as caller:
            agent = port.agent()
            caller.send(bytes(check(agent.ufrag, CLIENT_PWD)))
            assert await caller.ended()

    run(test)
