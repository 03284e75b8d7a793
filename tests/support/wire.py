"""A client of a server process: its WebSocket, and no media."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

DEADLINE_S = 20.0


@asynccontextmanager
async def joined(
    url: str, name: str = "alice", context: ssl.SSLContext | None = None, *, room: str = "team", token: str = ""
) -> AsyncIterator[Wire]:
    """In a room of the server at `url` (http or https), with its welcome and its first offer read.

    A `token` says by itself which room, and who.
    """
    async with connected(url, name, context, room=room, token=token) as wire:
        await wire.expect("welcome")
        await wire.expect("offer")
        yield wire


async def refused(url: str, name: str = "alice", *, room: str = "team") -> Any:
    """What the server says goodbye with to somebody who wants to join."""
    async with connected(url, name, None, room=room) as wire:
        return await wire.expect("bye")


@asynccontextmanager
async def connected(
    url: str, name: str, context: ssl.SSLContext | None, *, room: str, token: str = ""
) -> AsyncIterator[Wire]:
    """With an open WebSocket from which nothing is read yet."""
    parts = urlsplit(url)
    host, port = str(parts.hostname), int(parts.port or 0)
    stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
    resource = f"/ws?token={token}" if token else f"/ws?room={room}&username={name}"
    try:
        if parts.scheme == "https":
            stream = trio.SSLStream(stream, context or ssl.create_default_context(), server_hostname=host)
        async with trio.open_nursery() as nursery:
            ws = await wrap_client_stream(nursery, stream, f"{host}:{port}", resource, subprotocols=["sfu.v1"])
            yield Wire(ws)
            with trio.move_on_after(DEADLINE_S):
                await ws.aclose()
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)  # trio-websocket leaves it open where the server closes first


class Wire:
    """`passed` has the events that came before those that were expected."""

    def __init__(self, ws: WebSocketConnection) -> None:
        self.ws = ws
        self.passed: list[str] = []

    async def expect(self, event: str) -> Any:
        """The data of the next event of this kind; fails when the server says goodbye before."""
        with trio.fail_after(DEADLINE_S):
            while True:
                frame = json.loads(await self.ws.get_message())
                if frame["event"] == event:
                    return frame["data"]
                assert frame["event"] != "bye", frame
                self.passed.append(frame["event"])

    async def talks(self, text: str) -> None:
        """What it writes comes back as the room's line: the server works for it."""
        await self.ws.send_message(json.dumps({"event": "chat", "data": {"text": text}}))
        while (await self.expect("chat"))["text"] != text:
            pass
