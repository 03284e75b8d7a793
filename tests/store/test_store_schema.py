"""The schema's steps, the plans of the queries, and how many connections are opened."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import sys
import uuid
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from support.older import take_back

from sfu.errors import ConfigError
from sfu.refusals import DatabaseUnavailable
from sfu.store import (
    Store,
    bans,
    chat,
    companies,
    deliveries,
    feed,
    files,
    history,
    keys,
    open_store,
    retention,
    returns,
    rooms,
    sending,
    servers,
    sessions,
    stays,
    tiers,
    tokens,
    usage,
    webhooks,
)
from sfu.store.database import open_database
from sfu.store.filters import Wanted
from sfu.store.migrations import Step, parse, pending, schema_file
from sfu.store.records import Company
from sfu.store.shape import shape
from sfu.tenancy.keys import ServerKey

pytest_plugins = ["support.storing"]

SCHEMA = schema_file().read_text()
STEPS = parse(SCHEMA)
RELEASED = {
    "companies": "703803739e8f3f04",
    "rooms": "e4438a1f393c0dde",
    "tokens": "4d26d4f054744a34",
    "sessions": "09df3b2e0613c48b",
    "how calls went": "3fa8ba0318dd345f",
    "moderation": "d7c18be325784180",
    "chat": "e0f5b766207cb0b1",
    "retention": "537e038e773b3258",
    "who is in a room": "c4d6072e53d82085",
    "rooms and sessions that links made": "163a110e0fb57249",
    "canonical names": "e3b0c44298fc1c14",
    "lost connections": "6eace15f30f370cf",
    "audit": "49bcea61eab3d34c",
    "events": "0c3b552d1675537d",
    "webhooks": "b6b28dc90f76e37c",
    "what tokens say of people": "b0d82b2011c7169e",
    "repeated requests": "628b9a709e60178c",
    "tiers": "3abfca471d0af20c",
    "several keys": "03b6064901818259",
}
"""The digest of every step that a database somewhere may have had."""


KEYS = 19
"""The step from which on keys have a table of their own."""


def upto(number: int) -> str:
    """The schema of a release that ended with step `number`."""
    return "".join(re.split(r"(?=^-- step )", SCHEMA, flags=re.MULTILINE)[: number + 1])


def describe(path: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()


# --- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.title)
def test_a_released_step_never_changes(step: Step) -> None:
    """A database that has had it would not get the change: add a step instead."""
    found = hashlib.sha256("\n".join(step.statements).encode()).hexdigest()[:16]
    assert RELEASED.get(step.title) == found


def test_a_schema_is_cut_into_statements() -> None:
    text = """
    -- a comment; with a semicolon
    -- step 1: first
    CREATE TABLE a (
        x TEXT DEFAULT ';'  -- one; two
    );
    CREATE INDEX b ON a (x);
    -- step 2: second thing
    -- nothing but words;
    """
    steps = parse(re.sub(r"^    ", "", text, flags=re.MULTILINE))
    assert [(step.number, step.title, len(step.statements)) for step in steps] == [
        (1, "first", 2),
        (2, "second thing", 0),
    ]
    assert steps[0].statements[1] == "CREATE INDEX b ON a (x);"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CREATE TABLE a (x TEXT);",
        "-- step 2: second\nSELECT 1;",
        "-- step 1: a\nSELECT 1;\n-- step 1: b\nSELECT 1;",
        "-- step 1: a\nCREATE TABLE a (x TEXT)",
        "-- step 1: a\nSELECT 'never closed;",
    ],
)
def test_a_malformed_schema_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="of a schema"):
        parse(text)


def test_a_step_nobody_knows_is_refused_by_name() -> None:
    known = (Step(1, "companies", ()), Step(2, "rooms", ()))
    assert pending(known, []) == known
    assert pending(known, [(1, "companies")]) == known[1:]
    assert pending(known, [(1, "companies"), (2, "rooms")]) == ()
    for applied in ([(1, "companies"), (2, "rooms"), (3, "recordings")], [(1, "companies"), (2, "chambers")]):
        with pytest.raises(ConfigError, match=f"step {applied[-1][0]} '{applied[-1][1]}'.*2 'rooms'"):
            pending(known, applied)


@pytest.mark.parametrize("number", range(1, len(STEPS)))
async def test_an_old_database_is_upgraded(
    empty_url: str, server_key: ServerKey, number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = tmp_path / "old.sql"
    old.write_text(upto(number))
    with monkeypatch.context() as patch:
        patch.setattr("sfu.store.migrations.schema_file", lambda: old)
        async with open_database(empty_url) as database:
            before = number < KEYS
            await database.run(
                f"""INSERT INTO companies (id, name, {"key_prefix, key_hash," * before} sealed_secret, created_at,
                    updated_at)
                VALUES (:id, 'Acme', {"'', ''," * before} '', :now, :now)""",
                id="00000000-0000-4000-8000-000000000000",
                now=date(2025, 1, 1),
            )
    async with open_store(empty_url, server_key) as store:
        assert [company.name for company in await store.companies.list()] == ["Acme"]
        (company,) = await store.companies.list()
        await store.sessions.admit_anonymous(company.id, "team", "alice")
        applied = await store.database.read("SELECT step FROM schema_steps ORDER BY step")
        assert [row["step"] for row in applied] == [step.number for step in STEPS]


async def test_a_newer_database_is_refused(empty_url: str, server_key: ServerKey) -> None:
    async with open_database(empty_url) as database:
        await database.run(
            "INSERT INTO schema_steps (step, title, applied_at) VALUES (:step, 'recordings', :now)",
            step=len(STEPS) + 1,
            now=date(2030, 1, 1),
        )
    with pytest.raises(ConfigError, match=f"schema step {len(STEPS) + 1} 'recordings'"):
        async with open_store(empty_url, server_key):
            pass


async def test_an_empty_database_is_left_as_it_is_without_create(empty_url: str, server_key: ServerKey) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"The database is empty\. `sfu serve` makes its tables"):
            async with open_store(empty_url, server_key, create=False):
                pass
    async with open_store(empty_url, server_key):
        pass
    async with open_store(empty_url, server_key, create=False) as store:
        assert await store.companies.list() == ()


async def test_an_older_database_is_left_as_it_is_without_create(
    empty_url: str, server_key: ServerKey, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A command must not upgrade the database of a server that runs."""
    old = tmp_path / "old.sql"
    old.write_text(upto(3))
    with monkeypatch.context() as patch:
        patch.setattr("sfu.store.migrations.schema_file", lambda: old)
        async with open_store(empty_url, server_key):
            pass
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"had step 3 of {len(STEPS)}\. Start `sfu serve`"):
            async with open_store(empty_url, server_key, create=False):
                pass
    async with open_database(empty_url) as database:
        assert len(await database.read("SELECT step FROM schema_steps")) == len(STEPS)


