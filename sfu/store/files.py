"""Shared files as database rows: owner, room, expiry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from sfu.refusals import FilesFull, FilesOff
from sfu.store.database import Database, Statements
from sfu.store.records import FILE_S, File, canonical_id


class Files:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    LOCK_ROOM = """
        UPDATE rooms SET updated_at = updated_at WHERE company_id = :company_id AND room_id = :room_id RETURNING files
    """
    USED = "SELECT COALESCE(sum(size), 0) AS used FROM files WHERE company_id = :company_id AND room_id = :room_id"
    ADD = """
        INSERT INTO files (id, company_id, room_id, name, type, size, sent_ms, expires_ms)
        VALUES (:id, :company_id, :room_id, :name, :type, :size, :sent_ms, :expires_ms)
    """

    async def add(self, company_id: str, room_id: str, file: File, *, kept_s: int, limit_bytes: int) -> None:
        """Records a shared file. Raises FilesOff, or FilesFull if the room's files would exceed `limit_bytes`.

        The file can be downloaded for at least an hour, even if the room's chat is kept for less.
        """
        sent_ms = int(self._clock().timestamp() * 1000)
        key = {"company_id": company_id, "room_id": room_id}

        async def work(statements: Statements) -> None:
            room = await statements.one(self.LOCK_ROOM, **key)  # others who add a file to this room wait here
            if room is None or not room["files"]:
                raise FilesOff
            used = await statements.one(self.USED, **key)
            if used is not None and int(used["used"]) + file.size > limit_bytes:
                raise FilesFull("The room has no space for more files.")
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
