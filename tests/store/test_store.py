"""Companies, rooms, tokens and history, on both engines. Sessions and outages have files of their own."""

from __future__ import annotations

import os
import shlex
import sqlite3
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from sfu.errors import ConfigError
from sfu.refusals import (
    BadCursor,
    BadValue,
    CompanyExists,
    CompanyNotFound,
    RoomChanged,
    RoomExists,
    RoomNotFound,
    TokenError,
    TokenRevoked,
    TokenUnknown,
)
from sfu.store import Store, open_store
from sfu.store.pages import encode_cursor
from sfu.store.records import Company, Room, RoomSettings
from sfu.store.rooms import PAGE_METADATA
from sfu.store.tokens import held_against
from sfu.tenancy import tokens
from sfu.tenancy.keys import ServerKey, digest
from sfu.tenancy.tokens import Permissions

pytest_plugins = ["support.storing"]

NO_ID = "00000000-0000-4000-8000-000000000000"
SETTINGS = RoomSettings("Team", "Every morning", 12, "token", {"colour": "blue", "tags": ["a", 1, None, 2.5, "ä👍"]})


# --- companies -------------------------------------------------------------------------------------------------------


async def test_a_company_is_found_by_its_key_its_id_and_its_name(store: Store, clock: Any) -> None:
    company, key = await store.companies.create("Acme", "pro")
    found = await store.keys.find(key.reveal())
    assert found is not None
    assert found[1] == company
    assert (company.name, company.tier, company.is_active, company.is_default) == ("Acme", "pro", True, False)
    assert company.created_at == company.updated_at == clock.now
    assert await store.companies.by_id(company.id) == company
    assert await store.companies.by_id(company.id.upper()) == company
    assert await store.companies.by_name("Acme") == company


async def test_no_other_text_finds_a_company(store: Store, company: Company) -> None:
    for text in ("", "pk_", "x", "é", "\0", "\ud800", "' OR 1=1 --", "1", NO_ID, "pk_" + "A" * 43):
        assert await store.companies.by_id(text) is None


async def test_a_name_is_taken_once(store: Store, company: Company) -> None:
    with pytest.raises(CompanyExists, match="Acme"):
        await store.companies.create(company.name)


async def test_a_rotated_secret_ends_every_token(store: Store, company: Company, clock: Any, issue: Any) -> None:
    _, token = await issue(company)
    rotated = await store.companies.rotate_secret(company.id)
    assert rotated.sealed_secret != company.sealed_secret
    with pytest.raises(tokens.TokenSignature):
        tokens.decode(token, store.companies.secret(rotated).reveal(), clock.now)


async def test_a_company_is_disabled_and_enabled(store: Store) -> None:
    company, key = await store.companies.create("Acme")
    assert not (await store.companies.set_active(company.id, False)).is_active
    found = await store.keys.find(key.reveal())
    assert found is not None
    assert found[1] is not None
    assert not found[1].is_active
    assert (await store.companies.set_active(company.id, True)).is_active


async def test_what_does_not_exist_cannot_be_changed(store: Store) -> None:
    for change in (store.companies.rotate_key, store.companies.rotate_secret):
        with pytest.raises(CompanyNotFound):
            await change(NO_ID)
    with pytest.raises(CompanyNotFound):
        await store.companies.set_active(NO_ID, True)


async def test_there_is_one_default_company(store: Store) -> None:
    found: list[Company] = []

    async def ensure() -> None:
        found.append(await store.companies.ensure_default())

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ensure)
    assert len(set(found)) == 1
    assert found[0].is_default
    assert await store.companies.list() == (found[0],)


async def test_companies_are_listed_by_name(store: Store, company: Company, other: Company) -> None:
    assert await store.companies.list() == (company, other)


