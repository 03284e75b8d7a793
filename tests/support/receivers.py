"""A receiver of webhooks: a small HTTP server that answers as told and remembers what it got."""

from __future__ import annotations

import base64
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import trio

Answer = Callable[["Message"], "Reply | int"]


@dataclass(frozen=True)
class Message:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    def signed_by(self, secret: str) -> bool:
        """Whether one of its signatures is right; as a receiver would look, without our code."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        text = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        right = base64.b64encode(hmac.digest(key, text, "sha256")).decode()
        return f"v1,{right}" in self.headers["webhook-signature"].split(" ")


@dataclass(frozen=True)
class Reply:
    """`body` None: the head is sent, and the body never ends. `status` 0: nothing is answered."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = b""


@dataclass
class Receiver:
    port: int
    got: list[Message] = field(default_factory=list)
    answer: Answer = lambda message: 204
    most_at_once: int = 0
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def facts(self) -> list[tuple[str, str]]:
        return [(message.said["type"], message.said["data"].get("user_name", "")) for message in self.got]


@asynccontextmanager
async def receiving(answer: Answer = lambda message: 204, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a port of this machine."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    receiver = Receiver(listener.socket.getsockname()[1], answer=answer)
    busy = 0

    async def serve(plain: trio.SocketStream) -> None:
        nonlocal busy
        receiver.connections += 1
        stream: trio.abc.Stream = plain if tls is None else trio.SSLStream(plain, tls, server_side=True)
        connection = h11.Connection(h11.SERVER)
        try:
            while (message := await _read(stream, connection)) is not None:
                busy += 1
                receiver.most_at_once = max(receiver.most_at_once, busy)
                try:
                    reply = receiver.answer(message)
                    receiver.got.append(message)
                    await _write(stream, connection, Reply(reply) if isinstance(reply, int) else reply)
                finally:
                    busy -= 1
                connection.start_next_cycle()
        except (h11.ProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield receiver
        nursery.cancel_scope.cancel()


async def _read(stream: trio.abc.Stream, connection: h11.Connection) -> Message | None:
    head, body = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            headers = {name.decode().lower(): value.decode() for name, value in head.headers}
            return Message(head.target.decode(), headers, body)
        else:
            return None


async def _write(stream: trio.abc.Stream, connection: h11.Connection, reply: Reply) -> None:
    if reply.status == 0:
        await trio.sleep_forever()
    length = [] if reply.body is None else [("Content-Length", str(len(reply.body)))]
    head = h11.Response(status_code=reply.status, headers=[*reply.headers, *length])
    await stream.send_all(connection.send(head) or b"")
    while reply.body is None:
        await stream.send_all(connection.send(h11.Data(data=b"x")) or b"")
        await trio.sleep(0.05)
    if reply.body:
        await stream.send_all(connection.send(h11.Data(data=reply.body)) or b"")
    await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
