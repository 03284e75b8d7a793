"""Chat history, kept for as long as the room's settings say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from sfu.refusals import BadCursor
from sfu.store import audit
from sfu.store.audit import SERVER, Author, Change, shown
from sfu.store.database import Database
from sfu.store.later import Later
from sfu.store.pages import Page, decode_cursor, page
from sfu.store.records import Line, canonical_id
from sfu.store.statements import Statements

LATEST_MS = 2**62
LAST = (str(LATEST_MS), "ffffffff-ffff-ffff-ffff-ffffffffffff")

log = logging.getLogger(__name__)


class Chat:
    """Chat lines. Every method sees the chat of one company only."""

    def __init__(self, database: Database, clock: Callable[[], datetime], lines: Later, *, chat_kept_s: int) -> None:
        """`lines` is the queue for new lines, so that nobody waits for the database to chat. It locks with LOCK_ROOM.

        `chat_kept_s` applies to rooms without their own setting.
        """
        self._database = database
        self._clock = clock
        self._lines = lines
        self._chat_kept_s = chat_kept_s
        self._keeping = True

    LOCK_ROOM = "SELECT id FROM rooms WHERE id = :room"
    ADD = """
        INSERT INTO chat_lines (id, company_id, room_id, peer, user_name, text, file_id, sent_ms, expires_ms)
        SELECT :id, r.company_id, r.room_id, :peer, :user_name, :text, :file_id, :sent_ms,
            CAST(:sent_ms AS BIGINT) + CAST(1000 AS BIGINT) * COALESCE(r.chat_kept_s, :kept_s)
        FROM rooms AS r WHERE r.id = :room AND COALESCE(r.chat_kept_s, :kept_s) > 0
        ON CONFLICT DO NOTHING
    """

    def add(self, room: str, line: Line) -> None:
        """Queues a line for the room with this `RoomRules.id`; never blocks.

        It is written if the room then still exists and keeps chat, for as long as its settings then say. While the
        queue is full, lines are dropped, which is logged once.
        """
        queued = self._lines.add(
            self.ADD,
            id=line.id,
            room=room,
            peer=line.peer,
            user_name=line.user_name,
            text=line.text,
            file_id=None if line.file is None else line.file.id,
            sent_ms=line.sent_ms,
            kept_s=self._chat_kept_s,
        )
        if self._keeping and not queued:
            log.error("lines=dropped reason=queue_full")
        self._keeping = queued

    EARLIER = """
        SELECT l.*, f.name AS file_name, f.type AS file_type, f.size AS file_size
        FROM chat_lines AS l LEFT JOIN files AS f ON f.id = l.file_id
        WHERE l.company_id = :company_id AND l.room_id = :room_id AND l.expires_ms > :now_ms
            AND (l.sent_ms, l.id) < (:sent_ms, :id)
        ORDER BY l.sent_ms DESC, l.id DESC LIMIT :count
    """

    async def list(self, company_id: str, room_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[Line]:
        """Lines that have not expired, newest first. Raises BadCursor."""
        sent, after = decode_cursor(cursor, 2) if cursor else LAST
        known = canonical_id(after)
        if known is None or not (sent.isascii() and sent.isdigit()) or len(sent) > 19 or int(sent) > LATEST_MS:
            raise BadCursor
        await self._lines.flush()
        rows = await self._database.read(
            self.EARLIER,
            company_id=company_id,
            room_id=room_id,
            now_ms=self._now_ms(),
            sent_ms=int(sent),
            id=known,
            count=limit + 1,
        )
        return page([Line.of(row) for row in rows], limit, lambda line: (str(line.sent_ms), line.id))

    SINCE = """
        SELECT id FROM chat_lines WHERE company_id = :company_id AND room_id = :room_id AND sent_ms >= :since_ms
    """

    async def since(self, company_id: str, room_id: str, since_ms: int) -> set[str]:
        """The ids of the lines from this time on, in milliseconds since 1970."""
        await self._lines.flush()
        rows = await self._database.read(self.SINCE, company_id=company_id, room_id=room_id, since_ms=since_ms)
        return {str(row["id"]) for row in rows}

    DELETE = "DELETE FROM chat_lines WHERE company_id = :company_id AND room_id = :room_id AND id = :id RETURNING *"
    DELETE_FILE = "DELETE FROM files WHERE company_id = :company_id AND id = :file_id"

    async def delete(self, company_id: str, room_id: str, line_id: str, author: Author = SERVER) -> bool:
        """Deletes a line and its file; false if it does not exist. Accepts any text as `line_id`."""
        known = canonical_id(line_id)
        if known is None:
            return False
        await self._lines.flush()

        async def work(statements: Statements) -> bool:
            row = await statements.one(self.DELETE, company_id=company_id, room_id=room_id, id=known)
            if row is None:
                return False
            if row["file_id"] is not None:
                await statements.run(self.DELETE_FILE, company_id=company_id, file_id=row["file_id"])
            sent_at = shown(datetime.fromtimestamp(row["sent_ms"] / 1000, UTC))
            before = {"user_name": row["user_name"], "sent_at": sent_at, "file": row["file_id"] is not None}
            change = Change("chat.deleted", company_id, known, room_id, before, user_name=row["user_name"])
            await audit.record(statements, self._clock(), author, change)
            return True

        return await self._database.transaction(work)

    def _now_ms(self) -> int:
        return int(self._clock().timestamp() * 1000)
