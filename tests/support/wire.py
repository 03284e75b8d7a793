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
async def joined(url: str, name: str = "alice", context: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """In the room `team` of the server at `url` (http or https), with its welcome and its first offer read."""
    parts = urlsplit(url)
    host, port = str(parts.hostname), int(parts.port or 0)
    stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
    resource = f"/ws?room=team&username={name}"
    try:
        if parts.scheme == "https":
            stream = trio.SSLStream(stream, context or ssl.create_default_context(), server_hostname=host)
        async with trio.open_nursery() as nursery:
            ws = await wrap_client_stream(nursery, stream, f"{host}:{port}", resource, subprotocols=["sfu.v1"])
            wire = Wire(ws)
            await wire.expect("welcome")
            await wire.expect("offer")
            yield wire
            with trio.move_on_after(DEADLINE_S):
                await ws.aclose()
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)  # trio-websocket leaves it open where the server closes first


class Wire:
    def __init__(self, ws: WebSocketConnection) -> None:
        self.ws = ws

    async def expect(self, event: str) -> Any:
        """The data of the next event of this kind; fails when the server says goodbye before."""
        with trio.fail_after(DEADLINE_S):
            while True:
                frame = json.loads(await self.ws.get_message())
                if frame["event"] == event:
                    return frame["data"]
                assert frame["event"] != "bye", frame

    async def talks(self, text: str) -> None:
        """What it writes comes back as the room's line: the server works for it."""
        await self.ws.send_message(json.dumps({"event": "chat", "data": {"text": text}}))
        while (await self.expect("chat"))["text"] != text:
            pass
