"""A call of a running server to itself: `python -m sfu.media.probe.call`, with a request as JSON on standard input.

For each path it opens the server's signalling with the secret of an invitation (calls/probes.py), publishes sound over
the path, receives it again as another peer over the same path, and prints an Outcome as a line of JSON.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import msgspec
from aiortc import RTCCertificate
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, RejectConnection, Request, TextMessage
from wsproto.utilities import LocalProtocolError

from sfu.media.probe import pipes
from sfu.media.probe.peer import Peer, answer, fingerprint

FRAME_S = 0.02
"""Time from one packet of sound to the next."""
TYPE, SSRC = 111, 0x0D0C0701
"""Payload type of Opus in the server's offers, and the SSRC that the test publishes."""
MARK_BYTES = 16

Stage = Literal["signalling", "ice", "dtls", "media", "ok"]


class Relay(msgspec.Struct, frozen=True):
    host: str
    port: int
    transport: Literal["udp", "tcp"]
    secure: bool


class Path(msgspec.Struct, frozen=True):
    """What to test: a leg and the advertised address that media goes to, through `relay` if there is one."""

    leg: Literal["udp", "tcp", "relay"]
    host: str
    port: int
    relay: Relay | None = None


class Asked(msgspec.Struct, frozen=True):
    """`url` is that of the signalling, ws or wss; `connect` the address of this machine that it is reached at."""

    url: str
    connect: tuple[str, int]
    secret: str
    paths: tuple[Path, ...]
    timeout_s: float = 8.0


class Outcome(msgspec.Struct, frozen=True):
    """How far a path came; `ms` until sound came back, `packets` how many did. `reason` is empty for `ok`."""

    path: Path
    stage: Stage
    ms: int = 0
    packets: int = 0
    reason: str = ""


class Refused(Exception):
    """The server refused the test; the text says why."""


class Signalling:
    """A WebSocket to the server, with the messages of calls/probes.py."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._text = ""
        self._messages: asyncio.Queue[tuple[str, dict[str, object]] | None] = asyncio.Queue()

    def hello(self, host: str, target: str, secret: str) -> None:
        self._write(self._ws.send(Request(host=host, target=target, subprotocols=["sfu.v1", f"probe.{secret}"])))

    def send(self, event: str, **data: object) -> None:
        self._write(self._ws.send(TextMessage(msgspec.json.encode({"event": event, "data": data}).decode())))

    def _write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)

    async def next(self, *events: str) -> dict[str, object]:
        """The data of the next of these events. Raises Refused if the server says goodbye before."""
        while True:
            message = await self._messages.get()
            if message is None:
                raise Refused("the server closed the connection")
            if message[0] == "bye":
                raise Refused(str(message[1].get("message")))
            if message[0] in events:
                return message[1]

    async def run(self) -> None:
        try:
            while data := await self._reader.read(1 << 16):
                self._ws.receive_data(data)
                for event in self._ws.events():
                    self._on_event(event)
        except (OSError, LocalProtocolError):
            pass
        finally:
            self._messages.put_nowait(None)

    def _on_event(self, event: object) -> None:
        match event:
            case Ping():
                self._write(self._ws.send(event.response()))
            case TextMessage():
                self._text += event.data
                if event.message_finished:
                    frame, self._text = msgspec.json.decode(self._text), ""
                    self._messages.put_nowait((frame["event"], frame["data"]))
            case RejectConnection() | CloseConnection():
                self._messages.put_nowait(None)
            case AcceptConnection():
                pass


@asynccontextmanager
async def signalling(asked: Asked) -> AsyncIterator[Signalling]:
    """The server's own certificate is not verified here: another check of the doctor does."""
    secure, rest = asked.url.startswith("wss://"), asked.url.partition("://")[2]
    host, _, target = rest.partition("/")
    context = ssl._create_unverified_context() if secure else None
    name = host.rpartition(":")[0].strip("[]") if secure else None
    reader, writer = await asyncio.open_connection(*asked.connect, ssl=context, server_hostname=name)
    opened = Signalling(reader, writer)
    opened.hello(host, f"/{target}", asked.secret)
    running = asyncio.ensure_future(opened.run())
    try:
        yield opened
    finally:
        running.cancel()
        writer.close()


