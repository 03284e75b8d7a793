"""Media connections for tests: what the control plane does with them, and a client's end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from sfu.connections import MediaConnection
from support.media_client import Client, Ice


def frame(message: bytes) -> bytes:
    """RFC 4571."""
    return len(message).to_bytes(2) + message


class Door:
    """Accepts connections, and passes each on with its first frame, as the control plane does."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.file = theirs.detach()  # whoever takes it closes it
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._opening: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.ensure_future(self._accept())

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()
        return host, port

    async def _accept(self) -> None:
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            task = asyncio.ensure_future(self._pass_on(sock))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _pass_on(self, sock: socket.socket) -> None:
        with sock:
            length = int.from_bytes(await self._exactly(sock, 2))
            passed = MediaConnection(await self._exactly(sock, length), *sock.getpeername())
            socket.send_fds(self._ours, [passed.encode()], [sock.fileno()])

    async def _exactly(self, sock: socket.socket, n: int) -> bytes:
        data = b""
        while len(data) < n:
            more = await asyncio.get_running_loop().sock_recv(sock, n - len(data))
            assert more
            data += more
        return data

    def close(self) -> None:
        for task in (self._accepting, *self._opening):
            task.cancel()
        for sock in (self._ours, self._listener):
            sock.close()


@contextlib.asynccontextmanager
async def door() -> AsyncIterator[Door]:
    made = Door()
    try:
        yield made
    finally:
        made.close()


class TcpIce(Ice):
    """A client's ICE over one TCP connection."""

    def __init__(self, server: tuple[str, int], ufrag: str, pwd: str) -> None:
        super().__init__(server, ufrag, pwd)
        self.reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self.reads = asyncio.Event()
        self.reads.set()

    async def rebind(self) -> None:
        self.close()
        self.reader, self._writer = await asyncio.open_connection(*self.server)
        self._reading = asyncio.ensure_future(self._read(self.reader))

    @property
    def address(self) -> Any:
        assert self._writer is not None
        return self._writer.get_extra_info("sockname")

    def send(self, data: bytes) -> None:
        if self._writer is not None:
            self._writer.write(frame(data))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await self.reads.wait()
                self._received(await reader.readexactly(int.from_bytes(await reader.readexactly(2))), None)

    def close(self) -> None:
        if self._writer is not None:
            assert self._reading is not None
            self._reading.cancel()
            self._writer.close()
            self._writer = self._reading = None


class TcpClient(Client):
    """A Client whose network blocks UDP."""

    door: Door

    async def check(self, *, nominate: bool = True) -> Ice:
        self.ice = TcpIce(self.door.address, *self.server()[1:])
        await self.ice.rebind()
        await self.ice.check(nominate=nominate)
        return self.ice
