"""Requests as the routes need them: paths with encoded slashes, and streamed bodies.

A large body must never be held in memory, and Quart buffers a body without limit. For streamed routes, this module
stops reading from the connection while WAITING_BYTES are buffered, so that TCP flow control slows the client down. All
code that depends on quart-trio's private parts is here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import trio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers import TrioRequest
from quart_trio.wrappers.request import TrioBody

STREAMED = frozenset({"/files"})
"""Paths whose bodies are read with `PacedBody.read`. Their routes limit the length of the body."""
WAITING_BYTES = 1 << 18
"""Bytes of a streamed body that may be buffered before the route reads them."""
ENCODED_SLASH = "\udc2f"
"""Stands for `%2F` in a decoded path: this slash is part of a name and separates nothing (RFC 3986 section 2.2).

It is a surrogate, so no encoded path contains it.
"""


class PacedBody(TrioBody):
    """A request body with backpressure. If `paced`, the route must read it with `read`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.paced = False
        self._drained = trio.Event()

    async def room(self) -> None:
        """Waits until there is room for more data."""
        while self.paced and len(self._data) >= WAITING_BYTES:
            self._drained = trio.Event()
            await self._drained.wait()

    async def read(self) -> bytes:
        """The buffered data, or the next piece: up to WAITING_BYTES plus one chunk. Empty at the end of the body."""
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
        raw_path: bytes = options["scope"].get("raw_path", b"")
        if b"%2f" in raw_path.lower() and raw_path.startswith(b"/"):
            path = unquote(re.sub("%2[fF]", ENCODED_SLASH, raw_path.decode("ascii")))
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
