"""The audit log: who changed what, written in the transaction of the change. Rows are only ever added."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
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

    @property
    def shown(self) -> dict[str, str]:
        """What events say of the author. No name and no address: an event is about somebody else."""
        return {"kind": self.kind, "id": self.id}


SERVER = Author("server")

ACTIONS: Mapping[str, str] = {
    "company.created": "A company was created.",
    "company.changed": "A company was enabled, disabled or renamed, or got another tier.",
    "company.own_secret_set": "A company set, or removed, the secret with which it signs tokens by itself.",
    "company.secret_rotated": "A company got a new signing secret, which ended all of its tokens.",
    "token.issued": "A token was made.",
    "token.revoked": "A token was revoked.",
    "room.created": "A room was created, other than by somebody who entered it.",
    "room.changed": "Settings of a room were changed, also by a moderator in a call.",
    "room.deleted": "A room was deleted.",
    "call.ended": "A call was ended for everybody.",
    "participant.removed": "Somebody was removed from a call.",
    "participant.muted": "Somebody was muted by somebody else.",
    "participant.changed": "Somebody in a call got another name or other permissions for this stay.",
    "participant.moved": "Somebody in a call was sent to another room, with a token for it.",
    "spotlight.turned": "Everybody in a call was to show somebody large, or nobody any more.",
    "message.sent": "Data were sent to the pages in a call. The entry does not have them.",
    "lobby.admitted": "Somebody was let in from the lobby.",
    "lobby.refused": "Somebody in the lobby was refused.",
    "ban.lifted": "A ban was lifted.",
    "chat.written": "A line of chat was written as the company. The entry does not have its text.",
    "chat.deleted": "A line of chat was deleted, with its file.",
    "file.shared": "A file was shared in a call.",
    "webhook.created": "A webhook was created.",
    "webhook.changed": "A webhook was changed.",
    "webhook.secret_rotated": "A webhook got a new secret.",
    "webhook.tested": "A webhook was sent a test.",
    "webhook.resumed": "The pause of a webhook was ended.",
    "webhook.replayed": "A webhook was sent again what happened.",
    "webhook.deleted": "A webhook was deleted.",
    "key.created": "An API key was made.",
    "key.changed": "The name, the scopes or the expiry of an API key were changed.",
    "key.rotated": "An API key got a successor, and ends soon.",
    "key.revoked": "An API key was revoked.",
    "tier.changed": "The limits of a tier were changed.",
    "person.forgotten": "Everything about a person was erased. The entry does not name them.",
    "backup.restored": "The data were replaced by those of a backup.",
}
"""Everything that is recorded, with what it means. `target` is the id of what was changed: a company, token, room,
session, ban, line, file, webhook or key, or a tier's name. Who waits in a lobby has the id that they wait under."""


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


STEP = "audit"
"""The title of the step of the schema that made the table."""
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


def shown(time: datetime) -> str:
    """A time in `before` and `after`: RFC 3339, in UTC."""
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What differs between two states of the same thing: the old values and the new ones."""
    names = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}


async def record(statements: Statements, now: datetime, author: Author, *changes: Change) -> None:
    """Writes changes within the transaction that makes them."""
    for change in changes:  # nearly always one, for which this is quicker than many at once
        await statements.run(ADD, **row(now, author, change))


def row(now: datetime, author: Author, change: Change) -> dict[str, Any]:
    """The values of ADD."""
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
