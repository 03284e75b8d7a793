"""Deliveries: what is sent to webhooks, with the bytes that are sent, and what became of it.

An event becomes a delivery for each webhook that takes it (`spread`), once, whatever dies in between: the webhook's row
remembers up to which event this was done. Those of a room are sent in order: only the first that waits has a time at
which it is due (`next_at`), and what ends it gives one to the next (PROMOTE). Whoever changes what waits for a webhook
has its row locked. Who sends, and when, is in sending.py.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sfu.refusals import WebhookNotFound
from sfu.store import audit
from sfu.store.audit import SERVER, Author, Change
from sfu.store.database import Database
from sfu.store.feed import envelope, message
from sfu.store.pages import NEWEST, Page, decode_cursor, moment, page
from sfu.store.records import maybe_utc, utc
from sfu.store.statements import Row, Statements
from sfu.store.webhooks import Webhook

SPREAD = 200
"""Most events of one transaction that become deliveries."""
TEST = "webhook.test"
"""The type of a delivery that was asked for. It is tried once, also while the webhook is paused."""
PAUSED = "webhook.paused"

LOCK = "SELECT id FROM webhooks WHERE id = :webhook_id"
PROMOTE = """
    UPDATE deliveries SET next_at = :now
    WHERE next_at IS NULL AND id = (
        SELECT id FROM deliveries WHERE webhook_id = :webhook_id AND room_id = :room_id AND state = 'waiting'
        ORDER BY seq LIMIT 1
    ) AND NOT EXISTS (
        SELECT 1 FROM deliveries
        WHERE webhook_id = :webhook_id AND room_id = :room_id AND state = 'waiting' AND next_at IS NOT NULL
    )
