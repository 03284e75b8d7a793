"""The control plane as it runs, with worker processes that have no media (worker_child.py), and clients for it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream
from wsproto.utilities import LocalProtocolError

from sfu.api import create_api
from sfu.calls.admission import Admission
from sfu.calls.entrance import Signaling
from sfu.calls.moderation import Moderation
from sfu.calls.registry import Calls
from sfu.calls.room_info import RoomInfo
from sfu.calls.rooms import Rooms
from sfu.calls.sharing import Sharing
from sfu.process.lifecycle import Lifecycle
from sfu.process.metrics import Counters
from sfu.protocol.shared import BARE_EVENTS
from sfu.serving.status import Status, create_metrics, create_status
from sfu.settings.config import Config
from sfu.store import Store, open_store
from sfu.store.data import FILES, UNLIMITED
from sfu.store.records import Company
from sfu.tenancy.keys import ServerKey
from sfu.web import edge
from sfu.web.app import create_app
from sfu.workers.workers import Workers
from support import forked
from support.tables import sqlite

SERVER_KEY = ServerKey(bytes(range(32)))
DEADLINE_S = 20.0
HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
CHILD = str(Path(__file__).with_name("worker_child.py"))
STAND_IN = str(Path(__file__).with_name("stand_in.py"))


def child(folder: Path, plan: str = "ready") -> tuple[str, ...]:
    """The command of a worker process without media; `folder` is the test's own."""
    return sys.executable, CHILD, plan, str(folder / "starts")


def quick_child(folder: Path, plan: str = "ready") -> tuple[str, ...]:
    """The same, for tests that are not about processes: another one forks it, which has imported what it needs."""
    return sys.executable, "-I", "-S", STAND_IN, forked.server(), "worker_child", plan, str(folder / "starts")


