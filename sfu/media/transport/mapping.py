"""Asks STUN servers from which address the media of this port comes (RFC 8489): a NAT in front of the machine has
another address than its interfaces, and may have another port.

The question leaves from the media port itself, since a NAT maps each port on its own.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from sfu.media.transport.sockets import Address, Endpoint
from sfu.stun import mapped_address, question

FIRST_S = 0.5
"""Time to the first repetition; it doubles with each one (RTO, RFC 8489 section 6.2.1)."""
TRIES = 7
"""How often a question is sent (Rc)."""
LAST_TRIES = 16
"""How many times FIRST_S the last one has for its answer (Rm)."""
MOST = 64
"""Questions at a time; the oldest are given up first."""

OnMapping = Callable[[str, int], None]
"""Gets the address and port that the server saw, or "" and 0 if it did not answer."""


class _Question:
    """One transaction, sent until it is answered."""

    def __init__(self, endpoint: Endpoint, server: Address, done: OnMapping) -> None:
        self.endpoint, self.server, self.done = endpoint, server, done
        self.id = secrets.token_bytes(12)
        self.sent = 0
        self.timer: asyncio.TimerHandle | None = None


class Questions:
    """The questions of one worker that are not answered yet, by transaction ID. `on_response` takes the answers."""

    def __init__(self) -> None:
        self._open: dict[bytes, _Question] = {}

    def ask(self, endpoint: Endpoint, server: Address, done: OnMapping) -> None:
        """`done` is called once, unless `close` comes first. `server` is of the endpoint's address family."""
        while len(self._open) >= MOST:
            self._end(next(iter(self._open.values())), "", 0)
        asked = _Question(endpoint, server, done)
        self._open[asked.id] = asked
        self._send(asked)

    def _send(self, asked: _Question) -> None:
        if asked.sent == TRIES:
            self._end(asked, "", 0)
            return
        asked.endpoint.send(question(asked.id), asked.server)
        asked.sent += 1
        wait_s = FIRST_S * (LAST_TRIES if asked.sent == TRIES else 2 ** (asked.sent - 1))
        asked.timer = asyncio.get_running_loop().call_later(wait_s, self._send, asked)

    def on_response(self, data: bytes, sender: Address) -> bool:
        """Takes the answer to a question, from the server that was asked; False if it is none."""
        asked = self._open.get(data[8:20])
        if asked is None or sender[:2] != asked.server[:2] or (mapped := mapped_address(data)) is None:
            return False
        self._end(asked, *mapped)
        return True

    def _end(self, asked: _Question, address: str, port: int) -> None:
        del self._open[asked.id]
        if asked.timer is not None:
            asked.timer.cancel()
        asked.done(address, port)

    def close(self) -> None:
        for asked in self._open.values():
            if asked.timer is not None:
                asked.timer.cancel()
        self._open.clear()