class Probe:
    """A test of one path. `stage` is what it works on."""

    def __init__(self, path: Path, certificate: RTCCertificate) -> None:
        self.path, self.stage = path, "signalling"
        self._certificate = certificate
        self._mark = os.urandom(MARK_BYTES)
        self._back = asyncio.Event()
        self.packets = 0
        self._peers: list[Peer] = []
        self._sending: asyncio.Task[None] | None = None

    async def run(self, asked: Asked) -> None:
        """Returns when sound came back. Raises PipeError, Refused or OSError; cancelled by a timeout."""
        async with signalling(asked) as link:
            server = await link.next("probe")
            publisher = await self._connect(link, server, publish=True)
            self._sending = asyncio.ensure_future(self._talk(publisher))
            await self._connect(link, server, publish=False)
            self.stage = "media"
            await self._back.wait()
            self.stage = "ok"

    async def _connect(self, link: Signalling, server: dict[str, object], *, publish: bool) -> Peer:
        leg = self.path.leg
        link.send("join", leg=leg, publish=publish)
        sdp = str((await link.next("offer"))["sdp"])
        peer = Peer(sdp, self._certificate, None if publish else self._heard)
        self._peers.append(peer)
        sources = {"audio": SSRC} if publish else {}
        link.send("answer", leg=leg, publish=publish, sdp=answer(sdp, fingerprint(self._certificate), sources))
        self.stage = "ice"
        peer.pipe = await self._open(server, peer.received)
        await peer.check()
        self.stage = "dtls"
        await peer.handshake()
        if peer.dtls.state != "connected":
            raise Refused("the DTLS handshake failed")
        self.stage = "media"
        return peer

    async def _open(self, server: dict[str, object], received: Callable[[bytes], None]) -> pipes.Pipe:
        path, to = self.path, (self.path.host, self.path.port)
        if path.relay is not None:
            (login,) = msgspec.convert(server["iceServers"], list[dict[str, object]])[:1] or [{}]
            words = str(login.get("username", "")), str(login.get("credential", ""))
            one = path.relay
            return await pipes.open_relay(
                pipes.Relay(one.host, one.port, one.transport, one.secure, *words), to, received
            )
        return await (pipes.open_tcp if path.leg == "tcp" else pipes.open_udp)(to, received)

    async def _talk(self, publisher: Peer) -> None:
        number = 0
        while True:
            head = bytes([0x80, TYPE]) + number.to_bytes(2) + (960 * number).to_bytes(4) + SSRC.to_bytes(4)
            await publisher.dtls._send_rtp(head + self._mark)
            number = (number + 1) & 0xFFFF
            await asyncio.sleep(FRAME_S)

    def _heard(self, packet: bytes) -> None:
        if packet.endswith(self._mark):
            self.packets += 1
            self._back.set()

    async def close(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
        for peer in self._peers:
            await peer.close()


async def probe(asked: Asked, path: Path, certificate: RTCCertificate) -> Outcome:
    """The outcome of one path; never raises."""
    one, began_s, reason = Probe(path, certificate), time.monotonic(), ""
    try:
        async with asyncio.timeout(asked.timeout_s):
            await one.run(asked)
    except TimeoutError:
        reason = f"nothing came back within {asked.timeout_s:g} s"
    except (pipes.PipeError, Refused) as error:
        reason = str(error)
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:  # noqa: BLE001 - one path's fault is a line of its own
        reason = f"{type(error).__name__}: {error}"
    finally:
        await one.close()
    return Outcome(path, one.stage, round((time.monotonic() - began_s) * 1e3), one.packets, reason)  # type: ignore[arg-type]


async def run(asked: Asked) -> None:
    """Tests one path after the other, and prints each outcome at once."""
    certificate = RTCCertificate.generateCertificate()
    for path in asked.paths:
        print(msgspec.json.encode(await probe(asked, path, certificate)).decode(), flush=True)


if __name__ == "__main__":
    logging.disable()
    asyncio.run(run(msgspec.json.decode(sys.stdin.buffer.read(), type=Asked)))
