"""Visits of rooms, and what became of what webhooks are told of them."""

from __future__ import annotations

from sfu.process.metrics import Counters
from sfu.store import Store
from sfu.store.records import Company, Session

CALL = [("room.started", ""), ("participant.joined", "alice"), ("participant.left", "alice"), ("room.ended", "")]
"""What is told of one visit."""


async def visit(store: Store, company: Company, room_id: str = "team", name: str = "alice") -> Session:
    session = await store.sessions.admit_anonymous(company.id, room_id, name)
    store.sessions.close(session, "left")
    await store.sessions.flush()
    return session


async def log(store: Store, company: Company, webhook_id: str) -> list[tuple[str, str, int]]:
    """Type, state and attempts of each delivery, in the order of the events."""
    webhook = await store.webhooks.get(company.id, webhook_id)
    page = await store.deliveries.list(webhook)
    return [(one.type, one.state, one.attempts) for one in sorted(page.items, key=lambda one: one.seq)]


def attempts(counters: Counters) -> float:
    """How many attempts to send there were."""
    results = ("delivered", "retry", "failed", "paused")
    return sum(counters.get("sfu_webhook_deliveries_total", result=result) for result in results)
