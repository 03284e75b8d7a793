"""Chat in the database, and what is deleted once its time is over, on both engines."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from support.rows import room

from sfu.errors import Removed
from sfu.refusals import BadCursor
from sfu.store import Store, open_store
from sfu.store.pages import encode_cursor
from sfu.store.records import Company, File, Line, RoomSettings
from sfu.store.retention import EMPTY_S
from sfu.tenancy.keys import ServerKey

pytest_plugins = ["support.storing"]


def line(clock: Any, text: str, **changes: Any) -> Line:
    """One that was sent now."""
    sent_ms = int(clock.now.timestamp() * 1000)
    return Line(
        **{"id": str(uuid.uuid4()), "peer": "p", "user_name": "alice", "text": text, "sent_ms": sent_ms} | changes
    )


async def texts(store: Store, company: Company, room_id: str = "team") -> list[str]:
    return [found.text for found in (await store.chat.list(company.id, room_id)).items]


async def test_lines_are_kept_for_a_time(store: Store, company: Company, other: Company, clock: Any) -> None:
    kept = [line(clock, f"line {n}\U0001f600", sent_ms=1_000 * n + int(clock.now.timestamp() * 1000)) for n in range(3)]
    team = await room(store, company, chat_kept_s=60)
    for one in kept:
        store.chat.add(team, one)
    store.chat.add(await room(store, company, "elsewhere", chat_kept_s=60), line(clock, "there"))
    store.chat.add(await room(store, other, chat_kept_s=60), line(clock, "others"))
    assert (await store.chat.list(company.id, "team")).items == tuple(reversed(kept))
    assert await store.chat.since(company.id, "team", kept[1].sent_ms) == {kept[1].id, kept[2].id}
    first = await store.chat.list(company.id, "team", limit=2)
    assert first.items == (kept[2], kept[1])
    assert (await store.chat.list(company.id, "team", limit=2, cursor=first.next)).items == (kept[0],)
    clock.advance(60.5)
    assert await texts(store, company) == [kept[2].text, kept[1].text]
    await store.retention.sweep()
    left = await store.database.read("SELECT room_id, text FROM chat_lines ORDER BY text")
    assert [row["text"] for row in left] == [kept[1].text, kept[2].text]


NIL = "00000000-0000-4000-8000-000000000000"


FORGED = (("1", "x"), ("-1", NIL), ("", NIL), ("9" * 19, NIL), ("\u0663", NIL))


@pytest.mark.parametrize("cursor", ["x", "W10", *(encode_cursor(*key) for key in FORGED)])
async def test_a_cursor_nobody_gave_out(store: Store, company: Company, cursor: str) -> None:
    with pytest.raises(BadCursor):
        await store.chat.list(company.id, "team", cursor=cursor)


async def test_a_line_is_deleted_by_its_company_only(
    store: Store, company: Company, other: Company, clock: Any
) -> None:
    said = line(clock, "oops")
    store.chat.add(await room(store, company), said)
    assert not await store.chat.delete(other.id, "team", said.id)
    assert not await store.chat.delete(company.id, "other", said.id)
    assert not await store.chat.delete(company.id, "team", "x")
    assert await store.chat.delete(company.id, "team", said.id)
    assert not await store.chat.delete(company.id, "team", said.id)
    assert await texts(store, company) == []


async def test_a_rooms_retention_holds_for_what_is_written(store: Store, company: Company, clock: Any) -> None:
    store.chat.add(await room(store, company), line(clock, "hello"))
    await store.lines.flush()
    clock.advance(100)
    await store.rooms.update(company.id, "team", {"chat_kept_s": 50})
    assert await texts(store, company) == []
    await store.rooms.update(company.id, "team", {"chat_kept_s": 200})
    assert await texts(store, company) == ["hello"]
    await store.rooms.update(company.id, "team", {"chat_kept_s": 0})
    await store.retention.sweep()
    await store.rooms.update(company.id, "team", {"chat_kept_s": None})
    assert await texts(store, company) == []


async def test_a_deleted_rooms_chat_is_gone(store: Store, company: Company, clock: Any) -> None:
    store.chat.add(await room(store, company), line(clock, "hello"))
    await store.lines.flush()
    await store.rooms.delete(company.id, "team")
    assert await texts(store, company) == []


async def test_one_line_that_cannot_be_written_holds_up_no_other(
    store: Store, company: Company, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    team = await room(store, company)
    store.chat.add(team, line(clock, "before"))
    store.chat.add(team, line(clock, "too late", sent_ms=2**70))
    store.chat.add(team, line(clock, "after", sent_ms=2**41))
    assert await texts(store, company) == ["after", "before"]
    assert "write=dropped" in caplog.text
    assert not store.lines


async def test_lines_still_queued_are_written_when_the_store_closes(
    database_url: str, server_key: ServerKey, clock: Any
) -> None:
    async with open_store(database_url, server_key, clock=clock) as store:
        company = await store.companies.ensure_default()
        store.chat.add(await room(store, company), line(clock, "last words"))
    async with open_store(database_url, server_key, clock=clock) as store:
        assert await texts(store, company) == ["last words"]


async def test_a_ban_is_over_when_it_is_over(
    store: Store, company: Company, clock: Any, issue: Callable[..., Awaitable[Any]]
) -> None:
    grant, token = await issue(company)
    session = await store.sessions.admit(grant, token, peer_address="10.0.0.1")
    guest = await store.sessions.admit_anonymous(company.id, "team", "Eve", peer_address="2001:db8:1:2::1")
    for one in (session, guest):
        store.bans.add(one, until=clock.now + timedelta(seconds=60), by="mod")
    with pytest.raises(Removed):
        await store.sessions.admit(grant, token, peer_address="10.0.0.2")
    with pytest.raises(Removed):
        await store.sessions.admit_anonymous(company.id, "team", "eve", peer_address="2001:db8:1:2:ffff::1")
    for name, address in (("eve", "2001:db8:1:3::1"), ("bob", "2001:db8:1:2::1"), ("alice", "10.0.0.1")):
        await store.sessions.admit_anonymous(company.id, "team", name, peer_address=address)
    bans = (await store.bans.list(company.id, "team")).items
    assert {(ban.token_id, ban.address) for ban in bans} == {(grant.id, ""), (None, "2001:db8:1:2::/64")}
    clock.advance(61)
    assert (await store.bans.list(company.id, "team")).items == ()
    await store.sessions.admit_anonymous(company.id, "team", "eve", peer_address="2001:db8:1:2::1")
    await store.sessions.admit(grant, token)
    await store.retention.sweep()
    assert await store.database.read("SELECT * FROM bans") == []


async def test_history_is_kept_for_so_many_days(database_url: str, server_key: ServerKey, clock: Any) -> None:
    async with open_store(database_url, server_key, clock=clock, history_days=30) as store:
        company = await store.companies.ensure_default()
        gone = await store.sessions.admit_anonymous(company.id, "team", "gone")
        staying = await store.sessions.admit_anonymous(company.id, "team", "staying")
        store.sessions.close(gone, "left")
        await store.sessions.flush()
        clock.advance(29 * 86_400)
        await store.retention.sweep()
        assert len((await store.history.room_sessions(company.id, "team")).items) == 2
        clock.advance(2 * 86_400)
        await store.retention.sweep()
        (left,) = (await store.history.room_sessions(company.id, "team")).items
        assert left.id == staying.id
    async with open_store(database_url, server_key, clock=clock, history_days=0) as store:
        store.sessions.close(staying, "left")
        await store.sessions.flush()
        clock.advance(10_000 * 86_400)
        await store.retention.sweep()
        assert len((await store.history.room_sessions(company.id, "team")).items) == 1


async def test_tokens_that_expired_long_ago_are_forgotten(
    database_url: str, server_key: ServerKey, clock: Any, issue: Callable[..., Awaitable[Any]], company: Company
) -> None:
    grant, token = await issue(company)
    async with open_store(database_url, server_key, clock=clock, history_days=1) as store:
        session = await store.sessions.admit(grant, token)
        clock.advance(86_400 + 700)
        await store.retention.sweep()
        assert await store.tokens.get(company.id, grant.id) is None
        (left,) = (await store.history.room_sessions(company.id, "team")).items
        assert (left.id, left.token_id) == (session.id, None)


@pytest.mark.parametrize("keep", [False, True], ids=["cleared", "kept"])
async def test_chat_of_an_empty_room_that_anyone_can_enter(
    database_url: str, server_key: ServerKey, clock: Any, keep: bool
) -> None:
    """Whoever types its name later reads nothing. Rooms whose settings say otherwise keep their chat."""
    async with open_store(database_url, server_key, clock=clock, keep_open_chat=keep) as store:
        default = await store.companies.ensure_default()
        other, _ = await store.companies.create("other")
        own = {"closed": RoomSettings(access="token"), "its own time": RoomSettings(chat_kept_s=900)}
        for room_id, rules in own.items():
            await store.rooms.create(default.id, room_id, rules)
        sessions = {}
        for company in (default, other):
            for room_id in (*own, "occupied", "left", "just left"):
                if room_id not in own:
                    await store.rooms.create(company.id, room_id, RoomSettings(access="open"))
                elif company is other:
                    continue
                file = File(uuid.uuid4().hex, "a.txt", "text/plain", 1)
                await store.files.add(await room(store, company, room_id), file, limit_bytes=10)
                store.chat.add(await room(store, company, room_id), line(clock, room_id, file=file))
        for room_id in ("occupied", "left", "just left"):
            sessions[room_id] = await store.sessions.admit_anonymous(default.id, room_id, "alice")
        for room_id in ("left", "just left"):
            clock.advance(EMPTY_S)
            store.sessions.close(sessions[room_id], "left")
            await store.sessions.flush()
        clock.advance(1)
        await store.lines.flush()
        await store.retention.sweep()
        found = [room_id for room_id in (*own, *sessions) if await texts(store, default, room_id)]
        assert found == [room_id for room_id in (*own, *sessions) if keep or room_id != "left"]
        files = await store.database.read("SELECT room_id FROM files WHERE company_id = :id", id=default.id)
        assert sorted(row["room_id"] for row in files) == sorted(found)
        assert await texts(store, other, "left") == ["left"]
