"""A server with a company, and an SDK as its users get it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.packages import Run, installed_js, installed_python
from support.process import Server
from support.rest_client import Reply, request


@dataclass
class Backend:
    server: Server
    key: str

    @property
    def variables(self) -> dict[str, str]:
        return {"SFU_URL": self.server.url, "KEY": self.key}

    async def __call__(self, method: str, path: str, body: bytes = b"") -> Reply:
        headers = {"Host": "localhost", "Connection": "close", "Authorization": f"Bearer {self.key}"}
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))} if body else {}
        return await request(self.server.port, method, f"/api/v1{path}", headers, body)


@pytest.fixture
def backend(start_server: Callable[..., Server]) -> Backend:
    server = start_server(webhook_allow_private="on")
    return Backend(server, server.company("Acme"))


@pytest.fixture(params=["python", "js"])
def language(request: Any) -> str:
    return str(request.param)


@pytest.fixture
def sdk(language: str, tmp_path: Path) -> Run:
    return {"python": installed_python, "js": installed_js}[language](tmp_path)
