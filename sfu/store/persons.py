"""Persons: finds and erases everything that the database has about somebody.

A name stands for everybody of a company with that name. The id of a token stands for whoever came with it, the id of
a session without a token for that one stay. tests/store/test_store_persons.py compares with the columns of the schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import trio

from sfu.limits.rates import place
from sfu.store import audit
from sfu.store.audit import Author, Change
from sfu.store.database import Database
from sfu.store.records import canonical_id
from sfu.store.statements import Row, Statements

BATCH = 50
"""Most rows per transaction."""
REST = 4.0
"""Pause after a batch, in durations of that batch: joins and chat of a running server go first."""
LOOK_S = 60.0
"""Timeout of a search in one table. It reads all rows of the company, while others read and write."""

BY_NAME = {
    "chat_lines": "user_name = :name",
    "files": "id IN (SELECT file_id FROM chat_lines WHERE company_id = :company_id AND user_name = :name)",
    "bans": "user_name = :name",
    "sessions": "user_name = :name",
    "tokens": "user_name = :name",
    "deliveries": "user_name = :name",
    "events": "user_name = :name",
    "audit_entries": "(user_name = :name OR by_name = :name AND by_kind IN ('person', 'token'))",
}
"""The rows of a person known by name. A table of the schema that is not here has nothing about people, but for what
companies write into names and descriptions of rooms."""

_STAY = """
    SELECT 1 FROM sessions AS s WHERE (s.id = :id OR s.token_id = :id) AND s.company_id = l.company_id
        AND s.room_id = l.room_id AND s.user_name = l.user_name
        AND l.sent_ms >= 1000 * date_part('epoch', s.connected_at) - 2000
        AND (s.disconnected_at IS NULL OR l.sent_ms <= 1000 * date_part('epoch', s.disconnected_at) + 2000)
"""
_LINES = f"SELECT l.{{}} FROM chat_lines AS l WHERE l.company_id = :company_id AND EXISTS ({_STAY})"
_STAYS = "SELECT id FROM sessions WHERE id = :id OR token_id = :id"
_WAITED = "(substr({}, 1, 6) = 'lobby.' AND (room_id, user_name) = (:room_id, :name))"
"""Nobody has a session in the lobby, so this one's time there is known by the name alone."""
_OWN = f"SELECT CAST(id AS TEXT) FROM ({_STAYS} UNION ALL SELECT id FROM tokens WHERE id = :id) AS own"
BY_ID = {
    "chat_lines": f"id IN ({_LINES.format('id')})",
    "files": f"id IN ({_LINES.format('file_id')})",
    "bans": "(token_id = :id OR token_id IS NULL AND (room_id, user_name, address) = (:room_id, :name, :address))",
    "sessions": "(id = :id OR token_id = :id)",
    "tokens": "id = :id",
    "deliveries": f"(session_id IN ({_STAYS}) OR {_WAITED.format('type')})",
    "events": f"(session_id IN ({_STAYS}) OR {_WAITED.format('type')})",
    "audit_entries": f"""
        (session_id IN ({_STAYS}) OR target IN ({_OWN}) OR by_id IN ({_OWN}) OR {_WAITED.format("action")})
    """,
}
"""The rows of a person known by a token or a session. Lines of chat are theirs if written under their name, in their
room, during their stay; the two seconds allow for clocks."""

MODERATOR = "banned_by = :name"
"""Bans that they made as a moderator stay, without their name."""

FIND = "SELECT id, room_id FROM {table} WHERE company_id = :company_id AND {condition}"
SESSION = "SELECT id, company_id, room_id, user_name, token_id, peer_address FROM sessions WHERE id = :id"
TOKEN = "SELECT id, company_id, room_id, user_name FROM tokens WHERE id = :id"
OPEN = "SELECT room_id FROM sessions WHERE company_id = :company_id AND {} AND disconnected_at IS NULL"
TOUCH_ROOM = "UPDATE rooms SET version = version + 1 WHERE company_id = :company_id AND room_id = :room_id"
"""A server compares its call's chat with the database when the version of the room has changed."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whom to look for in one company: everybody with this name or, with `id`, one person."""

    company_id: str
    name: str
    id: str = ""
    room_id: str = ""
    address: str = ""

    @property
    def values(self) -> dict[str, str]:
        named = {"company_id": self.company_id, "name": self.name}
        return named | {"id": self.id, "room_id": self.room_id, "address": self.address} if self.id else named