async def test_a_step_that_fails_leaves_nothing_behind(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_database(empty_url) as database:
        title = STEPS[-1].title
        good = f"-- step {len(STEPS) + 1}: good\nCREATE TABLE good (x TEXT);\n"
        broken = f"{SCHEMA}{good}-- step {len(STEPS) + 2}: bad\nCREATE TABLE bad (;\n"
        with pytest.raises(Exception, match="syntax error"):
            await database.migrate(broken)
        last = await database.read_one("SELECT title FROM schema_steps ORDER BY step DESC LIMIT 1")
        assert last == {"title": title}
        with pytest.raises(DatabaseUnavailable) as refused:
            await database.read("SELECT * FROM good")
        assert "good" in str(refused.value.__cause__)


async def test_several_starts_at_once(empty_url: str, server_key: ServerKey) -> None:
    found: list[str] = []

    async def start() -> None:
        async with open_store(empty_url, server_key) as store:
            found.append((await store.companies.ensure_default()).id)

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(start)
    assert len(found) == 6
    assert len(set(found)) == 1


async def test_a_second_start_changes_nothing(tmp_path: Path, server_key: ServerKey) -> None:
    seen = []
    for _ in range(2):
        async with open_store(f"sqlite:///{tmp_path}/sfu.db", server_key):
            pass
        seen.append(describe(tmp_path / "sfu.db"))
    assert seen[0] == seen[1]
    assert {row[2] for row in seen[0]} == {table.name for table in shape(STEPS)} | {"schema_steps"}


# --- plans -----------------------------------------------------------------------------------------------------------

OWNERS = (
    companies.Companies, rooms.Rooms, tokens.Tokens, tokens, sessions.Sessions, history.History, bans.Bans, bans,
    chat.Chat, files.Files, retention.Retention, returns.Returns, returns, servers.Servers,
    stays, webhooks.Webhooks, deliveries.Deliveries, deliveries, sending.Sending, feed.Events,
    keys.Keys, keys, tiers.Tiers, tiers, usage.Usage,
)  # fmt: skip
QUERIES = {
    f"{owner.__name__.split('.')[-1]}.{name}": sql
    for owner in OWNERS
    for name, sql in vars(owner).items()
    if name.isupper() and isinstance(sql, str) and re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE)\b", sql)
}
LISTS = {
    "": Wanted("1"),
    " from the oldest": Wanted("1", ascending=True),
    " of a room": Wanted("1", room_id="team"),
    " that are open": Wanted("1", state="open"),
}
QUERIES |= {f"sessions{name}": history.statement(wanted) for name, wanted in LISTS.items()}
QUERIES |= {f"tokens{name}": tokens.statement(wanted) for name, wanted in LISTS.items()}
CAPABLE = {"Files.GET", "Files.KNOWN", "Chat.LOCK_ROOM", "Returns.GET", "Returns.REOPEN", "Returns.REVOKED"} | {
    "Webhooks.HURRY", "Deliveries.WAITING", "Deliveries.SPREAD",
    "Keys.FIND", "Keys.USED", "Keys.EVERY", "Keys.REVOKE", "Keys.GET_ADMIN",
}  # fmt: skip
"""A file's id is the key to it, what is on a server's disk is the server's to sweep, a call knows its room's id, a
ticket is signed, a key says whose it is, and the row of a webhook was found and locked before."""
LOCKS = {"Sessions.OPEN", "Rooms.OPEN_SESSIONS", "Servers.OPEN"}
"""What PostgreSQL alone is asked."""
WHOLE_TABLE = {"Companies.LIST", "Sending.WORK", "Sending.RELEASE", "Sending.HEADLESS", "Sending.BACKLOG"} | LOCKS
WHOLE_TABLE |= {"Keys.EVERY", "Tiers.LIST", "Retention.TIERS", "Retention.TIER_SESSIONS"}
"""What reads every row on purpose. There are few webhooks, and fewer tiers."""


