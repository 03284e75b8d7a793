"""Companies: owners of rooms, tokens and API keys, with a secret that signs their tokens."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sfu.errors import ConfigError
from sfu.refusals import CompanyExists, CompanyNotFound
from sfu.store import audit, keys
from sfu.store.audit import SERVER, Author, Change
from sfu.store.database import Database
from sfu.store.pages import Page, decode_cursor, page
from sfu.store.records import Company, Tier, canonical_id
from sfu.store.statements import Row, Statements
from sfu.tenancy.keys import Secret, ServerKey, new_signing_secret

DEFAULT_NAME = "default"
NAMED = 5
"""Most companies that a message names."""


class Companies:
    """Companies. Secrets are in clear here, but are stored only encrypted."""

    def __init__(self, database: Database, server_key: ServerKey, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._server_key = server_key
        self._clock = clock

    async def create(self, name: str, tier: Tier = "free", author: Author = SERVER) -> tuple[Company, Secret[str]]:
        """Creates a company; returns it with its API key, which cannot be read again. Raises CompanyExists."""
        made = await self._add(name, tier, author, is_default=False)
        if made is None:
            raise CompanyExists(f"A company {name!r} already exists.")
        return made

    DEFAULT = "SELECT * FROM companies WHERE is_default"

    async def ensure_default(self) -> Company:
        """The company of anonymous rooms, made at the first start. Nobody knows its first API key: use `rotate_key`."""
        row = await self._database.read_one(self.DEFAULT)
        if row is None:
            await self._add(DEFAULT_NAME, "free", SERVER, is_default=True)
            row = await self._database.read_one(self.DEFAULT)
        return _found(row)

    async def check_key(self) -> None:
        """Raises ConfigError, with the way out, unless the server key opens the secret of every company."""
        if closed := [company.name for company in await self.list() if not self.opens(company)]:
            raise ConfigError(_misfit(closed))

    def opens(self, company: Company) -> bool:
        """Whether the server key opens the secret of this company."""
        try:
            self.secret(company)
        except ConfigError:
            return False
        return True

    LIST = "SELECT * FROM companies ORDER BY name"

    async def list(self) -> tuple[Company, ...]:
        return tuple(Company.of(row) for row in await self._database.read(self.LIST))

    PAGE = "SELECT * FROM companies WHERE name > :after ORDER BY name LIMIT :count"

    async def page(self, *, cursor: str | None = None, limit: int = 100) -> Page[Company]:
        """Companies, sorted by name. Raises BadCursor."""
        (after,) = decode_cursor(cursor, 1) if cursor else ("",)
        rows = await self._database.read(self.PAGE, after=after, count=limit + 1)
        return page([Company.of(row) for row in rows], limit, lambda company: (company.name,))

    BY_ID = "SELECT * FROM companies WHERE id = :company_id"

    async def by_id(self, company_id: str) -> Company | None:
        """The company with this id. Accepts any text, such as the `kid` of an unverified token."""
        known = canonical_id(company_id)
        row = await self._database.read_one(self.BY_ID, company_id=known) if known else None
        return Company.of(row) if row else None

    BY_NAME = "SELECT * FROM companies WHERE name = :name"

    async def by_name(self, name: str) -> Company | None:
        row = await self._database.read_one(self.BY_NAME, name=name)
        return Company.of(row) if row else None

    def secret(self, company: Company) -> Secret[bytes]:
        """The secret that signs its tokens. Raises ConfigError if it was sealed with another server key."""
        return self._server_key.unseal(company.sealed_secret, company.id)

    def own_secret(self, company: Company) -> Secret[bytes] | None:
        """The secret of its own choosing that signs tokens it makes itself; None without one, and if another server key
        sealed it: after `rotate-secret`, that company must set it again."""
        if company.sealed_own_secret is None:
            return None
        try:
            return self._server_key.unseal(company.sealed_own_secret, f"{company.id}/own")
        except ConfigError:
            return None

    SET_OWN_SECRET = """
        UPDATE companies SET sealed_own_secret = :sealed, updated_at = :now WHERE id = :company_id RETURNING *
    """

    async def set_own_secret(self, company_id: str, secret: Secret[bytes] | None, author: Author = SERVER) -> Company:
        """Sets, replaces or removes that secret. Tokens that an earlier one signed are no longer accepted.

        Raises CompanyNotFound.
        """
        sealed = None if secret is None else self._server_key.seal(secret, f"{company_id}/own")
        change = Change("company.own_secret_set", company_id, company_id, after={"own_secret": secret is not None})
        return await self._change(self.SET_OWN_SECRET, {"sealed": sealed}, author, change)

    TOUCH = "UPDATE companies SET updated_at = :now WHERE id = :company_id RETURNING *"

    async def rotate_key(self, company_id: str, author: Author = SERVER) -> tuple[Company, Secret[str]]:
        """Creates a new API key with the scope `admin`; the others with that scope stop working at once.

        Raises CompanyNotFound.
        """

        async def work(statements: Statements) -> tuple[Company, Secret[str]]:
            now = self._clock()
            company = _found(await statements.one(self.TOUCH, company_id=company_id, now=now))
            _, api_key = await keys.replace(statements, company_id, author, now)
            return company, api_key

        return await self._database.transaction(work)

    ROTATE_SECRET = """
        UPDATE companies SET sealed_secret = :sealed_secret, updated_at = :now WHERE id = :company_id RETURNING *
    """

    async def rotate_secret(self, company_id: str, author: Author = SERVER) -> Company:
        """Creates a new signing secret, which invalidates all tokens of the company. Raises CompanyNotFound."""
        sealed = self._server_key.seal(new_signing_secret(), company_id)
        change = Change("company.secret_rotated", company_id, company_id)
        return await self._change(self.ROTATE_SECRET, {"sealed_secret": sealed}, author, change)

    SET_ACTIVE = """
        UPDATE companies SET is_active = :active, updated_at = :now
        WHERE id = :company_id AND is_active <> :active RETURNING *
    """

    async def set_active(self, company_id: str, active: bool, author: Author = SERVER) -> Company:
        """Enables or disables a company. Raises CompanyNotFound.

        Callers must refuse the keys and tokens of a disabled company.
        """
        values = {"active": active}
        change = Change(
            "company.changed", company_id, company_id, None, {"is_active": not active}, {"is_active": active}
        )
        return await self._change(self.SET_ACTIVE, values, author, change)

    async def _change(self, sql: str, values: Mapping[str, Any], author: Author, change: Change) -> Company:
        """Runs an UPDATE of a company, and records it if it found something to change. Raises CompanyNotFound."""
        now, key = self._clock(), {"company_id": change.target}

        async def work(statements: Statements) -> Company:
            row = await statements.one(sql, **key, **values, now=now)
            if row is None:
                return _found(await statements.one(self.BY_ID, **key))
            await audit.record(statements, now, author, change)
            return Company.of(row)

        return await self._database.transaction(work)

    CHANGE = """
        UPDATE companies SET name = :name, tier = :tier
        WHERE id = :company_id AND NOT EXISTS (SELECT 1 FROM companies WHERE name = :name AND id <> :company_id)
        RETURNING *
    """  # not updated_at: what sets that ends the tickets of people in calls (sfu.store.returns)

    async def change(self, company_id: str, changes: Mapping[str, Any], author: Author = SERVER) -> Company:
        """Changes `name` or `tier`, and keeps what is not in `changes`. Raises CompanyNotFound or CompanyExists."""

        async def work(statements: Statements) -> Company:
            await statements.lock(self.BY_ID, company_id=company_id)
            before = _found(await statements.one(self.BY_ID, company_id=company_id))
            wanted = {"name": before.name, "tier": before.tier, **changes}
            row = await statements.one(self.CHANGE, company_id=company_id, **wanted)
            if row is None:
                raise CompanyExists(f"A company {wanted['name']!r} already exists.")
            old = {"name": before.name, "tier": before.tier}
            if changed := [name for name in old if old[name] != wanted[name]]:
                pair = ({name: old[name] for name in changed}, {name: wanted[name] for name in changed})
                change = Change("company.changed", company_id, company_id, None, *pair)
                await audit.record(statements, self._clock(), author, change)
            return Company.of(row)

        return await self._database.transaction(work)

    ADD = """
        INSERT INTO companies (id, name, sealed_secret, tier, is_default, created_at, updated_at)
        VALUES (:id, :name, :sealed_secret, :tier, :is_default, :now, :now)
        ON CONFLICT DO NOTHING RETURNING *
    """

    async def _add(
        self, name: str, tier: Tier, author: Author, *, is_default: bool
    ) -> tuple[Company, Secret[str]] | None:
        """Inserts a company and its first key. None if the name, or for the default company another default, already
        exists."""
        company_id, now = str(uuid.uuid4()), self._clock()
        values = {"id": company_id, "name": name, "tier": tier, "is_default": is_default, "now": now}
        values["sealed_secret"] = self._server_key.seal(new_signing_secret(), company_id)

        async def work(statements: Statements) -> tuple[Company, Secret[str]] | None:
            row = await statements.one(self.ADD, **values)
            if row is None:
                return None
            _, api_key = await keys.add(statements, company_id, keys.FIRST, ["admin"], now)
            change = Change("company.created", company_id, company_id, after={"name": name, "tier": tier})
            await audit.record(statements, now, author, change)
            return Company.of(row), api_key

        return await self._database.transaction(work)


def _misfit(names: list[str]) -> str:
    """What to do about these companies, whose secrets the server key does not open."""
    commands = [f"`sfu company rotate-secret {shlex.quote(name)}`" for name in names[:NAMED]]
    more = f" and the same for {len(names) - NAMED} more, which `sfu company list` shows" if names[NAMED:] else ""
    return (
        "The server key does not fit this database: another one sealed the secrets of "
        f"{', '.join(map(repr, names[:NAMED]))}{f' and {len(names) - NAMED} more' if more else ''}. Set that key with "
        "SFU_SERVER_KEY, or its file with SFU_SERVER_KEY_FILE. If it is lost, give each of these companies a new "
        f"secret, which ends its tokens: {', '.join(commands)}{more}."
    )


def _found(row: Row | None) -> Company:
    if row is None:
        raise CompanyNotFound
    return Company.of(row)
