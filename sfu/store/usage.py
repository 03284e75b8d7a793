"""Usage: what a company used in a month, for its bill. Reads only."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sfu.store import tiers
from sfu.store.database import Database
from sfu.store.records import day_of
from sfu.store.statements import Row

USAGE_S = 30.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What was used on a day or in a month. A session counts on the day it began, in UTC, an open one so far."""

    minutes: float = 0.0
    sessions: int = 0
    unique_people: int = 0
    peak: int = 0
    tokens: int = 0
    rooms: int = 0


@dataclass(frozen=True, slots=True)
class MonthUsage:
    """Figures of a month, and of its days on which anything was used. `people` and `rooms` are those of now."""

    total: Figures
    days: tuple[tuple[date, Figures], ...]
    people: int
    rooms: int


class Usage:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    _COUNTED = """
        count(*) AS sessions, count(DISTINCT user_name) AS unique_people, count(DISTINCT room_id) AS rooms,
        COALESCE(sum(duration_s), 0) AS seconds
        FROM sessions WHERE company_id = :company_id AND day BETWEEN :first AND :last
    """
    TOTAL = f"SELECT {_COUNTED}"
    DAYS = f"SELECT day, {_COUNTED} GROUP BY day ORDER BY day"
    OPEN_DAYS = """
        SELECT day, sum(greatest(0, CAST(:now_s AS DOUBLE PRECISION) - date_part('epoch', connected_at))) AS seconds
        FROM sessions WHERE company_id = :company_id AND disconnected_at IS NULL AND day BETWEEN :first AND :last
        GROUP BY day
    """
    PEAKS = """
        SELECT day, max(n) AS peak FROM (
            SELECT day, step, sum(step) OVER (ORDER BY at, step, id ROWS UNBOUNDED PRECEDING) AS n FROM (
                SELECT id, day, connected_at AS at, 1 AS step FROM sessions
                WHERE company_id = :company_id AND day BETWEEN :first AND :last
                UNION ALL
                SELECT id, day, disconnected_at AS at, -1 AS step FROM sessions
                WHERE company_id = :company_id AND day BETWEEN :first AND :last AND disconnected_at IS NOT NULL
            ) AS moves
        ) AS running
        WHERE step = 1 GROUP BY day
    """
    """Somebody who leaves at the moment in which another person comes is not counted beside them."""
    TOKENS = """
        SELECT substr(CAST(created_at AS TEXT), 1, 10) AS day, count(*) AS n FROM tokens
        WHERE company_id = :company_id AND created_at >= :since AND created_at < :until GROUP BY 1
    """

    async def month(self, company_id: str, first: date) -> MonthUsage:
        """The usage in the month that begins on this day."""
        last, now = first.replace(day=monthrange(first.year, first.month)[1]), self._clock()
        since = datetime(first.year, first.month, first.day, tzinfo=UTC)
        until = since + timedelta(days=last.day)
        range_ = {"company_id": company_id, "first": first, "last": last}

        read = self._database.read
        (total,) = await read(self.TOTAL, USAGE_S, **range_)
        days = await read(self.DAYS, USAGE_S, **range_)
        lasting = await read(self.OPEN_DAYS, USAGE_S, **range_, now_s=now.timestamp())
        peaks = await read(self.PEAKS, USAGE_S, **range_)
        issued = await read(self.TOKENS, USAGE_S, company_id=company_id, since=since, until=until)
        (people,) = await read(tiers.PEOPLE, company_id=company_id, apart=tiers.NOBODY)
        (rooms,) = await read(tiers.ROOMS, company_id=company_id)
        found = _by_day(days, lasting, peaks, issued)
        figures = Figures(
            sum(day.minutes for day in found.values()), total["sessions"], total["unique_people"],
            max((day.peak for day in found.values()), default=0), sum(day.tokens for day in found.values()),
            total["rooms"],
        )  # fmt: skip
        return MonthUsage(figures, tuple(sorted(found.items())), people["n"], rooms["n"])


def _by_day(days: list[Row], lasting: list[Row], peaks: list[Row], issued: list[Row]) -> dict[date, Figures]:
    counted = {day_of(row["day"]): row for row in days}
    open_s = {day_of(row["day"]): row["seconds"] for row in lasting}
    peak = {day_of(row["day"]): int(row["peak"]) for row in peaks}
    tokens = {day_of(row["day"]): row["n"] for row in issued}
    found = {}
    for day in counted.keys() | tokens.keys():
        row = counted.get(day, {"seconds": 0.0, "sessions": 0, "unique_people": 0, "rooms": 0})
        minutes = (row["seconds"] + open_s.get(day, 0.0)) / 60
        people = (row["sessions"], row["unique_people"], peak.get(day, 0))
        found[day] = Figures(minutes, *people, tokens.get(day, 0), row["rooms"])
    return found