async def test_another_server_key_is_noticed(database_url: str, server_key: ServerKey) -> None:
    async with open_store(database_url, server_key) as store:
        await store.companies.ensure_default()
        await store.companies.create("It's Acme")
        await store.companies.check_key()
    async with open_store(database_url, ServerKey(bytes(32))) as store:
        closed = await store.companies.list()
        assert len(closed) == 2
        for company in closed:
            with pytest.raises(ConfigError, match="server key does not fit") as refused:
                await store.companies.check_key()
            assert f"sfu company rotate-secret {shlex.quote(company.name)}`" in str(refused.value)
            await store.companies.rotate_secret(company.id)  # the way out
        await store.companies.check_key()


async def test_a_sealed_secret_opens_for_its_own_company_only(store: Store, company: Company, other: Company) -> None:
    with pytest.raises(ConfigError):
        store.companies.secret(replace(other, sealed_secret=company.sealed_secret))


# --- rooms -----------------------------------------------------------------------------------------------------------


async def test_a_room_keeps_what_it_was_given(store: Store, company: Company, clock: Any) -> None:
    room = await store.rooms.create(company.id, "team-meeting", SETTINGS)
    assert await store.rooms.get(company.id, "team-meeting") == room
    assert (room.company_id, room.room_id, room.name, room.description) == (
        company.id,
        "team-meeting",
        "Team",
        "Every morning",
    )
    assert (room.max_participants, room.access, room.version, room.participants) == (12, "token", 1, 0)
    assert room.metadata == SETTINGS.metadata
    assert (room.created_at, room.updated_at, room.last_join_at) == (clock.now, clock.now, None)


async def test_a_room_id_is_taken_once_in_a_company(store: Store, company: Company, other: Company) -> None:
    await store.rooms.create(company.id, "team", RoomSettings())
    with pytest.raises(RoomExists, match="team"):
        await store.rooms.create(company.id, "team", RoomSettings())
    await store.rooms.create(other.id, "team", RoomSettings())


def only(version: int) -> Callable[[Room], None]:
    """Refuses any other version of a room."""

    def judge(room: Room) -> None:
        if room.version != version:
            raise RoomChanged

    return judge


async def test_of_two_editors_one_has_to_read_again(store: Store, company: Company, clock: Any) -> None:
    await store.rooms.create(company.id, "team", RoomSettings())
    clock.advance(5)
    edited = await store.rooms.update(company.id, "team", asdict(SETTINGS), judge=only(1))
    assert (edited.version, edited.name, edited.metadata) == (2, "Team", SETTINGS.metadata)
    assert edited.updated_at == edited.created_at + timedelta(seconds=5)
    with pytest.raises(RoomChanged):
        await store.rooms.update(company.id, "team", {"name": "Mine"}, judge=only(1))
    with pytest.raises(RoomChanged):
        await store.rooms.delete(company.id, "team", judge=only(1))
    assert await store.rooms.get(company.id, "team") == edited
    assert (await store.rooms.update(company.id, "team", {"name": "Mine"})).version == 3


async def test_editors_at_once_each_count(store: Store, company: Company) -> None:
    await store.rooms.create(company.id, "team", RoomSettings())
    outcomes: list[str] = []

    async def edit(name: str) -> None:
        try:
            outcomes.append((await store.rooms.update(company.id, "team", {"name": name}, judge=only(1))).name)
        except RoomChanged:
            outcomes.append("refused")

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(edit, str(number))
    assert sorted(outcomes)[1:] == ["refused"] * 5


async def test_a_deleted_room_is_gone(store: Store, company: Company, clock: Any, issue: Any) -> None:
    await store.rooms.create(company.id, "team", RoomSettings())
    grant, token = await issue(company)
    session = await store.sessions.admit(grant, token)
    clock.advance(7)
    await store.rooms.delete(company.id, "team", judge=only(1))
    assert await store.rooms.get(company.id, "team") is None
    (closed,) = (await store.history.room_sessions(company.id, "team")).items
    assert (closed.id, closed.leave_reason, closed.duration_s) == (session.id, "room_deleted", 7)
    with pytest.raises(TokenRevoked):  # or the page would come back and make the room again
        await store.sessions.admit(grant, token)
    with pytest.raises(RoomNotFound):
        await store.rooms.delete(company.id, "team")
    with pytest.raises(RoomNotFound):
        await store.rooms.update(company.id, "team", {})


