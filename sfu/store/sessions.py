"""Sessions from join to leave, even if the server or the database fails in between."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Set
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from sfu.errors import Removed, Replaced, RoomFull
from sfu.refusals import CompanyDisabled, RoomDeleted, RoomElsewhere, TokenRequired, TokenRevoked
from sfu.store import bans, events, stays, tiers, tokens
from sfu.store.database import Database
from sfu.store.events import Event
from sfu.store.later import LOCK, Later
from sfu.store.records import RoomRules, Session, SessionDrops, SessionQuality, json_text, utc
from sfu.store.statements import Statements, bound
from sfu.store.unseen import SERVER_LOST, close_unseen
from sfu.tenancy.keys import digest
from sfu.tenancy.tokens import Grant

ABANDONED_S = 300
"""A starting server counts others without a heartbeat for this long as dead. Later, store/servers.py watches them."""

STRANGER_LOOKS = 5
"""For how many looks, a second apart, this server may not know an open session of its own."""

NOTHING_KNOWN = SessionQuality()
Judge = Callable[[RoomRules], None]
"""Checks the room's settings and raises if they forbid to enter. Runs on the asyncio side."""

log = logging.getLogger(__name__)


class Sessions:
    """Sessions. A join is written before it takes effect; a leave is queued and written afterwards.

    The queue of leaves is bounded. While the database is unavailable nobody can join, so it needs no more places than
    there were people in calls. A leave beyond the bound is dropped and logged, and the next start closes its session.
    """

    def __init__(
        self,
        database: Database,
        server: str,
        clock: Callable[[], datetime],
        leaves: Later,
        rulings: Later,
        *,
        max_participants: int,
        fresh_s: float,
        ahead: Callable[[str], Awaitable[bool]],
    ) -> None:
        """`rulings` is the queue of bans and room changes. A join first waits until it is written.

        A session of another server counts as lasting for `fresh_s` after that server recorded it. `ahead` is
        that of Tiers.
        """
        self._database = database
        self._server = server
        self._clock = clock
        self._max_participants = max_participants
        self._fresh_s = fresh_s
        self._ahead = ahead
        self._strangers: dict[str, int] = {}  # its open sessions that it does not know, with looks
        self._warned = False
        self._leaves = leaves
        self._rulings = rulings

    async def admit(
        self,
        grant: Grant,
        token: str,
        *,
        peer_address: str = "",
        metadata: Mapping[str, Any] | None = None,
        judge: Judge = lambda rules: None,
    ) -> Session:
        """Opens a session with a valid token. A single-use token is then used up.

        Raises RoomElsewhere, RoomFull, CompanyDisabled, TokenRevoked, TokenUsed, TokenUnknown, Removed,
        QuotaExceeded or what `judge` raises; then the token is not used up.
        """
        now = self._clock()

        async def use_token(statements: Statements, _rules: RoomRules) -> None:
            if grant.own:
                await tokens.adopt(statements, grant, token, now)
            await tokens.use(statements, grant.company_id, grant.id, digest(token), now)

        who = {"company_id": grant.company_id, "room_id": grant.room_id, "user_name": grant.user_name}
        return await self._admit(who, grant.id, (use_token, judge), peer_address, metadata, now, grant.user_id)

    async def admit_anonymous(
        self,
        company_id: str,
        room_id: str,
        user_name: str,
        *,
        peer_address: str = "",
        metadata: Mapping[str, Any] | None = None,
        judge: Judge = lambda rules: None,
    ) -> Session:
        """Opens a session without a token.

        Raises RoomElsewhere, RoomFull, CompanyDisabled, TokenRequired, Removed, QuotaExceeded or what `judge` raises.
        """

        async def look_at_access(_statements: Statements, rules: RoomRules) -> None:
            if rules.access != "open":
                raise TokenRequired

        who = {"company_id": company_id, "room_id": room_id, "user_name": user_name}
        return await self._admit(who, None, (look_at_access, judge), peer_address, metadata, self._clock())

    LOCK_ROOM = """
        INSERT INTO rooms (id, company_id, room_id, max_participants, created_at, updated_at, last_join_at, kept)
        SELECT :id, c.id, :room_id, :max_participants, :now, :now, :now, :kept
        FROM companies AS c WHERE c.id = :company_id AND c.is_active
        ON CONFLICT (company_id, room_id) DO UPDATE SET last_join_at = excluded.last_join_at
        RETURNING id, version, max_participants, access, locked, lobby, files, chat_kept_s
    """
    ELSEWHERE = """
        SELECT server, max(last_seen_at) AS seen_at FROM sessions
        WHERE company_id = :company_id AND room_id = :room_id AND disconnected_at IS NULL AND server <> :server
        GROUP BY server ORDER BY seen_at DESC LIMIT 1
    """
    ADMIT = """
        INSERT INTO sessions (
            id, company_id, room_id, user_name, token_id, server, peer_address, connected_at, last_seen_at, day,
            concurrency, metadata, user_id
        )
        SELECT :id, :company_id, :room_id, :user_name, :token_id, :server, :peer_address, :now, :now, :day,
            present.n + 1, :metadata, :user_id
        FROM (
            SELECT count(*) AS n FROM sessions
            WHERE company_id = :company_id AND room_id = :room_id AND disconnected_at IS NULL
        ) AS present
        WHERE present.n < :max_participants
        RETURNING *
    """

    async def _admit(
        self,
        who: Mapping[str, str],
        token_id: str | None,
        checks: tuple[Callable[[Statements, RoomRules], Awaitable[None]], Judge],
        peer_address: str,
        metadata: Mapping[str, Any] | None,
        now: datetime,
        user_id: str = "",
    ) -> Session:
        """Opens a session. First writes the room's row, creating it if necessary.

        Other joins to the room wait for that row, so the count of participants is right.
        """
        details = json_text("metadata", metadata or {})
        check, judge = checks
        limited = await self._ahead(who["company_id"])

        async def work(statements: Statements) -> Session:
            place = {"company_id": who["company_id"], "room_id": who["room_id"]}
            usual = {"max_participants": self._max_participants, "kept": token_id is not None}
            new_id = str(uuid.uuid4())
            room = await statements.one(self.LOCK_ROOM, id=new_id, **place, **usual, now=now)
            if room is None:
                raise CompanyDisabled
            await self.check_here(statements, place, now)
            rules = RoomRules.of(room)
            await check(statements, rules)
            await bans.check(statements, **who, token_id=token_id, address=peer_address, now=now)
            judge(rules)
            if limited:
                await tiers.check_join(
                    statements, place["company_id"], place["room_id"], now, new_room=rules.id == new_id
                )
            row = await statements.one(
                self.ADMIT, **who, id=str(uuid.uuid4()), token_id=token_id, server=self._server, now=now,
                day=now.astimezone(UTC).date(), peer_address=peer_address,
                max_participants=room["max_participants"], metadata=details, user_id=user_id,
            )  # fmt: skip
            if row is None:
                raise RoomFull
            await events.record(statements, now, *stays.joined(row, now, first=row["concurrency"] == 1))
            return Session.of(row)

        await self._rulings.flush()
        await self.flush()  # else people who have just left would still be counted
        return await self._database.transaction(work)

    async def check_here(self, statements: Statements, place: Mapping[str, str], now: datetime) -> None:
        """Raises RoomElsewhere while another server has the call: people on two servers would not meet."""
        other = await statements.one(self.ELSEWHERE, **place, server=self._server)
        if other is not None and self._is_fresh(other, now):
            raise RoomElsewhere(other["server"])

    def _is_fresh(self, other: Mapping[str, Any], now: datetime) -> bool:
        return utc(other["seen_at"]) > now - timedelta(seconds=self._fresh_s)

    async def elsewhere(self, company_id: str, room_id: str, *, fresh: bool = False) -> str | None:
        """Another server that has open sessions in this room; if `fresh`, only one that a join is refused for."""
        key = {"company_id": company_id, "room_id": room_id}
        other = await self._database.read_one(self.ELSEWHERE, **key, server=self._server)
        return None if other is None or (fresh and not self._is_fresh(other, self._clock())) else str(other["server"])

    def close(
        self,
        session: Session,
        reason: str,
        metadata: Mapping[str, Any] | None = None,
        quality: SessionQuality = NOTHING_KNOWN,
        drops: SessionDrops | None = None,
        *,
        began: bool = True,
    ) -> None:
        """Queues the end of a session, as of now; never blocks. `metadata` and `drops`, if given, replace the
        session's. A session that never `began` gives its single-use token back.

        Raises BadValue for values that cannot be stored.
        """
        now, place = self._clock(), {"company_id": session.company_id, "room_id": session.room_id}
        values = bound({
            "company_id": session.company_id,
            "id": session.id,
            "server": self._server,
            "at": now,
            "at_s": now.timestamp(),
            "reason": reason,
            "metadata": None if metadata is None else json_text("metadata", metadata),
            **asdict(quality),
            **asdict(drops or session.drops),
        })  # fmt: skip

        async def leave(statements: Statements) -> list[Event]:
            row = await statements.one(self.CLOSE, **values)
            if row is not None:
                return await stays.left(statements, row)
            if await statements.one(self.ROW, id=session.id, server=self._server) is None:
                return await stays.erased(statements, place, now, reason)
            await statements.run(self.COMPLETE, **values)
            return []

        queued = self._leaves.add_step(leave, **place, session_id=session.id)
        if not queued:
            log.error("session=%s leave=dropped reason=queue_full", session.id)
        if session.token_id and not began:
            used = {"company_id": session.company_id, "token_id": session.token_id, "id": session.id}
            self._leaves.add(self.GIVE_BACK, **used)

    NOTE = """
        UPDATE sessions SET metadata = :metadata
        WHERE company_id = :company_id AND id = :id AND server = :server AND disconnected_at IS NULL
    """

    def note(self, session: Session, metadata: Mapping[str, Any]) -> None:
        """Queues new metadata of an open session; never blocks. Its end replaces them."""
        values = bound({
            "company_id": session.company_id,
            "id": session.id,
            "server": self._server,
            "metadata": json_text("metadata", metadata),
        })  # fmt: skip

        async def write(statements: Statements) -> list[Event]:
            await statements.run(self.NOTE, **values)
            return []

        place = {"company_id": session.company_id, "room_id": session.room_id}
        if not self._leaves.add_step(write, **place, session_id=session.id):
            log.error("session=%s note=dropped reason=queue_full", session.id)

    @property
    def unwritten(self) -> int:
        """The number of leaves not yet written to the database."""
        return len(self._leaves)

    _CLOSED = f"""
        UPDATE sessions SET disconnected_at = :at, last_seen_at = :at,
            leave_reason = CASE WHEN leave_reason = '{RoomDeleted.code}' THEN leave_reason ELSE :reason END,
            duration_s = greatest(0, CAST(:at_s AS DOUBLE PRECISION) - date_part('epoch', connected_at)),
            metadata = COALESCE(:metadata, metadata), score_mean = :score_mean, score_min = :score_min,
            loss_up = :loss_up, loss_down = :loss_down, jitter_up_ms = :jitter_up_ms,
            jitter_down_ms = :jitter_down_ms, round_trip_ms = :round_trip_ms, bytes_up = :bytes_up,
            bytes_down = :bytes_down, drops = :drops, returns = :returns, last_drop = :last_drop
        WHERE company_id = :company_id AND id = :id AND server = :server
    """
    CLOSE = f"{_CLOSED} AND disconnected_at IS NULL RETURNING *"
    COMPLETE = f"{_CLOSED} AND leave_reason IN ('{RoomDeleted.code}', '{SERVER_LOST}')"
    """Only the server that has the session knows how it went, so it also completes what others closed."""

    GIVE_BACK = """
        UPDATE tokens SET used_at = NULL
        WHERE company_id = :company_id AND id = :token_id AND single_use
            AND NOT EXISTS (SELECT 1 FROM sessions WHERE token_id = :token_id AND id <> :id AND disconnected_at IS NULL)
    """

    async def flush(self) -> None:
        """Writes the queued leaves, or raises DatabaseUnavailable and keeps them. Writing one twice has no effect."""
        await self._leaves.flush()

    OPEN = "SELECT id FROM sessions WHERE server = :server AND disconnected_at IS NULL ORDER BY id"
    TOUCH = "UPDATE sessions SET last_seen_at = :now WHERE server = :server AND disconnected_at IS NULL"

    async def touch(self) -> None:
        """The heartbeat: sets `last_seen_at` of every open session of this server to now."""
        now = self._clock()

        async def work(statements: Statements) -> None:
            await statements.lock(self.OPEN, server=self._server)
            await statements.run(self.TOUCH, server=self._server, now=now)

        await self._database.transaction(work)

    STALE = "(server = :server OR last_seen_at < :abandoned)"

    async def close_stale(self) -> int:
        """Closes sessions that a dead server, or this server's last run, left open, as of when they were last seen.

        Call it only before this server admits anybody. Returns how many it closed.
        """
        if self._database.claim():
            abandoned = datetime.max.replace(tzinfo=UTC)  # whatever name the last server had
        else:
            abandoned = self._clock() - timedelta(seconds=ABANDONED_S)
        closed = await close_unseen(self._database, self.STALE, server=self._server, abandoned=abandoned)
        if closed:
            log.warning("sessions_closed=%d reason=%s", closed, SERVER_LOST)
        return closed

    HERE = """
        SELECT s.id, t.revoked_at IS NOT NULL AS revoked, c.is_active
        FROM sessions AS s
        JOIN companies AS c ON c.id = s.company_id
        LEFT JOIN tokens AS t ON t.id = s.token_id
        WHERE s.server = :server AND s.disconnected_at IS NULL
    """
    ENDED = """
        SELECT server, leave_reason, company_id, room_id FROM sessions
        WHERE id = :id AND NOT (server = :server AND disconnected_at IS NULL)
    """
    ROW = "SELECT id FROM sessions WHERE id = :id AND server = :server"
    REOPEN = """
        UPDATE sessions SET disconnected_at = NULL, leave_reason = NULL, duration_s = NULL, last_seen_at = :now
        WHERE id = :id AND server = :server AND leave_reason = :reason
        RETURNING *
    """

    async def ended(self, ids: Collection[str]) -> dict[str, str]:
        """Those of this server's sessions that somebody else ended, with the reason.

        Their token was revoked, their company disabled, or the database says that they are closed. One that another
        server closed since it took this one for dead is opened again.
        """
        rows = {str(row["id"]): row for row in await self._database.read(self.HERE, server=self._server)}
        self._look_for_namesake(rows.keys() - ids)
        found = {}
        for id_ in ids:
            if (row := rows.get(id_)) is None:
                found[id_] = await self._reason(id_)
            elif not row["is_active"]:
                found[id_] = CompanyDisabled.code
            elif row["revoked"]:
                found[id_] = TokenRevoked.code
        return {id_: reason for id_, reason in found.items() if reason}

    def _look_for_namesake(self, strangers: Set[str]) -> None:
        """Warns, once, if another server opens sessions under this one's name.

        A stranger of a few looks may be joining or leaving.
        """
        self._strangers = {id_: self._strangers.get(id_, 0) + 1 for id_ in strangers}
        if not self._warned and not self._leaves and max(self._strangers.values(), default=0) >= STRANGER_LOOKS:
            self._warned = True
            log.error("server=%r state=shared: another server on this database has this SFU_SERVER_NAME", self._server)

    ROOMS_HERE = """
        SELECT r.id, r.company_id, r.room_id, r.version, r.access, r.locked, r.lobby, r.files, r.chat_kept_s
        FROM (
            SELECT DISTINCT company_id, room_id FROM sessions WHERE server = :server AND disconnected_at IS NULL
        ) AS present
        JOIN rooms AS r ON r.company_id = present.company_id AND r.room_id = present.room_id
    """

    async def rooms(self) -> list[tuple[str, str, RoomRules]]:
        """The rooms of this server's calls, by company and room id, with their settings: any server may change them."""
        rows = await self._database.read(self.ROOMS_HERE, server=self._server)
        return [(str(row["company_id"]), row["room_id"], RoomRules.of(row)) for row in rows]

    async def _reason(self, id_: str) -> str:
        """Why a session ended here; empty if it is open again."""
        row = await self._database.read_one(self.ENDED, server=self._server, id=id_)
        if row is not None and row["server"] != self._server:
            return Replaced.code  # its client returned to another server, which took this one for dead
        if row is not None and row["leave_reason"] == SERVER_LOST:
            await self._reopen(id_, {"company_id": str(row["company_id"]), "room_id": row["room_id"]})
            return ""
        if row is None and await self._database.read_one(self.ROW, server=self._server, id=id_) is None:
            return Removed.code  # `sfu forget` erased it
        return "" if row is None else str(row["leave_reason"])

    async def _reopen(self, id_: str, place: Mapping[str, str]) -> None:
        now = self._clock()

        async def work(statements: Statements) -> None:
            await statements.lock(LOCK, **place)
            present = await statements.one(stays.PRESENT, **place)
            row = await statements.one(self.REOPEN, id=id_, server=self._server, reason=SERVER_LOST, now=now)
            if row is not None:
                first = present is None or not present["n"]
                await events.record(statements, now, *stays.joined(row, now, first=first, returned=True))

        await self._database.transaction(work)
        log.warning("session=%s state=reopened reason=%s", id_, SERVER_LOST)
