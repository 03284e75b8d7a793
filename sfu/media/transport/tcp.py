"""Media over TCP (RFC 6544), for peers whose network blocks UDP: the same datagrams, in frames (RFC 4571).

The control plane accepts the connections, reads the first frame of each and passes both on. Unless that frame is an
authentic check, the connection is closed, so every connection here is a peer's.

TCP delays what it cannot send, and a call has no use for late packets. So what waits is limited in time and bytes: past
that, packets are refused as by a full kernel buffer, and video continues at a keyframe. Sound overtakes what waits. A
frame that was begun is completed.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from itertools import chain, islice
from typing import Generic, NamedTuple

from sfu.connections import MEDIA_CONNECTION_BYTES, MediaConnection
from sfu.media.rtp.codecs import PAYLOAD_KINDS, Kind
from sfu.media.transport.gate import Gate, OnMedia, Route, T
from sfu.media.transport.rows import READ_BATCH, ROW_BYTES, Rows
from sfu.media.transport.sockets import MAX_DATAGRAM, Address, CandidatePair, Wire

READ_BYTES = 1 << 16
"""Read before the event loop may turn to something else."""
UNSENT_BYTES = 1 << 13
"""What the kernel holds of a connection beyond what is on its way (TCP_NOTSENT_LOWAT). The rest waits here, where it is
known how long it waits."""
WRITTEN = 64
"""Frames written at a time."""
SPARE = 4
"""Connections of one peer beside the one in use; the oldest is closed for a new one."""
_LENGTH_BYTES = 2


class Limit(NamedTuple):
    """No packet is added to a queue once its first one has waited `wait_s`, or if the connection has `n_bytes` that
    wait."""

    wait_s: float
    n_bytes: int


VIDEO = Limit(0.4, 512 << 10)
"""A keyframe of 500 KB still fits."""
REST = Limit(1.0, 576 << 10)
"""Sound, RTCP, DTLS and checks, of which there is little: they continue while video waits for a keyframe."""

STUCK_S = 10.0
"""A connection is closed once its first packet has waited this long: each attempt to continue costs the publisher a
keyframe. A browser that is still there connects again."""

Queue = deque[tuple[float, bytes]]
"""Frames, and when each was to be sent."""


class Connection(Wire):
    """A TCP connection of the peer at this address. `on_close` is called once."""

    own = True

    def __init__(
        self,
        sock: socket.socket,
        peer: Address,
        counters: dict[str, int],
        on_close: Callable[[Connection], None],
    ) -> None:
        """Raises OSError if the connection has already ended."""
        self.peer = peer
        super().__init__(sock, sock.getsockname()[0], counters, portable=True)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self.begun = b""  # of the next frame
        self._on_close = on_close
        self._unfinished = b""  # the rest of a frame that was begun
        self._sound, self._others = Queue(), Queue()  # checks wait behind video, so their round trips show its queue
        self._waiting_bytes = 0

    @property
    def closed(self) -> bool:
        return self.socket.fileno() < 0

    def put(self, data: bytes | memoryview, address: Address) -> None:
        now_s, kind = time.monotonic(), _kind(data)
        queue, limit = self._sound if kind == "audio" else self._others, VIDEO if kind == "video" else REST
        waits_s = now_s - queue[0][0] if queue else 0.0
        if waits_s > STUCK_S:
            self.close()
            raise BrokenPipeError
        if self._waiting_bytes > limit.n_bytes or waits_s > limit.wait_s:
            self.refused += 1
            raise BlockingIOError
        frame = len(data).to_bytes(_LENGTH_BYTES) + data
        if not self._waiting_bytes:
            written = self._write([frame])
            if written == len(frame):
                return
            asyncio.get_running_loop().add_writer(self.socket, self._writable)
            if written:
                self._unfinished = frame[written:]
                self._waiting_bytes = len(self._unfinished)
                return
        queue.append((now_s, frame))
        self._waiting_bytes += len(frame)

    def _write(self, frames: list[bytes]) -> int:
        try:
            return self.socket.sendmsg(frames)
        except BlockingIOError:
            return 0

    def _writable(self) -> None:
        waiting = islice(chain(self._sound, self._others), WRITTEN)
        try:
            written = self._write([self._unfinished, *(frame for _, frame in waiting)])
        except OSError:
            self.close()
            return
        self._waiting_bytes -= written
        finished = min(written, len(self._unfinished))
        self._unfinished, written = self._unfinished[finished:], written - finished
        for queue in (self._sound, self._others):
            while written > 0 and queue:
                _, frame = queue.popleft()
                self._unfinished, written = frame[written:], written - len(frame)
        if not self._waiting_bytes:
            asyncio.get_running_loop().remove_writer(self.socket)

    def close(self) -> None:
        """Idempotent."""
        if not self.closed:
            asyncio.get_running_loop().remove_writer(self.socket)
            super().close()
            self._sound.clear()
            self._others.clear()
            self._unfinished, self._waiting_bytes = b"", 0
            self._on_close(self)


def _kind(data: bytes | memoryview) -> Kind | None:
    """What an RTP packet carries; None for anything else (RFC 7983, RFC 5761 section 4)."""
    if not 128 <= data[0] < 192 or 192 <= data[1] <= 223:
        return None
    return PAYLOAD_KINDS.get(data[1] & 0x7F, "video")  # else RTX, which only video has


class TooLongError(Exception):
    """A frame is too long for a datagram."""


class Frames:
    """Reads from one connection at a time; the datagrams are in `rows`."""

    def __init__(self) -> None:
        self.rows = Rows(READ_BATCH)
        self._view = memoryview(bytearray(READ_BYTES + _LENGTH_BYTES + MAX_DATAGRAM))
        self._address: Address = ()

    def read(self, connection: Connection) -> Iterator[int]:
        """Fills the rows with what has come, batch by batch; yields how many are in use. Raises EOFError at the end of
        the connection, TooLongError, or OSError."""
        view, rows, begun = self._view, self.rows, len(connection.begun)
        view[:begun] = connection.begun
        end = begun + connection.socket.recv_into(view[begun : begun + READ_BYTES])
        if end == begun:
            raise EOFError
        self._address = connection.peer
        at = count = 0
        while at + _LENGTH_BYTES <= end:
            length, start = int.from_bytes(view[at : at + _LENGTH_BYTES]), at + _LENGTH_BYTES
            if length > MAX_DATAGRAM:
                raise TooLongError
            if start + length > end:
                break
            at = start + length
            rows.view[count * ROW_BYTES : count * ROW_BYTES + length] = view[start:at]
            rows.lengths[count] = length
            count += length > 0  # RFC 4571 section 2 has empty frames, to be ignored
            if count == READ_BATCH:
                yield count
                count = 0
        connection.begun = bytes(view[at:end])
        if count:
            yield count

    def key(self, i: int) -> Hashable:
        return self._address

    def address(self, i: int) -> Address:
        return self._address


class TcpPort(Generic[T]):
    """A worker's TCP connections. `passed` is the Unix datagram socket by which they come; `close` closes it."""

    def __init__(self, gate: Gate[T], counters: dict[str, int], on_media: OnMedia[T], passed: socket.socket) -> None:
        self._gate, self._counters, self._on_media = gate, counters, on_media
        self._frames = Frames()
        self._connections: set[Connection] = set()
        self._passed = passed
        passed.setblocking(False)
        asyncio.get_running_loop().add_reader(passed, self._arrived)

    def _arrived(self) -> None:
        try:
            message, files, _, _ = socket.recv_fds(self._passed, MEDIA_CONNECTION_BYTES, 1)
        except OSError:
            return
        passed = MediaConnection.decode(message)
        for file in files:
            sock = socket.socket(fileno=file)
            try:
                connection = Connection(sock, (passed.address, passed.port), self._counters, self._closed)
            except OSError:
                sock.close()
            else:
                self._admit(connection, passed.check)

    def _admit(self, connection: Connection, check: bytes) -> None:
        """Keeps the connection if the check is authentic, and closes it otherwise."""
        known = self._gate.enter(connection)
        self._gate.stun(CandidatePair(connection, connection.peer), connection.peer, check)
        if not known:
            connection.close()
            return
        self._counters["tcp_connections"] += 1
        self._connections.add(connection)
        asyncio.get_running_loop().add_reader(connection.socket, self._readable, connection, known)
        agent = known[connection.peer].agent
        spare = [path for path in agent.paths if path.endpoint.own and path != agent.selected]
        for path in spare[:-SPARE]:
            path.endpoint.close()

    def _readable(self, connection: Connection, known: dict[Hashable, Route[T]]) -> None:
        try:
            self._read(connection, known)
        except BlockingIOError:
            pass
        except (EOFError, OSError):
            connection.close()
        except TooLongError:
            self._counters["gate_length"] += 1
            connection.close()
        except Exception:  # where the next frame begins is not known any more
            connection.close()
            raise

    def _read(self, connection: Connection, known: dict[Hashable, Route[T]]) -> None:
        frames = self._frames
        for n in frames.read(connection):
            routes = [known.get(connection.peer)] * n
            for i in self._on_media(frames.rows, routes):
                self._gate.received(connection, frames, i, routes[i])
            if connection.closed:  # by what it brought
                return

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._gate.leave(connection)

    def close(self) -> None:
        for connection in list(self._connections):
            connection.close()
        asyncio.get_running_loop().remove_reader(self._passed)
        self._passed.close()
