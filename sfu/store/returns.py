"""Returns: people whose session ended although they did not leave, and who continue it within RETURN_S.

A ticket, which the server signs and the client keeps, names a session. A return opens that session again, so the
history shows one stay. A lock, a lobby, and the expiry and single use of a token do not end anybody's stay, so they
forbid no return either. Whatever ends a stay for good does: a session that ended for such a reason stays closed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sfu.errors import REJOIN_CLOSE_CODES, PageGone, RoomFull, all_codes
from sfu.store import bans, events, stays, tiers
from sfu.store.database import Database
from sfu.store.later import Later
from sfu.store.records import RoomRules, Session, Token
from sfu.store.statements import Statements
from sfu.store.tokens import Tokens
from sfu.store.unseen import SERVER_LOST
from sfu.tenancy.keys import ServerKey

RETURN_S = 300
"""How long after the end of a session its ticket is valid: enough for a crashed browser or a restarted machine."""

_REASONS = sorted({SERVER_LOST} | {code for code, of in all_codes().items() if of.close_code in REJOIN_CLOSE_CODES})
ENDED_ONLY_BY_ACCIDENT = f"""
    disconnected_at > :since AND leave_reason IN ({", ".join(f"'{reason}'" for reason in _REASONS)})
"""
EXPEL = f"""
    UPDATE sessions SET leave_reason = :reason WHERE id IN (
        WITH recent AS MATERIALIZED (
            SELECT id, company_id, room_id FROM sessions WHERE {ENDED_ONLY_BY_ACCIDENT}
        )
        SELECT id FROM recent WHERE company_id = :company_id AND room_id = :room_id
    )
"""  # those who left of late are few, those who ever were in the room may be many
"""Invalidates the tickets of everybody who was in the room, because the call ended or the room was deleted."""

RETURNABLE = f"""
    (({ENDED_ONLY_BY_ACCIDENT}) OR (disconnected_at IS NULL AND server <> :server AND last_seen_at <= :lost))
