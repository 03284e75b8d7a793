"""One WebSocket of a session: paced reads, a bounded send queue, keepalive, a clean close.

It is independent of rooms and media. Frames go to its `Owner`, which may outlive it and continue with another link.
"""

from __future__ import annotations

from typing import Protocol

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest

from sfu import errors
from sfu.errors import SfuError
from sfu.protocol.shared import BATCH, SUBPROTOCOL
from sfu.settings.config import Config
from sfu.web.streams import PacedStream

OUTBOX = 256
"""Most messages queued for a client. With more, the client is a slow consumer and its session ends."""
MAX_PARTS = 4096
"""Most fragments of one unfinished message. trio-websocket limits only their total size, and they may be empty."""
CLOSE_S = 2.0
"""Time to write the last messages, and again for the client to answer the close frame."""
PROBE_S = 2.0
"""Time for a client to answer a ping that asks whether it is still there."""
GOING_AWAY = 1001
"""The close code of a page that is closed, reloaded or left (RFC 6455 section 7.4.1)."""
GIVEN_UP = 4408
"""The close code of a client that gives up its connection, not its session."""
ABNORMAL = 1006
"""The close code that trio-websocket reports if no close frame arrived (RFC 6455 section 7.1.5)."""


class Door:
    """The handshake of one WebSocket. It is answered once, by the lobby or by the link.

    `full`: it asked for sfu.v1. `batches`: it takes several arrivals in one message.
    """

    def __init__(self, request: WebSocketRequest) -> None:
        self.request = request
        self.full = SUBPROTOCOL in request.proposed_subprotocols
        self.batches = self.full and BATCH in request.proposed_subprotocols
        self.ws: WebSocketConnection | None = None

    async def accept(self) -> WebSocketConnection:
        if self.ws is None:
            self.ws = await self.request.accept(subprotocol=SUBPROTOCOL if self.full else None)
        return self.ws


async def keep_alive(ws: WebSocketConnection, config: Config) -> SfuError:
    """Sends pings until the client answers one too late, or until a message has too many fragments."""
    while True:
        await trio.sleep(config.ping_s)
        with trio.move_on_after(config.pong_s) as scope:
            await ws.ping()
        if scope.cancelled_caught:
            return errors.Unresponsive()
        if len(ws._message_parts) > MAX_PARTS:  # a private attribute, as in `Link.admit`
            return errors.MessageTooLarge("The message has too many fragments.")


class Owner(Protocol):
    """The owner of a link. None of these methods may wait or raise; none is called after `Link.end`."""

    def opened(self) -> None:
        """The handshake was answered."""

    def receive(self, frame: str | bytes) -> None:
        """A frame arrived."""

    def broken(self) -> None:
        """The link broke without a close frame: the network failed, or the client stopped responding."""

    def away(self) -> None:
        """The client's page was closed or reloaded."""

    def end(self, error: SfuError | None) -> None:
        """The client closed the link (None), or made an error that must end its session."""


class Link:
    """A link to a client over one WebSocket. Any task may call `send` and `end`, before and during `run`."""

    def __init__(self, config: Config, stream: PacedStream, owner: Owner) -> None:
        self._config, self._stream, self._owner = config, stream, owner
        self._scope = trio.CancelScope()
        self._ended = False
        self._error: SfuError | None = None  # for the close frame
        self._outbox, self._texts = trio.open_memory_channel[str](OUTBOX)
        self._cut = False  # a frame may be half written, so nothing can follow it
        self._ws: WebSocketConnection | None = None

    def send(self, text: str) -> None:
        """Queues one frame. If the queue is full, the owner is told to end (SlowConsumer)."""
        try:
            self._outbox.send_nowait(text)
        except trio.WouldBlock:
            self._tell_end(errors.SlowConsumer())
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            pass  # the link is already closing

    def end(self, error: SfuError | None) -> None:
        """Writes the queued frames, then closes the link with the code of `error`, or 1000. Idempotent."""
        if not self._ended:
            self._ended, self._error = True, error
            self._scope.cancel()

    def admit(self, n_bytes: int) -> None:
        """Raises the limit on messages to `n_bytes`, if it is lower, and exempts `n_bytes` from the read rate.

        The limit is a private attribute of trio-websocket, which reads it for every frame; a test verifies that.
        """
        if self._ws is not None:
            self._ws._max_message_size = max(self._config.message_bytes, n_bytes)
            self._stream.credit(n_bytes)

    async def responds(self) -> bool:
        """Whether the client is still there: it answers a ping within PROBE_S."""
        try:
            with trio.move_on_after(PROBE_S):
                if self._ws is not None and not self._ended:
                    await self._ws.ping()
                    return True
        except ConnectionClosed:
            pass
        return False

    async def run(self, door: Door) -> None:
        """Answers the handshake and runs until either side has closed the link."""
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
        """Never waits for anything but the next frame, so that no pong is stuck behind an unread one."""
        while True:
            frame = await ws.get_message()
            if not self._ended:
                self._owner.receive(frame)

    async def _write(self, ws: WebSocketConnection) -> None:
        """Outlives the other tasks to write what they queued last. A cancelled send may leave half a frame."""
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
            error = await keep_alive(ws, self._config)
            if isinstance(error, errors.Unresponsive):
                self._owner.broken()
            else:
                self._tell_end(error)

    def _closed(self) -> None:
        """Tells the owner why the connection closed.

        Either the client sent a close frame, or trio-websocket did after too long a message, or there was none.
        """
        reason = self._ws.closed if self._ws is not None else None
        if reason is None or reason.code in (ABNORMAL, GIVEN_UP):
            return  # the link broke; `run` tells the owner
        if reason.code == GOING_AWAY and not self._ended:
            self._owner.away()
            return
        too_large = reason.code == errors.MessageTooLarge.close_code
        self._tell_end(errors.MessageTooLarge() if too_large else None)

    def _tell_end(self, error: SfuError | None) -> None:
        if not self._ended:
            self._owner.end(error)
