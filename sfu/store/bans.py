"""Bans: people who were removed from a room and may not return for some time."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import datetime

from sfu.errors import Removed
from sfu.limits.rates import place
from sfu.store import audit
from sfu.store.audit import SERVER, Author, Change, shown
from sfu.store.database import Database
from sfu.store.events import Event
from sfu.store.later import Later
from sfu.store.pages import NEWEST, Page, decode_cursor, moment, page
from sfu.store.records import Ban, Session, canonical_id
from sfu.store.statements import Statements, bound
from sfu.store.trail import Told, step_of

log = logging.getLogger(__name__)


class Bans:
    """Bans. Every method sees the bans of one company only. New bans are queued and written in order."""

    def __init__(self, database: Database, clock: Callable[[], datetime], rulings: Later) -> None:
        self._database = database
        self._clock = clock
        self._rulings = rulings

    ADD = """
        INSERT INTO bans (
            id, company_id, room_id, user_name, token_id, name_key, address, banned_by, created_at, expires_at
        )
        VALUES (
            :id, :company_id, :room_id, :user_name, :token_id, :name_key, :address, :banned_by, :now, :expires_at
        )
        ON CONFLICT DO NOTHING
    """

    def add(self, session: Session, *, until: datetime | None, by: str = "", author: Author = SERVER) -> None:
        """Records that the person of this session was removed, and bans them; never blocks. All joins from now on
        respect it. Without `until` they are not banned. `by` is the moderator's name.

        A person with a token is identified by the token, others by their name and address together.
        """
        now, anonymous = self._clock(), session.token_id is None
        ban = bound(
            {
                "id": str(uuid.uuid4()),
                "company_id": session.company_id,
                "room_id": session.room_id,
                "user_name": session.user_name,
                "token_id": session.token_id,
                "name_key": _key(session.user_name) if anonymous else "",
                "address": place(session.peer_address) if anonymous else "",
                "banned_by": by,
                "now": now,
                "expires_at": until,
            }
        )

        async def write(statements: Statements) -> Told:
            if until is not None:
                await statements.run(self.ADD, **ban)
            return removal(session, until, author)

        if not self._rulings.add_step(step_of(now, author, write)):
            log.error("session=%s ban=dropped reason=queue_full", session.id)

    async def holds(self, company_id: str, room_id: str, user_name: str, *, token_id: str | None, address: str) -> bool:
        """Whether somebody is banned now; see `check`."""
        await self._rulings.flush()
        values = _values(company_id, room_id, user_name, token_id, address)
        return await self._database.read_one(CHECK, **values, now=self._clock()) is not None

    LIST = """
        SELECT * FROM bans WHERE company_id = :company_id AND room_id = :room_id AND expires_at > :now
            AND (created_at, id) < (:created_at, :id)
        ORDER BY created_at DESC, id DESC LIMIT :count
    """

    async def list(self, company_id: str, room_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[Ban]:
        """Current bans, newest first. Raises BadCursor."""
        await self._rulings.flush()
        created_at, after = moment(decode_cursor(cursor, 2) if cursor else NEWEST)
        rows = await self._database.read(
            self.LIST,
            company_id=company_id,
            room_id=room_id,
            now=self._clock(),
            created_at=created_at,
            id=after,
            count=limit + 1,
        )
        return page([Ban.of(row) for row in rows], limit, lambda ban: (ban.created_at.isoformat(), ban.id))

    LIFT = "DELETE FROM bans WHERE company_id = :company_id AND room_id = :room_id AND id = :id RETURNING *"

    async def lift(self, company_id: str, room_id: str, ban_id: str, author: Author = SERVER) -> Ban | None:
        """Deletes a ban and returns it; None if it does not exist. Accepts any text as `ban_id`."""
        known = canonical_id(ban_id)
        if known is None:
            return None
        await self._rulings.flush()
        now, key = self._clock(), {"company_id": company_id, "room_id": room_id, "id": known}

        async def work(statements: Statements) -> Ban | None:
            row = await statements.one(self.LIFT, **key)
            if row is None:
                return None
            ban = Ban.of(row)
            before = {"user_name": ban.user_name, "token_id": ban.token_id, "banned_until": shown(ban.expires_at)}
            change = Change("ban.lifted", company_id, ban.id, room_id, before, user_name=ban.user_name)
            await audit.record(statements, now, author, change)
            return ban

        return await self._database.transaction(work)


def removal(session: Session, until: datetime | None, author: Author) -> Told:
    """What is recorded of the end of a session of somebody who was removed, and banned until then."""
    about = {"user_name": session.user_name, "banned_until": until and shown(until)}
    place_, whom = (session.company_id, session.room_id), (session.user_name, session.id)
    change = Change("participant.removed", place_[0], session.id, place_[1], None, about, *whom)
    data = {"session_id": session.id, **about, "by": author.shown}
    return change, (Event("participant.removed", *place_, data, *whom),)


CHECK = """
    SELECT id FROM bans WHERE company_id = :company_id AND room_id = :room_id AND expires_at > :now
        AND (token_id = :token_id OR (token_id IS NULL AND name_key = :name_key AND address = :address))
"""


async def check(
    statements: Statements,
    company_id: str,
    room_id: str,
    user_name: str,
    *,
    token_id: str | None,
    address: str,
    now: datetime,
) -> None:
    """Raises Removed for a banned person, within the transaction of a join.

    Bans of a name and address do not apply to people with a token.
    """
    values = _values(company_id, room_id, user_name, token_id, address)
    if await statements.one(CHECK, **values, now=now) is not None:
        raise Removed


def _values(company_id: str, room_id: str, user_name: str, token_id: str | None, address: str) -> dict[str, str | None]:
    return {
        "company_id": company_id,
        "room_id": room_id,
        "token_id": token_id,
        "name_key": _key(user_name) if token_id is None else "",
        "address": place(address),
    }


def _key(user_name: str) -> str:
    return user_name.casefold()
