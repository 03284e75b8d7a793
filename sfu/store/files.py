"""Shared files as database rows: owner, room, expiry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from sfu.refusals import FilesFull, FilesOff
from sfu.store import audit
from sfu.store.audit import SERVER, Author, Change
from sfu.store.database import Database
from sfu.store.records import FILE_S, File, canonical_id
from sfu.store.statements import Statements


class Files:
    def __init__(self, database: Database, clock: Callable[[], datetime], *, chat_kept_s: int) -> None:
        """`chat_kept_s` applies to rooms without their own setting."""
        self._database = database
        self._clock = clock
        self._chat_kept_s = chat_kept_s

    LOCK_ROOM = """
        UPDATE rooms SET updated_at = updated_at WHERE id = :room RETURNING company_id, room_id, files, chat_kept_s
    """
    USED = "SELECT COALESCE(sum(size), 0) AS used FROM files WHERE company_id = :company_id AND room_id = :room_id"
    ADD = """
        INSERT INTO files (id, company_id, room_id, name, type, size, sent_ms, expires_ms)
        VALUES (:id, :company_id, :room_id, :name, :type, :size, :sent_ms, :expires_ms)
    """

    async def add(self, room: str, file: File, author: Author = SERVER, *, limit_bytes: int) -> None:
        """Records a file shared in the room with this `RoomRules.id`.

        Raises FilesOff, also if the room was deleted, or FilesFull if its files would exceed `limit_bytes`. The file
        can be downloaded for at least an hour, even if the room's chat is kept for less.
        """
        now = self._clock()
        sent_ms = int(now.timestamp() * 1000)

        async def work(statements: Statements) -> None:
            found = await statements.one(self.LOCK_ROOM, room=room)  # others who add a file to this room wait here
            if found is None or not found["files"]:
                raise FilesOff
            key = {"company_id": str(found["company_id"]), "room_id": found["room_id"]}
            used = await statements.one(self.USED, **key)
            if used is not None and int(used["used"]) + file.size > limit_bytes:
                raise FilesFull("The room has no space for more files.")
            kept_s = self._chat_kept_s if found["chat_kept_s"] is None else found["chat_kept_s"]
            await statements.run(
                self.ADD,
                **key,
                id=file.id,
                name=file.name,
                type=file.type,
                size=file.size,
                sent_ms=sent_ms,
                expires_ms=sent_ms + 1000 * max(kept_s, FILE_S),
            )
            about = {"name": file.name, "type": file.type, "size": file.size}
            change = Change("file.shared", key["company_id"], file.id, key["room_id"], None, about, *_sharer(author))
            await audit.record(statements, now, author, change)

        await self._database.transaction(work)

    GET = "SELECT * FROM files WHERE id = :id AND expires_ms > :now_ms"
    """For all companies: whoever knows the id may download the file."""

    async def get(self, file_id: str) -> File | None:
        """The file with this id; None if there is none or it has expired. Accepts any text."""
        known, now_ms = canonical_id(file_id), int(self._clock().timestamp() * 1000)
        row = await self._database.read_one(self.GET, id=known, now_ms=now_ms) if known else None
        return File(str(row["id"]), row["name"], row["type"], row["size"]) if row else None

    KNOWN = "SELECT id FROM files WHERE id BETWEEN :first AND :last"  # UUIDs sort alike in both engines
    """For all companies: the folder holds the files of all of them."""

    async def known(self, ids: Sequence[str]) -> set[str]:
        """Those of the sorted `ids` that are recorded."""
        rows = await self._database.read(self.KNOWN, first=ids[0], last=ids[-1])
        return {str(row["id"]) for row in rows}.intersection(ids)


def _sharer(author: Author) -> tuple[str, str | None]:
    """The person that a shared file is about."""
    return (author.name, author.id) if author.kind == "person" else ("", None)
