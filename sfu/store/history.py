"""History for people: sessions of a room, rooms of a person, daily figures of a company. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from sfu.refusals import BadCursor
from sfu.store.database import Database
from sfu.store.filters import Wanted
from sfu.store.pages import Page, decode_cursor, page
from sfu.store.records import RoomDay, Session, UserRoom, canonical_id, utc
from sfu.store.trail import FIRST, LAST

ANALYTICS_S = 30.0
DAY = timedelta(days=1)


class History:
    """History. Every method sees the rooms and people of one company only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sessions(self, wanted: Wanted, *, cursor: str | None = None, limit: int = 100) -> Page[Session]:
        """Sessions in the wanted order of their begin, including open ones. Raises BadCursor."""
        rows = await self._database.read(statement(wanted), **wanted.values(cursor), count=limit + 1)
        return page([Session.of(row) for row in rows], limit, lambda s: (s.connected_at.isoformat(), s.id))

    async def room_sessions(
        self, company_id: str, room_id: str, *, cursor: str | None = None, limit: int = 100
    ) -> Page[Session]:
        """Sessions in a room, newest first, including open ones. Raises BadCursor."""
        return await self.sessions(Wanted(company_id, room_id=room_id), cursor=cursor, limit=limit)

    SESSION = "SELECT * FROM sessions WHERE company_id = :company_id AND id = :id"

    async def session(self, company_id: str, session_id: str) -> Session | None:
        """A session, open or ended. Accepts any text as `session_id`."""
        known = canonical_id(session_id)
        row = await self._database.read_one(self.SESSION, company_id=company_id, id=known) if known else None
        return Session.of(row) if row else None

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

    FIGURES = """
        room_id, count(DISTINCT user_name) AS unique_users, count(*) AS sessions,
            avg(duration_s) AS avg_duration_s, COALESCE(sum(duration_s), 0) AS total_duration_s,
            max(concurrency) AS peak_concurrency, avg(score_mean) AS avg_score, min(score_min) AS min_score
    """
    ROOM_DAYS = f"""
        SELECT day, {FIGURES}
        FROM sessions
        WHERE company_id = :company_id AND day BETWEEN :first AND :last AND (day < :last OR room_id > :after)
        GROUP BY day, room_id ORDER BY day DESC, room_id LIMIT :count
    """

    async def room_days(
        self, company_id: str, first: date, last: date, *, cursor: str | None = None, limit: int = 1000
    ) -> Page[RoomDay]:
        """Figures per room and day it was used, from `first` to `last` inclusive, last day first. Raises BadCursor."""
        last, after = _behind(cursor, last)
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

    ZONE_DAY = f"""
        SELECT {FIGURES} FROM sessions
        WHERE company_id = :company_id AND connected_at >= :since AND connected_at < :until AND room_id > :after
        GROUP BY room_id ORDER BY room_id LIMIT :count
    """
    LATEST = """
        SELECT connected_at FROM sessions
        WHERE company_id = :company_id AND connected_at >= :since AND connected_at < :until
        ORDER BY connected_at DESC LIMIT 1
    """

    async def zone_days(
        self, company_id: str, first: date, last: date, zone: tzinfo, *, cursor: str | None = None, limit: int = 1000
    ) -> Page[RoomDay]:
        """As `room_days`, with the days of a time zone. Databases do not know the same zones, so each day of use is
        read by itself."""
        found: list[RoomDay] = []
        day, after = _behind(cursor, last)
        while len(found) <= limit:
            span = {"since": _midnight(first, zone), "until": _midnight(day + DAY if day < date.max else day, zone)}
            latest = await self._database.read_one(self.LATEST, company_id=company_id, **span)
            if latest is None:
                break
            used = utc(latest["connected_at"]).astimezone(zone).date()
            after, day = after if used == day else "", used
            span |= {"since": _midnight(day, zone)}
            values = {"company_id": company_id, "after": after, "count": limit + 1 - len(found)}
            rows = await self._database.read(self.ZONE_DAY, ANALYTICS_S, **values, **span)
            found += [RoomDay.of({**row, "day": day}) for row in rows]
            if day <= first:
                break
            day, after = day - DAY, ""
        return page(found, limit, lambda item: (item.day.isoformat(), item.room_id))


STATES: Mapping[str, str] = {"": "", "open": "disconnected_at IS NULL AND", "ended": "disconnected_at IS NOT NULL AND"}


def statement(wanted: Wanted) -> str:
    """The statement of a list of sessions. A room is named only where it is wanted, so that its index is used."""
    room = "room_id = :room_id AND" if wanted.room_id else ""
    parts = wanted.order("connected_at")
    return f"""
        SELECT * FROM sessions
        WHERE company_id = :company_id AND {room} {STATES[wanted.state]}
            connected_at >= :since AND connected_at < :until
            AND (CAST(:user AS TEXT) = '' OR user_name = :user OR user_id = :user) AND {parts["after"]}
        ORDER BY {parts["order"]} LIMIT :count
    """


def _behind(cursor: str | None, last: date) -> tuple[date, str]:
    """The day and the room behind which a page begins. Raises BadCursor."""
    if not cursor:
        return last, ""
    text, after = decode_cursor(cursor, 2)
    try:
        return min(last, date.fromisoformat(text)), after
    except ValueError:
        raise BadCursor from None


def _midnight(day: date, zone: tzinfo) -> datetime:
    """When a day begins in a zone, in UTC; a day at the end of the calendar, as near as UTC allows."""
    try:
        return datetime.combine(day, time.min, zone).astimezone(UTC)
    except OverflowError:
        return FIRST if day.year == 1 else LAST