def test_every_statement_is_found() -> None:
    assert len(QUERIES) > 25


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_on_a_tenants_table_names_the_tenant(name: str) -> None:
    """Exceptions: statements about a server's own sessions, about a dead server's, about what is over, and about
    what is sent, whoever's it is."""
    sql = QUERIES[name]
    tables = "rooms|tokens|sessions|bans|chat_lines|files|events|webhooks|deliveries|keys"
    tenants = re.search(rf"\b(FROM|UPDATE|INTO|JOIN) ({tables})\b", sql)
    own = "server = :server" in sql or name.startswith(("Retention.", "Servers.", "Sending.", "deliveries."))
    assert not tenants or own or "company_id" in sql or name in CAPABLE


async def test_every_query_has_an_index(tmp_path: Path, server_key: ServerKey) -> None:
    async with open_store(f"sqlite:///{tmp_path}/sfu.db", server_key):
        pass
    with closing(sqlite3.connect(tmp_path / "sfu.db")) as connection:
        for name in ("date_part", "greatest"):
            connection.create_function(name, 2, max)
        plans = {}
        for name, sql in QUERIES.items():
            values = dict.fromkeys(re.findall(r":(\w+)", sql), "1")
            plans[name] = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    scans = {
        name: step
        for name, plan in plans.items()
        for step in plan
        if re.match(r"SCAN \w+", step)
        and not re.match(
            r"SCAN (present|mine|recent|moves|running|\w+ USING (COVERING )?INDEX (sessions_open|companies_default))",
            step,
        )
    }
    assert scans.keys() <= WHOLE_TABLE, scans.keys() - WHOLE_TABLE
    sorts = {name for name, plan in plans.items() if any("FOR ORDER BY" in step for step in plan)}
    assert (
        sorts
        <= {"History.USER_ROOMS", "History.PERSON", "Usage.PEAKS", "Keys.EVERY", "Companies.LIST", "Sessions.ELSEWHERE"}
        | LOCKS
    )  # short lists
    present = {name for name, sql in QUERIES.items() if re.search(r"room_id = .*disconnected_at IS NULL", sql)}
    assert "History.PARTICIPANTS" in present
    assert {name for name in present if "INDEX sessions_open" not in "".join(plans[name])} == set()


PAST = """
    INSERT INTO sessions (
        id, company_id, room_id, user_name, server, connected_at, last_seen_at, disconnected_at, day, concurrency
    )
    VALUES (:id, :company_id, 'team', 'alice', 'one', :now, :now, :now, :day, 1)
"""


