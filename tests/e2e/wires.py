"""A network that breaks under a page and its WebSocket: a relay in front of the server's TCP port."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from contextlib import suppress

POLL_S = 0.02
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset, as when a network is gone, and not the end of a stream."""


class TcpWire:
    """A thread that passes on what arrives at `front`. Going down (`up = False`) resets every connection, and each new
    one."""

    def __init__(self, server_port: int, front: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.up = True
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
            for key, _ in self._selector.select(POLL_S):
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
            if data := sock.recv(1 << 16):
                self._ways[sock].sendall(data)
            else:
                self._end(sock)

    def _accept(self) -> None:
        near, _ = self._front.accept()
        try:
            far = socket.create_connection(self._server) if self.up else None
        except OSError:  # the server is down
            far = None
        if far is None:
            _reset(near)
            return
        for one, other in ((near, far), (far, near)):
            self._ways[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _end(self, sock: socket.socket) -> None:
        other = self._ways.pop(sock, None)
        if other is not None:
            del self._ways[other]
            for one in (sock, other):
                self._selector.unregister(one)
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
