"""Keys: several API keys for each company, with scopes, and admin keys of the whole server."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sfu.limits.rates import Rate
from sfu.refusals import KeyNotFound, TooManyKeys
from sfu.store import audit
from sfu.store.audit import SERVER, Author, Change
from sfu.store.database import Database
from sfu.store.later import Later
from sfu.store.pages import NEWEST, Page, decode_cursor, moment, page
from sfu.store.records import Company, canonical_id, maybe_utc, utc
from sfu.store.statements import Row, Statements
from sfu.tenancy.keys import Secret, digest, matching, new_admin_key, new_api_key, visible_prefix
from sfu.tenancy.scopes import Scope

MOST = 100
"""Most keys of one company that work."""
USED_S = 60.0
"""How often at most the last use of a key is written."""
FIRST = "first"
"""The name of the key that a company begins with."""

NAMED = "id, company_id, name, prefix, scopes, created_at, expires_at, last_used_at, revoked_at"
ADD = f"""
    INSERT INTO keys (id, company_id, name, prefix, hash, scopes, created_at, expires_at)
    VALUES (:id, :company_id, :name, :prefix, :hash, :scopes, :now, :expires_at)
    RETURNING {NAMED}
"""
REPLACED = f"""
    UPDATE keys SET revoked_at = :now
    WHERE company_id = :company_id AND revoked_at IS NULL
        AND replace(' ' || scopes || ' ', ' admin ', '') <> ' ' || scopes || ' '
    RETURNING {NAMED}
