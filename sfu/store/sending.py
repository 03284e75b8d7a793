"""Which server sends the deliveries of which webhook, what is due, and what became of it.

Servers that share a database lease webhooks: one at a time sends what a webhook gets, so that rooms stay in order, and
a receiver gets no more at once than one server allows. A lease that nobody renews ends by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sfu.store import events
from sfu.store.database import Database
from sfu.store.deliveries import LOCK, PAUSED, TEST, promote
from sfu.store.events import Event
from sfu.store.records import utc
from sfu.store.statements import Statements
from sfu.store.webhooks import Webhook

LEASE_S = 60.0
"""How long a server that died keeps a webhook."""
RENEW_S = 30.0
"""A lease with less time than this is renewed. An attempt takes less."""
PAUSE_S = 5 * 86_400
"""A webhook to which nothing got through for this long is paused; a delivery that failed for this long is given up if
others get through."""

Result = Literal["delivered", "retry", "failed", "paused"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery to be sent now."""

    id: str
    event_id: str
    type: str
    room_id: str
    body: str
    attempts: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of an attempt. `status` is that of the response, if there was one; `again_s` is when to try again."""

    ok: bool
    status: int | None
    error: str | None
    took_ms: int
    again_s: float
    pause: str = ""
    """Why the webhook is paused because of it; empty: it is not."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be sent, to all webhooks that are not paused."""

    waiting: int = 0
    oldest_s: float = 0.0


