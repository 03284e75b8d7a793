"""A client of a server process: its WebSocket, and no media."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio_websocket import WebSocketConnection, open_websocket_url

DEADLINE_S = 20.0


@asynccontextmanager
async def joined(url: str, name: str = "alice", context: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """In the room `team` of the server at `url` (http or https), with its welcome and its first offer read."""
    target = f"{url.replace('http', 'ws', 1)}/ws?room=team&username={name}"
    async with open_websocket_url(target, context, subprotocols=["sfu.v1"]) as ws:
        wire = Wire(ws)
        await wire.expect("welcome")
        await wire.expect("offer")
        yield wire


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
