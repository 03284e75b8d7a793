"""A sweep deletes much without keeping others from the database. What it deletes is in test_store_chat.py."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
import trio

from sfu.store import Store, open_store
from sfu.store.bans import Bans
from sfu.store.records import Company
from sfu.store.retention import BATCH
from sfu.tenancy.keys import ServerKey

pytest_plugins = ["support.storing"]

BATCHES = 20
LINE = """
    INSERT INTO chat_lines (id, company_id, room_id, peer, user_name, text, sent_ms, expires_ms)
    VALUES (:id, :company_id, 'team', 'p', 'alice', 'hello', :number, :number)
"""


@pytest.fixture
async def company(store: Store) -> Company:
    """A company with many expired lines."""
    made, _ = await store.companies.create("Acme")
    rows = [{"id": str(uuid.UUID(int=n)), "company_id": made.id, "number": n} for n in range(BATCHES * BATCH)]
    await store.database.transaction(lambda statements: statements.run_many(LINE, rows), 60)
    return made


async def lines(store: Store) -> int:
    (row,) = await store.database.read("SELECT count(*) AS n FROM chat_lines")
    return int(row["n"])


async def test_a_sweep_leaves_most_of_the_time_to_others(store: Store, company: Company) -> None:
    """Engines let writers take turns. Without pauses there would be a batch for each write of others."""
    writes = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.retention.sweep)
        while nursery.child_tasks:
            await store.companies.set_active(company.id, True)
            writes += 1
    assert await lines(store) == 0
    assert writes > 2 * BATCHES


async def test_much_of_one_kind_keeps_no_other_kind_waiting(store: Store, company: Company, clock: Any) -> None:
    ban: dict[str, Any] = {"id": str(uuid.UUID(int=1)), "company_id": company.id, "room_id": "team", "user_name": "eve"}
    ban |= {"token_id": None, "name_key": "eve", "address": "192.0.2.1", "banned_by": ""}
    await store.database.run(Bans.ADD, **ban, now=clock.now, expires_at=clock.now + timedelta(seconds=1))
    clock.advance(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.retention.sweep)
        while await store.database.read("SELECT id FROM bans"):
            pass
        nursery.cancel_scope.cancel()
    assert 0 < await lines(store) < BATCHES * BATCH


async def test_a_sweep_ends_with_nothing_left(
    database_url: str, server_key: ServerKey, store: Store, company: Company, clock: Any
) -> None:
    for name in ("alice", "bob"):
        store.sessions.close(await store.sessions.admit_anonymous(company.id, "team", name), "left")
    await store.sessions.flush()
    clock.advance(3 * 86_400)
    async with open_store(database_url, server_key, clock=clock, history_days=1) as keeping:
        await keeping.retention.sweep()
    assert await lines(store) == 0
    assert (await store.history.room_sessions(company.id, "team")).items == ()
