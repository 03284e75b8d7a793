"""A call of real clients with a server process: a WebSocket, ICE, DTLS and sound for each, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from aiortc.mediastreams import AudioStreamTrack
from wsproto import ConnectionType, WSConnection
from wsproto.events import Ping, Request, TextMessage

from sfu import bridge
from support.media_client import Control, FullClient, loopback_candidates
from support.waiting import eventually

START_S = 40.0


class WireControl(Control):
    """The server's end of the signalling, as of pion's sfu-ws. `ended` is set once the server closes it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.ended = name, False
        self._ws, self._text = WSConnection(ConnectionType.CLIENT), ""

    async def open(self, url: str, context: ssl.SSLContext | None, host: str) -> None:
        parts = urlsplit(url)
        secure = {"ssl": context, "server_hostname": host} if parts.scheme == "https" else {}
        self._reader, self._writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 24, **secure)
        self._writer.write(self._ws.send(Request(host=host, target=f"/ws?room=team&username={self.name}")))
        self._reading = asyncio.ensure_future(self._read())

    async def send(self, command: bridge.Command) -> None:
        if isinstance(command, bridge.Answer):
            data = json.dumps({"type": "answer", "sdp": command.sdp})
            self._writer.write(self._ws.send(TextMessage(json.dumps({"event": "answer", "data": data}))))

    async def _read(self) -> None:
        while data := await self._reader.read(1 << 16):
            self._ws.receive_data(data)
            for event in self._ws.events():
                if isinstance(event, Ping):
                    self._writer.write(self._ws.send(event.response()))
                elif isinstance(event, TextMessage):
                    self._text += event.data
                    if event.message_finished:
                        message, self._text = json.loads(self._text), ""
                        if message["event"] == "offer":
                            sdp = json.loads(message["data"])["sdp"]
                            self.deliver(bridge.Offer(self.name, sdp, {}, {}))
        self.ended = True

    async def aclose(self) -> None:
        self._reading.cancel()
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), 5)


class Call:
    """In the room `team`: each of the names hears all others."""

    def __init__(self, url: str, context: ssl.SSLContext | None, host: str, names: tuple[str, ...]) -> None:
        self._where, self._names = (url, context, host), names
        self._controls: list[WireControl] = []
        self._clients: list[FullClient] = []
        self._begun, self._over = threading.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run)

    def goes_on(self) -> None:
        """Waits until each has heard more of each other; nobody's connection has ended."""
        before = self._heard()
        eventually(lambda: all(self._heard().get(key, 0) > before[key] + 20 for key in before), "sound goes on")
        assert not any(control.ended for control in self._controls)

    def _heard(self) -> dict[tuple[str, str], int]:
        """Decoded frames by listener and track."""
        return {(client.id, track): len(frames) for client in self._clients for track, frames in client.frames.items()}

    def _run(self) -> None:
        with loopback_candidates():
            asyncio.run(self._hold())

    async def _hold(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        try:
            for name in self._names:
                self._controls.append(control := WireControl(name))
                await control.open(*self._where)
                client = FullClient(control, name, [AudioStreamTrack()])
                self._clients.append(client)
                await client.start()
            self._begun.set()
            await self._over.wait()
        finally:
            for part in (*self._clients, *self._controls):
                await part.aclose()

    def __enter__(self) -> Call:
        self._thread.start()
        others = len(self._names) * (len(self._names) - 1)
        eventually(lambda: self._begun.is_set() or not self._thread.is_alive(), "all have joined", START_S)
        eventually(lambda: len(self._heard()) >= others, "each hears each", START_S)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()


@contextmanager
def calling(url: str, *names: str, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Call]:
    """A call that goes on until the block ends. `host` is the name that the certificate of https must have."""
    with Call(url, context, host, names) as call:
        yield call
