"""Datagrams that one worker receives for another, where several workers share a UDP port.

Who is nobody's yet reaches worker 0 only: the kernel prefers sockets that are connected to the sender, and all but
worker 0's are connected. Worker 0 hands connectivity checks, and answers to such, on to the worker whose mark their
ufrag or transaction begins with; the others hand to worker 0 what is not theirs. The way is a pair of Unix datagram
sockets for each of the others; the control plane keeps them, so whoever is started again has the same. A pair that is
full drops: STUN is sent again.
"""

from __future__ import annotations

import socket
import string
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

from sfu.media.transport import libc
from sfu.media.transport.rows import READ_BATCH
from sfu.media.transport.sockets import MAX_DATAGRAM, Address, CandidatePair

MARK_CHARS = 2
_CHARS = string.ascii_letters + string.digits
_HEAD_BYTES = 1 + libc.NAME_BYTES


class Handed(NamedTuple):
    """`local`: the address it came to. `contested`: another worker's peer was heard at `address` lately. Without `data`
    it says that the address is a peer's of another worker from now on."""

    local: str
    address: Address
    contested: bool
    data: bytes


class Handover:
    """One end of a pair. Owns its socket."""

    def __init__(self, sock: socket.socket, counters: dict[str, int]) -> None:
        self.socket = sock
        self._counters = counters

    def send(self, path: CandidatePair, data: bytes = b"", *, contested: bool = False) -> None:
        """Hands over what came by this path, or says that it is taken."""
        head = bytes([contested]) + libc.sockaddr(path.address).ljust(libc.NAME_BYTES, b"\0")
        try:
            self.socket.send(b"%b%b\0%b" % (head, path.endpoint.address.encode(), data), socket.MSG_DONTWAIT)
        except OSError:  # full, which is a flood, or its worker being started again
            self._counters["handovers_dropped"] += 1

    def receive(self) -> Iterator[Handed]:
        """What is there, but not so much that others wait."""
        for _ in range(READ_BATCH):
            try:
                message = self.socket.recv(_HEAD_BYTES + 64 + MAX_DATAGRAM, socket.MSG_DONTWAIT)
            except OSError:
                return
            if len(message) <= _HEAD_BYTES:
                return  # the other end is closed
            local, _, data = message[_HEAD_BYTES:].partition(b"\0")
            yield Handed(local.decode(), libc.address(message[1:_HEAD_BYTES]), message[0] != 0, data)


class Handovers:
    """The ways to the other workers: worker 0's to all of them in their order, or of another the one to it. None where
    a worker has its port for itself."""

    def __init__(self, index: int = 0, ways: Sequence[Handover] = ()) -> None:
        self.index, self.ways = index, ways
        self.mark = mark(index) if ways else ""
        self.home = ways[0] if index else None
        self._by_mark: dict[Hashable, Handover] = {mark(k): way for k, way in enumerate(ways, 1)} if not index else {}

    def to(self, name: str) -> Handover | None:
        """The way to the worker of this ufrag or transaction; None if that is this one or none."""
        named = name[:MARK_CHARS]
        if self.home is not None:
            return self.home if named != self.mark else None
        return self._by_mark.get(named)


def mark(index: int) -> str:
    """What the ufrags of a worker begin with, in ice-chars."""
    return _CHARS[index // len(_CHARS)] + _CHARS[index % len(_CHARS)]
