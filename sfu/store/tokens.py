"""Records of issued tokens: revocation and single use."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sfu.refusals import TokenError, TokenRevoked, TokenUnknown, TokenUsed
from sfu.store import audit, events
from sfu.store.audit import SERVER, Author, Change, shown
from sfu.store.database import Database
from sfu.store.events import Event
from sfu.store.filters import Wanted
from sfu.store.pages import Page, page
from sfu.store.records import Token, canonical_id, json_text
from sfu.store.statements import Statements, bound
from sfu.store.together import Together
from sfu.tenancy import tokens
from sfu.tenancy.grants import AHEAD_DAYS
from sfu.tenancy.keys import digest

Values = Mapping[str, Any]
State = Literal["valid", "early", "used", "revoked", "expired"]
"""Whether a token admits somebody now, and if not, why; `used` means for good."""


class Tokens:
    """Issued tokens. Every method sees the tokens of one company only."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._newest = datetime.min.replace(tzinfo=UTC)
        self._issued = Together(database, self._write_issued)

    INSERT = """
        INSERT INTO tokens (
            id, company_id, token_hash, room_id, user_name, permissions, single_use, created_at, expires_at, user_id,
            metadata, not_before, max_duration_s
        )
        VALUES (
            :id, :company_id, :token_hash, :room_id, :user_name, :permissions, :single_use, :created_at, :expires_at,
            :user_id, :metadata, :not_before, :max_duration_s
        )
    """
    ADD = (
        INSERT
        + """
        ON CONFLICT (id) DO UPDATE SET token_hash = excluded.token_hash, created_at = excluded.created_at,
            expires_at = excluded.expires_at
            WHERE tokens.company_id = excluded.company_id
    """
    )
    """A repeated request (sfu.api.once) replaces a token that nobody got."""

    async def add(self, grant: tokens.Grant, token: str, author: Author = SERVER, *, single_use: bool = False) -> Token:
        """Records an issued token by its hash.

        No two tokens of this server are created in the same microsecond, so their order is that of their issue.
        """
        issued = self._issue(grant, single_use)
        await self._issued.add(_written(issued, digest(token), author))
        return issued

    async def add_many(self, issued: Sequence[tuple[tokens.Grant, str, bool]], author: Author = SERVER) -> None:
        """Records tokens, all or none: each grant with its token and whether it is for a single use."""
        rows = [_written(self._issue(grant, single), digest(token), author) for grant, token, single in issued]

        async def work(statements: Statements) -> None:
            await self._write_issued(statements, rows)

        await self._database.transaction(work)

    def _issue(self, grant: tokens.Grant, single_use: bool) -> Token:
        self._newest = max(self._clock(), self._newest + timedelta.resolution)
        return _record(grant, single_use, self._newest)

    async def _write_issued(self, statements: Statements, issued: Sequence[tuple[Values, Values]]) -> None:
        await statements.run_many(self.ADD, [token for token, _ in issued])
        await statements.run_many(audit.ADD, [entry for _, entry in issued])

    GET = "SELECT * FROM tokens WHERE company_id = :company_id AND id = :id"

    async def get(self, company_id: str, token_id: str) -> Token | None:
        """The record of a token. Accepts any text as `token_id`."""
        known = canonical_id(token_id)
        row = await self._database.read_one(self.GET, company_id=company_id, id=known) if known else None
        return Token.of(row) if row else None

    SAME = "SELECT id FROM tokens WHERE company_id = :company_id AND id = :id AND token_hash = :token_hash"

    async def same(self, company_id: str, token_id: str, token: str) -> bool:
        """Whether `token`, which need not be verified, is the one with that record."""
        key = {"company_id": company_id, "id": token_id, "token_hash": digest(token)}
        return await self._database.read_one(self.SAME, **key) is not None

    async def list(self, company_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[Token]:
        """All tokens, newest first. Raises BadCursor."""
        return await self.find(Wanted(company_id), cursor=cursor, limit=limit)

    async def find(self, wanted: Wanted, *, cursor: str | None = None, limit: int = 100) -> Page[Token]:
        """Tokens in the wanted order of their issue. The states are those of State. Raises BadCursor."""
        leeway, now = timedelta(seconds=tokens.LEEWAY_S), self._clock()
        values: dict[str, Any] = {
            "state": wanted.state,
            "expired": now - leeway,
            "early": now + leeway,
            "count": limit + 1,
        }
        rows = await self._database.read(statement(wanted), **wanted.values(cursor), **values)
        return page([Token.of(row) for row in rows], limit, lambda token: (token.created_at.isoformat(), token.id))

    REVOKE = """
        UPDATE tokens SET revoked_at = :now
        WHERE company_id = :company_id AND id = :id AND revoked_at IS NULL RETURNING *
    """

    BURY = """
        INSERT INTO tokens (
            id, company_id, token_hash, room_id, user_name, permissions, created_at, expires_at, revoked_at
        )
        VALUES (:id, :company_id, '', '', '', '{}', :now, :expires_at, :now)
        ON CONFLICT (id) DO NOTHING RETURNING *
    """

    async def bury(self, company_id: str, token_id: str, author: Author = SERVER) -> Token | None:
        """Revokes a token that the company signed by itself and nobody has used yet, for as long as one can be valid.

        Its record has neither room nor name. None for text that is no id.
        """
        known, now = canonical_id(token_id), self._clock()
        if known is None:
            return None
        over = now + timedelta(days=AHEAD_DAYS, seconds=tokens.MAX_LIFE_S)
        values = {"company_id": company_id, "id": known, "now": now, "expires_at": over}

        async def work(statements: Statements) -> Token | None:
            row = await statements.one(self.BURY, **values)
            if row is None:
                return None
            await audit.record(statements, now, author, _change("token.revoked", Token.of(row), None, None))
            return Token.of(row)

        buried = await self._database.transaction(work)
        return await self.revoke(company_id, token_id, author) if buried is None else buried

    async def revoke(self, company_id: str, token_id: str, author: Author = SERVER) -> Token | None:
        """Revokes a token for good; idempotent. None if the company has no such token. Accepts any text."""
        known, now = canonical_id(token_id), self._clock()
        if known is None:
            return None
        key = {"company_id": company_id, "id": known}

        async def work(statements: Statements) -> Token | None:
            row = await statements.one(self.REVOKE, **key, now=now)
            if row is None:
                row = await statements.one(self.GET, **key)
                return Token.of(row) if row else None
            token = Token.of(row)
            await _tell_revoked(statements, now, author, token)
            return token

        return await self._database.transaction(work)

    REVOKE_OF_KEY = """
        UPDATE tokens SET revoked_at = :now
        WHERE company_id = :company_id AND revoked_at IS NULL AND expires_at > :now AND CAST(id AS TEXT) IN (
            SELECT target FROM audit_entries
            WHERE company_id = :company_id AND by_kind = 'key' AND by_id = :key_id AND action = 'token.issued'
        ) RETURNING *
    """

    async def revoke_of_key(self, company_id: str, key_id: str, author: Author = SERVER) -> tuple[str, ...]:
        """Revokes all tokens that an API key issued, as far as the audit log goes back. Returns their ids."""
        now, known = self._clock(), canonical_id(key_id)

        async def work(statements: Statements) -> tuple[str, ...]:
            rows = await statements.all(self.REVOKE_OF_KEY, company_id=company_id, key_id=known, now=now)
            revoked = [Token.of(row) for row in rows]
            await _tell_revoked(statements, now, author, *revoked)
            return tuple(token.id for token in revoked)

        return await self._database.transaction(work)


async def _tell_revoked(statements: Statements, now: datetime, author: Author, *revoked: Token) -> None:
    if not revoked:
        return
    changes = [_change("token.revoked", token, _shown(token), None) for token in revoked]
    await audit.record(statements, now, author, *changes)
    about = [(token.room_id, {"id": token.id, "by": author.shown}) for token in revoked]
    await events.record(statements, now, *(Event("token.revoked", revoked[0].company_id, *one) for one in about))


def statement(wanted: Wanted) -> str:
    """The statement of a list of tokens."""
    parts = wanted.order("created_at")
    return f"""
        SELECT * FROM tokens
        WHERE company_id = :company_id AND created_at >= :since AND created_at < :until AND {parts["after"]}
            AND (CAST(:room_id AS TEXT) = '' OR room_id = :room_id)
            AND (CAST(:user AS TEXT) = '' OR user_name = :user OR user_id = :user)
            AND (CAST(:state AS TEXT) = '' OR :state = CASE WHEN revoked_at IS NOT NULL THEN 'revoked'
                WHEN expires_at <= :expired THEN 'expired' WHEN single_use AND used_at IS NOT NULL THEN 'used'
                WHEN not_before > :early THEN 'early' ELSE 'valid' END)
        ORDER BY {parts["order"]} LIMIT :count
    """


def _change(action: str, token: Token, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Change:
    return Change(action, token.company_id, token.id, token.room_id, before, after, token.user_name)


def _row(token: Token, token_hash: str) -> Values:
    """The values of ADD. Raises BadValue for text that cannot be stored."""
    return bound(
        {
            "id": token.id,
            "company_id": token.company_id,
            "token_hash": token_hash,
            "room_id": token.room_id,
            "user_name": token.user_name,
            "permissions": json.dumps(token.permissions.to_json()),
            "single_use": token.single_use,
            "created_at": token.created_at,
            "expires_at": token.expires_at,
            "user_id": token.user_id,
            "metadata": json_text("metadata", token.metadata),
            "not_before": token.not_before,
            "max_duration_s": token.max_duration_s,
        }
    )


def _record(grant: tokens.Grant, single_use: bool, now: datetime) -> Token:
    """The record of a token that is written now."""
    return Token(
        grant.id,
        grant.company_id,
        grant.room_id,
        grant.user_name,
        grant.permissions,
        single_use=single_use,
        created_at=now,
        expires_at=grant.expires_at,
        used_at=None,
        revoked_at=None,
        not_before=grant.not_before,
        max_duration_s=grant.max_duration_s,
        user_id=grant.user_id,
        metadata=grant.metadata,
    )


def _written(issued: Token, token_hash: str, author: Author) -> tuple[Values, Values]:
    """The rows of a token that is issued: its record, and its entry in the audit log."""
    change = _change("token.issued", issued, None, _shown(issued))
    return _row(issued, token_hash), audit.row(issued.created_at, author, change)


def _shown(token: Token) -> dict[str, Any]:
    """What the audit log says of a token."""
    return {
        "user_name": token.user_name,
        "permissions": token.permissions.to_json(),
        "single_use": token.single_use,
        "expires_at": shown(token.expires_at),
        **({"not_before": shown(token.not_before)} if token.not_before and token.not_before > token.created_at else {}),
        **({"max_duration": token.max_duration_s} if token.max_duration_s else {}),
        **({"user_id": token.user_id} if token.user_id else {}),
    }


def held_against(token: Token | None, *, own: bool = False) -> TokenError | None:
    """The error that the record of a token (None: there is none) raises against its use; None if there is none.

    `own`: the company signed the token by itself, so that it need not have a record yet.
    """
    if token is None:
        return None if own else TokenUnknown()
    if token.revoked_at is not None:
        return TokenRevoked(f"The token was revoked at {token.revoked_at:%Y-%m-%dT%H:%M:%SZ}.")
    if token.single_use and token.used_at is not None:
        return TokenUsed(f"The token was for a single use and was used at {token.used_at:%Y-%m-%dT%H:%M:%SZ}.")
    return None


ADOPT = Tokens.INSERT + " ON CONFLICT (id) DO NOTHING"
USE = """
    UPDATE tokens SET used_at = COALESCE(used_at, :now)
    WHERE company_id = :company_id AND id = :id AND token_hash = :token_hash
        AND revoked_at IS NULL AND (used_at IS NULL OR NOT single_use)
    RETURNING id
"""


async def adopt(statements: Statements, grant: tokens.Grant, token: str, now: datetime) -> None:
    """Records a token that its company signed by itself, within the transaction of its first use.

    If there is a record, it stays: the token was used before, it was revoked, or another one has its id.
    """
    await statements.run(ADOPT, **_row(_record(grant, grant.single_use, now), digest(token)))


async def use(statements: Statements, company_id: str, token_id: str, token_hash: str, now: datetime) -> None:
    """Marks a token used, within a transaction, so that only one of two joins with a single-use token succeeds.

    Raises TokenRevoked, TokenUsed or TokenUnknown.
    """
    key = {"company_id": company_id, "id": token_id}
    if await statements.one(USE, **key, token_hash=token_hash, now=now) is None:
        row = await statements.one(Tokens.GET, **key)
        raise held_against(Token.of(row) if row else None) or TokenUnknown()
