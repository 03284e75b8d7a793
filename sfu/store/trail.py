"""The audit trail: entries of what happens in calls, which are written later, and the list of all entries."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sfu.store import audit
from sfu.store.audit import Author, Change, Kind
from sfu.store.database import Database
from sfu.store.events import Event
from sfu.store.later import Later, Step
from sfu.store.pages import NEWEST, Page, decode_cursor, moment, page
from sfu.store.records import utc
from sfu.store.statements import Row, Statements, bound

Told = tuple[Change | None, Sequence[Event]]
"""What is recorded of a change, or of something that changes nothing: then there are only events."""

SEEN = "SELECT id FROM audit_entries WHERE id = :id UNION ALL SELECT id FROM events WHERE id = :id"

FIRST, LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
"""Times before and after all entries, in every time zone."""

log = logging.getLogger(__name__)


def step_of(now: datetime, author: Author, write: Callable[[Statements], Awaitable[Told]]) -> Step:
    """A step for the queue of rulings: `write` changes something and returns what is recorded of it, as of `now`."""
    id_ = str(uuid.uuid4())

    async def step(statements: Statements) -> Sequence[Event]:
        if await statements.one(SEEN, id=id_) is not None:
            return ()  # it was committed, but nobody learned that
        change, events = await write(statements)
        if change is not None:
            await statements.run(audit.ADD, **audit.row(now, author, change) | {"id": id_})
        return [replace(event, at=now, id="" if number else id_) for number, event in enumerate(events)]

    return step


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries a list has. Empty texts, and None as the company, mean all."""

    company_id: str | None = None
    since: datetime = FIRST
    until: datetime = LAST
    room_id: str = ""
    user_name: str = ""
    action: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its author, what they changed, and when. `company_id` is None for the whole server."""

    id: str
    at: datetime
    author: Author
    change: Change

    @classmethod
    def of(cls, row: Row) -> Entry:
        kind: Kind = row["by_kind"]
        return cls(
            str(row["id"]),
            utc(row["at"]),
            Author(kind, row["by_id"], row["by_name"], row["address"], row["request_id"]),
            Change(
                row["action"],
                _id(row["company_id"]),
                row["target"],
                row["room_id"],
                _object(row["before"]),
                _object(row["after"]),
                row["user_name"],
                _id(row["session_id"]),
            ),
        )


class Trail:
    """`rulings` is the queue of what moderators do."""

    def __init__(self, database: Database, clock: Callable[[], datetime], rulings: Later) -> None:
        self._database, self._clock, self._rulings = database, clock, rulings

    def later(self, author: Author, change: Change | None, *events: Event) -> None:
        """Queues what somebody did in a call, and the events that tell of it; never blocks.

        Raises BadValue for values that cannot be stored.
        """
        now = self._clock()
        if change is not None:
            bound(audit.row(now, author, change))

        async def write(_statements: Statements) -> Told:
            return change, events

        if not self._rulings.add_step(step_of(now, author, write)):
            what = change.action if change else events[0].type
            log.error("entry=dropped what=%s reason=queue_full", what)

    LIST = """
        SELECT * FROM audit_entries
        WHERE {company} at >= :since AND at < :until AND (at, id) < (:at, :id)
            AND (:room_id = '' OR room_id = :room_id) AND (:user_name = '' OR user_name = :user_name)
            AND (:action = '' OR action = :action OR substr(action, 1, length(:action) + 1) = :action || '.')
            AND (:by = '' OR by_id = :by OR by_name = :by)
        ORDER BY at DESC, id DESC LIMIT :count
    """
    OF_COMPANY, OF_ALL = LIST.format(company="company_id = :company_id AND"), LIST.format(company="")

    async def list(self, wanted: Wanted, *, cursor: str | None = None, limit: int = 100) -> Page[Entry]:
        """Entries, newest first. `wanted.action` is an action, or the part before its dot. Raises BadCursor."""
        await self._rulings.flush()
        at, after = moment(decode_cursor(cursor, 2) if cursor else NEWEST)
        values: dict[str, Any] = {
            "since": wanted.since,
            "until": wanted.until,
            "room_id": wanted.room_id,
            "user_name": wanted.user_name,
            "action": wanted.action,
            "by": wanted.by,
        }
        if wanted.company_id is not None:
            values["company_id"] = wanted.company_id
        sql = self.OF_ALL if wanted.company_id is None else self.OF_COMPANY
        rows = await self._database.read(sql, **values, at=at, id=after, count=limit + 1)
        return page([Entry.of(row) for row in rows], limit, lambda entry: (entry.at.isoformat(), entry.id))


def _id(value: object) -> str | None:
    return None if value is None else str(value)  # PostgreSQL returns UUIDs, SQLite text


def _object(text: str | None) -> dict[str, Any] | None:
    found: dict[str, Any] | None = None if text is None else json.loads(text)
    return found
