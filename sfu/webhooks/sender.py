"""One attempt to deliver a message: a POST whose response is bounded in time and size, and is not followed anywhere."""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass

import httpcore
import trio

from sfu import __version__
from sfu.webhooks.addresses import AddressRefused, CheckedBackend

ATTEMPT_S = 15.0
"""Longest attempt, from the name to the end of the response."""
BODY_BYTES = 16_384
"""How much of a response is read, so that its connection can be used again. Beyond, the connection is closed."""
READ_S = 2.0
"""How long that may take once the status is there."""
CONNECTIONS, IDLE, IDLE_S = 200, 32, 20.0
WORDS = 200
"""Most characters of an error in the log of deliveries."""


@dataclass(frozen=True, slots=True)
class Response:
    """`status` is None if there was no response, and `error` says why. `retry_after_s` is what the receiver wants."""

    status: int | None
    error: str | None
    took_ms: int
    retry_after_s: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Sender:
    """Makes attempts, over connections that are kept for a while. Use it as an async context manager."""

    def __init__(self, *, allow_private: bool) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=CONNECTIONS,
            max_keepalive_connections=IDLE,
            keepalive_expiry=IDLE_S,
            network_backend=CheckedBackend(allow_private=allow_private),
        )

    async def __aenter__(self) -> Sender:
        return self

    async def __aexit__(self, *_: object) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await self._pool.aclose()

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Response:
        """Sends a message. Never raises because of the receiver."""
        began, status, retry_after_s = trio.current_time(), None, 0.0
        error: str | None = "timeout"
        with trio.move_on_after(ATTEMPT_S):
            try:
                status, retry_after_s = await self._post(url, headers, body)
                error = None if 200 <= status < 300 else _told(status)
            except AddressRefused as refused:
                error = f"address_refused: {refused}"
            except httpcore.TimeoutException:
                pass
            except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError) as failed:
                error = _reason(failed)
        took_ms = round(1000 * (trio.current_time() - began))
        return Response(status, None if error is None else _printable(error), took_ms, retry_after_s)

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> tuple[int, float]:
        about = {"content-type": "application/json", "user-agent": f"sfu-rooms/{__version__}", **headers}
        async with self._pool.stream("POST", url, headers=list(about.items()), content=body) as response:
            wanted = {name.lower(): value for name, value in response.headers}.get(b"retry-after", b"")
            await _read(response)
        return response.status, float(wanted) if wanted.isdigit() and len(wanted) < 7 else 0.0


async def _read(response: httpcore.Response) -> None:
    """Reads a body to its end, or as much as is read of one. Its status is known, so nothing in it is an error."""
    read = 0
    with trio.move_on_after(READ_S) as scope, suppress(httpcore.NetworkError, httpcore.ProtocolError):
        async for part in response.aiter_stream():
            read += len(part)
            if read > BODY_BYTES:
                scope.cancel()  # to leave the loop would leave the library's generators to the garbage collector


def _reason(error: BaseException) -> str:
    """The innermost exception that says something: httpcore wraps those of trio, and trio those of the system."""
    found: BaseException | None = error
    said = type(error).__name__
    while found is not None:
        if str(found):
            said = f"{type(found).__name__}: {found}"
        inside = found.exceptions[0] if isinstance(found, BaseExceptionGroup) else None
        found = inside or found.__cause__ or found.__context__
    return said


def _told(status: int) -> str:
    return "redirect: it is not followed" if 300 <= status < 400 else f"status {status}"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:WORDS]
