"""Writes of several callers in one transaction, on both engines: none is lost, and none pays for another."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import trio

from sfu.refusals import DatabaseUnavailable
from sfu.store import Store
from sfu.store.statements import Statements
from sfu.store.together import MOST, Together

if TYPE_CHECKING:
    from support.away import Away

pytest_plugins = ["support.storing"]

ADD = """
    INSERT INTO rooms (id, company_id, room_id, max_participants, created_at, updated_at)
    VALUES (:id, :company_id, :room_id, 1, :now, :now)
"""
Item = dict[str, Any]


class Writer:
    """Writes rooms, and remembers how many at once."""

    def __init__(self, store: Store, company_id: str) -> None:
        self.store, self.company_id = store, company_id
        self.sizes: list[int] = []
        self.together = Together(store.database, self._write)

    async def _write(self, statements: Statements, items: Sequence[Item]) -> None:
        self.sizes.append(len(items))
        await statements.run_many(ADD, items)

    async def add(self, number: int) -> None:
        id_ = f"0f4a8f1e-0000-4000-8000-{number:012}"
        await self.together.add(
            {"id": id_, "company_id": self.company_id, "room_id": f"{number:04}", "now": datetime.now(UTC)}
        )

    async def written(self) -> list[int]:
        rows = await self.store.database.read("SELECT room_id FROM rooms ORDER BY room_id")
        return [int(found["room_id"]) for found in rows]


@pytest.fixture
async def writer(away: Away, store: Store) -> Writer:  # in this order: `away` makes the store impatient
    company, _ = await store.companies.create("Acme")
    return Writer(store, company.id)


async def test_who_comes_at_once_is_written_at_once(writer: Writer) -> None:
    seen: list[int] = []

    async def add(number: int) -> None:
        await writer.add(number)
        assert number in await writer.written()
        seen.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(MOST + 20):
            nursery.start_soon(add, number)
    assert sorted(seen) == await writer.written() == list(range(MOST + 20))
    assert sum(writer.sizes) == MOST + 20
    assert max(writer.sizes) <= MOST
    assert len(writer.sizes) < 20


async def test_one_that_cannot_be_written_keeps_no_other(writer: Writer) -> None:
    await writer.add(3)
    refused: list[int] = []

    async def add(number: int) -> None:
        try:
            await writer.add(number)
        except Exception:  # noqa: BLE001 -- each driver has its own
            refused.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(add, number)
    assert refused == [3]
    assert await writer.written() == list(range(8))


async def test_while_the_database_is_away_everybody_learns_it(writer: Writer, away: Away) -> None:
    refused: list[int] = []

    async def add(number: int) -> None:
        with pytest.raises(DatabaseUnavailable):
            await writer.add(number)
        refused.append(number)

    with away():
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(add, number)
    assert sorted(refused) == list(range(5))
    await writer.add(7)
    assert await writer.written() == [7]


async def test_a_cancelled_caller_has_written_or_not_asked(writer: Writer) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.add(1)
    assert await writer.written() == [1]