"""
"""Without LIKE, whose percent signs the library of databases takes for its own."""


@dataclass(frozen=True, slots=True)
class Key:
    """An API key without its text; without a company, an admin key. `prefix` is how its text begins."""

    id: str
    company_id: str | None
    name: str
    prefix: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: Row) -> Key:
        return cls(
            id=str(row["id"]),
            company_id=None if row["company_id"] is None else str(row["company_id"]),
            name=row["name"],
            prefix=row["prefix"],
            scopes=tuple(row["scopes"].split()),
            created_at=utc(row["created_at"]),
            expires_at=maybe_utc(row["expires_at"]),
            last_used_at=maybe_utc(row["last_used_at"]),
            revoked_at=maybe_utc(row["revoked_at"]),
        )

    def works(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Keys:
    """Keys. They are in clear only where they are made; every method but `find` sees those of one company only."""

    def __init__(self, database: Database, clock: Callable[[], datetime], uses: Later) -> None:
        """`uses` is the queue of last uses."""
        self._database = database
        self._clock = clock
        self._uses = uses
        self._just_used = Rate(1, USED_S, lambda: clock().timestamp())

    FIND = """
        SELECT k.id AS key_id, k.company_id AS owner, k.name AS key_name, k.prefix, k.hash, k.scopes,
            k.created_at AS made_at, k.expires_at, k.last_used_at, k.revoked_at, c.*
        FROM keys AS k LEFT JOIN companies AS c ON c.id = k.company_id
        WHERE k.prefix = :prefix
    """

    async def find(self, text: str) -> tuple[Key, Company | None] | None:
        """The key with this text and its company, even a disabled one; without a company it is an admin key.

        None if there is none, or it is revoked or expired. Takes constant time, also for unknown keys.
        """
        rows = await self._database.read(self.FIND, prefix=visible_prefix(text))
        found = matching(text, [row["hash"] for row in rows])
        row = next((row for row in rows if row["hash"] == found), None)
        if row is None:
            return None
        key = Key.of({**row, "id": row["key_id"], "name": row["key_name"], "company_id": row["owner"],
                      "created_at": row["made_at"]})  # fmt: skip
        return (key, None if key.company_id is None else Company.of(row)) if key.works(self._clock()) else None

    USED = """
        UPDATE keys SET last_used_at = :now WHERE id = :id AND (last_used_at IS NULL OR last_used_at < :now)
    """

    def used(self, key: Key) -> None:
        """Queues that the key was used now, at most once in USED_S; never blocks."""
        now = self._clock()
        if key.last_used_at is not None and now - key.last_used_at < timedelta(seconds=USED_S):
            return
        if self._just_used.allows(key.id):
            self._uses.add(self.USED, id=key.id, now=now)

    LIST = f"""
        SELECT {NAMED} FROM keys WHERE company_id = :company_id AND (created_at, id) < (:created_at, :id)
        ORDER BY created_at DESC, id DESC LIMIT :count
    """

    async def list(self, company_id: str, *, cursor: str | None = None, limit: int = 100) -> Page[Key]:
        """Keys of a company, newest first, those that do not work any more included. Raises BadCursor."""
        created_at, after = moment(decode_cursor(cursor, 2) if cursor else NEWEST)
        rows = await self._database.read(
            self.LIST, company_id=company_id, created_at=created_at, id=after, count=limit + 1
        )
        return page([Key.of(row) for row in rows], limit, lambda key: (key.created_at.isoformat(), key.id))

    EVERY = f"SELECT {NAMED} FROM keys ORDER BY created_at, id"

    async def working(self) -> Sequence[Key]:
        """All keys that work, of all companies and of the server, oldest first."""
        now = self._clock()
        return [key for row in await self._database.read(self.EVERY) if (key := Key.of(row)).works(now)]

    GET = f"SELECT {NAMED} FROM keys WHERE company_id = :company_id AND id = :id"
    GET_ADMIN = f"SELECT {NAMED} FROM keys WHERE company_id IS NULL AND id = :id"

    async def get(self, company_id: str, key_id: str) -> Key:
        """A key of the company. Accepts any text. Raises KeyNotFound."""
        known = canonical_id(key_id)
        row = await self._database.read_one(self.GET, company_id=company_id, id=known) if known else None
        return _found(row)

    LOCK = "SELECT id FROM companies WHERE id = :company_id"
    COUNT = """
        SELECT count(*) AS n FROM keys
        WHERE company_id = :company_id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :now)
    """

    async def create(
        self,
        company_id: str,
        name: str,
        scopes: Sequence[Scope],
        *,
        expires_at: datetime | None = None,
        author: Author = SERVER,
    ) -> tuple[Key, Secret[str]]:
        """Makes a key; returns it with its text, which cannot be read again. Raises TooManyKeys."""

        async def work(statements: Statements) -> tuple[Key, Secret[str]]:
            await self._check_count(statements, company_id)
            made = await add(statements, company_id, name, scopes, self._clock(), expires_at)
            await self._tell(statements, author, Change("key.created", company_id, made[0].id, after=_shown(made[0])))
            return made

        return await self._database.transaction(work)

    async def create_admin(self, name: str, *, author: Author = SERVER) -> tuple[Key, Secret[str]]:
        """Makes an admin key."""

        async def work(statements: Statements) -> tuple[Key, Secret[str]]:
            made = await add(statements, None, name, ["admin"], self._clock(), None)
            await self._tell(statements, author, Change("key.created", None, made[0].id, after=_shown(made[0])))
            return made

        return await self._database.transaction(work)

    CHANGE = f"""
        UPDATE keys SET name = :name, scopes = :scopes, expires_at = :expires_at
        WHERE company_id = :company_id AND id = :id RETURNING {NAMED}
    """

    async def change(self, company_id: str, key_id: str, changes: Mapping[str, Any], *, author: Author = SERVER) -> Key:
        """Changes `name`, `scopes` or `expires_at`, and keeps what is not in `changes`. Raises KeyNotFound, also for a
        key that was revoked."""

        async def work(statements: Statements) -> Key:
            before = await self._locked(statements, company_id, key_id)
            wanted = {"name": before.name, "scopes": before.scopes, "expires_at": before.expires_at, **changes}
            wanted["scopes"] = " ".join(wanted["scopes"])
            after = _found(await statements.one(self.CHANGE, company_id=company_id, id=before.id, **wanted))
            old, new = _shown(before), _shown(after)
            if changed := [name for name in new if old[name] != new[name]]:
                pair = ({name: old[name] for name in changed}, {name: new[name] for name in changed})
                await self._tell(statements, author, Change("key.changed", company_id, after.id, None, *pair))
            return after

        return await self._database.transaction(work)

    async def rotate(
        self, company_id: str, key_id: str, overlap_s: float, *, author: Author = SERVER
    ) -> tuple[Key, Secret[str]]:
        """Makes a key with the name, scopes and expiry of this one, which works for another `overlap_s`.

        Raises KeyNotFound, also for a key that does not work, or TooManyKeys.
        """
        now = self._clock()
        end = now + timedelta(seconds=overlap_s)

        async def work(statements: Statements) -> tuple[Key, Secret[str]]:
            old = await self._locked(statements, company_id, key_id)
            if not old.works(now):
                raise KeyNotFound
            await self._check_count(statements, company_id)
            new, secret = await add(statements, company_id, old.name, old.scopes, now, old.expires_at)
            until = end if old.expires_at is None else min(end, old.expires_at)
            kept = {"name": old.name, "scopes": " ".join(old.scopes), "expires_at": until}
            await statements.run(self.CHANGE, company_id=company_id, id=old.id, **kept)
            about = {"replaced_by": new.id, "expires_at": until.isoformat()}
            await self._tell(
                statements, author, Change("key.created", company_id, new.id, after=_shown(new)),
                Change("key.rotated", company_id, old.id, before={}, after=about),
            )  # fmt: skip
            return new, secret

        return await self._database.transaction(work)

    REVOKE = f"UPDATE keys SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL RETURNING {NAMED}"

    async def revoke(self, company_id: str | None, key_id: str, *, author: Author = SERVER) -> bool:
        """Revokes a key for good; None for the company means an admin key. Whether it was not revoked before.

        Accepts any text. Raises KeyNotFound.
        """

        async def work(statements: Statements) -> bool:
            before = await self._locked(statements, company_id, key_id, revoked=True)
            row = await statements.one(self.REVOKE, id=before.id, now=self._clock())
            if row is not None:
                await self._tell(
                    statements, author, Change("key.revoked", company_id, before.id, before=_shown(before))
                )
            return row is not None

        return await self._database.transaction(work)

    async def _locked(
        self, statements: Statements, company_id: str | None, key_id: str, *, revoked: bool = False
    ) -> Key:
        """The key, locked until the transaction ends. Raises KeyNotFound, unless `revoked` also for a revoked one."""
        key = {"id": canonical_id(key_id)} | ({} if company_id is None else {"company_id": company_id})
        if key["id"] is None:
            raise KeyNotFound
        sql = self.GET_ADMIN if company_id is None else self.GET
        await statements.lock(sql, **key)
        found = _found(await statements.one(sql, **key))
        if found.revoked_at is not None and not revoked:
            raise KeyNotFound
        return found

    async def _check_count(self, statements: Statements, company_id: str) -> None:
        await statements.lock(self.LOCK, company_id=company_id)
        row = await statements.one(self.COUNT, company_id=company_id, now=self._clock())
        if row is not None and row["n"] >= MOST:
            raise TooManyKeys(f"The company has {MOST} keys. Revoke one that is not needed any more.")

    async def _tell(self, statements: Statements, author: Author, *changes: Change) -> None:
        await audit.record(statements, self._clock(), author, *changes)


async def add(
    statements: Statements,
    company_id: str | None,
    name: str,
    scopes: Sequence[Scope],
    now: datetime,
    expires_at: datetime | None = None,
) -> tuple[Key, Secret[str]]:
    """Inserts a key within a transaction. Without a company it is an admin key."""
    secret = new_admin_key() if company_id is None else new_api_key()
    text = secret.reveal()
    values = {"id": str(uuid.uuid4()), "company_id": company_id, "name": name, "scopes": " ".join(scopes)}
    values |= {"prefix": visible_prefix(text), "hash": digest(text)}
    return _found(await statements.one(ADD, **values, now=now, expires_at=expires_at)), secret


async def replace(statements: Statements, company_id: str, author: Author, now: datetime) -> tuple[Key, Secret[str]]:
    """Revokes the company's keys with the scope `admin`, and makes another one, within a transaction."""
    gone = [Key.of(row) for row in await statements.all(REPLACED, company_id=company_id, now=now)]
    made = await add(statements, company_id, FIRST, ["admin"], now)
    changes = [Change("key.revoked", company_id, key.id, before=_shown(key)) for key in gone]
    created = Change("key.created", company_id, made[0].id, after=_shown(made[0]))
    await audit.record(statements, now, author, *changes, created)
    return made


def _found(row: Row | None) -> Key:
    if row is None:
        raise KeyNotFound
    return Key.of(row)


def _shown(key: Key) -> dict[str, Any]:
    """What the audit log says of a key."""
    expires_at = None if key.expires_at is None else key.expires_at.isoformat()
    return {"name": key.name, "prefix": key.prefix, "scopes": list(key.scopes), "expires_at": expires_at}
