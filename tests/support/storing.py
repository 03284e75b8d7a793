"""Fixtures of the tests that need a store: each runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sfu.store import Store, open_store
from sfu.store.records import Company
from sfu.tenancy import tokens
from sfu.tenancy.keys import ServerKey

pytest_plugins = ["support.away", "support.postgres"]


class Clock:
    """A time that passes only when told to. Its microseconds are such that no engine may round them away."""

    def __init__(self) -> None:
        self.now = datetime(2025, 10, 21, 17, 21, 27, 123457, UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server_key() -> ServerKey:
    return ServerKey(bytes(range(32)))


@pytest.fixture
async def store(
    database_url: str, server_key: ServerKey, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Store]:
    monkeypatch.setattr("sfu.store.database.OPEN_S", 60.0)  # the machine may be busy, and that is no test's concern
    async with open_store(database_url, server_key, clock=clock) as opened:
        yield opened


@pytest.fixture
async def company(store: Store) -> Company:
    made, _ = await store.companies.create("Acme")
    return made


@pytest.fixture
async def other(store: Store) -> Company:
    """Another tenant, whom nothing of `company` may reach."""
    made, _ = await store.companies.create("Other")
    return made


@pytest.fixture
def issue(store: Store, clock: Clock) -> Callable[..., Awaitable[tuple[tokens.Grant, str]]]:
    """Makes and records a token for alice in the room `team`, or as told."""

    async def make(company: Company, *, single_use: bool = False, **changes: Any) -> tuple[tokens.Grant, str]:
        usual = {"company_id": company.id, "room_id": "team", "user_name": "alice", "duration_s": 600, "now": clock.now}
        grant = tokens.grant(**(usual | changes))
        token = tokens.encode(grant, store.companies.secret(company).reveal())
        await store.tokens.add(grant, token, single_use=single_use)
        return grant, token

    return make
