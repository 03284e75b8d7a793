"""Networks that break: relays between a page and the server, for as long as the test lets them work."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from contextlib import suppress

POLL_S = 0.02
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends a reset, as when a network is gone, and not the end of a stream."""


class Wire:
    """A thread that passes on what arrives. While it is not `up`, nothing is."""

    def __init__(self, server_port: int) -> None:
        self.up = True
        self._server = ("127.0.0.1", server_port)
        self._selector = selectors.DefaultSelector()
        self._ways: dict[socket.socket, socket.socket] = {}  # whose data goes where
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def port(self) -> int:
        return int(self._front.getsockname()[1])

    def _start(self, front: socket.socket) -> None:
        self._front = front
        self._selector.register(front, selectors.EVENT_READ)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(POLL_S):
                assert isinstance(key.fileobj, socket.socket)
                with suppress(OSError):
                    self._readable(key.fileobj)
            self._idle()

    def _readable(self, sock: socket.socket) -> None:
        raise NotImplementedError

    def _idle(self) -> None:
        pass

    def close(self) -> None:
        self._stopping = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


class TcpWire(Wire):
    """For the page and its WebSocket. Going down resets every connection; new ones are reset at once."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        self._start(socket.create_server(("127.0.0.1", 0)))

    def _readable(self, sock: socket.socket) -> None:
        if sock is self._front:
            near, _ = sock.accept()
            far = socket.create_connection(self._server) if self.up else None
            if far is None:
                reset(near)
                return
            for one, other in ((near, far), (far, near)):
                self._ways[one] = other
                self._selector.register(one, selectors.EVENT_READ)
        elif sock in self._ways:
            data = sock.recv(1 << 16)
            if data:
                self._ways[sock].sendall(data)
            else:
                self._end(sock)

    def _idle(self) -> None:
        if not self.up:
            for sock in list(self._ways):
                self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        other = self._ways.pop(sock, None)
        if other is not None:
            del self._ways[other]
            for one in (sock, other):
                self._selector.unregister(one)
                reset(one)


class UdpWire(Wire):
    """For the media of one page, whose address is where the last datagram came from."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port)
        self._page: tuple[str, int] | None = None
        self._back = socket.socket(type=socket.SOCK_DGRAM)
        self._back.connect(self._server)
        self._selector.register(self._back, selectors.EVENT_READ)
        front = socket.socket(type=socket.SOCK_DGRAM)
        front.bind(("127.0.0.1", 0))
        self._start(front)

    def _readable(self, sock: socket.socket) -> None:
        data, sender = sock.recvfrom(2048)
        if sock is self._front:
            self._page = sender
        if not self.up:
            return
        if sock is self._front:
            self._back.send(data)
        elif self._page is not None:
            self._front.sendto(data, self._page)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()
