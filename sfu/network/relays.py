"""Which addresses media comes from if a TURN server relays it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

import trio

from sfu.network.turn import parse_url

RESOLVE_S = 3.0
"""Longest time to look the names of TURN servers up."""


async def relay_addresses(urls: Sequence[str]) -> set[str]:
    """The addresses of the TURN servers with these URLs. A name that cannot be resolved has none."""
    found: set[str] = set()

    async def resolve(host: str) -> None:
        with contextlib.suppress(socket.gaierror, UnicodeError):
            found.update(str(address[0]) for *_, address in await trio.socket.getaddrinfo(host.strip("[]"), None))

    with trio.move_on_after(RESOLVE_S):
        async with trio.open_nursery() as nursery:
            for host in {parse_url(url).host for url in urls}:
                nursery.start_soon(resolve, host)
    return found


def shown_path(transport: str | None, address: str | None, person: str, relays: set[str]) -> str:
    """How media gets from a person at the address `person` to the server: `udp`, `tcp`, `relay`, or empty for not."""
    return "relay" if address in relays and address != person else transport or ""