class Sending:
    """The work of the server that sends. `server` is its name among those that share the database."""

    def __init__(self, database: Database, server: str, clock: Callable[[], datetime]) -> None:
        self._database, self._server, self._clock = database, server, clock
        self.backlog = Backlog()

    def now(self) -> datetime:
        return self._clock()

    WORK = """
        SELECT w.* FROM webhooks AS w JOIN companies AS c ON c.id = w.company_id
        WHERE c.is_active AND (w.leased_by = :server OR w.leased_until IS NULL OR w.leased_until <= :now)
            AND (
                (w.paused_at IS NULL AND w.last_seq < c.last_seq)
                OR EXISTS (
                    SELECT 1 FROM deliveries AS d WHERE d.webhook_id = w.id AND d.next_at <= :now
                        AND (w.paused_at IS NULL OR d.type = :test)
                )
            )
        ORDER BY w.id
    """
    LEASE = """
        UPDATE webhooks SET leased_by = :server, leased_until = :until
        WHERE id = :id AND (leased_by = :server OR leased_until IS NULL OR leased_until <= :now)
        RETURNING id
    """

    async def work(self) -> list[Webhook]:
        """The webhooks that have something to do, each leased to this server for at least RENEW_S."""
        now, mine = self._clock(), []
        for row in await self._database.read(self.WORK, server=self._server, now=now, test=TEST):
            renewed = now + timedelta(seconds=RENEW_S)
            held = row["leased_by"] == self._server and row["leased_until"] and utc(row["leased_until"]) > renewed
            if held or await self._lease(str(row["id"]), now):
                mine.append(Webhook.of(row))
        return mine

    async def _lease(self, webhook_id: str, now: datetime) -> bool:
        until = now + timedelta(seconds=LEASE_S)
        row = await self._database.write_one(self.LEASE, id=webhook_id, server=self._server, now=now, until=until)
        return row is not None

    RELEASE = "UPDATE webhooks SET leased_by = NULL, leased_until = NULL WHERE leased_by = :server"

    async def release(self) -> None:
        """This server stops: others need not wait for its leases to end."""
        await self._database.run(self.RELEASE, server=self._server)

    DUE = """
        SELECT d.* FROM deliveries AS d JOIN webhooks AS w ON w.id = d.webhook_id
        WHERE d.webhook_id = :webhook_id AND d.next_at <= :now AND (w.paused_at IS NULL OR d.type = :test)
        ORDER BY d.next_at, d.seq LIMIT :count
    """

    async def due(self, webhook: Webhook, count: int) -> list[Due]:
        """What is to be sent now: of each room one at most, the first that waits. Of a paused webhook only tests."""
        key: dict[str, Any] = {"webhook_id": webhook.id, "now": self._clock(), "test": TEST}
        rows = await self._database.read(self.DUE, **key, count=count)
        return [
            Due(
                str(row["id"]), str(row["event_id"]), row["type"], row["room_id"], row["body"], row["attempts"],
                utc(row["created_at"]),
            )
            for row in rows
        ]  # fmt: skip

    END = """
        UPDATE deliveries SET state = :state, next_at = NULL, attempts = attempts + 1, status = :status, error = :error,
            took_ms = :took_ms, tried_at = :now
        WHERE id = :id AND state = 'waiting'
    """
    RETRY = """
        UPDATE deliveries SET next_at = :next_at, attempts = attempts + 1, status = :status, error = :error,
            took_ms = :took_ms, tried_at = :now
        WHERE id = :id AND state = 'waiting'
    """
    GET = "SELECT * FROM webhooks WHERE id = :id"
    WORKS = "UPDATE webhooks SET failing_since = NULL WHERE id = :id AND failing_since IS NOT NULL"
    FAILS = "UPDATE webhooks SET failing_since = :now WHERE id = :id AND failing_since IS NULL"
    PAUSE = "UPDATE webhooks SET paused_at = :now, paused_why = :why WHERE id = :id AND paused_at IS NULL"

    async def tried(self, webhook_id: str, due: Due, attempt: Attempt) -> Result:
        """Writes what became of an attempt; returns what that means for the delivery or its webhook."""
        now = self._clock()
        said = {"status": attempt.status, "error": attempt.error, "took_ms": attempt.took_ms}

        async def work(statements: Statements) -> Result:
            await statements.lock(LOCK, webhook_id=webhook_id)
            row = await statements.one(self.GET, id=webhook_id)
            if row is None:
                return "failed"  # it was deleted meanwhile
            webhook = Webhook.of(row)
            result, why = _judged(webhook, due, attempt, now)
            if result in ("delivered", "failed"):
                await statements.run(self.END, id=due.id, state=result, now=now, **said)
                await promote(statements, webhook_id, due.room_id, now)
            else:
                next_at = now + timedelta(seconds=attempt.again_s)
                await statements.run(self.RETRY, id=due.id, next_at=next_at, now=now, **said)
            if attempt.ok:
                await statements.run(self.WORKS, id=webhook_id)
            elif due.type != TEST:
                await statements.run(self.FAILS, id=webhook_id, now=now)
            if result == "paused":
                await self._pause(statements, webhook, why, now)
            return result

        return await self._database.transaction(work)

    async def _pause(self, statements: Statements, webhook: Webhook, why: str, now: datetime) -> None:
        await statements.run(self.PAUSE, id=webhook.id, why=why, now=now)
        if webhook.paused_at is None:
            data = {"webhook_id": webhook.id, "reason": why}
            await events.record(statements, now, Event(PAUSED, webhook.company_id, None, data))
            log.warning("webhook=%s company=%s state=paused reason=%s", webhook.id, webhook.company_id, why)

    HEADLESS = """
        SELECT DISTINCT d.webhook_id, d.room_id FROM deliveries AS d
        WHERE d.state = 'waiting' AND d.webhook_id IN (SELECT id FROM webhooks WHERE leased_by = :server)
            AND NOT EXISTS (
                SELECT 1 FROM deliveries AS b
                WHERE b.webhook_id = d.webhook_id AND b.room_id = d.room_id AND b.state = 'waiting'
                    AND b.next_at IS NOT NULL
            )
    """

    async def mend(self) -> None:
        """Makes the next delivery due of rooms whose first was erased: by retention, or by `sfu forget`."""
        for row in await self._database.read(self.HEADLESS, server=self._server):
            webhook_id, room_id = str(row["webhook_id"]), row["room_id"]

            async def work(statements: Statements, webhook_id: str = webhook_id, room_id: str = room_id) -> None:
                await statements.lock(LOCK, webhook_id=webhook_id)
                await promote(statements, webhook_id, room_id, self._clock())

            await self._database.transaction(work)

    BACKLOG = """
        SELECT count(*) AS waiting, min(d.created_at) AS oldest
        FROM webhooks AS w JOIN deliveries AS d ON d.webhook_id = w.id AND d.state = 'waiting'
        WHERE w.paused_at IS NULL
    """

    async def measure(self) -> None:
        """Looks at what waits, for the metrics."""
        row = await self._database.read_one(self.BACKLOG)
        if row is None or not row["waiting"]:
            self.backlog = Backlog()
        else:
            self.backlog = Backlog(row["waiting"], max(0.0, (self._clock() - utc(row["oldest"])).total_seconds()))


def _judged(webhook: Webhook, due: Due, attempt: Attempt, now: datetime) -> tuple[Result, str]:
    """What an attempt means, and why the webhook is paused, if it is."""
    if attempt.ok:
        return "delivered", ""
    if due.type == TEST:
        return "failed", ""
    if attempt.pause:
        return "paused", attempt.pause
    long_ago = now - timedelta(seconds=PAUSE_S)
    if webhook.failing_since is not None and webhook.failing_since <= long_ago:
        return "paused", "failing"
    if due.created_at <= long_ago and due.attempts and webhook.failing_since is None:
        return "failed", ""
    return "retry", ""
