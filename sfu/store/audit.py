"""The audit log: who changed what, written in the transaction of the change. Rows are only ever added."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sfu.store.records import json_text
from sfu.store.statements import Statements

Kind = Literal["key", "admin", "token", "person", "command", "server"]
"""What acts: an API key, an admin key, a token over REST, a person in a call, a command on the machine, the server."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes something, and from where. `id` is that of the key, token or session."""

    kind: Kind
    id: str = ""
    name: str = ""
    address: str = ""
    request_id: str = ""


SERVER = Author("server")


@dataclass(frozen=True, slots=True)
class Change:
    """What was changed. `before` is None for something new, `after` for something that is gone. Neither has secrets.

    `user_name` and `session_id` say whom it is about, so that `sfu forget` finds it."""

    action: str
    company_id: str | None
    target: str
    room_id: str | None = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    user_name: str = ""
    session_id: str | None = None


ADD = """
    INSERT INTO audit_entries (
        id, company_id, at, by_kind, by_id, by_name, address, request_id, action, room_id, target, user_name,
        session_id, before, after
    )
    VALUES (
        :id, :company_id, :at, :by_kind, :by_id, :by_name, :address, :request_id, :action, :room_id, :target,
        :user_name, :session_id, :before, :after
    )
    ON CONFLICT DO NOTHING
"""


async def record(statements: Statements, now: datetime, author: Author, *changes: Change) -> None:
    """Writes changes within the transaction that makes them."""
    await statements.run_many(ADD, [row(now, author, change) for change in changes])


def row(now: datetime, author: Author, change: Change) -> dict[str, Any]:
    """The values of ADD, for a queue of statements (sfu.store.later): it may write them twice, hence the id."""
    return {
        "id": str(uuid.uuid4()),
        "company_id": change.company_id,
        "at": now,
        "by_kind": author.kind,
        "by_id": author.id,
        "by_name": author.name,
        "address": author.address,
        "request_id": author.request_id,
        "action": change.action,
        "room_id": change.room_id,
        "target": change.target,
        "user_name": change.user_name,
        "session_id": change.session_id,
        "before": None if change.before is None else json_text("before", change.before),
        "after": None if change.after is None else json_text("after", change.after),
    }
