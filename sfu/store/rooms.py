"""Rooms and their settings. Participants are counted from open sessions."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from itertools import accumulate
from typing import Any

from sfu.refusals import RoomDeleted, RoomExists, RoomNotFound
from sfu.store import audit, events, stays, tiers
from sfu.store.audit import SERVER, Author, Change, difference
from sfu.store.database import Database
from sfu.store.events import Event
from sfu.store.later import Later
from sfu.store.pages import Page, decode_cursor, page
from sfu.store.records import FILE_S, Room, RoomSettings, json_text
from sfu.store.returns import EXPEL, returnable_since
from sfu.store.statements import Statements
from sfu.store.trail import Told, step_of

PAGE_METADATA = 1 << 18
"""Most characters of metadata in a page of rooms, unless one room has more."""

Judge = Callable[[Room], None]
"""Checks the room as it is now and raises if it must stay so. Runs on the asyncio side."""

Changes = Mapping[str, Any] | Callable[[Room], Mapping[str, Any]]
"""Settings to change, or what tells them from the room as it is now. It may raise, like a Judge."""

log = logging.getLogger(__name__)


class Rooms:
    """Rooms. Every method sees the rooms of one company only."""

    def __init__(self, database: Database, clock: Callable[[], datetime], rulings: Later, *, chat_kept_s: int) -> None:
        """`chat_kept_s` applies to rooms without their own setting."""
        self._chat_kept_s = chat_kept_s
        self._database = database
        self._clock = clock
        self._rulings = rulings

    GET = """
        SELECT r.*, (
            SELECT count(*) FROM sessions AS s
            WHERE s.company_id = r.company_id AND s.room_id = r.room_id AND s.disconnected_at IS NULL
        ) AS participants
        FROM rooms AS r WHERE r.company_id = :company_id AND r.room_id = :room_id
    """

    async def get(self, company_id: str, room_id: str) -> Room | None:
        row = await self._database.read_one(self.GET, company_id=company_id, room_id=room_id)
        return Room.of(row) if row else None

    SIZES = """
        SELECT length(CAST(metadata AS TEXT)) AS size FROM rooms WHERE company_id = :company_id AND room_id > :after
        ORDER BY room_id LIMIT :count
    """
    LIST = """
        SELECT r.*, (
            SELECT count(*) FROM sessions AS s
            WHERE s.company_id = r.company_id AND s.room_id = r.room_id AND s.disconnected_at IS NULL
        ) AS participants
        FROM rooms AS r WHERE r.company_id = :company_id AND r.room_id > :after
        ORDER BY r.room_id LIMIT :count
    """

    async def list(self, company_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[Room]:
        """Rooms, sorted by room id. Raises BadCursor.

        A page has fewer than `limit` rooms if they have much metadata, since everybody waits while it is converted.
        """
        (after,) = decode_cursor(cursor, 1) if cursor else ("",)
        found = await self._database.read(self.SIZES, company_id=company_id, after=after, count=limit)
        limit = max(1, sum(size <= PAGE_METADATA for size in accumulate(row["size"] for row in found)))
        rows = await self._database.read(self.LIST, company_id=company_id, after=after, count=limit + 1)
        return page([Room.of(row) for row in rows], limit, lambda room: (room.room_id,))

    CREATE = """
        INSERT INTO rooms (
            id, company_id, room_id, name, description, max_participants, access, locked, lobby, files, chat_kept_s,
            metadata, created_at, updated_at
        )
        VALUES (
            :id, :company_id, :room_id, :name, :description, :max_participants, :access, :locked, :lobby, :files,
            :chat_kept_s, :metadata, :now, :now
        )
        ON CONFLICT DO NOTHING RETURNING *, 0 AS participants
    """

    async def create(self, company_id: str, room_id: str, settings: RoomSettings, author: Author = SERVER) -> Room:
        """Creates a room. Raises RoomExists, QuotaExceeded, or BadValue for metadata that cannot be stored."""
        now, key, plain = self._clock(), {"company_id": company_id, "room_id": room_id}, _plain(settings)

        async def work(statements: Statements) -> Room:
            row = await statements.one(self.CREATE, id=str(uuid.uuid4()), **key, **plain, now=now)
            if row is None:
                raise RoomExists(f"A room {room_id!r} already exists.")
            await tiers.check_room(statements, company_id)
            room = Room.of(row)
            change = Change("room.created", company_id, room.id, room_id, None, _settings(room))
            await audit.record(statements, now, author, change)
            await events.record(statements, now, _event("room.created", room, author, settings=_settings(room)))
            return room

        return await self._database.transaction(work)

    LOCK = "SELECT id FROM rooms WHERE company_id = :company_id AND room_id = :room_id"

    async def _current(self, statements: Statements, key: Mapping[str, str], judge: Judge) -> Room:
        """The room, locked until the transaction ends. Raises RoomNotFound or what `judge` raises."""
        await statements.lock(self.LOCK, **key)
        row = await statements.one(self.GET, **key)
        if row is None:
            raise RoomNotFound
        room = Room.of(row)
        judge(room)
        return room

    KEEP_CHAT = """
        UPDATE chat_lines SET expires_ms = sent_ms + CAST(:kept_ms AS BIGINT)
        WHERE company_id = :company_id AND room_id = :room_id AND expires_ms <> sent_ms + CAST(:kept_ms AS BIGINT)
    """
    KEEP_FILES = """
        UPDATE files SET expires_ms = sent_ms + CAST(:kept_ms AS BIGINT)
        WHERE company_id = :company_id AND room_id = :room_id AND expires_ms <> sent_ms + CAST(:kept_ms AS BIGINT)
    """
    UPDATE = """
        UPDATE rooms SET name = :name, description = :description, max_participants = :max_participants,
            access = :access, locked = :locked, lobby = :lobby, files = :files, chat_kept_s = :chat_kept_s,
            metadata = :metadata, updated_at = :now, version = version + 1, kept = TRUE
        WHERE company_id = :company_id AND room_id = :room_id
        RETURNING *
    """

    async def update(
        self,
        company_id: str,
        room_id: str,
        changes: Changes,
        author: Author = SERVER,
        *,
        judge: Judge = lambda room: None,
    ) -> Room:
        """Changes these settings and keeps the others, also if several callers change a room at once.

        Raises RoomNotFound, BadValue for metadata that cannot be stored, or what `judge` raises.
        """
        now, key = self._clock(), {"company_id": company_id, "room_id": room_id}
        await self._rulings.flush()

        async def work(statements: Statements) -> Room:
            room = await self._current(statements, key, judge)
            settings = RoomSettings(**{**_settings(room), **(changes(room) if callable(changes) else changes)})
            kept_s = self._chat_kept_s if settings.chat_kept_s is None else settings.chat_kept_s
            row = await statements.one(self.UPDATE, **key, **_plain(settings), now=now)
            assert row is not None
            if kept_s:
                await statements.run(self.KEEP_CHAT, **key, kept_ms=1000 * kept_s)
            else:
                await statements.run(self.DELETE_CHAT, **key)
            await statements.run(self.KEEP_FILES, **key, kept_ms=1000 * max(kept_s, FILE_S))
            changed = Room.of({**row, "participants": room.participants})
            change, happened = _changed(room, _settings(changed), author)
            if change is not None:
                await audit.record(statements, now, author, change)
            await events.record(statements, now, *happened)
            return changed

        return await self._database.transaction(work)

    SET = """
        UPDATE rooms SET locked = COALESCE(:locked, locked), lobby = COALESCE(:lobby, lobby), updated_at = :now,
            version = version + 1, kept = TRUE
        WHERE company_id = :company_id AND room_id = :room_id
    """

    def set(
        self, company_id: str, room_id: str, author: Author = SERVER, *, locked: bool | None, lobby: bool | None
    ) -> None:
        """Queues a change of the values that are not None; never blocks. All joins from now on respect it."""
        now, key = self._clock(), {"company_id": company_id, "room_id": room_id}
        values = {name: value for name, value in (("locked", locked), ("lobby", lobby)) if value is not None}

        async def write(statements: Statements) -> Told:
            row = await statements.one(self.GET, **key)
            if row is None:
                return None, ()  # it was deleted meanwhile
            await statements.run(self.SET, **key, locked=locked, lobby=lobby, now=now)
            return _changed(Room.of(row), values, author)

        if not self._rulings.add_step(step_of(now, author, write), **key):
            log.error("room=%r change=dropped reason=queue_full", room_id)

    DELETE = "DELETE FROM rooms WHERE company_id = :company_id AND room_id = :room_id"
    OPEN_SESSIONS = """
        SELECT id FROM sessions WHERE company_id = :company_id AND room_id = :room_id AND disconnected_at IS NULL
        ORDER BY id
    """
    CLOSE_SESSIONS = """
        UPDATE sessions SET disconnected_at = :now, last_seen_at = :now, leave_reason = :reason,
            duration_s = greatest(0, CAST(:now_s AS DOUBLE PRECISION) - date_part('epoch', connected_at))
        WHERE company_id = :company_id AND room_id = :room_id AND disconnected_at IS NULL
        RETURNING *
    """
    DELETE_CHAT = "DELETE FROM chat_lines WHERE company_id = :company_id AND room_id = :room_id"
    DELETE_BANS = "DELETE FROM bans WHERE company_id = :company_id AND room_id = :room_id"
    DELETE_FILES = "DELETE FROM files WHERE company_id = :company_id AND room_id = :room_id"
    REVOKE_TOKENS = """
        UPDATE tokens SET revoked_at = :now
        WHERE company_id = :company_id AND room_id = :room_id AND revoked_at IS NULL AND expires_at > :now
    """

    async def delete(
        self, company_id: str, room_id: str, author: Author = SERVER, *, judge: Judge = lambda room: None
    ) -> None:
        """Deletes a room with its chat, files and bans. Closes its sessions; their history is kept.

        Its tokens are revoked, or the next join would create the room again. Raises RoomNotFound or what `judge`
        raises.
        """
        now, key = self._clock(), {"company_id": company_id, "room_id": room_id}
        await self._rulings.flush()

        async def work(statements: Statements) -> None:
            room = await self._current(statements, key, judge)
            await statements.run(self.DELETE, **key)
            await statements.lock(self.OPEN_SESSIONS, **key)
            closing = {"now": now, "now_s": now.timestamp(), "reason": RoomDeleted.code}
            left = await statements.all(self.CLOSE_SESSIONS, **key, **closing)
            await statements.run(EXPEL, **key, reason=RoomDeleted.code, since=returnable_since(now))
            await statements.run(self.REVOKE_TOKENS, **key, now=now)
            await statements.run(self.DELETE_CHAT, **key)
            await statements.run(self.DELETE_FILES, **key)
            await statements.run(self.DELETE_BANS, **key)
            change = Change("room.deleted", company_id, room.id, room_id, _settings(room))
            await audit.record(statements, now, author, change)
            told = await stays.left(statements, *left)
            await events.record(statements, now, *told, _event("room.deleted", room, author))

        await self._database.transaction(work)


def _settings(room: Room) -> dict[str, Any]:
    return {spec.name: getattr(room, spec.name) for spec in fields(RoomSettings)}


def _changed(room: Room, settings: Mapping[str, Any], author: Author) -> Told:
    """What is recorded of new settings of a room; nothing if they are those that it has."""
    before, after = difference(_settings(room), settings)
    if not after:
        return None, ()
    change = Change("room.changed", room.company_id, room.id, room.room_id, before, after)
    return change, (_event("room.changed", room, author, changed=after),)


def _event(kind: str, room: Room, author: Author, **more: Any) -> Event:
    return Event(kind, room.company_id, room.room_id, {"id": room.id, **more, "by": author.shown})


def _plain(settings: RoomSettings) -> dict[str, Any]:
    """The settings by column. Raises BadValue for metadata that cannot be stored."""
    values = {spec.name: getattr(settings, spec.name) for spec in fields(settings)}
    return values | {"metadata": json_text("metadata", settings.metadata)}
