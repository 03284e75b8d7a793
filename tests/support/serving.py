"""A real server for tests of the HTTP side, edge.serve on a free port with the real app, and sockets to talk to it."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h11
import trio
import trio.testing
from quart import request
from quart_trio import QuartTrio
from trio_websocket import ConnectionClosed, wrap_server_stream

from sfu.calls.rooms import Rooms
from sfu.process.lifecycle import Lifecycle
from sfu.process.metrics import Counters
from sfu.serving.status import Status, create_metrics, create_status
from sfu.settings.config import Config
from sfu.web import edge
from sfu.web.app import create_app
from sfu.web.challenges import Challenges
from sfu.web.tls import Tls
from sfu.workers.workers import Workers
from support.waiting import until

PATIENCE_S = 10.0
"""Longer than anything here takes, so that what hangs fails instead."""
HANDSHAKE_S = 1.0
BIG_BYTES = 40_000_000

GET = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: rooms.example:8080\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
FRAME = bytes((0x81, 0x82, 0, 0, 0, 0)) + b"hi"
CLOSE = bytes((0x88, 0x80, 0, 0, 0, 0))


@dataclass
class Server:
    """What a test needs of a running server; `gate` holds GET /slow back until it is set."""

    counters: Counters
    rooms: Rooms
    workers: Workers
    app: QuartTrio
    life: Lifecycle
    port: int = 0
    listeners: list[trio.SocketListener] = field(default_factory=list)
    stop: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    gate: trio.Event = field(default_factory=trio.Event)
    waiting: trio.Event = field(default_factory=trio.Event)
    upgraded: list[edge.Upgraded] = field(default_factory=list)
    client_tls: ssl.SSLContext | None = None

    def failures(self, kind: str) -> float:
        return self.counters.get("sfu_connection_failures_total", kind=kind)

    async def connect(self, source: str = "127.0.0.1") -> trio.abc.Stream:
        """From that address of this machine's loopback."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port, local_address=source)
        if self.client_tls is None:
            return stream
        return trio.SSLStream(stream, self.client_tls, server_hostname="localhost", https_compatible=True)

    async def talk(self, *parts: bytes, source: str = "127.0.0.1") -> bytes:
        """Sends the parts one by one on a new connection and returns all that comes until the server closes it."""
        stream = await self.connect(source)
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(send_parts, stream, parts)
            answer = await read_all(stream)
            nursery.cancel_scope.cancel()
        return answer

    async def fetch(self, method: str, target: str, *headers: tuple[str, str]) -> Reply:
        """One request on a new connection."""
        client = h11.Connection(h11.CLIENT)
        fields = [("Host", "localhost"), ("Connection", "close"), *headers]
        ask = client.send(h11.Request(method=method, target=target, headers=fields))
        client_end = client.send(h11.EndOfMessage())
        client.receive_data(await self.talk((ask or b"") + (client_end or b"")))
        client.receive_data(b"")
        response, body = client.next_event(), b""
        assert isinstance(response, h11.Response)
        while isinstance(event := client.next_event(), h11.Data):
            body += bytes(event.data)
        return Reply(response.status_code, {k.decode(): v.decode() for k, v in response.headers}, body)

    async def alive(self) -> bool:
        return (await self.talk(LAST)).startswith(b"HTTP/1.1 503 ")  # no worker runs here

    async def count(self, name: str, value: float, **labels: str) -> None:
        """Waits until the counter is at least `value`."""
        await until(lambda: self.counters.get(name, **labels) >= value)


