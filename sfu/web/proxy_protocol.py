"""The PROXY protocol: the first bytes by which a proxy in TCP mode names its client, in versions 1 and 2.

A header precedes everything else on a connection, TLS included (PROXY protocol, sections 2.1 and 2.2). Nothing but a
header begins like one, so its first bytes tell. Only what belongs to the header is read.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import NamedTuple

import trio

TEXT, BINARY = b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"
"""How a header of version 1 and of version 2 begins."""
FIRST = (TEXT[:1], BINARY[:1])
"""The first byte of a header. An HTTP request may begin with the first one as well."""
TEXT_BYTES = 107
"""Longest header of version 1."""
BINARY_BYTES = 4096
"""Longest header of version 2 that is accepted; a proxy may add certificates and names of its own."""

_FAMILIES = {0x11: struct.Struct("!4s4sHH"), 0x21: struct.Struct("!16s16sHH")}
"""TCP over IPv4 and over IPv6."""
_SSL, _SSL_USED = 0x20, 0x01
"""The type of the field about TLS, and the bit in it that says that the client uses TLS."""


class HeaderError(Exception):
    """A header that is malformed or too long, or that ends early."""


class Client(NamedTuple):
    """The client of a proxy. `secure`: it speaks TLS to the proxy."""

    address: str
    port: int
    secure: bool = False


async def begins(sock: trio.socket.SocketType) -> bytes:
    """TEXT or BINARY if the connection begins with it, else empty. Consumes nothing."""
    for start in (TEXT, BINARY):
        peeked = await _peek(sock, 1)
        while peeked != start and peeked and start.startswith(peeked):
            longer = await _peek(sock, len(peeked) + 1, len(start))
            if len(longer) == len(peeked):  # the client ended the connection
                break
            peeked = longer
        if peeked == start:
            return start
    return b""


async def read_client(sock: trio.socket.SocketType, start: bytes) -> Client | None:
    """The client in the header, which begins with `start`; None if the proxy names none, as in its health checks.

    Raises HeaderError.
    """
    return await (_read_text(sock) if start == TEXT else _read_binary(sock))


async def _read_text(sock: trio.socket.SocketType) -> Client | None:
    line = await _peek(sock, len(TEXT), TEXT_BYTES)
    while (end := line.find(b"\r\n")) < 0:
        longer = await _peek(sock, len(line) + 1, TEXT_BYTES)
        if len(longer) == len(line):
            raise HeaderError
        line = longer
    match (await _exactly(sock, end + 2)).decode("latin-1").split():
        case ["PROXY", "TCP4" | "TCP6", source, _, port, _] if port.isascii() and port.isdigit():
            return _client(source, int(port))
        case ["PROXY", "UNKNOWN", *_]:
            return None
    raise HeaderError


async def _read_binary(sock: trio.socket.SocketType) -> Client | None:
    version, family, length = struct.unpack("!BBH", (await _exactly(sock, len(BINARY) + 4))[len(BINARY) :])
    if version not in (0x20, 0x21) or length > BINARY_BYTES:
        raise HeaderError
    rest = await _exactly(sock, length)
    if version == 0x20 or family not in _FAMILIES:  # LOCAL, or no address that this server knows
        return None
    addresses = _FAMILIES[family]
    if length < addresses.size:
        raise HeaderError
    source, _, port, _ = addresses.unpack_from(rest)
    return _client(socket.inet_ntop(socket.AF_INET if len(source) == 4 else socket.AF_INET6, source), port)._replace(
        secure=_secure(rest[addresses.size :])
    )


def _client(address: str, port: int) -> Client:
    try:
        ip = ip_address(address)
    except ValueError:
        raise HeaderError from None
    if port > 65535 or getattr(ip, "scope_id", None):
        raise HeaderError
    return Client(str(getattr(ip, "ipv4_mapped", None) or ip), port)


def _secure(fields: bytes) -> bool:
    """Whether the optional fields of a header say that the client uses TLS (section 2.2.6)."""
    at = 0
    while at + 3 <= len(fields):
        kind, length = struct.unpack_from("!BH", fields, at)
        at += 3 + length
        if kind == _SSL and length and at <= len(fields):
            return bool(fields[at - length] & _SSL_USED)
    return False


async def _peek(sock: trio.socket.SocketType, least: int, most: int | None = None) -> bytes:
    """What has come, up to `most` bytes, once there are `least`; fewer if the client ended the connection before."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
    try:
        await trio.lowlevel.wait_readable(sock)
        return await sock.recv(most or least, socket.MSG_PEEK)
    finally:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


async def _exactly(sock: trio.socket.SocketType, n: int) -> bytes:
    data = b""
    while len(data) < n:
        more = await sock.recv(n - len(data))
        if not more:
            raise HeaderError
        data += more
    return data