async def test_rooms_are_listed_in_pages(store: Store, company: Company, other: Company) -> None:
    ids = [f"room-{number:02}" for number in range(7)]
    for room_id in reversed(ids):
        await store.rooms.create(company.id, room_id, RoomSettings())
    await store.rooms.create(other.id, "room-00x", RoomSettings())
    seen, cursor, sizes = [], None, []
    while True:
        page = await store.rooms.list(company.id, cursor=cursor, limit=3)
        seen += [room.room_id for room in page.items]
        sizes.append(len(page.items))
        if page.next is None:
            break
        cursor = page.next
        if len(sizes) == 1:  # neither shifts a page nor shows twice
            await store.rooms.create(company.id, "room-00a", RoomSettings())
    assert seen == ids
    assert sizes == [3, 3, 1]


async def test_a_made_up_cursor_is_refused(store: Store, company: Company) -> None:
    time = "2025-01-01T00:00:00+00:00"
    nonsense = [("now", NO_ID), (time[:19], NO_ID), (time, "1"), ("a", "b", "c"), ()]
    for cursor in ("!", "é", "e30", "WzFd", "W" * 4000, "Ww" * 8000, *[encode_cursor(*key) for key in nonsense]):
        for read in (
            store.tokens.list(company.id, cursor=cursor),
            store.history.room_sessions(company.id, "team", cursor=cursor),
            store.history.room_days(company.id, date(2025, 1, 1), date(2025, 12, 31), cursor=cursor),
            store.rooms.list(company.id, cursor=cursor),
        ):
            with pytest.raises(BadCursor):
                await read


async def test_metadata_that_cannot_be_kept_is_refused(store: Store, company: Company) -> None:
    nul, half, not_json = "\0", "\ud800", object()
    for metadata in (
        {"a": nul},
        {nul: 1},
        {"a": ["\\", "\\\0"]},
        {"a": half},
        {"\udfff": 1},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": not_json},
        {"a": 10**5000},
    ):
        with pytest.raises(BadValue, match="metadata: "):
            await store.rooms.create(company.id, "team", RoomSettings(metadata=metadata))


async def test_metadata_that_only_looks_bad_is_kept(store: Store, company: Company) -> None:
    metadata = {"a": "\\u0000", "b": "\\ud800", "c": "\U0001f44d\x7f\x01", "d": 10**30, "": {"": [{}]}}
    await store.rooms.create(company.id, "team", RoomSettings(metadata=metadata))
    found = await store.rooms.get(company.id, "team")
    assert found is not None
    assert found.metadata == metadata


async def test_text_that_no_database_takes_is_refused(store: Store, company: Company) -> None:
    for text in ("a\0b", "\ud800"):
        for call in (
            store.rooms.get(company.id, text),
            store.rooms.create(company.id, "team", RoomSettings(name=text)),
            store.history.user_rooms(company.id, text),
            store.companies.create(text),
            store.sessions.admit_anonymous(company.id, "team", text),
        ):
            with pytest.raises(BadValue, match="must be text"):
                await call


# --- tokens ----------------------------------------------------------------------------------------------------------


async def test_a_token_is_kept_as_a_hash(store: Store, company: Company, issue: Any) -> None:
    permissions = Permissions(publish=False, moderate=True)
    grant, token = await issue(company, permissions=permissions, single_use=True)
    found = await store.tokens.get(company.id, grant.id)
    assert found is not None
    assert (found.id, found.room_id, found.user_name) == (grant.id, "team", "alice")
    assert (found.permissions, found.single_use) == (permissions, True)
    assert found.expires_at == grant.expires_at
    assert timedelta() <= found.created_at - grant.issued_at < timedelta(seconds=1), "in the order of issue"
    assert (found.used_at, found.revoked_at) == (None, None)
    (row,) = await store.database.read("SELECT token_hash FROM tokens")
    assert row["token_hash"] == digest(token)


