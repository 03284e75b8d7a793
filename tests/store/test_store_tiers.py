"""What tiers limit, on both engines, also if many come at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import trio

from sfu.errors import ConfigError, RoomFull
from sfu.refusals import QuotaExceeded
from sfu.store import Store
from sfu.store.records import Company, RoomSettings, Session
from sfu.store.tiers import KNOWN_S, Limits

pytest_plugins = ["support.storing"]


async def crowd(store: Store, company: Company, places: list[tuple[str, str]]) -> tuple[list[Session], list[str]]:
    """People who join at the same moment, by room and name: those who got in, and the limits that kept others out."""
    inside: list[Session] = []
    out: list[str] = []

    async def join(room_id: str, name: str) -> None:
        try:
            inside.append(await store.sessions.admit_anonymous(company.id, room_id, name))
        except QuotaExceeded as refused:
            out.append(refused.limit)

    async with trio.open_nursery() as nursery:
        for place in places:
            nursery.start_soon(join, *place)
    return inside, out


async def leave(store: Store, session: Session) -> None:
    store.sessions.close(session, "left")
    await store.sessions.flush()


async def test_nothing_is_limited_unless_it_is_set(store: Store, company: Company) -> None:
    assert await store.tiers.all() == {}
    assert await store.tiers.limits("free") == Limits()
    inside, out = await crowd(store, company, [(f"room-{n % 3}", f"p{n}") for n in range(12)])
    assert (len(inside), out) == (12, [])


async def test_limits_are_set_one_by_one_and_taken_away(store: Store, company: Company, other: Company) -> None:
    await store.tiers.set("pro", {"people": 7})
    assert await store.tiers.set("pro", {"rooms": 3}) == Limits(people=7, rooms=3)
    assert await store.tiers.all() == {"pro": Limits(people=7, rooms=3)}
    assert await store.tiers.set("pro", {"people": None, "recording": False}) == Limits(rooms=3, recording=False)
    rows = await store.database.read("SELECT action, target FROM audit_entries WHERE target = 'pro'")
    assert [(row["action"], row["target"]) for row in rows] == [("tier.changed", "pro")] * 3
    for bad in ({"minutes_month": 5, "history_days": 30}, {"minutes_month": 5, "history_days": 1}):
        with pytest.raises(ConfigError, match="31 days"):
            await store.tiers.set("free", bad)


async def test_people_in_a_room(store: Store, company: Company) -> None:
    await store.tiers.set("free", {"room_people": 3})
    inside, out = await crowd(store, company, [("team", f"p{n}") for n in range(8)])
    assert (len(inside), out) == (3, ["room_people"] * 5)
    await store.sessions.admit_anonymous(company.id, "elsewhere", "alice")
    await leave(store, inside[0])
    await store.sessions.admit_anonymous(company.id, "team", "alice")
    await store.rooms.update(company.id, "team", {"max_participants": 2})
    await store.tiers.set("free", {"room_people": 9})
    with pytest.raises(RoomFull):
        await store.sessions.admit_anonymous(company.id, "team", "bob")


async def test_people_at_once_in_all_rooms(store: Store, company: Company, other: Company) -> None:
    await store.tiers.set("free", {"people": 4})
    inside, out = await crowd(store, company, [(f"room-{n}", f"p{n}") for n in range(10)])
    assert (len(inside), out) == (4, ["people"] * 6)
    await store.sessions.admit_anonymous(other.id, "team", "alice")
    await leave(store, inside[0])
    assert len((await crowd(store, company, [("team", "a"), ("team", "b")]))[0]) == 1


async def test_rooms_that_exist_however_they_are_made(store: Store, company: Company) -> None:
    await store.tiers.set("free", {"rooms": 3})
    inside, out = await crowd(store, company, [(f"room-{n}", f"p{n}") for n in range(8)])
    assert (len(inside), out) == (3, ["rooms"] * 5)
    with pytest.raises(QuotaExceeded, match=r"3 rooms\.$"):
        await store.rooms.create(company.id, "more", RoomSettings())
    assert await store.rooms.get(company.id, "more") is None
    await store.sessions.admit_anonymous(company.id, inside[0].room_id, "bob")
    await store.rooms.delete(company.id, inside[1].room_id)
    await store.rooms.create(company.id, "more", RoomSettings())


async def test_rooms_are_counted_if_requests_make_them_at_once(store: Store, company: Company) -> None:
    await store.tiers.set("free", {"rooms": 3})
    refused = []

    async def make(name: str) -> None:
        try:
            await store.rooms.create(company.id, name, RoomSettings())
        except QuotaExceeded as error:
            refused.append(error.limit)

    async with trio.open_nursery() as nursery:
        for n in range(8):
            nursery.start_soon(make, f"room-{n}")
    assert refused == ["rooms"] * 5
    assert len((await store.rooms.list(company.id)).items) == 3


async def test_minutes_of_the_month_open_sessions_included(store: Store, company: Company, clock: Any) -> None:
    await store.tiers.set("free", {"minutes_month": 10})
    first = await store.sessions.admit_anonymous(company.id, "team", "alice")
    clock.advance(300)
    await leave(store, first)
    second = await store.sessions.admit_anonymous(company.id, "team", "bob")
    clock.advance(299)
    await store.sessions.admit_anonymous(company.id, "team", "carol")
    clock.advance(KNOWN_S)
    with pytest.raises(QuotaExceeded) as refused:
        await store.sessions.admit_anonymous(company.id, "team", "dave")
    assert refused.value.members == {"limit": "minutes_month"}
    await leave(store, second)
    clock.now = (clock.now + timedelta(days=31)).replace(day=1)
    await store.sessions.admit_anonymous(company.id, "team", "dave")


async def test_who_continues_a_session_takes_no_second_place(store: Store, company: Company, clock: Any) -> None:
    await store.tiers.set("free", {"people": 1, "room_people": 1, "minutes_month": 1})
    session = await store.sessions.admit_anonymous(company.id, "team", "alice")
    clock.advance(120)
    store.sessions.close(session, "page_gone")
    await store.sessions.flush()
    back, _ = await store.returns.reopen(session, peer_address="")
    store.sessions.close(back, "page_gone")
    await store.sessions.flush()
    await store.tiers.set("free", {"minutes_month": None})
    await store.sessions.admit_anonymous(company.id, "team", "bob")
    with pytest.raises(QuotaExceeded):
        await store.returns.reopen(session, peer_address="")


async def test_a_refused_join_does_not_use_up_the_token(store: Store, company: Company, issue: Any) -> None:
    await store.tiers.set("free", {"people": 1})
    first = await store.sessions.admit_anonymous(company.id, "team", "bob")
    grant, token = await issue(company, single_use=True)
    with pytest.raises(QuotaExceeded):
        await store.sessions.admit(grant, token)
    await leave(store, first)
    assert (await store.sessions.admit(grant, token)).user_name == "alice"


async def test_tokens_issued_in_a_minute(
    store: Store, company: Company, other: Company, issue: Any, clock: Any
) -> None:
    await store.tiers.set("free", {"tokens_minute": 5})
    refused = []

    async def one() -> None:
        try:
            async with store.tiers.issuing(company):
                await issue(company)
        except QuotaExceeded as error:
            refused.append(error.limit)

    async with trio.open_nursery() as nursery:
        for _ in range(9):
            nursery.start_soon(one)
    assert refused == ["tokens_minute"] * 4
    async with store.tiers.issuing(other, 5):
        pass
    with pytest.raises(QuotaExceeded):
        async with store.tiers.issuing(other, 6):
            pass
    clock.advance(60)
    await one()
    assert len(refused) == 4


async def test_another_tier_has_other_limits(store: Store, company: Company) -> None:
    await store.tiers.set("free", {"people": 0, "file_bytes": 10})
    assert await store.tiers.file_bytes(company.id) == 10
    with pytest.raises(QuotaExceeded):
        await store.sessions.admit_anonymous(company.id, "team", "alice")
    changed = await store.companies.change(company.id, {"tier": "pro"})
    assert changed == replace(company, tier="pro")
    await store.sessions.admit_anonymous(company.id, "team", "alice")
    assert await store.tiers.file_bytes(company.id) is None


async def test_a_tier_keeps_its_history_for_so_many_days(
    store: Store, company: Company, other: Company, clock: Any
) -> None:
    await store.companies.change(other.id, {"tier": "enterprise"})
    await store.tiers.set("free", {"history_days": 2})
    for owner in (company, other):
        await leave(store, await store.sessions.admit_anonymous(owner.id, "team", "alice"))
    clock.advance(2 * 86_400)
    await store.retention.sweep()
    assert len((await store.history.room_sessions(company.id, "team")).items) == 1
    clock.advance(1)
    await store.retention.sweep()
    assert (await store.history.room_sessions(company.id, "team")).items == ()
    assert len((await store.history.room_sessions(other.id, "team")).items) == 1
