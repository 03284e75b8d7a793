"""Closes the sessions that a server left open when it died, as of when they were last seen."""

from __future__ import annotations

from typing import Any

from sfu.store import events, stays
from sfu.store.database import Database
from sfu.store.later import LOCK
from sfu.store.records import Row
from sfu.store.statements import Statements

SERVER_LOST = "server_lost"
"""The leave reason of sessions whose server died before it could write one."""

PLACES = """
    SELECT DISTINCT company_id, room_id FROM sessions WHERE disconnected_at IS NULL AND {which}
    ORDER BY company_id, room_id
"""
OPEN = """
    SELECT id FROM sessions
    WHERE company_id = :company_id AND room_id = :room_id AND disconnected_at IS NULL AND {which} ORDER BY id
"""
CLOSE = """
    UPDATE sessions SET disconnected_at = last_seen_at, leave_reason = :reason, drops = drops + 1, last_drop = :reason,
        duration_s = greatest(0, date_part('epoch', last_seen_at) - date_part('epoch', connected_at))
    WHERE company_id = :company_id AND room_id = :room_id AND disconnected_at IS NULL AND {which}
    RETURNING *
"""


async def close_unseen(database: Database, which: str, **values: Any) -> int:
    """Closes the open sessions of a condition, room by room, and returns how many. Raises DatabaseUnavailable."""
    closed = 0
    for row in await database.read(PLACES.format(which=which), **values):
        closed += await _close(database, row, which, values)
    return closed


async def _close(database: Database, row: Row, which: str, values: dict[str, Any]) -> int:
    place = {"company_id": str(row["company_id"]), "room_id": row["room_id"]}

    async def work(statements: Statements) -> int:
        await statements.lock(LOCK, **place)
        await statements.lock(OPEN.format(which=which), **place, **values)
        rows = await statements.all(CLOSE.format(which=which), **place, **values, reason=SERVER_LOST)
        told = await stays.left(statements, *rows)
        if told:
            await events.record(statements, max(event.at for event in told if event.at), *told)
        return len(rows)

    return await database.transaction(work)