"""
"""Also sessions of a server that died and whose sessions are still to be closed."""

log = logging.getLogger(__name__)


class ReturnOver(Exception):
    """The session cannot be continued: the person must join as anybody else."""


def returnable_since(now: datetime) -> datetime:
    """Sessions that ended before this can no longer be continued."""
    return now - timedelta(seconds=RETURN_S)


class Returns:
    """Tickets, and sessions that are opened again.

    `leaves`, `rulings`, `check_here` and `fresh_s` are those of Sessions. `limited` tells whether tiers have limits.
    """

    def __init__(
        self,
        database: Database,
        server_key: ServerKey,
        server: str,
        clock: Callable[[], datetime],
        leaves: Later,
        rulings: Later,
        check_here: Callable[[Statements, Mapping[str, str], datetime], Awaitable[None]],
        fresh_s: float,
        limited: Callable[[], Awaitable[bool]],
    ) -> None:
        self._check_here, self._fresh_s, self._limited = check_here, fresh_s, limited
        self._database, self._server_key, self._server, self._clock = database, server_key, server, clock
        self._leaves, self._rulings = leaves, rulings

    def ticket(self, session_id: str) -> str:
        """The ticket of a session, valid for as long as the session is open and for RETURN_S after that."""
        return f"{session_id}.{self._server_key.sign(session_id)}"

    def session_id(self, ticket: str) -> str | None:
        """The id of the session that a ticket names; None if this server did not sign the ticket."""
        session_id, _, signature = ticket.partition(".")
        return session_id if self._server_key.signed(session_id, signature) else None

    def _limits(self, now: datetime) -> dict[str, Any]:
        """The values of RETURNABLE."""
        lost = now - timedelta(seconds=self._fresh_s)
        return {"server": self._server, "since": returnable_since(now), "lost": lost}

    GET = f"SELECT * FROM sessions WHERE id = :id AND {RETURNABLE}"

    async def find(self, session_id: str) -> tuple[Session, Token | None] | None:
        """The ended session that may be continued, with its token; None if it must not be, or not any more."""
        await self._leaves.flush()
        row = await self._database.read_one(self.GET, id=session_id, **self._limits(self._clock()))
        if row is None:
            return None
        session, token = Session.of(row), None
        if session.token_id is not None:
            key = {"company_id": session.company_id, "id": session.token_id}
            found = await self._database.read_one(Tokens.GET, **key)
            if found is None:
                return None
            token = Token.of(found)
        return session, token

    LOCK_ROOM = """
        UPDATE rooms SET last_join_at = :now
        WHERE company_id = :company_id AND room_id = :room_id
            AND EXISTS (SELECT 1 FROM companies WHERE id = :company_id AND is_active)
        RETURNING id, version, max_participants, access, locked, lobby, files, chat_kept_s
    """
    REVOKED = """
        SELECT t.id FROM tokens AS t JOIN companies AS c ON c.id = t.company_id
        WHERE t.id = :token_id AND (t.revoked_at IS NOT NULL OR c.updated_at > :connected_at)
    """  # rotating a company's secret revokes all of its tokens, and is among the changes that set updated_at
    PRESENT = """
        SELECT count(*) FILTER (WHERE id <> :id) AS n, count(*) FILTER (WHERE id = :id) AS open FROM sessions
        WHERE company_id = :company_id AND room_id = :room_id AND disconnected_at IS NULL
    """
    REOPEN = f"""
        UPDATE sessions SET disconnected_at = NULL, leave_reason = NULL, duration_s = NULL, last_seen_at = :now,
            server = :server, peer_address = :peer_address, returns = returns + 1,
            drops = drops + CASE WHEN leave_reason IS NULL OR leave_reason = '{PageGone.code}' THEN 1 ELSE 0 END,
            last_drop = COALESCE(leave_reason, '{SERVER_LOST}')
        WHERE id = :id AND {RETURNABLE}
        RETURNING *
    """

    async def reopen(self, session: Session, *, peer_address: str) -> tuple[Session, RoomRules]:
        """Opens the session again. Raises ReturnOver if that is no longer possible, RoomElsewhere, RoomFull,
        QuotaExceeded or Removed.
        """
        now, limited = self._clock(), await self._limited()
        key = {"company_id": session.company_id, "room_id": session.room_id}

        async def work(statements: Statements) -> tuple[Session, RoomRules]:
            room = await statements.one(self.LOCK_ROOM, **key, now=now)
            if room is None:
                raise ReturnOver
            rules = RoomRules.of(room)
            if session.token_id is None:
                revoked = rules.access != "open"
            else:
                held = {"token_id": session.token_id, "connected_at": session.connected_at}
                revoked = await statements.one(self.REVOKED, **held) is not None
            if revoked:
                raise ReturnOver
            await self._check_here(statements, key, now)
            who = {**key, "user_name": session.user_name}
            await bans.check(statements, **who, token_id=session.token_id, address=peer_address, now=now)
            present = await statements.one(self.PRESENT, **key, id=session.id)
            assert present is not None
            if present["n"] >= room["max_participants"]:
                raise RoomFull
            if limited:
                await tiers.check_join(
                    statements, key["company_id"], key["room_id"], now, new_room=False, apart=session.id
                )
            values = {"id": session.id, "peer_address": peer_address, "now": now}
            row = await statements.one(self.REOPEN, **values, **self._limits(now))
            if row is None:
                raise ReturnOver
            if not present["open"]:  # else nobody was told that the person had left
                await events.record(statements, now, *stays.joined(row, now, first=not present["n"], returned=True))
            return Session.of(row), rules

        await self._rulings.flush()
        await self._leaves.flush()
        return await self._database.transaction(work)

    def expel(self, company_id: str, room_id: str, reason: str) -> None:
        """Queues that nobody returns to the call, which ended; never blocks.

        It is queued behind the leaves, so that it also applies to those not yet written.
        """
        place = {"company_id": company_id, "room_id": room_id}
        if not self._leaves.add(EXPEL, **place, reason=reason, since=returnable_since(self._clock())):
            log.error("room=%r expel=dropped reason=queue_full", room_id)
