"""Records of issued tokens: revocation and single use."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sfu.refusals import TokenError, TokenRevoked, TokenUnknown, TokenUsed
from sfu.store import audit, events
from sfu.store.audit import SERVER, Author, Change, shown
from sfu.store.database import Database
from sfu.store.events import Event
from sfu.store.pages import NEWEST, Page, decode_cursor, moment, page
from sfu.store.records import Token, canonical_id
from sfu.store.statements import Statements, bound
from sfu.store.together import Together
from sfu.tenancy import tokens
from sfu.tenancy.keys import digest

Values = Mapping[str, Any]


class Tokens:
    """Issued tokens. Every method sees the tokens of one company only."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._newest = datetime.min.replace(tzinfo=UTC)
        self._issued = Together(database, self._write_issued)

    ADD = """
        INSERT INTO tokens (
            id, company_id, token_hash, room_id, user_name, permissions, single_use, created_at, expires_at
        )
        VALUES (
            :id, :company_id, :token_hash, :room_id, :user_name, :permissions, :single_use, :created_at, :expires_at
        )
        ON CONFLICT (id) DO UPDATE SET token_hash = excluded.token_hash, created_at = excluded.created_at,
            expires_at = excluded.expires_at
            WHERE tokens.company_id = excluded.company_id
    """
    """A repeated request (sfu.api.once) replaces a token that nobody got."""

    async def add(self, grant: tokens.Grant, token: str, author: Author = SERVER, *, single_use: bool = False) -> Token:
        """Records an issued token by its hash.

        No two tokens of this server are created in the same microsecond, so their order is that of their issue.
        """
        now = self._newest = max(self._clock(), self._newest + timedelta.resolution)
        issued = Token(
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
        )
        change = _change("token.issued", issued, None, _shown(issued))
        await self._issued.add((_row(issued, digest(token)), audit.row(now, author, change)))
        return issued

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

    LIST = """
        SELECT * FROM tokens WHERE company_id = :company_id AND (created_at, id) < (:created_at, :id)
        ORDER BY created_at DESC, id DESC LIMIT :count
    """

    async def list(self, company_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[Token]:
        """Tokens, newest first. Raises BadCursor."""
        created_at, after = moment(decode_cursor(cursor, 2) if cursor else NEWEST)
        rows = await self._database.read(
            self.LIST, company_id=company_id, created_at=created_at, id=after, count=limit + 1
        )
        return page([Token.of(row) for row in rows], limit, lambda token: (token.created_at.isoformat(), token.id))

    REVOKE = """
        UPDATE tokens SET revoked_at = :now
        WHERE company_id = :company_id AND id = :id AND revoked_at IS NULL RETURNING *
    """

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
            await audit.record(statements, now, author, _change("token.revoked", token, _shown(token), None))
            about = {"id": token.id, "by": author.shown}
            await events.record(statements, now, Event("token.revoked", company_id, token.room_id, about))
            return token

        return await self._database.transaction(work)


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
        }
    )


def _shown(token: Token) -> dict[str, Any]:
    """What the audit log says of a token."""
    return {
        "user_name": token.user_name,
        "permissions": token.permissions.to_json(),
        "single_use": token.single_use,
        "expires_at": shown(token.expires_at),
    }


def held_against(token: Token | None) -> TokenError | None:
    """The error that the record of a token (None: there is none) raises against its use; None if there is none."""
    if token is None:
        return TokenUnknown()
    if token.revoked_at is not None:
        return TokenRevoked(f"The token was revoked at {token.revoked_at:%Y-%m-%dT%H:%M:%SZ}.")
    if token.single_use and token.used_at is not None:
        return TokenUsed(f"The token was for a single use and was used at {token.used_at:%Y-%m-%dT%H:%M:%SZ}.")
    return None


USE = """
    UPDATE tokens SET used_at = COALESCE(used_at, :now)
    WHERE company_id = :company_id AND id = :id AND token_hash = :token_hash
        AND revoked_at IS NULL AND (used_at IS NULL OR NOT single_use)
    RETURNING id
"""


async def use(statements: Statements, company_id: str, token_id: str, token_hash: str, now: datetime) -> None:
    """Marks a token used, within a transaction, so that only one of two joins with a single-use token succeeds.

    Raises TokenRevoked, TokenUsed or TokenUnknown.
    """
    key = {"company_id": company_id, "id": token_id}
    if await statements.one(USE, **key, token_hash=token_hash, now=now) is None:
        row = await statements.one(Tokens.GET, **key)
        raise held_against(Token.of(row) if row else None) or TokenUnknown()
