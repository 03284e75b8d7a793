"""Everything about a person is found and erased, and nothing about anybody else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from support.filled import FILE_ID, fill

from sfu.store import Store, copies
from sfu.store.persons import BY_ID, BY_NAME, Found, Person, Persons
from sfu.store.records import Line
from sfu.store.shape import Table, shape

pytest_plugins = ["support.storing"]

TEXTS = {
    "companies": {"name", "sealed_secret", "sealed_own_secret", "tier"},
    "keys": {"name", "prefix", "hash", "scopes"},
    "rooms": {"room_id", "name", "description", "access", "metadata"},
    "tokens": {"token_hash", "room_id", "user_name", "permissions", "user_id", "metadata"},
    "sessions": {
        "room_id", "user_name", "user_id", "server", "peer_address", "leave_reason", "metadata", "last_drop",
    },
    "bans": {"room_id", "user_name", "name_key", "address", "banned_by"},
    "files": {"room_id", "name", "type"},
    "chat_lines": {"room_id", "peer", "user_name", "text"},
    "audit_entries": {
        "by_kind", "by_id", "by_name", "address", "request_id", "action", "room_id", "target", "user_name", "before",
        "after",
    },
    "events": {"type", "room_id", "user_name", "data"},
    "deliveries": {"type", "room_id", "user_name", "body", "state", "error"},
    "webhooks": {
        "url", "description", "events", "rooms", "sealed_secret", "sealed_previous", "paused_why", "leased_by",
    },
    "answers": {"key", "request", "sealed"},
    "tiers": {"tier"},
}  # fmt: skip
"""Every column that could have something about people. Rows of BY_NAME go as a whole, with what they say of the person;
of other people they name only who made a ban (MODERATOR)."""


OF_COMPANIES = ("companies", "keys", "rooms", "webhooks", "answers", "tiers")
"""Tables without people. Answers may name some, but are kept for a day only."""


@pytest.mark.parametrize("table", shape(copies.known_steps()), ids=lambda table: table.name)
def test_every_text_of_the_schema_was_thought_of(table: Table) -> None:
    """If this fails, a step added a table or a column: decide what `sfu forget` does with it."""
    texts = {column.name for column in table.columns if column.kind in ("TEXT", "JSONB")}
    assert texts == TEXTS.get(table.name)
    assert (table.name in BY_NAME) == (table.name in BY_ID) == (table.name not in OF_COMPANIES)


TOLD = {"deliveries": 1, "events": 3, "audit_entries": 2}


@pytest.fixture
async def persons(store: Store) -> Persons:
    """Alice, who has a token, and Zoë, who has none; each said something, and another Alice in another company."""
    await fill(store)
    other, _ = await store.companies.create("Other")
    await store.sessions.admit_anonymous(other.id, "team", "alice")
    return Persons(store.database)


async def company_id(store: Store, name: str) -> str:
    company = await store.companies.by_name(name)
    assert company is not None
    return company.id


async def names(store: Store) -> dict[str, list[str]]:
    tables = ("sessions", "tokens", "chat_lines", "bans")
    return {
        table: sorted(row["user_name"] for row in await store.database.read(f"SELECT user_name FROM {table}"))
        for table in tables
    }


def counts(found: Found) -> dict[str, int]:
    """The rows found, without the tables that have none."""
    return {table: len(ids) for table, ids in found.rows.items() if ids}


async def test_a_name_is_erased_in_its_company(store: Store, persons: Persons) -> None:
    before = await names(store)
    zoe = before["bans"][0]
    person = Person(await company_id(store, "Acme & Söhne"), "alice")
    found = await persons.find(person)
    assert counts(found) == {"chat_lines": 2, "files": 1, "sessions": 1, "tokens": 1, **TOLD}
    assert (found.present, found.chat_rooms) == ([], {"team"})
    done: list[int] = []
    await persons.erase(found, done.append)
    assert sum(done) == 11
    assert await names(store) == {"sessions": sorted(["alice", zoe]), "tokens": [], "chat_lines": [], "bans": [zoe]}
    assert await store.files.get(FILE_ID) is None
    assert not await persons.find(person)
    room = await store.rooms.get(person.company_id, "team")
    assert room is not None
    assert room.version == 2, "servers look at its chat again"


async def test_a_moderator_is_erased_from_bans_of_others(store: Store, persons: Persons) -> None:
    found = await persons.find(Person(await company_id(store, "default"), "alice"))
    assert (counts(found).get("bans", 0), len(found.moderated), bool(found)) == (0, 1, True)
    await persons.erase(found)
    (ban,) = await store.database.read("SELECT user_name, banned_by FROM bans")
    assert (bool(ban["user_name"]), ban["banned_by"]) == (True, "")


async def test_a_guest_is_known_by_a_session(store: Store, persons: Persons, clock: Any) -> None:
    """Of two guests of the same name, and of what the name said before the stay and after it, only this one's goes."""
    company = await store.companies.ensure_default()
    (room_id,) = [room.id for room in (await store.rooms.list(company.id)).items]
    (zoe,) = (await store.history.room_sessions(company.id, "open")).items
    at_ms = int(clock.now.timestamp() * 1000)
    for number, (name, offset_s) in enumerate([(zoe.user_name, 1), (zoe.user_name, -60), ("bob", 1)]):
        store.chat.add(
            room_id, Line(f"0f4a8f1e-0000-4000-8000-00000000000{number}", "p", name, "text", at_ms + 1000 * offset_s)
        )
    await store.lines.flush()
    clock.advance(5)
    store.sessions.close(zoe, "left")
    clock.advance(60)
    later = await store.sessions.admit_anonymous(company.id, "open", f"{zoe.user_name}!", peer_address="192.0.2.9")
    person = await persons.by_id(zoe.id.upper())
    assert person is not None
    found = await persons.find(person)
    told = {"events": 3, "audit_entries": 1}
    assert counts(found) == {"chat_lines": 1, "bans": 1, "sessions": 1, **told}
    await persons.erase(found)
    left = (await store.history.room_sessions(company.id, "open")).items
    assert [session.id for session in left] == [later.id]
    assert sorted(line.user_name for line in (await store.chat.list(company.id, "open")).items) == sorted(
        ["bob", zoe.user_name]
    )


async def test_a_token_stands_for_whoever_came_with_it(store: Store, persons: Persons, clock: Any) -> None:
    acme = await company_id(store, "Acme & Söhne")
    (session,) = (await store.history.room_sessions(acme, "team")).items
    assert session.token_id
    by_session, by_token = await persons.by_id(session.id), await persons.by_id(session.token_id)
    assert by_session == by_token
    assert by_token is not None
    found = await persons.find(by_token)
    assert counts(found) == {"chat_lines": 2, "files": 1, "sessions": 1, "tokens": 1, "events": 3, "audit_entries": 2}
    clock.advance(timedelta(days=1).total_seconds())
    await persons.erase(found)
    assert not await persons.find(by_token)
    for text in ("", "nobody", "0f4a8f1e-0000-4000-8000-000000000009"):
        assert await persons.by_id(text) is None
