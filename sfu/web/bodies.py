"""Streamed request bodies, so that a large one is never held in memory.

Quart's body takes whatever the network brings. Here, where a route streams, no more is taken from the connection while
so much waits, and TCP holds the client back. All that leans on quart-trio's private parts is here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers import TrioRequest
from quart_trio.wrappers.request import TrioBody

STREAMED = frozenset({"/files"})
"""Paths whose bodies are read with `PacedBody.read`; how long they may be is the route's to say."""
WAITING_BYTES = 1 << 18
"""So much is taken from the connection before anybody has asked for it."""


class PacedBody(TrioBody):
    """`paced`: it is to be read with `read`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.paced = False
        self._drained = trio.Event()

    async def room(self) -> None:
        """Until there is room for more."""
        while self.paced and len(self._data) >= WAITING_BYTES:
            self._drained = trio.Event()
            await self._drained.wait()

    async def read(self) -> bytes:
        """What has come since, or comes next: up to WAITING_BYTES and what came at once. Nothing at the end."""
        try:
            piece = await anext(self)
        except StopAsyncIteration:
            return b""
        self._drained.set()
        return piece


class StreamingRequest(TrioRequest):
    body_class = PacedBody  # type: ignore[assignment]
    body: PacedBody

    def __init__(self, method: str, scheme: str, path: str, *args: Any, **options: Any) -> None:
        if path in STREAMED:
            options["max_content_length"] = None
        super().__init__(method, scheme, path, *args, **options)
        self.body.paced = path in STREAMED


class StreamingConnection(TrioASGIHTTPConnection):
    async def handle_messages(  # type: ignore[override]
        self, nursery: trio.Nursery, request: Any, receive: Callable[[], Awaitable[Any]]
    ) -> None:
        async def paced() -> Any:
            await request.body.room()
            return await receive()

        await super().handle_messages(nursery, request, paced)
