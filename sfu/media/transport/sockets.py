"""Sockets that reach peers, and batched reads of UDP. gate.py decides whose a datagram is."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

from sfu.media.transport import libc
from sfu.media.transport.rows import READ_BATCH, ROW_BYTES, Lengths, Rows

MAX_DATAGRAM = 1500
NAME_WORDS = libc.NAME_BYTES // 8
SOCKET_BUFFER = 4 << 20
"""A keyframe to 30 subscribers is 1 MB; without privileges Linux grants what net.core.rmem_max and wmem_max allow."""
PORTABLE = "SFU_PORTABLE_UDP"
"""If set in the environment, the system calls that only Linux has are not used."""

Address = tuple[Any, ...]
"""In the socket module's form: (host, port) for IPv4, (host, port, flow, scope) for IPv6."""

T = TypeVar("T")


class Wire:
    """The server's end of paths to peers. `address` is local. `portable`: recvmmsg and sendmmsg are not used. `own`:
    only one address sends here; then `refused` counts the packets that its path was too slow for."""

    own = False
    refused = 0

    def __init__(self, sock: socket.socket, address: str, counters: dict[str, int], *, portable: bool) -> None:
        self.socket, self.fd = sock, sock.fileno()
        self.address, self.portable = address, portable
        self._counters = counters

    def put(self, data: bytes | memoryview, address: Address) -> None:
        """Sends one datagram. Raises BlockingIOError if there is no room for it now, OSError if there is no way."""
        self.socket.sendto(data, address)

    def send(self, data: bytes | memoryview, address: Address) -> None:
        """Sends one datagram, or none: a full buffer or a vanished route is counted, never waited for."""
        try:
            self.put(data, address)
        except BlockingIOError:
            self._counters["send_buffer_full"] += 1
        except OSError:
            self._counters["send_failed"] += 1

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.socket)
        self.socket.close()


class Endpoint(Wire):
    """One bound UDP socket. `portable`: recvmmsg and sendmmsg are not used. `joins`: other sockets may have the port
    already, if they share it. `peer`: the socket is connected to this address, so it receives from nowhere else, except
    what came before it was connected; it can send anywhere."""

    def __init__(
        self,
        address: str,
        port: int,
        counters: dict[str, int],
        *,
        portable: bool | None = None,
        joins: bool = False,
        peer: Address | None = None,
    ) -> None:
        """Raises OSError if the address and port are not available."""
        if portable is None:
            portable = libc.lib is None or PORTABLE in os.environ
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__(socket.socket(family, socket.SOCK_DGRAM), address, counters, portable=portable)
        try:
            if family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            _enlarge(self.socket, socket.SO_RCVBUF, libc.SO_RCVBUFFORCE)
            _enlarge(self.socket, socket.SO_SNDBUF, libc.SO_SNDBUFFORCE)
            self.socket.setblocking(False)
            if joins:
                self.share()
            self.socket.bind((address, port))
            if peer is not None:
                self.socket.connect(peer)
        except OSError:
            self.socket.close()
            raise

    def share(self) -> None:
        """From now on other sockets that join may have the same address and port. They must belong to the same user."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _enlarge(sock: socket.socket, option: int, forced: int) -> None:
    if libc.lib is not None:
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, SOCKET_BUFFER)
            return
        except PermissionError:
            pass  # only root may exceed the system's limit
    sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)


class CandidatePair(NamedTuple):
    """A path to a peer: the local socket that it reached, and its own address in the socket module's form."""

    endpoint: Wire
    address: Address


