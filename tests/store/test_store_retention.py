"""A sweep deletes much without keeping others from the database. What it deletes is in test_store_chat.py."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from support.older import take_back
from support.rows import room

from sfu.store import Store, open_store
from sfu.store.bans import Bans
from sfu.store.records import Company, File, Line, RoomSettings, Session
from sfu.store.retention import BATCH, EMPTY_S
from sfu.store.trail import Wanted
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


# --- what links leave behind -----------------------------------------------------------------------------------------


async def entered(store: Store, company: Company, room_id: str, name: str = "alice") -> Session:
    return await store.sessions.admit_anonymous(company.id, room_id, name, peer_address="192.0.2.1")


async def left(store: Store, *sessions: Session) -> None:
    for session in sessions:
        store.sessions.close(session, "left")
    await store.sessions.flush()


async def rooms(store: Store, company: Company) -> list[str]:
    return [found.room_id for found in (await store.rooms.list(company.id)).items]


async def test_rooms_made_by_entering_go_once_they_are_unused(
    store: Store, clock: Any, issue: Callable[..., Awaitable[Any]]
) -> None:
    default = await store.companies.ensure_default()
    await store.rooms.create(default.id, "made", RoomSettings())
    names = ("made", "edited", "locked", "chat", "file", "ban", "left", "occupied")
    sessions = {name: await entered(store, default, name) for name in names}
    await store.rooms.update(default.id, "edited", {"name": "Edited"})
    store.rooms.set(default.id, "locked", locked=True, lobby=None)
    sent_ms = int(clock.now.timestamp() * 1000)
    store.chat.add(await room(store, default, "chat"), Line(str(uuid.uuid4()), "p", "alice", "hello", sent_ms))
    shared = File(str(uuid.uuid4()), "a.txt", "text/plain", 1)
    await store.files.add(await room(store, default, "file"), shared, limit_bytes=10)
    store.bans.add(sessions["ban"], until=clock.now + timedelta(hours=12), by="mod")
    await store.rulings.flush()
    await store.lines.flush()
    await left(store, *(sessions[name] for name in names if name != "occupied"))
    guest = await store.sessions.admit(*await issue(default, room_id="token"))
    await left(store, guest)
    clock.advance(EMPTY_S - 1)
    await store.retention.sweep()
    assert len(await rooms(store, default)) == len(names) + 1
    clock.advance(2)
    await store.retention.sweep()  # it clears the chat first, since anyone may enter, and then the rooms
    kept = {"made", "edited", "locked", "ban", "occupied", "token"}
    assert set(await rooms(store, default)) == kept
    assert len((await store.history.room_sessions(default.id, "left")).items) == 1
    clock.advance(86_400)
    await store.retention.sweep()
    assert set(await rooms(store, default)) == kept - {"ban"}
    await left(store, sessions["occupied"])
    again = await entered(store, default, "occupied")  # somebody is back in time
    clock.advance(EMPTY_S + 1)
    await store.retention.sweep()
    assert "occupied" in await rooms(store, default)
    await left(store, again)


async def test_a_room_that_somebody_enters_while_it_is_swept_stays(store: Store, clock: Any) -> None:
    default = await store.companies.ensure_default()
    for _ in range(10):
        await left(store, *[await entered(store, default, f"room-{number}") for number in range(10)])
        clock.advance(EMPTY_S + 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.retention.sweep)
            inside = [await entered(store, default, f"room-{number}") for number in reversed(range(10))]
        assert set(await rooms(store, default)) == {session.room_id for session in inside}
        await left(store, *inside)


async def test_who_came_without_a_token_is_forgotten_sooner(
    database_url: str, server_key: ServerKey, clock: Any, store: Store, issue: Callable[..., Awaitable[Any]]
) -> None:
    default = await store.companies.ensure_default()
    guest = await entered(store, default, "team")
    member = await store.sessions.admit(*await issue(default))
    await left(store, guest, member)

    async def history(**days: int) -> set[str]:
        async with open_store(database_url, server_key, clock=clock, **days) as keeping:
            await keeping.retention.sweep()
            return {found.id for found in (await keeping.history.room_sessions(default.id, "team")).items}

    clock.advance(31 * 86_400)
    assert await history(history_days=365, guest_days=0) == {guest.id, member.id}
    assert await history(history_days=365, guest_days=30) == {member.id}
    clock.advance(365 * 86_400)
    assert await history(history_days=365, guest_days=30) == set()


async def test_the_audit_log_has_a_time_of_its_own(
    database_url: str, server_key: ServerKey, clock: Any, store: Store
) -> None:
    await store.companies.create("Acme")

    async def kept(**days: int) -> list[str]:
        async with open_store(database_url, server_key, clock=clock, **days) as keeping:
            await keeping.retention.sweep()
            return [entry.change.action for entry in (await keeping.trail.list(Wanted())).items]

    clock.advance(364 * 86_400)
    await store.companies.create("Other")
    clock.advance(2 * 86_400)
    assert await kept(audit_days=0, history_days=1) == ["company.created"] * 2
    assert await kept(audit_days=365) == ["company.created"]


async def test_an_older_databases_rooms_are_told_apart(tmp_path: Path, server_key: ServerKey, clock: Any) -> None:
    """Those that somebody made by entering: the first session began in the same moment."""
    file = tmp_path / "sfu.db"
    async with open_store(f"sqlite:///{file}", server_key, clock=clock) as store:
        default = await store.companies.ensure_default()
        await store.rooms.create(default.id, "made", RoomSettings())
        clock.advance(1)
        await left(store, await entered(store, default, "made"), await entered(store, default, "entered"))
        await left(store, await entered(store, default, "edited"))
        await store.rooms.update(default.id, "edited", {"name": "Edited"})
        await take_back(store.database, 9)
    async with open_store(f"sqlite:///{file}", server_key, clock=clock) as store:
        clock.advance(EMPTY_S + 1)
        await store.retention.sweep()
        assert set(await rooms(store, default)) == {"made", "edited"}


# --- events ----------------------------------------------------------------------------------------------------------


async def test_events_and_deliveries_go_after_their_time(database_url: str, server_key: ServerKey, clock: Any) -> None:
    async with open_store(database_url, server_key, clock=clock, event_days=30) as store:
        company = await store.companies.ensure_default()
        webhook, _ = await store.webhooks.create(company.id, "https://example.org/")
        await left(store, await entered(store, company, "old"))
        await store.deliveries.spread(webhook.id)
        clock.advance(30 * 86_400 + 1)
        await left(store, await entered(store, company, "new"))
        await store.deliveries.spread(webhook.id)
        await store.retention.sweep()
        assert {one["room_id"] for one in (await store.events.after(company.id, 0, 100)).items} == {"new"}
        assert {one.room_id for one in (await store.deliveries.list(webhook)).items} == {"new"}
    async with open_store(database_url, server_key, clock=clock) as store:
        clock.advance(1000 * 86_400)
        await store.retention.sweep()
        assert {one["room_id"] for one in (await store.events.after(company.id, 0, 100)).items} == {"new"}, "for ever"