async def test_a_token_is_revoked_for_good(store: Store, company: Company, clock: Any, issue: Any) -> None:
    grant, _ = await issue(company)
    first = await store.tokens.revoke(company.id, grant.id)
    clock.advance(60)
    assert await store.tokens.revoke(company.id, grant.id) == first
    assert first is not None
    assert first.revoked_at == clock.now - timedelta(seconds=60)


async def test_a_page_of_rooms_is_bounded_by_their_metadata(store: Store, company: Company, other: Company) -> None:
    """Everybody waits while metadata is converted. 300 rooms with 60 kB each took half a second."""
    large = RoomSettings(metadata={"text": "x" * 60_000})
    names = [f"room-{number:02}" for number in range(30)]
    for name in names:
        await store.rooms.create(company.id, name, large)
    await store.rooms.create(company.id, "vast", RoomSettings(metadata={"text": "x" * 300_000}))
    await store.rooms.create(other.id, "room", large)
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        page = await store.rooms.list(company.id, cursor=cursor, limit=1000)
        assert len(page.items) == 1 or sum(len(room.metadata["text"]) for room in page.items) <= PAGE_METADATA
        found += [room.room_id for room in page.items]
        cursor, pages = page.next, pages + 1
    assert found == [*names, "vast"]
    assert pages < 12


