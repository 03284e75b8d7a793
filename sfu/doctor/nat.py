"""The check of NAT: the address that a STUN server (RFC 8489) sees this machine's UDP come from."""

from __future__ import annotations

import os
import socket

import trio

from sfu.doctor.finding import Context, Finding, note, ok, skipped
from sfu.doctor.network import advertised
from sfu.stun import mapped_address, question

TRANSACTION_BYTES = 12
TRIES, TRY_S = 4, 0.7


async def nat(context: Context) -> Finding:
    if context.config.stun is None:
        return skipped("SFU_STUN names no STUN server, so nobody was asked which address the outside sees.")
    server = ":".join(map(str, context.config.stun))
    try:
        seen = await mapped(*context.config.stun)
    except OSError as error:
        return note(f"The STUN server {server} cannot be asked ({error.strerror or error}).", "Correct SFU_STUN.")
    if seen is None:
        return note(f"The STUN server {server} does not answer.", "Let UDP out, or name another one in SFU_STUN.")
    hosts = advertised(context)
    if seen in hosts:
        return ok(f"the outside sees {seen}, which is advertised")
    if context.config.public_ip:
        return note(
            f"The outside sees {seen}, but SFU_PUBLIC_IP says {', '.join(context.config.public_ip)}.",
            f"If the latter does not lead here: SFU_PUBLIC_IP={seen}.",
        )
    return note(f"The outside sees {seen}, which is not advertised.", f"Set SFU_PUBLIC_IP={seen}.")


async def mapped(host: str, port: int) -> str | None:
    """The address that the server sees; None if it does not answer. Raises OSError without a way to it."""
    (family, _, _, _, address), *_ = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    transaction = os.urandom(TRANSACTION_BYTES)
    with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
        await sock.connect(address)
        for _ in range(TRIES):
            await sock.send(question(transaction))
            with trio.move_on_after(TRY_S):
                return await _answer(sock, transaction)
    return None


async def _answer(sock: trio.socket.SocketType, transaction: bytes) -> str:
    while True:
        data = await sock.recv(2048)
        if data[8:20] == transaction and (found := mapped_address(data)) is not None:
            return found[0]