"""
"""Makes the first that waits in a room due, unless another one of it is."""


async def promote(statements: Statements, webhook_id: str, room_id: str, now: datetime) -> None:
    """Makes the next delivery of a room due. The webhook's row must be locked."""
    await statements.run(PROMOTE, webhook_id=webhook_id, room_id=room_id, now=now)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A line of the log. `status` and `error` are those of the last attempt. `next_at` is None if nothing is left to
    do, or if another delivery of the room goes first."""

    id: str
    event_id: str
    seq: int
    type: str
    room_id: str | None
    state: str
    attempts: int
    status: int | None
    error: str | None
    took_ms: int | None
    created_at: datetime
    tried_at: datetime | None
    next_at: datetime | None

    @classmethod
    def of(cls, row: Row) -> Delivery:
        return cls(
            id=str(row["id"]),
            event_id=str(row["event_id"]),
            seq=row["seq"],
            type=row["type"],
            room_id=row["room_id"] or None,
            state=row["state"],
            attempts=row["attempts"],
            status=row["status"],
            error=row["error"],
            took_ms=row["took_ms"],
            created_at=utc(row["created_at"]),
            tried_at=maybe_utc(row["tried_at"]),
            next_at=maybe_utc(row["next_at"]),
        )


class Deliveries:
    """Makes deliveries, and lists them."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock

    LIST = """
        SELECT * FROM deliveries
        WHERE webhook_id = :webhook_id AND company_id = :company_id
            AND (CAST(:state AS TEXT) = '' OR state = :state) AND (created_at, id) < (:at, :id)
        ORDER BY created_at DESC, id DESC LIMIT :count
    """

    async def list(
        self, webhook: Webhook, *, state: str = "", cursor: str | None = None, limit: int = 100
    ) -> Page[Delivery]:
        """The log, newest first; `state` selects some. Raises BadCursor."""
        at, id_ = moment(decode_cursor(cursor, 2) if cursor else NEWEST)
        key: dict[str, Any] = {"webhook_id": webhook.id, "company_id": webhook.company_id, "state": state}
        rows = await self._database.read(self.LIST, **key, at=at, id=id_, count=limit + 1)
        return page([Delivery.of(row) for row in rows], limit, lambda one: (one.created_at.isoformat(), one.id))

    ADD = """
        INSERT INTO deliveries (
            id, webhook_id, company_id, seq, event_id, type, room_id, user_name, session_id, body, next_at, created_at
        )
        VALUES (
            :id, :webhook_id, :company_id, :seq, :event_id, :type, :room_id, :user_name, :session_id, :body, :next_at,
            :now
        )
    """
    GET = "SELECT * FROM deliveries WHERE id = :id AND company_id = :company_id"

    async def test(self, webhook: Webhook, author: Author = SERVER) -> Delivery:
        """Adds a delivery that says nothing, to see whether it arrives. Raises WebhookNotFound."""
        event_id, now = str(uuid.uuid4()), self._clock()
        said = message(event_id, TEST, now, 0, webhook.company_id, None, {"webhook_id": webhook.id})

        async def work(statements: Statements) -> Delivery:
            await statements.lock(LOCK, webhook_id=webhook.id)
            if await statements.one(LOCK, webhook_id=webhook.id) is None:
                raise WebhookNotFound
            key = {"id": str(uuid.uuid4()), "webhook_id": webhook.id, "company_id": webhook.company_id}
            event = {"seq": 0, "event_id": event_id, "type": TEST, "room_id": "", "user_name": "", "session_id": None}
            await statements.run(self.ADD, **key, **event, body=_body(said), next_at=now, now=now)
            row = await statements.one(self.GET, id=key["id"], company_id=key["company_id"])
            assert row is not None
            await audit.record(statements, now, author, Change("webhook.tested", webhook.company_id, webhook.id))
            return Delivery.of(row)

        return await self._database.transaction(work)

    WEBHOOK = """
        SELECT w.*, c.last_seq AS known FROM webhooks AS w JOIN companies AS c ON c.id = w.company_id
        WHERE w.id = :webhook_id
    """
    EVENTS = "SELECT * FROM events WHERE company_id = :company_id AND seq > :after ORDER BY seq LIMIT :count"
    WAITING = """
        SELECT event_id FROM deliveries
        WHERE webhook_id = :webhook_id AND state = 'waiting' AND seq BETWEEN :first AND :last
    """
    SPREAD = "UPDATE webhooks SET last_seq = :last_seq WHERE id = :webhook_id"

    async def spread(self, webhook_id: str) -> int:
        """Turns the next events into deliveries; returns how many events it looked at. 0: there are no more.

        What already waits is not added again: a replay may go back over it.
        """
        now = self._clock()

        async def work(statements: Statements) -> int:
            await statements.lock(LOCK, webhook_id=webhook_id)
            row = await statements.one(self.WEBHOOK, webhook_id=webhook_id)
            if row is None or row["paused_at"] is not None:
                return 0
            webhook = Webhook.of(row)
            key = {"company_id": webhook.company_id, "after": webhook.last_seq}
            events = await statements.all(self.EVENTS, **key, count=SPREAD)
            done = events[-1]["seq"] if len(events) == SPREAD else max([row["known"], *(one["seq"] for one in events)])
            if done == webhook.last_seq:
                return 0
            waiting = await self._waiting(statements, webhook, events)
            taken = [one for one in events if _is_for(webhook, one) and one["id"] not in waiting]
            await statements.run_many(self.ADD, [_row(webhook, one, now) for one in taken])
            for room_id in sorted({one["room_id"] or "" for one in taken}):
                await promote(statements, webhook_id, room_id, now)
            await statements.run(self.SPREAD, webhook_id=webhook_id, last_seq=done)
            return len(events)

        return await self._database.transaction(work)

    async def _waiting(self, statements: Statements, webhook: Webhook, events: Sequence[Row]) -> set[object]:
        if not events:
            return set()
        key = {"webhook_id": webhook.id, "first": events[0]["seq"], "last": events[-1]["seq"]}
        return {row["event_id"] for row in await statements.all(self.WAITING, **key)}


def _is_for(webhook: Webhook, event: Row) -> bool:
    """Whether it takes the event, unless that says that the webhook itself is paused."""
    own = event["type"] == PAUSED and json.loads(event["data"]).get("webhook_id") == webhook.id
    return not own and webhook.takes(event["type"], event["room_id"])


def _row(webhook: Webhook, event: Row, now: datetime) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "webhook_id": webhook.id,
        "company_id": webhook.company_id,
        "seq": event["seq"],
        "event_id": str(event["id"]),
        "type": event["type"],
        "room_id": event["room_id"] or "",
        "user_name": event["user_name"],
        "session_id": None if event["session_id"] is None else str(event["session_id"]),
        "body": _body(envelope(event)),
        "next_at": None,
        "now": now,
    }


def _body(said: dict[str, Any]) -> str:
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))