async def test_who_is_in_a_room_is_not_searched_among_who_was(
    store: Store, company: Company, clock: Any, database_url: str
) -> None:
    sqlite = database_url.startswith("sqlite")
    past = {"company_id": company.id, "now": clock.now, "day": clock.now.date()}
    rows = [past | {"id": str(uuid.UUID(int=number))} for number in range(1000)]
    await store.database.transaction(lambda statements: statements.run_many(PAST, rows), 60)
    if not sqlite:
        await store.database.run("ANALYZE")  # which PostgreSQL does by itself after a while, and SQLite does not
    explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
    plan = await store.database.read(explain + history.History.PARTICIPANTS, company_id=company.id, room_id="team")
    text = "\n".join(str(list(row.values())[-1]) for row in plan)
    assert "sessions_open" in text
    assert "Sort" not in text
    assert "FOR ORDER BY" not in text


async def test_analytics_come_out_of_their_index(store: Store, company: Company, database_url: str) -> None:
    explain = "EXPLAIN QUERY PLAN " if database_url.startswith("sqlite") else "EXPLAIN "
    async with open_store(database_url, ServerKey(bytes(32))) as plain:
        plan = await plain.database.read(
            explain + history.History.ROOM_DAYS,
            company_id=company.id,
            first=date(2025, 1, 1),
            last=date(2025, 12, 31),
            after="",
            count=100,
        )
    text = "\n".join(str(list(row.values())[-1]) for row in plan)
    print(text)
    assert "sessions_by_day" in text
    assert "Seq Scan" not in text
    if database_url.startswith("sqlite"):
        assert "SEARCH sessions USING COVERING INDEX sessions_by_day (company_id=? AND day>? AND day<?)" in text
        assert "FOR GROUP BY" not in text
        assert "FOR ORDER BY" not in text


# --- connections -----------------------------------------------------------------------------------------------------

OPENED: list[str] = []
sys.addaudithook(lambda event, arguments: OPENED.append(str(arguments)) if event == "sqlite3.connect" else None)


async def opened(store: Store, database_url: str) -> list[str]:
    """The connections opened to the database: ever (SQLite), or that there are now, the asking one included."""
    if database_url.startswith("sqlite"):
        name = urlsplit(database_url).path
        return [arguments for arguments in OPENED if name.removeprefix("/") in arguments]
    rows = await store.database.read("SELECT pid FROM pg_stat_activity WHERE application_name = 'sfu' ORDER BY pid")
    return [str(row["pid"]) for row in rows]


async def test_no_call_opens_a_connection(store: Store, company: Company, database_url: str) -> None:
    async def work(number: int) -> None:
        session = await store.sessions.admit_anonymous(company.id, f"room-{number}", "alice")
        await store.rooms.list(company.id)
        await store.keys.find("pk_")
        store.sessions.close(session, "left")
        await store.sessions.flush()

    async def all_at_once() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(work, number)

    await all_at_once()  # a pool grows to its size once
    before = await opened(store, database_url)
    await all_at_once()
    assert await opened(store, database_url) == before
    assert 1 <= len(before) <= 10


async def test_rooms_and_companies_under_another_spelling_are_renamed(
    database_url: str, server_key: ServerKey, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(database_url, server_key) as store:
        company, _ = await store.companies.create("Acme")
        for name in ("Two  Blanks", " Both", "Both"):
            await store.companies.create(name)
        for room_id in ("a  b", "e\u0301", " both", "both", "as it is"):
            await store.sessions.admit_anonymous(company.id, room_id, f"in {room_id}")
        await store.rooms.update(company.id, "a  b", {"locked": True})
        await store.rooms.update(company.id, " both", {"name": "merged"})
        await take_back(store.database, 10)
    async with open_store(database_url, server_key) as store:
        assert {one.name for one in await store.companies.list()} == {"Acme", "Both", " Both", "Two Blanks"}
        assert "company=' Both' keeps its spelling: another one is named 'Both'" in caplog.text
        assert f"room=' both' company={company.id} is now part of room 'both'" in caplog.text
        found = (await store.rooms.list(company.id)).items
        assert {room.room_id: (room.locked, room.name, room.participants) for room in found} == {
            "a b": (True, "", 1), "as it is": (False, "", 1), "both": (False, "", 2), "é": (False, "", 1)
        }  # fmt: skip
        (session,) = (await store.history.room_sessions(company.id, "é")).items
        assert session.user_name == "in e\u0301"