@dataclass
class Server:
    config: Config
    counters: Counters
    rooms: Rooms
    workers: Workers
    signaling: Signaling
    store: Store
    port: int
    stop: trio.Event
    default: Company

    def key(self, room_id: str) -> str:
        """Of a room that is entered without a token."""
        return f"{self.default.id}/{room_id}"

    @asynccontextmanager
    async def client(self, room: str = "team", name: str = "alice", *, full: bool = True) -> AsyncIterator[Client]:
        """A client on a connection of its own; it does nothing by itself."""
        async with self.connect(f"/ws?{urlencode({'room': room, 'username': name})}", full=full) as client:
            yield client

    @asynccontextmanager
    async def connect(
        self,
        target: str,
        *,
        full: bool = True,
        origin: str = "",
        token: str = "",
        resume: str | None = None,
        ticket: str = "",
        batch: bool = False,
    ) -> AsyncIterator[Client]:
        """`token`, `resume` with a session's secret, and `ticket` go as subprotocols. `batch`: it takes `arrivals`."""
        values = [f"token.{token}"] if token else []
        values += ["batch"] if batch else []
        values += [f"resume.{resume}"] if resume is not None else []
        values += [f"return.{ticket}"] if ticket else []
        try:
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream, trio.open_nursery() as nursery:
                ws = await wrap_client_stream(
                    nursery,
                    stream,
                    f"127.0.0.1:{self.port}",
                    target,
                    subprotocols=["other", *values, "sfu.v1"] if full else None,
                    extra_headers=[(b"Origin", origin.encode())] if origin else None,
                    max_message_size=1 << 24,
                )
                yield Client(ws)
                with trio.move_on_after(1):
                    await ws.aclose()
                nursery.cancel_scope.cancel()
        except* LocalProtocolError:
            pass  # trio-websocket's, where a ping comes between its close frame and the server's

    async def refused(self, target: str, *, full: bool = False, origin: str = "", resume: str = "") -> dict[str, Any]:
        """The problem (RFC 9457) that a handshake is refused with, after which the server closes."""
        lines = [f"GET {target} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *HANDSHAKE]
        lines += ["Sec-WebSocket-Protocol: sfu.v1"] * full + [f"Origin: {origin}"] * bool(origin)
        lines += [f"Sec-WebSocket-Protocol: resume.{resume}"] * bool(resume)
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all("\r\n".join([*lines, "", ""]).encode())
            with trio.fail_after(DEADLINE_S):
                answer = b"".join([data async for data in stream])
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"\r\ncontent-type: application/problem+json" in head.lower()
        problem: dict[str, Any] = json.loads(body)
        assert problem.keys() == {"type", "title", "status", "detail", "code"}
        assert head.startswith(f"HTTP/1.1 {problem['status']} ".encode())
        return problem

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[trio.SocketStream]:
        """A connection in the room `team` after its handshake, on which nobody answers pings and close frames."""
        lines = ["GET /ws?room=team HTTP/1.1", "Host: x", "Sec-WebSocket-Protocol: sfu.v1", *HANDSHAKE, "", ""]
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all("\r\n".join(lines).encode())
            answer = await stream.receive_some(12)
            assert answer == b"HTTP/1.1 101"
            yield stream

    @asynccontextmanager
    async def joined(self, room: str = "team", name: str = "alice") -> AsyncIterator[Client]:
        """A client of the full protocol that has read its welcome, what was written before, and its first offer."""
        async with self.client(room, name) as client:
            client.welcome = await client.expect("welcome")
            client.peer = client.welcome["peer"]
            while (await client.receive())[0] != "offer":  # who was here before may be leaving
                pass
            yield client


class Client:
    def __init__(self, ws: WebSocketConnection) -> None:
        self.ws = ws
        self.welcome: dict[str, Any] = {}
        self.peer = ""

    async def send(self, event: str, data: Any = None) -> None:
        if event in BARE_EVENTS:
            data = json.dumps(data)
        await self.ws.send_message(json.dumps({"event": event, "data": data}))

    async def answer(self, sdp: str = "v=0") -> None:
        await self.send("answer", {"type": "answer", "sdp": sdp})

    async def do(self, *events: tuple[str, dict[str, Any]]) -> None:
        """Makes the worker send these events; their `peer` is this client unless they say otherwise."""
        await self.answer("do:" + json.dumps(events))

    async def flood(self, peer: str, offers: int, n_bytes: int) -> None:
        """Makes the worker send a peer so many offers of that length."""
        await self.answer("flood:" + json.dumps([peer, offers, n_bytes]))

    async def spam(self, messages: int) -> None:
        """Sends harmless messages as fast as it can, until the server has had enough."""
        with suppress(ConnectionClosed):
            for _ in range(messages):
                await self.send("candidate", {"candidate": ""})

    async def spam_chat(self, lines: int) -> None:
        """Writes in the chat as fast as its limit allows, until the server ends it."""
        with suppress(ConnectionClosed):
            for number in range(lines):
                await self.send("chat", {"text": f"line {number}"})
                await trio.sleep(0.05 if number > 50 else 0)

    async def receive(self) -> tuple[str, Any]:
        with trio.fail_after(DEADLINE_S):
            frame = json.loads(await self.ws.get_message())
        data = frame["data"]
        return frame["event"], json.loads(data) if frame["event"] in BARE_EVENTS else data

    async def expect(self, event: str) -> Any:
        """The data of the next event, which must be this one."""
        found, data = await self.receive()
        assert found == event, (found, data)
        return data

    async def until(self, event: str) -> Any:
        """The data of the next such event, whatever comes before it."""
        while (found := await self.receive())[0] != event:
            pass
        return found[1]

    async def closed(self) -> int:
        """The code of the close frame. What comes before it is read, or trio-websocket would not come to it."""
        with trio.fail_after(DEADLINE_S), suppress(ConnectionClosed):
            while True:
                await self.ws.get_message()
        assert self.ws.closed is not None
        return self.ws.closed.code

    async def expect_bye(self, code: str, close_code: int, *, rejoin: bool) -> None:
        """The next event is `bye`, and the close frame follows."""
        data = await self.expect("bye")
        assert (data["code"], data["rejoin"]) == (code, rejoin)
        assert data["message"]
        assert await self.closed() == close_code

    async def commands(self) -> list[tuple[str, dict[str, Any]]]:
        """What the worker was told since it started, in order."""
        await self.answer("do:commands")
        offer = await self.expect("offer")
        return [(name, fields) for name, fields in json.loads(offer["sdp"])]


@asynccontextmanager
async def running(
    folder: Path,
    config: Config | None = None,
    *,
    plan: str = "ready",
    command: tuple[str, ...] = (),
    database_url: str = "",
    name: str = "sfu",
) -> AsyncIterator[Server]:
    """A server on a free port of 127.0.0.1 with its workers up; at the end everything of it is gone.

    `name` tells it from others on the same database.
    """
    config = config or settings()
    counters = Counters()
    rooms, workers = Rooms(config), Workers(config, counters, command or quick_child(folder, plan))
    memory = open_store(
        database_url or sqlite(folder),
        SERVER_KEY,
        server=name,
        max_participants=config.max_peers if config.limits else UNLIMITED,
        chat_kept_s=config.chat_kept_s,
    )
    async with memory as store, trio.open_nursery() as nursery:
        default = await store.companies.ensure_default()
        admission = Admission(config, store, default)
        life = Lifecycle(trio.current_time)
        life.started()
        calls = Calls(config, rooms, workers, counters, admission, life)
        signaling = Signaling(calls, Moderation(calls))
        app, stop = create_app(config, counters), trio.Event()
        status = Status(rooms, workers, counters, life, store)
        app.register_blueprint(create_status(status))
        app.register_blueprint(create_metrics(config, status))
        app.register_blueprint(create_api(config, store, signaling.moderation, counters))
        sharing = Sharing(calls, folder / FILES)
        app.register_blueprint(sharing.routes())
        app.register_blueprint(RoomInfo(calls).routes())
        await nursery.start(sharing.run)
        await nursery.start(store.run, 0.2, counters)
        await nursery.start(signaling.run)
        await nursery.start(workers.run)
        serve = partial(edge.serve, config, app, signaling.serve, counters, tls=None, stop=stop)
        listeners = await nursery.start(serve)
        port = listeners[0].socket.getsockname()[1]
        await trio.testing.wait_all_tasks_blocked()  # so that the number of tasks is that of an idle server
        yield Server(config, counters, rooms, workers, signaling, store, port, stop, default)
        nursery.cancel_scope.cancel()


def settings(**changes: Any) -> Config:
    return Config(**{"host": "127.0.0.1", "port": 0, "workers": 1, **changes})


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living
