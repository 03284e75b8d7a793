"""The script of a schema step: gives rooms that older releases stored under another spelling their canonical name."""

from __future__ import annotations

from sfu.store.database import Statements
from sfu.tenancy.names import sought

RENAMING = "canonical names"
"""The title of the step."""

FOUND = """
    SELECT company_id, room_id FROM rooms UNION SELECT company_id, room_id FROM sessions
    UNION SELECT company_id, room_id FROM tokens
"""
TAKEN = "SELECT id FROM rooms WHERE company_id = :company_id AND room_id = :new"
MERGE = "DELETE FROM rooms WHERE company_id = :company_id AND room_id = :room_id"
RENAME = tuple(
    f"UPDATE {table} SET room_id = :new WHERE company_id = :company_id AND room_id = :room_id"
    for table in ("rooms", "tokens", "sessions", "bans", "chat_lines", "files")
)


async def rename_rooms(statements: Statements) -> None:
    """Runs in the transaction of the step.

    Two rooms that get the same name become one, which keeps the settings of the room that had this name before.
    """
    for row in await statements.all(FOUND):
        key = {"company_id": str(row["company_id"]), "room_id": row["room_id"]}
        new = sought(row["room_id"])
        if new == row["room_id"]:
            continue
        if await statements.one(TAKEN, company_id=key["company_id"], new=new) is not None:
            await statements.run(MERGE, **key)
        for sql in RENAME:
            await statements.run(sql, **key, new=new)