class Receiver:
    """Reads up to READ_BATCH datagrams into `rows` with one system call; one for all sockets of an address family.
    Datagrams longer than MAX_DATAGRAM are cut to one byte more."""

    def __init__(self, family: int) -> None:
        ffi, n = libc.ffi, READ_BATCH
        self._recvmmsg, self._no_timeout = libc.lib.recvmmsg, ffi.NULL
        self._names = ffi.new("char[]", n * libc.NAME_BYTES)
        self._iov = ffi.new("struct iovec[]", n)
        self._messages = ffi.new("struct mmsghdr[]", n)
        at, step = ffi.offsetof("struct mmsghdr", "msg_len"), ffi.sizeof("struct mmsghdr")
        column = memoryview(ffi.buffer(self._messages)).cast("B").cast("i")[at // 4 :: step // 4]
        self.rows = Rows(n, Lengths(libc.address_of(self._messages) + at, step, column))
        for i in range(n):
            self._iov[i].iov_base = ffi.cast("void *", self.rows.address + i * ROW_BYTES)
            self._iov[i].iov_len = MAX_DATAGRAM + 1
            header = self._messages[i].msg_hdr
            header.msg_name, header.msg_namelen = self._names + i * libc.NAME_BYTES, libc.NAME_BYTES
            header.msg_iov, header.msg_iovlen = self._iov + i, 1
        self._view = memoryview(ffi.buffer(self._names)).cast("B")
        self._words = self._view.cast("Q")
        # the first word is family, port and IPv4 address; IPv6 has the flow (0 on arrival) in place of the address,
        # which is the next two words
        self._columns = [self._words[w::NAME_WORDS] for w in range(1 if family == socket.AF_INET else 3)]

    def receive(self, endpoint: Endpoint) -> int:
        """Returns how many datagrams were read; not positive if there are none, or if the kernel reports an error of an
        earlier send."""
        return self._recvmmsg(endpoint.fd, self._messages, READ_BATCH, libc.MSG_DONTWAIT, self._no_timeout)  # type: ignore[no-any-return]

    def senders(self, n: int, known: Mapping[Hashable, T]) -> list[T | None]:
        """The senders of the first n datagrams, by their `key` in `known`; None for unknown ones."""
        words = self._words
        # all names are the same if shifting them by one changes nothing
        if n == 1 or words[NAME_WORDS : n * NAME_WORDS] == words[: (n - 1) * NAME_WORDS]:
            return [known.get(self.key(0))] * n
        if len(self._columns) == 1:
            return [*map(known.get, self._columns[0][:n].tolist())]
        return [*map(known.get, zip(*(column[:n].tolist() for column in self._columns), strict=True))]

    def key(self, i: int) -> Hashable:
        """Identifies the sender of datagram i."""
        at = i * NAME_WORDS
        return self._words[at] if len(self._columns) == 1 else tuple(self._words[at : at + 3])

    def key_of(self, address: Address) -> Hashable:
        """The key of a sender at this address."""
        words = memoryview(libc.sockaddr(address).ljust(libc.NAME_BYTES, b"\0")).cast("Q")
        return words[0] if len(self._columns) == 1 else tuple(words[:3])

    def address(self, i: int) -> Address:
        return libc.address(self._view[i * libc.NAME_BYTES : (i + 1) * libc.NAME_BYTES].tobytes())


class PortableReceiver:
    """A Receiver made of what every system has."""

    def __init__(self) -> None:
        self.rows = Rows(READ_BATCH)
        self._addresses: list[Address] = []

    def receive(self, endpoint: Endpoint) -> int:
        rows, receive = self.rows, endpoint.socket.recvfrom_into
        self._addresses.clear()
        try:
            for i in range(READ_BATCH):
                at = i * ROW_BYTES
                rows.lengths[i], address = receive(rows.view[at : at + MAX_DATAGRAM + 1])
                self._addresses.append(address)
        except OSError:
            pass  # nothing more, or an error of an earlier send
        return len(self._addresses)

    def senders(self, n: int, known: Mapping[Hashable, T]) -> list[T | None]:
        return [*map(known.get, self._addresses[:n])]

    def key(self, i: int) -> Hashable:
        return self._addresses[i]

    def key_of(self, address: Address) -> Hashable:
        return address

    def address(self, i: int) -> Address:
        return self._addresses[i]
