"""The events of a company, in order, as they are read and sent. They are written in sfu.store.events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sfu.store.database import Database
from sfu.store.records import utc
from sfu.store.statements import Row


@dataclass(frozen=True, slots=True)
class Feed:
    """Events after a number. `last_seq`: everything up to there was looked at, so the next question begins after it.
    `more`: whether there is more already."""

    items: tuple[dict[str, Any], ...]
    last_seq: int
    more: bool


class Events:
    """Reads the events of one company."""

    def __init__(self, database: Database) -> None:
        self._database = database

    LAST = "SELECT last_seq FROM companies WHERE id = :company_id"
    AFTER = """
        SELECT * FROM events
        WHERE company_id = :company_id AND seq > :after AND (CAST(:type AS TEXT) = '' OR type = :type)
            AND (CAST(:room_id AS TEXT) = '' OR room_id = :room_id)
        ORDER BY seq LIMIT :count
    """

    async def after(self, company_id: str, after: int, limit: int, *, kind: str = "", room_id: str = "") -> Feed:
        """The first events with a higher number. `kind` and `room_id` select some; empty: all."""
        last = await self._database.read_one(self.LAST, company_id=company_id)  # first, so that none below is missed
        asked: dict[str, Any] = {"company_id": company_id, "after": after, "type": kind, "room_id": room_id}
        rows = await self._database.read(self.AFTER, **asked, count=limit + 1)
        items = tuple(envelope(row) for row in rows[:limit])
        if len(rows) > limit:
            return Feed(items, items[-1]["seq"], more=True)
        known = 0 if last is None else int(last["last_seq"])
        return Feed(items, max([known, *(item["seq"] for item in items)]), more=False)


def envelope(row: Row) -> dict[str, Any]:
    """An event as it is shown and sent, from its row."""
    return message(
        str(row["id"]), row["type"], utc(row["at"]), row["seq"], str(row["company_id"]), row["room_id"],
        json.loads(row["data"]),
    )  # fmt: skip


def message(
    id_: str, kind: str, at: datetime, seq: int, company_id: str, room_id: str | None, data: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": id_,
        "type": kind,
        "timestamp": at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "seq": seq,
        "company_id": company_id,
        "room_id": room_id,
        "data": data,
    }
