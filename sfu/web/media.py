"""The beginning of a media connection (RFC 6544): a frame with a connectivity check, among HTTP and TLS on one port.

A frame begins with its length (RFC 4571). No frame is longer than MOST, so its first byte is below that of any HTTP
request or TLS handshake. Only the first frame is read here; the worker that the check names takes the socket.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from sfu.connections import MediaConnection
from sfu.stun import named

MOST = 1500
"""Longest frame: a datagram of the same content would have to fit an Ethernet frame."""
_LENGTH_BYTES = 2

Adopt = Callable[[str, int, MediaConnection], bool]
"""Passes a connection, by its file descriptor, to the worker that has this ufrag, with what is known of it. False if
there is no such worker, or if it cannot take more of them now."""


def begins(first: bytes) -> bool:
    """Whether a client that sends this byte first, or none, begins with a frame."""
    return first != b"" and first[0] <= MOST >> 8


async def read_check(sock: trio.socket.SocketType) -> tuple[str, bytes] | None:
    """The connectivity check in the first frame, and the ufrag that it names; None if the client sends anything else.

    Reads nothing beyond this frame.
    """
    length = int.from_bytes(await _exactly(sock, _LENGTH_BYTES))
    if length > MOST:
        return None
    message = await _exactly(sock, length)
    ufrag = named(message)
    return None if ufrag is None else (ufrag, message)


async def _exactly(sock: trio.socket.SocketType, n: int) -> bytes:
    """Reads `n` bytes; fewer if the client ends the connection before."""
    data = b""
    while len(data) < n and (more := await sock.recv(n - len(data))):
        data += more
    return data
