"""A network that breaks under a page and its WebSocket: a relay in front of the server's TCP port."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from contextlib import suppress

POLL_S, TURN_S = 0.02, 0.002
BURST_BYTES = 3000
QUEUE_BYTES = 16384
"""What waits here for the rate, about (the kernel doubles it for its own)."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset, as when a network is gone, and not the end of a stream."""


class TcpWire:
    """A thread that passes on what arrives at `front`. Going down (`up = False`) resets every connection, and each new
    one. With `rate_bps`, what comes from the server by each connection waits for that rate, first here and then there.
    """

    def __init__(self, server_port: int, front: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.up = True
        self.rate_bps = 0.0
        self._slow: dict[socket.socket, tuple[float, float]] = {}  # part of a byte that may be read, and since when
        self._server = ("127.0.0.1", server_port)
        self._front = socket.create_server(front)
        self._ways: dict[socket.socket, socket.socket] = {}  # whose data goes where
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._front, selectors.EVENT_READ)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._front.getsockname()[1])

    def _run(self) -> None:
        while not self._stopping:
            ready = self._selector.select(POLL_S)
            if self.rate_bps:
                time.sleep(TURN_S)
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                with suppress(OSError):
                    self._readable(key.fileobj)
            if not self.up:
                for sock in list(self._ways):
                    self._end(sock)

    def _readable(self, sock: socket.socket) -> None:
        if sock is self._front:
            self._accept()
        elif sock in self._ways:
            most = self._allowed(sock)
            if most and (data := sock.recv(most)):
                self._ways[sock].sendall(data)
            elif most:
                self._end(sock)

    def _allowed(self, sock: socket.socket) -> int:
        """Bytes to read from this socket now."""
        if not self.rate_bps or sock.getpeername() != self._server:
            return 1 << 16
        now_s = time.monotonic()
        rest, at_s = self._slow.get(sock, (0.0, now_s))
        allowed = min(BURST_BYTES, rest + self.rate_bps / 8 * (now_s - at_s))
        self._slow[sock] = allowed % 1, now_s
        return int(allowed)

    def _accept(self) -> None:
        near, _ = self._front.accept()
        try:
            far = self._connected() if self.up else None
        except OSError:  # the server is down
            far = None
        if far is None:
            _reset(near)
            return
        for one, other in ((near, far), (far, near)):
            self._ways[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _connected(self) -> socket.socket:
        far = socket.socket()
        try:
            if self.rate_bps:
                far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)
                far.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)  # loopback's are longer than that queue
            far.connect(self._server)
        except OSError:
            far.close()
            raise
        return far

    def _end(self, sock: socket.socket) -> None:
        other = self._ways.pop(sock, None)
        if other is not None:
            del self._ways[other]
            for one in (sock, other):
                self._selector.unregister(one)
                self._slow.pop(one, None)
                _reset(one)

    def close(self) -> None:
        self._stopping = True
        self._thread.join()
        for sock in (self._front, *self._ways):
            sock.close()
        self._selector.close()


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()
