"""The script of a schema step: gives rooms and companies stored under another spelling their canonical name."""

from __future__ import annotations

import logging

from sfu.store.statements import Statements
from sfu.tenancy.names import sought

RENAMING = "canonical names"
"""The title of the step."""

FOUND = """
    SELECT company_id, room_id FROM rooms UNION SELECT company_id, room_id FROM sessions
    UNION SELECT company_id, room_id FROM tokens
"""
COMPANIES = "SELECT id, name FROM companies"
NAMED = "SELECT id FROM companies WHERE name = :new"
RENAME_COMPANY = "UPDATE companies SET name = :new WHERE id = :id"
TAKEN = "SELECT id FROM rooms WHERE company_id = :company_id AND room_id = :new"
MERGE = "DELETE FROM rooms WHERE company_id = :company_id AND room_id = :room_id"
RENAME = tuple(
    f"UPDATE {table} SET room_id = :new WHERE company_id = :company_id AND room_id = :room_id"
    for table in ("rooms", "tokens", "sessions", "bans", "chat_lines", "files")
)

log = logging.getLogger(__name__)


async def rename(statements: Statements) -> None:
    """Runs in the transaction of the step."""
    await _rename_companies(statements)
    await _rename_rooms(statements)


SCRIPTS = {RENAMING: rename}
"""What SQL cannot say of schema steps, by their title; see Database.migrate."""


async def _rename_companies(statements: Statements) -> None:
    """A company keeps its spelling if another one has the canonical name; commands find it by that spelling."""
    for row in await statements.all(COMPANIES):
        new = sought(row["name"])
        if new == row["name"]:
            continue
        if await statements.one(NAMED, new=new) is not None:
            log.warning("company=%r keeps its spelling: another one is named %r", row["name"], new)
        else:
            await statements.run(RENAME_COMPANY, new=new, id=row["id"])


async def _rename_rooms(statements: Statements) -> None:
    """Two rooms that get the same name become one, which keeps the settings of the room that had this name before."""
    for row in await statements.all(FOUND):
        key = {"company_id": str(row["company_id"]), "room_id": row["room_id"]}
        new = sought(row["room_id"])
        if new == row["room_id"]:
            continue
        if await statements.one(TAKEN, company_id=key["company_id"], new=new) is not None:
            await statements.run(MERGE, **key)
            log.warning("room=%r company=%s is now part of room %r", row["room_id"], key["company_id"], new)
        for sql in RENAME:
            await statements.run(sql, **key, new=new)
