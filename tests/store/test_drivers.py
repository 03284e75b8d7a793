"""Parameters, values and rows are the same with both drivers."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from sfu.store import Store, open_store
from sfu.store.drivers import _numbered
from sfu.store.statements import Statements
from sfu.tenancy.keys import ServerKey

pytest_plugins = ["support.storing"]


@pytest.mark.parametrize(
    ("sql", "numbered", "names"),
    [
        ("SELECT :a, :b, :a", "SELECT $1, $2, $1", ("a", "b")),
        ("SELECT CAST(:a1 AS TEXT)", "SELECT CAST($1 AS TEXT)", ("a1",)),
        ("SELECT x::text = :x", "SELECT x::text = $1", ("x",)),
        ("SELECT 1", "SELECT 1", ()),
    ],
)
def test_names_become_numbers(sql: str, numbered: str, names: tuple[str, ...]) -> None:
    assert _numbered(sql) == (numbered, names)


async def test_values_are_read_back(store: Store) -> None:
    """Times with any zone, dates, booleans, text and nothing, through a table of the schema."""
    company = await store.companies.ensure_default()
    at = datetime(2026, 2, 28, 23, 59, 59, 999999, timezone(timedelta(hours=-5)))
    values: dict[str, Any] = {"id": str(uuid.uuid4()), "company_id": company.id, "at": at, "day": date(2026, 3, 1)}
    await store.database.run(
        """INSERT INTO sessions (id, company_id, room_id, user_name, server, connected_at, last_seen_at, day,
            concurrency, leave_reason)
        VALUES (:id, :company_id, 'it''s :not a name', :name, 's', :at, :at, :day, 1, :nothing)""",
        **values, name="Zoë %s $1", nothing=None,
    )  # fmt: skip
    found = await store.database.read_one(
        "SELECT * FROM sessions WHERE connected_at = :at AND day = :day AND id = :id",
        at=at.astimezone(UTC), day=values["day"], id=values["id"],
    )  # fmt: skip
    assert found is not None
    assert (found["user_name"], found["leave_reason"]) == ("Zoë %s $1", None)


async def test_a_transaction_may_await_only_its_statements(tmp_path: Path, server_key: ServerKey) -> None:
    """On SQLite it runs as a whole in another thread."""

    async def work(statements: Statements) -> None:
        await statements.run("UPDATE companies SET name = 'changed'")
        await asyncio.sleep(0)

    async with open_store(f"sqlite:///{tmp_path}/sfu.db", server_key) as store:
        company = await store.companies.ensure_default()
        with pytest.raises(RuntimeError, match="may await only its statements"):
            await store.database.transaction(work)
        assert await store.companies.by_id(company.id) == company
