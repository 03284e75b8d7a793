"""The check of NAT: the address that a STUN server (RFC 8489) sees this machine's UDP come from."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import trio

from sfu.doctor.finding import Context, Finding, note, ok, skipped
from sfu.doctor.network import advertised

SETTING = "SFU_STUN"
PORT = 3478
TRIES, TRY_S = 4, 0.7
_REQUEST, _RESPONSE, _COOKIE = b"\x00\x01\x00\x00", b"\x01\x01", b"\x21\x12\xa4\x42"
_HEAD, _XOR_MAPPED = 20, 0x0020


async def nat(context: Context) -> Finding:
    server = context.env.get(SETTING, "").strip()
    if not server:
        return skipped(f"{SETTING} names no STUN server, so nobody was asked which address the outside sees.")
    host, port = _place(server)
    try:
        seen = await mapped(host, port)
    except OSError as error:
        return note(f"The STUN server {server} cannot be asked ({error.strerror or error}).", f"Correct {SETTING}.")
    if seen is None:
        return note(f"The STUN server {server} does not answer.", f"Let UDP out, or name another one in {SETTING}.")
    hosts = advertised(context)
    if seen in hosts:
        return ok(f"the outside sees {seen}, which is advertised")
    if context.config.public_ip:
        return note(
            f"The outside sees {seen}, but SFU_PUBLIC_IP says {', '.join(context.config.public_ip)}.",
            f"If the latter does not lead here: SFU_PUBLIC_IP={seen}.",
        )
    return note(f"The outside sees {seen}, which is not advertised.", f"Set SFU_PUBLIC_IP={seen}.")


def _place(text: str) -> tuple[str, int]:
    """Host and port of `stun.example.org:3478`, `[2001:db8::1]` and the like."""
    host, colon, port = text.removeprefix("stun:").rpartition(":")
    if not colon or text.endswith("]") or not port.isdigit():
        host, port = text.removeprefix("stun:"), str(PORT)
    return host.strip("[]"), int(port)


async def mapped(host: str, port: int) -> str | None:
    """The address that the server sees; None if it does not answer. Raises OSError without a way to it."""
    (family, _, _, _, address), *_ = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    transaction = _COOKIE + os.urandom(12)
    with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
        await sock.connect(address)
        for _ in range(TRIES):
            await sock.send(_REQUEST + transaction)
            with trio.move_on_after(TRY_S):
                while (found := read_mapped(await sock.recv(2048), transaction)) is None:
                    pass
                return found
    return None


def read_mapped(data: bytes, transaction: bytes) -> str | None:
    """XOR-MAPPED-ADDRESS of the response to a request (RFC 8489 section 14.2); None for anything else."""
    if data[:2] != _RESPONSE or data[4:_HEAD] != transaction:
        return None
    at = _HEAD
    while at + 4 <= len(data):
        kind, length = int.from_bytes(data[at : at + 2]), int.from_bytes(data[at + 2 : at + 4])
        value = data[at + 4 : at + 4 + length]
        if kind == _XOR_MAPPED and len(value) in (8, 20):
            mask = transaction[: len(value) - 4]
            address = bytes(a ^ b for a, b in zip(value[4:], mask, strict=True))
            found: IPv4Address | IPv6Address = ip_address(address)
            return str(found)
        at += 4 + (length + 3 & ~3)
    return None
