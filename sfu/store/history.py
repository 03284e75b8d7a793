"""History for people: sessions of a room, rooms of a person, daily figures of a company. Reads only."""

from __future__ import annotations

from datetime import UTC, date, datetime

from sfu.refusals import BadCursor
from sfu.store.database import Database
from sfu.store.pages import NEWEST, Page, decode_cursor, moment, page
from sfu.store.records import RoomDay, Session, UserRoom, utc

ANALYTICS_S = 30.0


class History:
    """History. Every method sees the rooms and people of one company only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    ROOM_SESSIONS = """
        SELECT * FROM sessions
        WHERE company_id = :company_id AND room_id = :room_id AND (connected_at, id) < (:connected_at, :id)
        ORDER BY connected_at DESC, id DESC LIMIT :count
    """

    async def room_sessions(
        self, company_id: str, room_id: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[Session]:
        """Sessions in a room, newest first, including open ones. Raises BadCursor."""
        connected_at, after = moment(decode_cursor(cursor, 2) if cursor else NEWEST)
        rows = await self._database.read(
            self.ROOM_SESSIONS,
            company_id=company_id,
            room_id=room_id,
            connected_at=connected_at,
            id=after,
            count=limit + 1,
        )
        return page([Session.of(row) for row in rows], limit, lambda s: (s.connected_at.isoformat(), s.id))

    PARTICIPANTS = """
        SELECT * FROM sessions WHERE company_id = :company_id AND room_id = :room_id AND disconnected_at IS NULL
        ORDER BY connected_at, id
    """

    async def participants(self, company_id: str, room_id: str) -> tuple[Session, ...]:
        """The open sessions in a room, in order of arrival."""
        rows = await self._database.read(self.PARTICIPANTS, company_id=company_id, room_id=room_id)
        return tuple(Session.of(row) for row in rows)

    PERSON = """
        SELECT * FROM sessions
        WHERE company_id = :company_id AND day >= :day AND connected_at >= :since
            AND lower(user_name) = lower(CAST(:name AS TEXT))
            AND (CAST(:room_id AS TEXT) = '' OR room_id = :room_id)
        ORDER BY connected_at DESC, id DESC LIMIT :count
    """

    async def person(
        self, company_id: str, name: str, *, since: datetime, room_id: str = "", limit: int = 100
    ) -> tuple[Session, ...]:
        """The last sessions of people with this name, newest first, in all rooms or one.

        Upper and lower case are the same, in SQLite for ASCII only.
        """
        rows = await self._database.read(
            self.PERSON,
            ANALYTICS_S,
            company_id=company_id,
            name=name,
            day=since.astimezone(UTC).date(),
            since=since,
            room_id=room_id,
            count=limit,
        )
        return tuple(Session.of(row) for row in rows)

    USER_ROOMS = """
        SELECT mine.room_id, mine.since, COALESCE(r.name, '') AS name, (
            SELECT count(*) FROM sessions AS s
            WHERE s.company_id = :company_id AND s.room_id = mine.room_id AND s.disconnected_at IS NULL
        ) AS participants
        FROM (
            SELECT room_id, min(connected_at) AS since FROM sessions
            WHERE company_id = :company_id AND user_name = :user_name AND disconnected_at IS NULL
            GROUP BY room_id
        ) AS mine
        LEFT JOIN rooms AS r ON r.company_id = :company_id AND r.room_id = mine.room_id
        ORDER BY mine.room_id
    """

    async def user_rooms(self, company_id: str, user_name: str) -> tuple[UserRoom, ...]:
        """The rooms that somebody with this name is in now."""
        rows = await self._database.read(self.USER_ROOMS, company_id=company_id, user_name=user_name)
        return tuple(UserRoom(row["room_id"], row["name"], row["participants"], utc(row["since"])) for row in rows)

    ROOM_DAYS = """
        SELECT day, room_id, count(DISTINCT user_name) AS unique_users, count(*) AS sessions,
            avg(duration_s) AS avg_duration_s, COALESCE(sum(duration_s), 0) AS total_duration_s,
            max(concurrency) AS peak_concurrency, avg(score_mean) AS avg_score, min(score_min) AS min_score
        FROM sessions
        WHERE company_id = :company_id AND day BETWEEN :first AND :last AND (day < :last OR room_id > :after)
        GROUP BY day, room_id ORDER BY day DESC, room_id LIMIT :count
    """

    async def room_days(
        self, company_id: str, first: date, last: date, *, cursor: str | None = None, limit: int = 1000
    ) -> Page[RoomDay]:
        """Figures per room and day it was used, from `first` to `last` inclusive, last day first. Raises BadCursor."""
        after = ""
        if cursor:
            text, after = decode_cursor(cursor, 2)
            try:
                last = min(last, date.fromisoformat(text))
            except ValueError:
                raise BadCursor from None
        rows = await self._database.read(
            self.ROOM_DAYS,
            ANALYTICS_S,
            company_id=company_id,
            first=first,
            last=last,
            after=after,
            count=limit + 1,
        )
        return page([RoomDay.of(row) for row in rows], limit, lambda item: (item.day.isoformat(), item.room_id))
