"""What a company used in a month, on both engines."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from sfu.store import Store
from sfu.store.records import Company, Session
from sfu.store.usage import Figures, MonthUsage

pytest_plugins = ["support.storing"]

OCTOBER = date(2025, 10, 1)


async def leave(store: Store, session: Session) -> None:
    store.sessions.close(session, "left")
    await store.sessions.flush()


async def test_nothing_was_used(store: Store, company: Company) -> None:
    assert await store.usage.month(company.id, OCTOBER) == MonthUsage(Figures(), (), 0, 0)
    assert await store.usage.month(company.id, date(2999, 12, 1)) == MonthUsage(Figures(), (), 0, 0)


async def test_a_month_is_counted_by_day(
    store: Store, company: Company, other: Company, issue: Any, clock: Any
) -> None:
    clock.now = datetime(2025, 9, 30, 23, 59, tzinfo=UTC)
    await issue(company)
    await leave(store, await store.sessions.admit_anonymous(company.id, "before", "zoe"))
    clock.now = datetime(2025, 10, 1, 9, 0, tzinfo=UTC)
    await issue(company)
    await issue(company)
    alice = await store.sessions.admit_anonymous(company.id, "team", "alice")
    bob = await store.sessions.admit_anonymous(company.id, "other", "bob")
    await store.sessions.admit_anonymous(other.id, "team", "eve")
    clock.advance(600)
    await leave(store, alice)
    carol = await store.sessions.admit_anonymous(company.id, "team", "carol")  # as alice leaves: not beside her
    clock.advance(300)
    await leave(store, bob)
    await leave(store, carol)
    clock.now = datetime(2025, 10, 31, 23, 58, tzinfo=UTC)
    await store.sessions.admit_anonymous(company.id, "team", "alice")
    clock.now = datetime(2025, 11, 1, 0, 1, tzinfo=UTC)
    found = await store.usage.month(company.id, OCTOBER)
    assert found.total == Figures(33.0, 4, 3, 2, 2, 2)
    assert dict(found.days) == {
        date(2025, 10, 1): Figures(30.0, 3, 3, 2, 2, 2),
        date(2025, 10, 31): Figures(3.0, 1, 1, 1, 0, 1),
    }
    assert (found.people, found.rooms) == (1, 3)
    assert (await store.usage.month(company.id, date(2025, 11, 1))).total == Figures()
