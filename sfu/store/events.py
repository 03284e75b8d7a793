"""Events: what happened in a company's rooms, written in the transaction of what happened (a transactional outbox).

Whoever is told of an event can rely on it, and nothing that was committed goes untold, whatever dies in between. The
events of a company are numbered 1, 2, 3 … in the order in which their transactions commit: the number comes from the
company's row, which stays locked until then. So a reader that has seen number 7 has missed none before it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sfu.store.records import json_text
from sfu.store.statements import Statements


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, such as `participant.joined`. `data` must not contain secrets.

    `user_name` and `session_id` say whom it is about, so that `sfu forget` finds it."""

    type: str
    company_id: str
    room_id: str | None
    data: Mapping[str, Any]
    user_name: str = ""
    session_id: str | None = None
    at: datetime | None = None
    """When it happened, if it is recorded later …"""
    id: str = ""
    """… and its id, if its transaction may run twice."""


TYPES: Mapping[str, str] = {
    "room.created": "A room was created, other than by somebody who entered it.",
    "room.changed": "Settings of a room were changed, through the API or by a moderator in the call.",
    "room.deleted": "A room was deleted, and its tokens were revoked.",
    "room.started": "The first person entered a room: a call began.",
    "room.ended": "The last person left a room: the call is over.",
    "token.revoked": "A token was revoked.",
    "participant.joined": "Somebody entered a room.",
    "participant.left": "Somebody left a room, or was lost. They may come back, and join again.",
    "participant.removed": "Somebody was removed from a call by a moderator, the API or the operator.",
    "participant.muted": "Somebody was muted by a moderator or the API.",
    "participant.changed": "Somebody in a call got another name or other permissions for this stay.",
    "lobby.waiting": "Somebody waits in the lobby of a room.",
    "lobby.admitted": "Somebody was let in from the lobby.",
    "lobby.refused": "Somebody no longer waits and was not let in: refused, too late, or gone. `reason` is the code.",
    "webhook.paused": "Nothing is sent to a webhook any more: it failed for days, or answered 410.",
}
"""Every type of event, with what it means."""

NUMBER = "UPDATE companies SET last_seq = last_seq + :count WHERE id = :company_id RETURNING last_seq"
ADD = """
    INSERT INTO events (id, company_id, seq, type, room_id, user_name, session_id, data, at)
    VALUES (:id, :company_id, :seq, :type, :room_id, :user_name, :session_id, :data, :at)
"""


async def record(statements: Statements, now: datetime, *events: Event) -> None:
    """Writes events within a transaction, preferably at its end: from here on, others of the company wait for it.

    Companies are locked in the order of their ids, so that transactions do not deadlock. Events of a company that no
    longer exists are dropped.
    """
    for company_id in sorted({event.company_id for event in events}):
        own = [event for event in events if event.company_id == company_id]
        row = await statements.one(NUMBER, company_id=company_id, count=len(own))
        if row is not None:
            await statements.run_many(ADD, _rows(own, row["last_seq"] - len(own), now))


def _rows(events: Sequence[Event], seq: int, now: datetime) -> list[dict[str, Any]]:
    return [
        {
            "company_id": event.company_id,
            "seq": seq + number,
            "id": event.id or str(uuid.uuid4()),
            "type": event.type,
            "room_id": event.room_id,
            "user_name": event.user_name,
            "session_id": event.session_id,
            "data": json_text("data", event.data),
            "at": event.at or now,
        }
        for number, event in enumerate(events, 1)
    ]
