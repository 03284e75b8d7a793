"""Lists of sessions, and figures by the days of a time zone. On both engines."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sfu.refusals import BadCursor
from sfu.store import Store
from sfu.store.filters import Wanted
from sfu.store.records import Company

pytest_plugins = ["support.storing"]

BERLIN = ZoneInfo("Europe/Berlin")


async def stay(store: Store, company: Company, clock: Any, begin: datetime, room: str, seconds: float = 60) -> None:
    clock.now = begin
    session = await store.sessions.admit_anonymous(company.id, room, "alice")
    clock.advance(seconds)
    store.sessions.close(session, "left")
    await store.sessions.flush()


async def days(store: Store, company: Company, zone: Any = BERLIN, **more: Any) -> list[tuple[str, str, int]]:
    page = await store.history.zone_days(company.id, date(2025, 3, 1), date(2025, 11, 30), zone, **more)
    return [(item.day.isoformat(), item.room_id, item.sessions) for item in page.items]


async def test_a_day_is_the_zones(store: Store, company: Company, other: Company, clock: Any) -> None:
    for hour, room in ((21, "a"), (22, "b"), (23, "a")):  # 23:30, 0:30 and 1:30 in Berlin
        await stay(store, company, clock, datetime(2025, 7, 1, hour, 30, tzinfo=UTC), room)
    await stay(store, other, clock, datetime(2025, 7, 1, 22, 30, tzinfo=UTC), "theirs")
    assert await days(store, company) == [("2025-07-02", "a", 1), ("2025-07-02", "b", 1), ("2025-07-01", "a", 1)]
    assert await days(store, company, ZoneInfo("America/New_York")) == [("2025-07-01", "a", 2), ("2025-07-01", "b", 1)]


async def test_days_of_23_and_25_hours_are_whole(store: Store, company: Company, clock: Any) -> None:
    """Summer time began on 30 March and ended on 26 October."""
    for begin in (
        datetime(2025, 3, 29, 23, 0, tzinfo=UTC),
        datetime(2025, 3, 30, 21, 59, tzinfo=UTC),
        datetime(2025, 3, 30, 22, 0, tzinfo=UTC),
        datetime(2025, 10, 25, 22, 0, tzinfo=UTC),
        datetime(2025, 10, 26, 22, 59, tzinfo=UTC),
        datetime(2025, 10, 26, 23, 0, tzinfo=UTC),
    ):
        await stay(store, company, clock, begin, "a")
    expected = [("2025-10-27", 1), ("2025-10-26", 2), ("2025-03-31", 1), ("2025-03-30", 2)]
    assert [(day, count) for day, _, count in await days(store, company)] == expected


async def test_utc_by_this_way_is_utc_by_the_other(store: Store, company: Company, clock: Any) -> None:
    for day in (1, 2, 5):
        for room in ("a", "b", "c"):
            await stay(store, company, clock, datetime(2025, 5, day, 12, 0, tzinfo=UTC), room, 60 * day)
    first, last = date(2025, 3, 1), date(2025, 11, 30)
    expected = (await store.history.room_days(company.id, first, last)).items
    found, cursor = [], None
    while not found or cursor:
        page = await store.history.zone_days(company.id, first, last, ZoneInfo("UTC"), cursor=cursor, limit=2)
        found += page.items
        cursor = page.next
    assert tuple(found) == expected
    assert len(found) == 9


async def test_the_ends_of_the_calendar_are_no_error(store: Store, company: Company) -> None:
    for zone in (BERLIN, ZoneInfo("Pacific/Auckland"), ZoneInfo("America/Los_Angeles")):
        assert (await store.history.zone_days(company.id, date.min, date.max, zone)).items == ()
    with pytest.raises(BadCursor):
        await store.history.zone_days(company.id, date.min, date.max, BERLIN, cursor="x")


# --- lists -----------------------------------------------------------------------------------------------------------


async def test_sessions_of_the_whole_company_are_found_by_what_is_wanted(
    store: Store, company: Company, other: Company, clock: Any, issue: Any
) -> None:
    await store.sessions.admit(*(await issue(other, user_id="u-1")))
    for room, name, user in (("team", "alice", "u-1"), ("lab", "alice", ""), ("lab", "bob", "u-1")):
        session = await store.sessions.admit(*(await issue(company, room_id=room, user_name=name, user_id=user)))
        if name == "bob":
            store.sessions.close(session, "left")
            await store.sessions.flush()
        clock.advance(60)

    async def found(**wanted: Any) -> list[str]:
        page = await store.history.sessions(Wanted(company.id, **wanted))
        return [f"{one.user_name}@{one.room_id}" for one in page.items]

    assert await found() == ["bob@lab", "alice@lab", "alice@team"]
    assert await found(room_id="lab", user="alice") == ["alice@lab"]
    assert await found(user="u-1") == ["bob@lab", "alice@team"]
    assert await found(state="open") == ["alice@lab", "alice@team"]
    assert await found(state="ended") == ["bob@lab"]
    assert await found(since=clock.now - timedelta(seconds=150)) == ["bob@lab", "alice@lab"]
    assert await store.history.session(other.id, session.id) is None
    assert await store.history.session(company.id, "x") is None


@pytest.mark.parametrize("ascending", [False, True])
async def test_pages_follow_the_order(store: Store, company: Company, clock: Any, ascending: bool) -> None:
    for _ in range(5):
        await store.sessions.admit_anonymous(company.id, "team", "alice")
        clock.advance(1)
    times: list[datetime] = []
    cursor = None
    while not times or cursor:
        page = await store.history.sessions(Wanted(company.id, ascending=ascending), cursor=cursor, limit=2)
        times += [one.connected_at for one in page.items]
        cursor = page.next
    assert len(times) == 5
    assert times == sorted(times, reverse=not ascending)
