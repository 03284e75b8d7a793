"""One WebSocket of a session: paced reads, a bounded send queue, keepalive, a clean close.

It knows no rooms and no media. What it hears goes to its `Owner`, who may outlive it and go on with another.
"""

from __future__ import annotations

from typing import Protocol

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest

from sfu import errors
from sfu.config import Config
from sfu.errors import SfuError
from sfu.protocol.shared import SUBPROTOCOL
from sfu.web.streams import PacedStream

OUTBOX = 256
"""Messages waiting for a client; past it the client is a slow consumer."""
MAX_PARTS = 4096
"""Parts of one unfinished message: trio-websocket bounds their size but not their number, and they may be empty."""
CLOSE_S = 2.0
"""For the last messages to be written, and again for the client to answer the close frame."""
ABNORMAL = 1006
"""What trio-websocket gives as close code where no close frame came (RFC 6455 section 7.1.5)."""


class Door:
    """The handshake of one WebSocket, which is answered once: for the lobby, or by whoever serves it then."""

    def __init__(self, request: WebSocketRequest) -> None:
        self.request = request
        self.full = SUBPROTOCOL in request.proposed_subprotocols
        self.ws: WebSocketConnection | None = None

    async def accept(self) -> WebSocketConnection:
        if self.ws is None:
            self.ws = await self.request.accept(subprotocol=SUBPROTOCOL if self.full else None)
        return self.ws


class Owner(Protocol):
    """Whose link it is. None of these may wait or raise; after `Link.end` none is called any more."""

    def opened(self) -> None:
        """The handshake is answered."""

    def receive(self, frame: str | bytes) -> None:
        """A frame has come."""

    def broken(self) -> None:
        """The network took the link, or the client stopped answering: nobody has said that it goes."""

    def end(self, error: SfuError | None) -> None:
        """The client closed the link (None), or did what ends more than the link."""


class Link:
    """`send` and `end` may be called from any task, before `run` and during it."""

    def __init__(self, config: Config, stream: PacedStream, owner: Owner) -> None:
        self._config, self._stream, self._owner = config, stream, owner
        self._scope = trio.CancelScope()
        self._ended = False
        self._error: SfuError | None = None  # for the close frame
        self._outbox, self._texts = trio.open_memory_channel[str](OUTBOX)
        self._cut = False  # the stream may hold half a frame: nothing can follow it
        self._ws: WebSocketConnection | None = None

    def send(self, text: str) -> None:
        """Queues one frame; too many waiting end the owner."""
        try:
            self._outbox.send_nowait(text)
        except trio.WouldBlock:
            self._tell_end(errors.SlowConsumer())
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            pass  # it is closing

    def end(self, error: SfuError | None) -> None:
        """What waits is still written; then the link closes with the code of `error`, or 1000. Idempotent."""
        if not self._ended:
            self._ended, self._error = True, error
            self._scope.cancel()

    def admit(self, n_bytes: int) -> None:
        """Lets one frame of this length through the limit on messages, if that is less, and the reading pace.

        The limit is a private attribute of trio-websocket, read anew for each frame; a test holds it to that.
        """
        if self._ws is not None:
            self._ws._max_message_size = max(self._config.message_bytes, n_bytes)
            self._stream.credit(n_bytes)

    async def run(self, door: Door) -> None:
        """Answers the handshake and stays until the link has closed, whoever closed it."""
        try:
            with trio.fail_after(self._config.join_s):
                ws = self._ws = await door.accept()
            if not self._ended:
                self._owner.opened()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, ws)
                with self._scope:
                    async with trio.open_nursery() as conversing:
                        conversing.start_soon(self._read, ws)
                        conversing.start_soon(self._keep_alive, ws)
                self._outbox.close()
                nursery.cancel_scope.deadline = trio.current_time() + CLOSE_S
            if not self._cut:
                with trio.move_on_after(CLOSE_S):
                    await ws.aclose(1000 if self._error is None else self._error.close_code, str(self._error or ""))
        except* ConnectionClosed:
            self._closed()
        except* trio.TooSlowError:
            pass  # the handshake could not be answered
        finally:
            if not self._ended:
                self._owner.broken()

    async def _read(self, ws: WebSocketConnection) -> None:
        """Waits for nothing but the next frame, so that pongs are never stuck behind it."""
        while True:
            frame = await ws.get_message()
            if not self._ended:
                self._owner.receive(frame)

    async def _write(self, ws: WebSocketConnection) -> None:
        """Outlives the others to bring what they queued last. A send that is cancelled leaves half a frame."""
        try:
            async for text in self._texts:
                self._cut = True
                with trio.fail_after(self._config.send_s):
                    await ws.send_message(text)
                self._cut = False
        except trio.TooSlowError:
            self._tell_end(errors.SlowConsumer())

    async def _keep_alive(self, ws: WebSocketConnection) -> None:
        while True:
            await trio.sleep(self._config.ping_s)
            with trio.move_on_after(self._config.pong_s) as scope:
                await ws.ping()
            if scope.cancelled_caught:
                self._owner.broken()
            if len(ws._message_parts) > MAX_PARTS:  # private, as in `admit`
                self._tell_end(errors.MessageTooLarge("The message came in too many parts."))

    def _closed(self) -> None:
        """The connection is closed: by the client's close frame, by trio-websocket's for too long a frame, by none."""
        reason = self._ws.closed if self._ws is not None else None
        if reason is None or reason.code == ABNORMAL:
            return  # broken
        too_large = reason.code == errors.MessageTooLarge.close_code
        self._tell_end(errors.MessageTooLarge() if too_large else None)

    def _tell_end(self, error: SfuError | None) -> None:
        if not self._ended:
            self._owner.end(error)
