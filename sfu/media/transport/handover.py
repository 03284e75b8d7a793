"""Datagrams that one worker receives for another, where several workers share a UDP port.

A client that is nobody's peer yet reaches only worker 0: the kernel prefers sockets that are connected to the sender,
and all sockets are connected but worker 0's. Worker 0 passes connectivity checks, and answers to such, on to the worker
whose mark begins their ufrag or transaction ID. The other workers pass what is not theirs to worker 0. Each of them
shares a pair of Unix datagram sockets with worker 0. The control plane keeps the pairs, so a restarted worker gets the
same one. A pair that is full drops datagrams: STUN sends again.
"""

from __future__ import annotations

import socket
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

from sfu.media.transport import libc
from sfu.media.transport.rows import READ_BATCH
from sfu.media.transport.sockets import MAX_DATAGRAM, Address, CandidatePair
from sfu.stun import MARK_CHARS, mark

_HEAD_BYTES = 1 + libc.NAME_BYTES


class Handed(NamedTuple):
    """`local` is the address that it came to. `contested`: a peer of the other worker was heard at `address` recently.
    Without `data` it means that `address` belongs to a peer of another worker from now on or, if contested, that a peer
    of the other worker has left it."""

    local: str
    address: Address
    contested: bool
    data: bytes


class Handover:
    """One end of a socket pair to another worker. Owns its socket."""

    def __init__(self, sock: socket.socket, counters: dict[str, int]) -> None:
        self.socket = sock
        self._counters = counters

    def send(self, path: CandidatePair, data: bytes = b"", *, contested: bool = False) -> None:
        """Passes on a datagram that came by this path; without data, tells that the path's address is taken."""
        head = bytes([contested]) + libc.sockaddr(path.address).ljust(libc.NAME_BYTES, b"\0")
        try:
            self.socket.send(b"%b%b\0%b" % (head, path.endpoint.address.encode(), data), socket.MSG_DONTWAIT)
        except OSError:  # full because of a flood, or because the other worker is being restarted
            self._counters["handovers_dropped"] += 1

    def receive(self) -> Iterator[Handed]:
        """The pending messages, at most READ_BATCH, so that other sockets need not wait."""
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
    """The handovers to other workers, none where a worker has its port to itself. Worker 0 has one to each other
    worker, in their order; each of the others has one, to worker 0."""

    def __init__(self, index: int = 0, ways: Sequence[Handover] = ()) -> None:
        self.index, self.ways = index, ways
        self.mark = mark(index)
        self.home = ways[0] if index and ways else None
        self._by_mark: dict[Hashable, Handover] = {mark(k): way for k, way in enumerate(ways, 1)} if not index else {}

    def to(self, name: str) -> Handover | None:
        """The handover to the worker that this ufrag or transaction ID belongs to; None if that is this worker, or no
        worker."""
        named = name[:MARK_CHARS]
        if self.home is not None:
            return self.home if named != self.mark else None
        return self._by_mark.get(named)
