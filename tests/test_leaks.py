"""Coming and going costs a server nothing that stays: 50 whole joins, and every process is as it was."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

import psutil
import pytest
import wsproto
from support.media_client import Client, Control
from support.process import Server, workers
from support.waiting import until
from wsproto.events import CloseConnection, Ping, Pong, Request, TextMessage

from sfu import bridge

WARM_UP, CYCLES = 40, 50
MEMORY_BYTES = 3 << 19
_guests = itertools.count()


class Line:
    """A WebSocket of the full protocol."""

    def __init__(self) -> None:
        self._protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._text = ""

    async def open(self, port: int, room: str, name: str) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        target = f"/ws?room={room}&username={name}"
        self._write(Request(host=f"127.0.0.1:{port}", target=target, subprotocols=["sfu.v1"]))

    def send(self, event: str, data: object) -> None:
        self._write(TextMessage(json.dumps({"event": event, "data": data})))

    async def run(self, received: Callable[[str, object], None]) -> None:
        """Hands on what comes until either end closes."""
        while data := await self._reader.read(65536):
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                if isinstance(event, TextMessage):
                    self._text += event.data
                    if event.message_finished:
                        message = json.loads(self._text)
                        self._text = ""
                        received(message["event"], message["data"])
                elif isinstance(event, Ping | CloseConnection):
                    self._write(event.response())

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Request | TextMessage | Pong | CloseConnection) -> None:
        self._writer.write(self._protocol.send(event))


class WebSockets(Control):
    """Stands where a bridge does for media clients, with the real server in between."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._lines: dict[str, tuple[Line, asyncio.Task[None]]] = {}
        self.errors: list[object] = []

    async def send(self, command: bridge.Command) -> None:
        match command:
            case bridge.Join(peer, room):
                line = Line()
                await line.open(self._port, room, peer)
                self._lines[peer] = line, asyncio.create_task(line.run(lambda *message: self._received(peer, *message)))
            case bridge.Answer(peer, sdp):
                self._lines[peer][0].send("answer", json.dumps({"type": "answer", "sdp": sdp}))
            case bridge.Leave(peer):
                self._lines[peer][0].send("leave", {})
                await self._end(peer)

    async def drop(self, peer: str) -> None:
        """The connection is gone without a word."""
        self._lines[peer][0].close()
        await self._end(peer)

    async def _end(self, peer: str) -> None:
        line, running = self._lines.pop(peer)
        async with asyncio.timeout(10):
            with suppress(OSError):
                await running
        line.close()

    async def aclose(self) -> None:
        """Drops whoever is left."""
        for peer in list(self._lines):
            await self.drop(peer)

    def _received(self, peer: str, event: str, data: object) -> None:
        if event == "offer" and isinstance(data, str):
            offer = json.loads(data)
            receive = {mid: bridge.Origin(remote["peer"], remote["source"]) for mid, remote in offer["receive"].items()}
            self.deliver(bridge.Offer(peer, offer["sdp"], offer["send"], receive))
        elif event == "error" or (event == "bye" and data["code"] != "left"):  # type: ignore[index]
            self.errors.append(data)


@dataclass(frozen=True)
class Use:
    """What a process holds."""

    files: int
    threads: int
    memory_bytes: int

    @classmethod
    def of(cls, process: psutil.Process) -> Use:
        return cls(process.num_fds(), process.num_threads(), process.memory_info().rss)


async def enter(client: Client) -> None:
    """A whole join: offer, answer, ICE, DTLS."""
    await client.join()
    await client.negotiate()
    await client.check()
    assert (await client.handshake()).state == "connected"


async def come_and_go(control: WebSockets, server: Server, resident: Client, times: int) -> None:
    assert resident.ice is not None
    for number in range(times):
        await resident.ice.check()  # that it lives
        guest = Client(control, f"guest-{next(_guests)}")
        await enter(guest)
        if number % 2:
            await guest.leave()
        else:
            await control.drop(guest.id)
            await guest.aclose()
        # two guests at once need more sections than one does, and whether the held one is gone in time is chance
        await until(lambda: server.get("/health")["peers"] == 1, "only one is left")


async def live(server: Server) -> None:
    processes = [psutil.Process(server.pid), *workers(server.pid)]
    control = WebSockets(server.port)
    resident = Client(control, "resident")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(control.aclose)
        stack.push_async_callback(resident.aclose)
        await enter(resident)
        resident._following = asyncio.create_task(resident._follow())
        await come_and_go(control, server, resident, WARM_UP)
        assert resident.offer is not None
        sections, before = resident.offer.sdp.count("m="), [Use.of(process) for process in processes]
        await come_and_go(control, server, resident, CYCLES)

        def no_more() -> bool:
            now = [Use.of(process) for process in processes]
            return all(a.files <= b.files and a.threads <= b.threads for a, b in zip(now, before, strict=True))

        await until(no_more, f"no more files and threads than {before}")
        now = [Use.of(process) for process in processes]
        grown = [a.memory_bytes - b.memory_bytes for a, b in zip(now, before, strict=True)]
        assert max(grown) < MEMORY_BYTES, grown
        assert resident.offer.sdp.count("m=") == sections
        assert control.errors == []
        await resident.leave()


@pytest.mark.soak
def test_coming_and_going_leaves_nothing_behind(start_server: Callable[..., Server]) -> None:
    server = start_server(limits="off", hold_s="1")
    asyncio.run(live(server))
    assert server.get("/health")["peers"] == 0
    assert server.get("/metrics")["rooms_active"] == 0
    assert server.get("/metrics")["total_connections_created"] == WARM_UP + CYCLES + 1
    assert server.stop() == 0
    assert "level=ERROR" not in server.output
