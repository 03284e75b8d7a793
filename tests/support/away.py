"""A database that goes away and comes back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

Away = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def away(database_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Away:
    """What takes the database away for as long as a `with` lasts: for SQLite, another process that writes on and on;
    for PostgreSQL, a server that is switched off."""
    if database_url.startswith("sqlite"):
        monkeypatch.setattr("sfu.store.engines.LOCKED_S", 0.2)
    monkeypatch.setattr("sfu.store.engines.STATEMENT_S", 5)

    @contextmanager
    def locked() -> Any:
        path = urlsplit(database_url).path.removeprefix("/")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            other.close()

    @contextmanager
    def stopped() -> Any:
        server = request.getfixturevalue("postgres")
        server.stop()
        try:
            yield
        finally:
            server.start()

    return locked if database_url.startswith("sqlite") else stopped
