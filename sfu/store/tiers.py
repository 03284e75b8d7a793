"""Tiers: the limits of companies, and the checks of them within the transactions that they limit."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast
from weakref import WeakValueDictionary

import trio

from sfu.errors import ConfigError
from sfu.refusals import QuotaExceeded
from sfu.store import audit
from sfu.store.audit import SERVER, Author, Change
from sfu.store.database import CALL_S, Database
from sfu.store.records import Company, Tier
from sfu.store.statements import Row, Statements

KNOWN_S = 5.0
"""For how long limits that are needed outside of transactions are remembered."""
COUNTED = 1000
"""Companies whose minutes are remembered."""
MONTH_DAYS = 31

COMPANY = "SELECT id FROM companies WHERE id = :company_id"
LIMITS = "SELECT t.* FROM companies AS c JOIN tiers AS t ON t.tier = c.tier WHERE c.id = :company_id"
ROOMS = "SELECT count(*) AS n FROM rooms WHERE company_id = :company_id"
IN_ROOM = """
    SELECT count(*) AS n FROM sessions
    WHERE company_id = :company_id AND room_id = :room_id AND disconnected_at IS NULL AND id <> :apart
"""
PEOPLE = (
    "SELECT count(*) AS n FROM sessions WHERE company_id = :company_id AND disconnected_at IS NULL AND id <> :apart"
)
NOBODY = str(uuid.UUID(int=0))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tier allows a company. None: no limit. A month is one of UTC, `file_bytes` the size of one file."""

    room_people: int | None = None
    rooms: int | None = None
    people: int | None = None
    minutes_month: int | None = None
    tokens_minute: int | None = None
    file_bytes: int | None = None
    history_days: int | None = None
    recording: bool = True

    @classmethod
    def of(cls, row: Row) -> Limits:
        return cls(**{spec.name: row[spec.name] for spec in fields(cls)} | {"recording": bool(row["recording"])})


NO_LIMITS = Limits()


