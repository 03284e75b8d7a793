"""A resolver of names for tests, for `trio.socket.set_custom_hostname_resolver`: it ends with the test's run."""

from __future__ import annotations

import socket
from typing import Any

import trio


class Names(trio.abc.HostnameResolver):
    """A resolver whose answers change: each question takes the next list of addresses, and the last one stays."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    async def getaddrinfo(self, host: Any, port: Any, family: int = 0, type: int = 0, *_: int) -> Any:  # noqa: A002
        self.asked += 1
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET6 if ":" in one else socket.AF_INET, type, 6, "", (one, port)) for one in found]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise AssertionError("nobody asks")
