"""Ways to a server's media port, each a pipe of datagrams: UDP, TCP (RFC 4571 frames) and a TURN relay (RFC 8656)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from aioice import stun, turn

Received = Callable[[bytes], None]
Address = tuple[str, int]


class PipeError(Exception):
    """There is no way; the text says why."""


class Pipe(Protocol):
    def send(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, received: Received) -> None:
        self._received = received

    def datagram_received(self, data: bytes, _addr: Any) -> None:
        self._received(data)

    def error_received(self, _error: Exception) -> None:
        """A rejected datagram (ICMP) is a lost one: the check that it carried is repeated."""


@dataclass
class _Datagram:
    """A socket or a relayed address. Neither takes anything any more once it is closed."""

    transport: Any
    to: Address | None = None
    is_open: bool = True

    def send(self, data: bytes) -> None:
        if self.is_open:
            self.transport.sendto(data, self.to)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.transport.close()


class _Stream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, received: Received) -> None:
        self._writer = writer
        self._reading = asyncio.ensure_future(self._read(reader, received))

    async def _read(self, reader: asyncio.StreamReader, received: Received) -> None:
        try:
            while True:
                received(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
        except (OSError, asyncio.IncompleteReadError):
            pass  # the server closed it; whoever waits runs into a timeout

    def send(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(len(data).to_bytes(2) + data)

    def close(self) -> None:
        self._reading.cancel()
        self._writer.close()


async def open_udp(address: Address, received: Received) -> Pipe:
    """Raises PipeError if this machine has no way to the address."""
    try:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(received), remote_addr=address)
    except OSError as error:
        raise PipeError(f"this machine has no way there ({error.strerror or error})") from None
    return _Datagram(transport)


async def open_tcp(address: Address, received: Received) -> Pipe:
    """Raises PipeError if nothing accepts the connection."""
    try:
        reader, writer = await asyncio.open_connection(*address)
    except OSError as error:
        raise PipeError(f"no connection ({error.strerror or error})") from None
    return _Stream(reader, writer, received)


@dataclass(frozen=True)
class Relay:
    """A TURN server and what it asks for. `secure`: TLS, with a certificate that this machine trusts."""

    host: str
    port: int
    transport: str
    secure: bool
    username: str
    password: str


async def open_relay(relay: Relay, to: Address, received: Received) -> Pipe:
    """A relayed address from which datagrams go to `to`. Raises PipeError with what the TURN server answered."""
    try:
        transport, _ = await turn.create_turn_endpoint(
            lambda: _Datagrams(received),
            server_addr=(relay.host, relay.port),
            username=relay.username,
            password=relay.password,
            ssl=ssl.create_default_context() if relay.secure else None,
            transport=relay.transport,
        )
    except stun.TransactionFailed as error:
        code, reason = error.response.attributes.get("ERROR-CODE", (0, ""))
        hint = ": its static-auth-secret is not SFU_TURN_SECRET, or a clock is wrong" if code == 401 else ""
        raise PipeError(f"the TURN server refuses the credentials ({code} {reason}){hint}") from None
    except stun.TransactionTimeout:
        raise PipeError("the TURN server does not answer") from None
    except (OSError, EOFError) as error:
        raise PipeError(f"no connection to the TURN server ({getattr(error, 'strerror', None) or error})") from None
    return _Datagram(transport, to)
