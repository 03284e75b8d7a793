"""A STUN server for tests (RFC 8489): tells everybody the address that it sees."""

from __future__ import annotations

import contextlib
import socket
import threading

from aioice import stun


class StunServer:
    """A thread. `drops` is how many questions it does not answer; `says` replaces what it sees."""

    def __init__(self, host: str) -> None:
        self.drops = 0
        self.says: tuple[str, int] | None = None
        self.questions: list[bytes] = []  # their transaction IDs
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> StunServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        with contextlib.suppress(OSError):
            self._socket.sendto(b"", self.address)
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while True:
            data, sender = self._socket.recvfrom(2000)
            if self._stopping:
                return
            request = stun.parse_message(data)
            self.questions.append(request.transaction_id)
            if self.drops:
                self.drops -= 1
                continue
            response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
            response.attributes["XOR-MAPPED-ADDRESS"] = self.says or sender[:2]
            self._socket.sendto(bytes(response), sender)
