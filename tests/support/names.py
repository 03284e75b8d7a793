"""Names whose addresses a test chooses, and changes."""

from __future__ import annotations

import socket
from typing import Any

import pytest


class Names:
    """Answers for all names below `.example`; others are looked up as ever. Each question takes the next list of
    addresses, and the last one stays."""

    def __init__(self, patch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self._answers, self.asked, self._system = list(answers), 0, socket.getaddrinfo
        patch.setattr(socket, "getaddrinfo", self._look)

    def _look(self, host: Any, port: Any, family: int = 0, type: int = 0, *more: int, **named: int) -> Any:  # noqa: A002
        if not str(host).endswith(".example"):
            return self._system(host, port, family, type, *more, **named)
        self.asked += 1
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [(socket.AF_INET6 if ":" in one else socket.AF_INET, type, 6, "", (one, port)) for one in found]