@dataclass(slots=True)
class Found:
    """What the database has about a person: ids of rows by table, of bans they made, and the rooms they are in now."""

    person: Person
    rows: dict[str, list[str]] = field(default_factory=dict)
    moderated: list[str] = field(default_factory=list)
    chat_rooms: set[str] = field(default_factory=set)
    present: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(self.rows.values()) or bool(self.moderated)


class Persons:
    """Raises DatabaseUnavailable. Works beside running servers: they end the person's stays within seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_id(self, text: str) -> Person | None:
        """The person of a session or a token. Accepts any text."""
        known = canonical_id(text)
        row = await self._row(SESSION, known) if known else None
        if row is not None and row["token_id"] is None:
            return Person(
                str(row["company_id"]), row["user_name"], str(known), row["room_id"], place(row["peer_address"])
            )
        token = await self._row(TOKEN, known if row is None else str(row["token_id"])) if known else None
        if token is None:
            return None
        return Person(str(token["company_id"]), token["user_name"], str(token["id"]), token["room_id"])

    async def alike(self, name: str) -> list[str]:
        """Names that differ from this one only in upper and lower case."""
        found: set[str] = set()
        for table in ("sessions", "tokens", "chat_lines", "bans"):
            rows = await self._database.read(f"SELECT DISTINCT user_name FROM {table}", timeout_s=LOOK_S)
            found |= {row["user_name"] for row in rows if row["user_name"].casefold() == name.casefold()}
        return sorted(found - {name})

    async def find(self, person: Person) -> Found:
        """Everything about the person."""
        found, where = Found(person), BY_ID if person.id else BY_NAME
        for table, condition in where.items():
            rows = await self._look(
                f"SELECT id, room_id FROM {table} WHERE company_id = :company_id AND {condition}", person
            )
            found.rows[table] = [str(row["id"]) for row in rows]
            if table == "chat_lines":
                found.chat_rooms = {row["room_id"] for row in rows}
        rows = await self._look(FIND.format(table="bans", condition=MODERATOR), person)
        found.moderated = [str(row["id"]) for row in rows]
        rows = await self._look(OPEN.format(where["sessions"]), person)
        found.present = sorted({row["room_id"] for row in rows})
        return found

    async def erase(self, found: Found, progress: Any = lambda count: None) -> None:
        """Deletes what was found. `progress` is told how many more rows are done. Interrupted, it can begin anew."""
        for table, ids in found.rows.items():
            for start in range(0, len(ids), BATCH):
                batch = ids[start : start + BATCH]
                began = trio.current_time()
                await self._delete(table, batch)
                progress(len(batch))
                await trio.sleep(REST * (trio.current_time() - began))
        for ban_id in found.moderated:
            await self._database.run("UPDATE bans SET banned_by = '' WHERE id = :id", id=ban_id)
        for room_id in sorted(found.chat_rooms):
            await self._database.run(TOUCH_ROOM, company_id=found.person.company_id, room_id=room_id)

    async def forgotten(self, company_id: str, erased: Mapping[str, int], author: Author) -> None:
        """Records how many rows were erased of which tables, without the person's name."""
        change = Change("person.forgotten", company_id, company_id, before=dict(erased))
        await self._database.transaction(lambda statements: audit.record(statements, datetime.now(UTC), author, change))

    async def _delete(self, table: str, ids: Sequence[str]) -> None:
        async def work(statements: Statements) -> None:
            await statements.run_many(f"DELETE FROM {table} WHERE id = :id", [{"id": id_} for id_ in sorted(ids)])

        await self._database.transaction(work)

    async def _look(self, sql: str, person: Person) -> list[Row]:
        used = {name: value for name, value in person.values.items() if f":{name}" in sql}
        return await self._database.read(sql, timeout_s=LOOK_S, **used)

    async def _row(self, sql: str, id_: str) -> Row | None:
        return await self._database.read_one(sql, id=id_)


def _person(row: Row, address: str = "") -> Person:
    return Person(str(row["company_id"]), row["user_name"], str(row["id"]), row["room_id"], address)