async def test_tokens_are_listed_the_newest_first(store: Store, company: Company, clock: Any, issue: Any) -> None:
    made: list[str] = []
    for number in range(9):
        clock.advance(number // 4)  # some in the same microsecond
        made.insert(0, (await issue(company, user_name=f"user-{number}"))[0].id)
    seen, cursor = [], None
    while len(seen) < len(made):
        page = await store.tokens.list(company.id, cursor=cursor, limit=2)
        seen += [token.id for token in page.items]
        cursor = page.next
    assert seen == made
    assert cursor is None


async def test_any_text_may_be_asked_for_as_a_token(store: Store, company: Company) -> None:
    for text in ("", "1", "é", "\0", "\ud800", "../..", NO_ID):
        assert await store.tokens.get(company.id, text) is None
        assert await store.tokens.revoke(company.id, text) is None


async def test_what_is_held_against_a_token(store: Store, company: Company, issue: Any) -> None:
    grant, _ = await issue(company)
    assert held_against(await store.tokens.get(company.id, grant.id)) is None
    assert isinstance(held_against(await store.tokens.revoke(company.id, grant.id)), TokenRevoked)
    assert isinstance(held_against(await store.tokens.get(company.id, NO_ID)), TokenUnknown)


# --- tenants ---------------------------------------------------------------------------------------------------------


async def test_another_company_is_as_if_there_were_nothing(
    store: Store, company: Company, other: Company, issue: Any
) -> None:
    await store.rooms.create(company.id, "team", RoomSettings())
    grant, token = await issue(company)
    session = await store.sessions.admit(grant, token)
    before = await store.rooms.get(company.id, "team")
    assert await store.rooms.get(other.id, "team") is None
    assert (await store.rooms.list(other.id)).items == ()
    assert await store.tokens.get(other.id, grant.id) is None
    assert await store.tokens.revoke(other.id, grant.id) is None
    assert (await store.tokens.list(other.id)).items == ()
    assert (await store.history.room_sessions(other.id, "team")).items == ()
    assert await store.history.participants(other.id, "team") == ()
    assert await store.history.user_rooms(other.id, "alice") == ()
    assert (await store.history.room_days(other.id, date(2000, 1, 1), date(2100, 1, 1))).items == ()
    with pytest.raises(RoomNotFound):
        await store.rooms.update(other.id, "team", asdict(SETTINGS))
    with pytest.raises(RoomNotFound):
        await store.rooms.delete(other.id, "team")
    with pytest.raises(TokenUnknown):
        await store.sessions.admit(replace(grant, company_id=other.id), token)
    store.sessions.close(replace(session, company_id=other.id), "left")
    await store.sessions.flush()
    assert await store.rooms.get(company.id, "team") == before
    assert await store.history.participants(company.id, "team") == (session,)


async def test_companies_with_rooms_of_one_name_are_counted_apart(
    store: Store, company: Company, other: Company
) -> None:
    await store.rooms.create(company.id, "team", RoomSettings(max_participants=1))
    await store.rooms.create(other.id, "team", RoomSettings(max_participants=2))
    for owner in (company, other, other):
        await store.sessions.admit_anonymous(owner.id, "team", "alice")
    assert [(await store.rooms.list(owner.id)).items[0].participants for owner in (company, other)] == [1, 2]
    (mine,) = await store.history.user_rooms(company.id, "alice")
    assert mine.participants == 1


# --- history ---------------------------------------------------------------------------------------------------------


async def test_a_persons_rooms(store: Store, company: Company, clock: Any) -> None:
    await store.rooms.create(company.id, "team", SETTINGS)
    start = clock.now
    await store.sessions.admit_anonymous(company.id, "lobby", "alice")
    clock.advance(1)
    await store.rooms.update(company.id, "team", asdict(RoomSettings("Team")))
    for name in ("alice", "bob", "alice"):
        await store.sessions.admit_anonymous(company.id, "team", name)
        clock.advance(1)
    gone = await store.sessions.admit_anonymous(company.id, "old", "alice")
    store.sessions.close(gone, "left")
    await store.sessions.flush()
    found = [
        (room.room_id, room.name, room.participants, room.since)
        for room in await store.history.user_rooms(company.id, "alice")
    ]
    assert found == [("lobby", "", 1, start), ("team", "Team", 3, start + timedelta(seconds=1))]


async def test_sessions_of_a_room_in_pages(store: Store, company: Company, clock: Any) -> None:
    made = []
    for number in range(5):
        clock.advance(number % 2)
        made.append(await store.sessions.admit_anonymous(company.id, "team", f"user-{number}"))
    await store.sessions.admit_anonymous(company.id, "lobby", "alice")
    expected = sorted(made, key=lambda session: (session.connected_at, session.id), reverse=True)
    seen, cursor = [], None
    while len(seen) < 5:
        page = await store.history.room_sessions(company.id, "team", cursor=cursor, limit=2)
        seen += page.items
        cursor = page.next
    assert seen == expected
    assert cursor is None


async def test_days_of_rooms(store: Store, company: Company, clock: Any) -> None:
    """Against a count by hand: two days, two rooms, overlaps, one who comes twice, one who is still there."""
    stays = [  # room, name, from hour, to hour
        ("team", "alice", 9, 11),
        ("team", "bob", 10, 12),
        ("team", "alice", 11.5, 12),
        ("team", "carol", 11.75, None),
        ("lobby", "alice", 10, 11),
        ("team", "bob", 23.5, 24.5),
        ("team", "alice", 33, 34),
        ("lobby", "dave", 40, 42),
        ("lobby", "erin", 41, 43),
    ]
    midnight = datetime(2025, 10, 21, tzinfo=UTC)
    events = sorted(
        [(hour, "1 join", stay) for stay in stays if (hour := stay[2]) is not None]
        + [(hour, "0 leave", stay) for stay in stays if (hour := stay[3]) is not None],
        key=lambda event: event[:2],
    )
    sessions = {}
    for hour, what, stay in events:
        clock.now = midnight + timedelta(hours=hour)
        if what == "1 join":
            sessions[stay] = await store.sessions.admit_anonymous(company.id, stay[0], stay[1])
        else:
            store.sessions.close(sessions[stay], "left")
    await store.sessions.flush()

    first, second = date(2025, 10, 21), date(2025, 10, 22)
    page = await store.history.room_days(company.id, first, second)
    found = [
        (
            day.day,
            day.room_id,
            day.unique_users,
            day.sessions,
            day.avg_duration_s,
            day.total_duration_s,
            day.peak_concurrency,
        )
        for day in page.items
    ]
    hour = 3600
    assert found == [
        (second, "lobby", 2, 2, 2 * hour, 4 * hour, 2),
        (second, "team", 1, 1, 1 * hour, 1 * hour, 2),  # carol is still there
        (first, "lobby", 1, 1, 1 * hour, 1 * hour, 1),
        (first, "team", 3, 5, 5.5 * hour / 4, 5.5 * hour, 3),
    ]
    assert (await store.history.room_days(company.id, second, second)).items == page.items[:2]
    assert (await store.history.room_days(company.id, second, first)).items == ()
    parts, cursor = [], None
    while len(parts) < 4:
        part = await store.history.room_days(company.id, first, second, cursor=cursor, limit=1)
        parts += part.items
        cursor = part.next
    assert tuple(parts) == page.items
    assert cursor is None


# --- nothing in clear ------------------------------------------------------------------------------------------------


def contents(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


async def test_no_key_secret_or_token_is_in_the_database_a_log_or_a_repr(
    tmp_path: Path, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("", "databases", "aiosqlite"):
        caplog.set_level("DEBUG", name)
    raw_key = bytes(range(100, 132))
    async with open_store(f"sqlite:///{tmp_path}/sfu.db", ServerKey(raw_key), clock=clock) as store:
        company, first_key = await store.companies.create("Acme")
        company, key = await store.companies.rotate_key(company.id)
        old = store.companies.secret(company)
        company = await store.companies.rotate_secret(company.id)
        secret = store.companies.secret(company)
        assert await store.keys.find(key.reveal()) is not None
        grant = tokens.grant(company_id=company.id, room_id="team", user_name="alice", duration_s=60, now=clock.now)
        token = tokens.encode(grant, secret.reveal())
        await store.tokens.add(grant, token, single_use=True)
        await store.sessions.admit(grant, token)
        with pytest.raises(TokenError) as refused:
            await store.sessions.admit(grant, token)
        await store.tokens.revoke(company.id, grant.id)
        shown = f"{company} {key} {key!r} {secret} {first_key} {refused.value!r} {store}"
        stored = contents(tmp_path)
        assert digest(token).encode() in stored  # so this looks in the right place
    stored += contents(tmp_path)
    logged = "\n".join(f"{record.getMessage()} {record.args!r}" for record in caplog.records)
    assert "schema_step=1" in logged
    assert any(record.name == "aiosqlite" for record in caplog.records)
    for value in (first_key.reveal(), key.reveal(), token, token.split(".")[2], old.reveal(), secret.reveal(), raw_key):
        raw = value if isinstance(value, bytes) else value.encode()
        for form in (raw, raw.hex().encode(), repr(raw)[2:-1].encode()):
            assert form not in stored
            assert form not in logged.encode()
            assert form not in shown.encode()


async def test_whether_anything_was_written_is_told_without_a_query(tmp_path: Path, server_key: ServerKey) -> None:
    url, log = f"sqlite:///{tmp_path}/sfu.db", tmp_path / "sfu.db-wal"
    async with open_store(url, server_key) as server, open_store(url, server_key, server="cli") as command:
        company, _ = await command.companies.create("Acme")
        os.utime(log, (1, 1))  # as if that were long ago
        before = server.database.stamp()
        await server.companies.by_id(company.id)
        assert server.database.stamp() == before is not None
        await command.companies.set_active(company.id, False)
        assert server.database.stamp() != before
        later = time.time() + 60
        os.utime(log, (later, later))  # too new to tell of what comes next
        assert server.database.stamp() is None


async def test_the_file_is_for_its_owner_only(tmp_path: Path, server_key: ServerKey) -> None:
    path = tmp_path / "new" / "directory" / "sfu.db"
    async with open_store(f"sqlite:///{path}", server_key):
        assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
        assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sfu.db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///",
        "mysql://a:s3cret@h/d",
        "postgresql://a:s3cret@h",
        "postgresql://a:s3cret@h:x/d",
        "postgresql+aiopg://a:s3cret@h/d",
    ],
)
async def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str, server_key: ServerKey) -> None:
    with pytest.raises(ConfigError, match="SFU_DATABASE_URL") as refused:
        async with open_store(url, server_key):
            pass
    assert "s3cret" not in str(refused.value)


def test_sqlite_is_new_enough() -> None:
    assert sqlite3.sqlite_version_info >= (3, 35)