class Tiers:
    """The limits of tiers. Servers that run follow a change within KNOWN_S."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._known: Mapping[Tier, Limits] = {}
        self._until_s = -1.0
        self._counted: dict[str, tuple[datetime, float]] = {}  # by company: when, and the seconds of its month
        self._issuing: WeakValueDictionary[str, trio.Lock] = WeakValueDictionary()  # by company

    LIST = "SELECT * FROM tiers ORDER BY tier"

    async def all(self) -> Mapping[Tier, Limits]:
        """The limits of the tiers that have some."""
        return {row["tier"]: Limits.of(row) for row in await self._database.read(self.LIST)}

    async def limits(self, tier: Tier) -> Limits:
        """The limits of a tier, as of KNOWN_S ago at most."""
        return (await self._recent()).get(tier, NO_LIMITS)

    async def exist(self) -> bool:
        """Whether any tier had limits KNOWN_S ago. If none has, joins need not look in their transactions."""
        return bool(await self._recent())

    async def _recent(self) -> Mapping[Tier, Limits]:
        if trio.current_time() >= self._until_s:
            self._known, self._until_s = await self.all(), trio.current_time() + KNOWN_S
        return self._known

    GET = "SELECT * FROM tiers WHERE tier = :tier"
    SET = """
        INSERT INTO tiers (
            id, tier, room_people, rooms, people, minutes_month, tokens_minute, file_bytes, history_days, recording
        )
        VALUES (
            :id, :tier, :room_people, :rooms, :people, :minutes_month, :tokens_minute, :file_bytes, :history_days,
            :recording
        )
        ON CONFLICT (tier) DO UPDATE SET room_people = excluded.room_people, rooms = excluded.rooms,
            people = excluded.people, minutes_month = excluded.minutes_month, tokens_minute = excluded.tokens_minute,
            file_bytes = excluded.file_bytes, history_days = excluded.history_days, recording = excluded.recording
    """

    async def set(self, tier: Tier, changes: Mapping[str, Any], *, author: Author = SERVER) -> Limits:
        """Changes these limits of a tier and keeps the others.

        Raises ConfigError for a history too short to count the minutes of a month from.
        """
        now = self._clock()

        async def work(statements: Statements) -> Limits:
            row = await statements.one(self.GET, tier=tier)
            before = NO_LIMITS if row is None else Limits.of(row)
            after = replace(before, **changes)
            if after.minutes_month is not None and (after.history_days or MONTH_DAYS) < MONTH_DAYS:
                raise ConfigError(
                    f"Minutes of a month are counted from sessions: they must be kept for {MONTH_DAYS} days at least."
                )
            await statements.run(self.SET, id=str(uuid.uuid4()), tier=tier, **asdict(after))
            old, new = asdict(before), asdict(after)
            changed = [name for name in new if old[name] != new[name]]
            pair = ({name: old[name] for name in changed}, {name: new[name] for name in changed})
            if changed:
                await audit.record(statements, now, author, Change("tier.changed", None, tier, None, *pair))
            return after

        limits = await self._database.transaction(work)
        self._until_s = -1.0
        self._counted.clear()
        return limits

    SECONDS = """
        SELECT COALESCE(sum(duration_s), 0) AS n FROM sessions
        WHERE company_id = :company_id AND day BETWEEN :first AND :last
    """
    OPEN_SECONDS = """
        SELECT COALESCE(sum(greatest(0, CAST(:now_s AS DOUBLE PRECISION) - date_part('epoch', connected_at))), 0) AS n
        FROM sessions WHERE company_id = :company_id AND disconnected_at IS NULL AND day BETWEEN :first AND :last
    """

    async def ahead(self, company_id: str) -> bool:
        """Whether a join must `check_join`: any tier has limits. Raises QuotaExceeded if the minutes of the month are
        used up, as of KNOWN_S ago.

        They go up by themselves, so no lock makes them exact, and to add them up within a join would hold up others.
        """
        if not await self.exist():
            return False
        row = await self._database.read_one(LIMITS, company_id=company_id)
        most = None if row is None else Limits.of(row).minutes_month
        if most is not None and await self._seconds(company_id) >= 60 * most:
            raise QuotaExceeded("minutes_month", most)
        return True

    async def _seconds(self, company_id: str) -> float:
        """The seconds of all people of the company in this month."""
        now = self._clock()
        counted = self._counted.get(company_id)
        if counted is not None and abs(now - counted[0]) < timedelta(seconds=KNOWN_S):
            return counted[1]
        today = now.astimezone(UTC).date()
        who, month = {"company_id": company_id}, {"first": today.replace(day=1), "last": today}
        (closed,) = await self._database.read(self.SECONDS, CALL_S, **who, **month)
        (lasting,) = await self._database.read(self.OPEN_SECONDS, CALL_S, **who, **month, now_s=now.timestamp())
        if len(self._counted) >= COUNTED:
            self._counted.clear()
        self._counted[company_id] = now, closed["n"] + lasting["n"]
        return self._counted[company_id][1]

    async def file_bytes(self, company_id: str) -> int | None:
        """The most bytes of a file that somebody shares in a call of this company; None if there is no limit."""
        row = await self._database.read_one(LIMITS, company_id=company_id) if await self.exist() else None
        return None if row is None else Limits.of(row).file_bytes

    async def refuse(self, company_id: str, room_id: str, *, new_room: bool) -> bool:
        """Whether a join to this room would be refused now. `new_room`: it would make the room."""
        now = self._clock()
        look = partial(check_join, company_id=company_id, room_id=room_id, now=now, new_room=new_room, ahead=True)
        try:
            if await self.ahead(company_id):
                await self._database.transaction(look)
        except QuotaExceeded:
            return True
        return False

    ISSUED = "SELECT count(*) AS n FROM tokens WHERE company_id = :company_id AND created_at > :since"

    @asynccontextmanager
    async def issuing(self, company: Company, count: int = 1) -> AsyncIterator[None]:
        """Surrounds the issue of `count` tokens. Raises QuotaExceeded. Several servers together may issue more."""
        most = (await self.limits(company.tier)).tokens_minute
        if most is None:
            yield
            return
        async with self._issuing.setdefault(company.id, trio.Lock()):
            since = self._clock() - timedelta(minutes=1)
            row = await self._database.read_one(self.ISSUED, company_id=company.id, since=since)
            if row is not None and row["n"] + count > most:
                raise QuotaExceeded("tokens_minute", most)
            yield


async def check_room(statements: Statements, company_id: str) -> None:
    """Raises QuotaExceeded if a company has more rooms than its tier allows, after one was inserted."""
    limits = await _limits(statements, company_id)
    if limits.rooms is not None:
        await statements.lock(COMPANY, company_id=company_id)
        await _check(statements, "rooms", limits.rooms + 1, limits.rooms, ROOMS, company_id=company_id)


async def check_join(
    statements: Statements,
    company_id: str,
    room_id: str,
    now: datetime,
    *,
    new_room: bool,
    apart: str = NOBODY,
    ahead: bool = False,
) -> None:
    """Raises QuotaExceeded if another person may not enter this room, whose row is locked.

    `new_room`: it was just inserted, or will be if this is `ahead` of the join. `apart` is a session that continues: it
    is not counted. Minutes are checked before (Tiers.ahead). The company's row is locked, too, if people of other rooms
    count: joins to these then wait for this transaction.
    """
    limits = await _limits(statements, company_id)
    if limits == NO_LIMITS:
        return
    who = {"company_id": company_id}
    if limits.people is not None or limits.rooms is not None:
        await statements.lock(COMPANY, **who)
    if new_room and limits.rooms is not None:
        await _check(statements, "rooms", limits.rooms + (not ahead), limits.rooms, ROOMS, **who)
    if limits.room_people is not None:
        most = limits.room_people
        await _check(statements, "room_people", most, most, IN_ROOM, **who, room_id=room_id, apart=apart)
    if limits.people is not None:
        await _check(statements, "people", limits.people, limits.people, PEOPLE, **who, apart=apart)


async def _limits(statements: Statements, company_id: str) -> Limits:
    row = await statements.one(LIMITS, company_id=company_id)
    return NO_LIMITS if row is None else Limits.of(row)


async def _check(statements: Statements, limit: str, least: int, most: int, sql: str, **values: str) -> None:
    """Raises QuotaExceeded if there are `least` or more."""
    row = await statements.one(sql, **values)
    if row is not None and cast(int, row["n"]) >= least:
        raise QuotaExceeded(limit, most)
