"""Webhooks: the addresses to which a company wants its events sent. What is sent is in deliveries.py."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sfu.errors import ConfigError
from sfu.refusals import WebhookNotFound, WebhooksFull
from sfu.store import audit
from sfu.store.audit import SERVER, Author, Change
from sfu.store.database import Database
from sfu.store.records import canonical_id, maybe_utc, utc
from sfu.store.statements import Row, Statements
from sfu.tenancy import hooks
from sfu.tenancy.keys import Secret, ServerKey

MOST = 50
"""Most webhooks of a company."""

ANY_OF = ".*"
"""`participant.*` stands for all types that begin with `participant.`."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where events go. `events` are the types it takes and `rooms` the rooms; empty: all.

    `paused_why` is `failing` (for days), `gone` (its response was 410) or `secret` (it cannot be read).
    """

    id: str
    company_id: str
    url: str
    description: str
    events: tuple[str, ...]
    rooms: tuple[str, ...]
    sealed_secret: str = field(repr=False)
    sealed_previous: str | None = field(repr=False)
    previous_until: datetime | None
    last_seq: int
    failing_since: datetime | None
    paused_at: datetime | None
    paused_why: str | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, row: Row) -> Webhook:
        return cls(
            id=str(row["id"]),
            company_id=str(row["company_id"]),
            url=row["url"],
            description=row["description"],
            events=tuple(row["events"].split()),
            rooms=tuple(json.loads(row["rooms"])),
            sealed_secret=row["sealed_secret"],
            sealed_previous=row["sealed_previous"],
            previous_until=maybe_utc(row["previous_until"]),
            last_seq=row["last_seq"],
            failing_since=maybe_utc(row["failing_since"]),
            paused_at=maybe_utc(row["paused_at"]),
            paused_why=row["paused_why"],
            created_at=utc(row["created_at"]),
            updated_at=utc(row["updated_at"]),
        )

    def takes(self, kind: str, room_id: str | None) -> bool:
        """Whether an event of this type in this room is for it."""
        if self.rooms and room_id not in self.rooms:
            return False
        return not self.events or any(_fits(one, kind) for one in self.events)


def _fits(asked: str, kind: str) -> bool:
    return asked == kind or (asked.endswith(ANY_OF) and kind.startswith(asked.removesuffix("*")))


class Webhooks:
    """The webhooks of companies. Every method sees those of one company only."""

    def __init__(self, database: Database, server_key: ServerKey, clock: Callable[[], datetime]) -> None:
        self._database, self._server_key, self._clock = database, server_key, clock

    LIST = """
        SELECT * FROM webhooks WHERE company_id = :company_id ORDER BY created_at DESC, id DESC LIMIT :count
    """

    async def list(self, company_id: str) -> tuple[Webhook, ...]:
        """All of them, newest first."""
        rows = await self._database.read(self.LIST, company_id=company_id, count=2 * MOST)
        return tuple(Webhook.of(row) for row in rows)

    GET = "SELECT * FROM webhooks WHERE company_id = :company_id AND id = :id"

    async def get(self, company_id: str, webhook_id: str) -> Webhook:
        """One of them. Raises WebhookNotFound."""
        known = canonical_id(webhook_id)
        row = await self._database.read_one(self.GET, company_id=company_id, id=known) if known else None
        if row is None:
            raise WebhookNotFound
        return Webhook.of(row)

    CREATE = """
        INSERT INTO webhooks (
            id, company_id, url, description, events, rooms, sealed_secret, last_seq, created_at, updated_at
        )
        SELECT :id, c.id, :url, :description, :events, :rooms, :sealed_secret, c.last_seq, :now, :now
        FROM companies AS c
        WHERE c.id = :company_id AND (SELECT count(*) FROM webhooks WHERE company_id = :company_id) < :most
        RETURNING *
    """

    async def create(
        self,
        company_id: str,
        url: str,
        *,
        description: str = "",
        events: Sequence[str] = (),
        rooms: Sequence[str] = (),
        author: Author = SERVER,
    ) -> tuple[Webhook, Secret[str]]:
        """Adds a webhook, for what happens from now on; returns it with its secret. Raises WebhooksFull."""
        webhook_id, secret, now = str(uuid.uuid4()), hooks.new_secret(), self._clock()
        values = _columns({"url": url, "description": description, "events": events, "rooms": rooms})
        sealed = self._server_key.seal(secret, webhook_id)

        async def work(statements: Statements) -> Webhook:
            key = {"id": webhook_id, "company_id": company_id, "sealed_secret": sealed}
            row = await statements.one(self.CREATE, **key, **values, most=MOST, now=now)
            if row is None:
                raise WebhooksFull
            made = Webhook.of(row)
            await audit.record(statements, now, author, _change("webhook.created", made, None, _shown(made)))
            return made

        return await self._database.transaction(work), hooks.shown(secret)

    UPDATE = """
        UPDATE webhooks SET url = :url, description = :description, events = :events, rooms = :rooms, updated_at = :now
        WHERE company_id = :company_id AND id = :id
        RETURNING *
    """

    async def change(
        self, company_id: str, webhook_id: str, changes: Mapping[str, Any], author: Author = SERVER
    ) -> Webhook:
        """Changes `url`, `description`, `events` or `rooms`; what is left out stays. Raises WebhookNotFound."""
        now = self._clock()

        async def work(statements: Statements) -> Webhook:
            before = await self._locked(statements, company_id, webhook_id)
            kept = {name: getattr(before, name) for name in ("url", "description", "events", "rooms")}
            key = {"company_id": company_id, "id": before.id}
            after = _found(await statements.one(self.UPDATE, **key, **_columns({**kept, **changes}), now=now))
            change = _change("webhook.changed", after, _shown(before), _shown(after))
            await audit.record(statements, now, author, change)
            return after

        return await self._database.transaction(work)

    DELETE = "DELETE FROM webhooks WHERE company_id = :company_id AND id = :id"

    async def delete(self, company_id: str, webhook_id: str, author: Author = SERVER) -> None:
        """Deletes a webhook with its deliveries, also those that wait. Raises WebhookNotFound."""
        now = self._clock()

        async def work(statements: Statements) -> None:
            before = await self._locked(statements, company_id, webhook_id)
            await statements.run(self.DELETE, company_id=company_id, id=before.id)
            await audit.record(statements, now, author, _change("webhook.deleted", before, _shown(before), None))

        await self._database.transaction(work)

    ROTATE = """
        UPDATE webhooks SET sealed_previous = sealed_secret, sealed_secret = :sealed, previous_until = :until,
            updated_at = :now
        WHERE company_id = :company_id AND id = :id
        RETURNING *
    """

    async def rotate(
        self, company_id: str, webhook_id: str, overlap_s: float, author: Author = SERVER
    ) -> tuple[Webhook, Secret[str]]:
        """Gives it a new secret, which is returned; the one until now signs as well for `overlap_s`. Raises
        WebhookNotFound."""
        now, secret = self._clock(), hooks.new_secret()

        async def work(statements: Statements) -> Webhook:
            before = await self._locked(statements, company_id, webhook_id)
            sealed, until = self._server_key.seal(secret, before.id), now + timedelta(seconds=overlap_s)
            key = {"company_id": company_id, "id": before.id}
            row = await statements.one(self.ROTATE, **key, sealed=sealed, until=until, now=now)
            await audit.record(statements, now, author, _change("webhook.secret_rotated", before, None, None))
            return _found(row)

        return await self._database.transaction(work), hooks.shown(secret)

    def secrets(self, webhook: Webhook) -> Sequence[Secret[bytes]]:
        """Those that sign now, the newest first. Raises ConfigError if they were sealed with another server key."""
        found = [self._server_key.unseal(webhook.sealed_secret, webhook.id)]
        if webhook.sealed_previous and webhook.previous_until and self._clock() < webhook.previous_until:
            with suppress(ConfigError):  # it may have been rotated since that one cannot be read
                found.append(self._server_key.unseal(webhook.sealed_previous, webhook.id))
        return found

    RESUME = """
        UPDATE webhooks SET paused_at = NULL, paused_why = NULL, failing_since = NULL, updated_at = :now
        WHERE company_id = :company_id AND id = :id
        RETURNING *
    """
    HURRY = "UPDATE deliveries SET next_at = :now WHERE webhook_id = :id AND next_at > :now"

    async def resume(self, company_id: str, webhook_id: str, author: Author = SERVER) -> Webhook:
        """Ends a pause, and tries at once what waits. Raises WebhookNotFound."""
        now = self._clock()

        async def work(statements: Statements) -> Webhook:
            before = await self._locked(statements, company_id, webhook_id)
            after = _found(await statements.one(self.RESUME, company_id=company_id, id=before.id, now=now))
            await statements.run(self.HURRY, id=before.id, now=now)
            paused = {"paused_why": before.paused_why}
            await audit.record(statements, now, author, _change("webhook.resumed", before, paused, None))
            return after

        return await self._database.transaction(work)

    SINCE = "SELECT min(seq) AS seq FROM events WHERE company_id = :company_id AND at >= :at"
    REWIND = "UPDATE webhooks SET last_seq = :last_seq WHERE company_id = :company_id AND id = :id"

    async def replay(
        self, company_id: str, webhook_id: str, since: int | datetime, author: Author = SERVER
    ) -> tuple[int, int]:
        """Sends again what happened since an event's number or a time, as far as it is kept.

        Returns the number from which on, and the one up to which; the first is higher if there is nothing to send.
        Raises WebhookNotFound.
        """
        now = self._clock()

        async def work(statements: Statements) -> tuple[int, int]:
            before = await self._locked(statements, company_id, webhook_id)
            first = since if isinstance(since, int) else await self._first(statements, company_id, since)
            first = before.last_seq + 1 if first is None else max(1, min(first, before.last_seq + 1))
            await statements.run(self.REWIND, company_id=company_id, id=before.id, last_seq=first - 1)
            change = _change("webhook.replayed", before, None, {"from": first})
            await audit.record(statements, now, author, change)
            return first, before.last_seq

        return await self._database.transaction(work)

    async def _first(self, statements: Statements, company_id: str, at: datetime) -> int | None:
        row = await statements.one(self.SINCE, company_id=company_id, at=at)
        return None if row is None or row["seq"] is None else int(row["seq"])

    async def _locked(self, statements: Statements, company_id: str, webhook_id: str) -> Webhook:
        """The webhook, which nobody else changes until the transaction ends. Raises WebhookNotFound."""
        known = canonical_id(webhook_id)
        if known is None:
            raise WebhookNotFound
        await statements.lock(self.GET, company_id=company_id, id=known)
        return _found(await statements.one(self.GET, company_id=company_id, id=known))


def _found(row: Row | None) -> Webhook:
    if row is None:
        raise WebhookNotFound
    return Webhook.of(row)


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    rooms = json.dumps(list(values["rooms"]), ensure_ascii=False)
    return {**values, "events": " ".join(dict.fromkeys(values["events"])), "rooms": rooms}


def _shown(webhook: Webhook) -> dict[str, Any]:
    """What the audit log has: of the URL not the query, which may have a secret."""
    url = urlsplit(webhook.url)._replace(query="").geturl()
    return {
        "url": url, "description": webhook.description, "events": list(webhook.events), "rooms": list(webhook.rooms)
    }  # fmt: skip


def _change(action: str, webhook: Webhook, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Change:
    return Change(action, webhook.company_id, webhook.id, None, before, after)
