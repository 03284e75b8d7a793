"""The byte stream of a connection, used by both HTTP and WebSocket."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from sfu.web.frames import FrameCounter

if TYPE_CHECKING:
    from sfu.process.metrics import Counters
    from sfu.settings.config import Config

TcpStream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)

READ_BYTES = 65536
HEAD_END = b"\r\n\r\n"
PACE_BYTES_PER_S = 16384
PACE_BURST_BYTES = 65536
"""trio-websocket answers any number of pings and accepts any number of empty frames. Only slow reading limits them."""
PACE_READ_BYTES = 2048
"""Read at once, as all frames of one read are handled whatever the budget."""
FRAMES = 4
"""Frames read per message that a client may send, as pongs and fragments are frames too. A frame takes the server a
tenth of a millisecond, however short it is, so each is paced like as many bytes as keep to this number."""


class PacedStream(trio.abc.Stream):
    """A connection with a deadline for writes and, if `paced` (for WebSockets), a limited read rate.

    Reads return `head` first: a request and what was read behind it. A write that takes longer than
    `config.send_s` closes the connection and raises trio.BrokenResourceError.
    """

    def __init__(
        self, stream: TcpStream, config: Config, counters: Counters, *, head: bytes = b"", paced: bool = False
    ) -> None:
        self._stream = stream
        self._head = head
        self._counters = counters
        self._send_s = config.send_s
        self._rate = PACE_BYTES_PER_S if paced else math.inf
        self._budget = float(PACE_BURST_BYTES)
        self._frames = FrameCounter(head.find(HEAD_END) + len(HEAD_END))
        self._frame_bytes = PACE_BYTES_PER_S / (FRAMES * max(1, config.messages_per_s))
        self._at = trio.current_time()

    def credit(self, n_bytes: int) -> None:
        """Allows `n_bytes` beyond rate and burst, for a long message that the server has asked for."""
        self._budget += n_bytes

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._rate == math.inf:
            return await self._next(max_bytes or READ_BYTES)
        if self._refill() < 0:
            await trio.sleep(-self._budget / self._rate)
        data = await self._next(min(max_bytes or READ_BYTES, PACE_READ_BYTES))
        self._budget -= len(data) + self._frames.count(data) * self._frame_bytes
        return data

    async def _next(self, max_bytes: int) -> bytes:
        if not self._head:
            return bytes(await self._stream.receive_some(max_bytes))
        await trio.lowlevel.checkpoint()
        data, self._head = self._head[:max_bytes], self._head[max_bytes:]
        return data

    def _refill(self) -> float:
        now = trio.current_time()
        refilled = min(PACE_BURST_BYTES, self._budget + (now - self._at) * self._rate)
        self._budget, self._at = max(self._budget, refilled), now
        return self._budget

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(self._send_s) as deadline:
            await self._stream.send_all(data)
        if deadline.cancelled_caught:
            self._counters.add("sfu_connection_failures_total", kind="slow")
            await trio.aclose_forcefully(self)
            raise trio.BrokenResourceError("the client does not read")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Closes the sending direction. Does nothing over TLS, where one direction cannot be closed alone."""
        if isinstance(self._stream, trio.SocketStream):
            await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


@dataclass
class Upgraded:
    """A connection that asked for a WebSocket at /ws. It is closed when the callable that it is passed to returns.

    `stream` replays the request head for `trio_websocket.wrap_server_stream`. `headers` have lower-case names and ASCII
    values. `target` is the path and query as sent, `client` an IP address without port, `host` the Host header.
    """

    stream: PacedStream
    headers: list[tuple[bytes, bytes]]
    target: str
    client: str
    secure: bool
    host: str
