"""What is told of stays in rooms: who entered and left, and when a call began and ended.

Whoever opens or closes sessions locks the room's row first, so the count of those that are open is right, and each call
begins and ends once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sfu.store.events import Event
from sfu.store.records import utc
from sfu.store.statements import Row, Statements

PRESENT = """
    SELECT count(*) AS n FROM sessions
    WHERE company_id = :company_id AND room_id = :room_id AND disconnected_at IS NULL
"""

LAST = """
    SELECT type FROM events
    WHERE company_id = :company_id AND room_id = :room_id AND type IN ('room.started', 'room.ended')
    ORDER BY seq DESC LIMIT 1
"""


def joined(row: Row, at: datetime, *, first: bool, returned: bool = False) -> list[Event]:
    """What is told of a session that was opened, or opened again: `row` is the session, `first` says that nobody else
    is in the room."""
    began = [_event("room.started", row, at, {})] if first else []
    return [*began, _personal("participant.joined", row, at, {"returned": returned})]


async def left(statements: Statements, *rows: Row) -> list[Event]:
    """What is told of sessions of one room that were closed just now, in the order of their ends."""
    rows = tuple(sorted(rows, key=lambda row: str(row["disconnected_at"])))
    found: list[Event] = []
    for row in rows:
        about = {"reason": row["leave_reason"], "duration_s": row["duration_s"]}
        found.append(_personal("participant.left", row, utc(row["disconnected_at"]), about))
    if rows:
        last = rows[-1]
        key = {"company_id": str(last["company_id"]), "room_id": last["room_id"]}
        present = await statements.one(PRESENT, **key)
        if present is None or not present["n"]:
            found.append(_event("room.ended", last, utc(last["disconnected_at"]), {"reason": last["leave_reason"]}))
    return found


async def erased(statements: Statements, place: Mapping[str, str], at: datetime, reason: str) -> list[Event]:
    """What is told when a stay ends that `sfu forget` erased: nothing of the person, but that the call ended, if it did
    and nobody else told it."""
    present, last = await statements.one(PRESENT, **place), await statements.one(LAST, **place)
    if (present and present["n"]) or last is None or last["type"] != "room.started":
        return []
    return [Event("room.ended", place["company_id"], place["room_id"], {"reason": reason}, at=at)]


def _personal(kind: str, row: Row, at: datetime, about: dict[str, Any]) -> Event:
    session_id, token_id = str(row["id"]), row["token_id"]
    data = {
        "session_id": session_id,
        "user_name": row["user_name"],
        "user_id": row["user_id"] or None,
        "token_id": None if token_id is None else str(token_id),
        **about,
    }
    return _event(kind, row, at, data, user_name=row["user_name"], session_id=session_id)


def _event(kind: str, row: Row, at: datetime, data: dict[str, Any], **whom: str) -> Event:
    return Event(kind, str(row["company_id"]), row["room_id"], data, **whom, at=at)