@dataclass
class Reply:
    """Header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


def local(**values: Any) -> Config:
    """Settings for a server on loopback and a free port."""
    settings: dict[str, Any] = {"host": "127.0.0.1", "port": 0, **values}
    return Config(**settings)


async def send_parts(stream: trio.abc.Stream, parts: tuple[bytes, ...]) -> None:
    for part in parts:
        try:
            await stream.send_all(part)
        except trio.BrokenResourceError:
            return
        await trio.testing.wait_all_tasks_blocked(0.001)  # so that a part arrives as a part


async def read_all(stream: trio.abc.Stream) -> bytes:
    """Until the other end closes."""
    data = bytearray()
    with trio.fail_after(PATIENCE_S):
        try:
            while more := await stream.receive_some(65536):
                data += more
        except trio.BrokenResourceError:
            pass  # reset: what came before counts
    return bytes(data)


async def read_until(stream: trio.abc.Stream, end: bytes) -> bytes:
    data = b""
    with trio.fail_after(PATIENCE_S):
        while not data.endswith(end):
            more = await stream.receive_some(65536)
            assert more, f"closed after {data!r}"
            data += more
    return data


def statuses(answer: bytes) -> list[int]:
    """Of all responses in a byte stream; no body here holds what looks like a status line."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


@asynccontextmanager
async def serving(
    config: Config | None = None,
    *,
    signaling: Callable[[edge.Upgraded], Awaitable[None]] | None = None,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    certificate: Tls | None = None,
    challenges: Challenges | None = None,
    plain: Sequence[trio.SocketListener] = (),
    worker: Sequence[str] | None = None,
    bugs: int = 0,
) -> AsyncIterator[Server]:
    """A running server, with a few routes that the real app lacks.

    `tls` is the server's and the client's context; with a `certificate` the client trusts everybody. `worker` is the
    command of media workers that are to run, `bugs` how many connections are to end by an exception that nobody
    handled.
    """
    config = config or local()
    counters, rooms, life = Counters(), Rooms(config), Lifecycle(trio.current_time)
    workers = Workers(config, counters, worker or ())
    app = create_app(config, counters)
    status = Status(rooms, workers, counters, life)
    app.register_blueprint(create_status(status))
    app.register_blueprint(create_metrics(config, status))
    server = Server(counters, rooms, workers, app, life)
    server.client_tls = tls[1] if tls else ssl._create_unverified_context() if certificate else None
    _add_routes(server)
    async with trio.open_nursery() as nursery:

        async def run(*, task_status: trio.TaskStatus[list[trio.SocketListener]]) -> None:
            await edge.serve(
                config,
                server.app,
                signaling or partial(echo, server),
                counters,
                tls=Tls(tls[0]) if tls else certificate,
                challenges=challenges,
                plain=plain,
                stop=server.stop,
                adopt=workers.adopt,
                task_status=task_status,
            )
            server.ended.set()

        server.listeners = await nursery.start(run)
        if worker is not None:
            await nursery.start(workers.run)
        server.port = server.listeners[0].socket.getsockname()[1]
        await trio.testing.wait_all_tasks_blocked()  # it accepts: tasks can be counted
        yield server
        server.stop.set()
        with trio.fail_after(PATIENCE_S):
            await server.ended.wait()
        assert server.failures("error") == bugs
        nursery.cancel_scope.cancel()


async def echo(server: Server, connection: edge.Upgraded) -> None:
    server.upgraded.append(connection)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(HANDSHAKE_S) as deadline:
            request = await wrap_server_stream(nursery, connection.stream)
        if not deadline.cancelled_caught:
            try:
                ws = await request.accept()
                while True:
                    await ws.send_message(await ws.get_message())
            except ConnectionClosed:
                pass  # also before it was accepted
        nursery.cancel_scope.cancel()


def _add_routes(server: Server) -> None:
    @server.app.get("/slow")
    async def slow() -> str:
        server.waiting.set()
        await server.gate.wait()
        return "slow"

    @server.app.get("/big")
    async def big() -> bytes:
        return bytes(BIG_BYTES)

    @server.app.get("/bug")
    async def bug() -> str:
        raise RuntimeError("a bug")

    @server.app.get("/who")
    async def who() -> dict[str, str | None]:
        return {"client": request.remote_addr, "scheme": request.scheme}

    @server.app.post("/length")
    async def length() -> str:
        return str(len(await request.get_data()))
