"""Schemas of the audit log. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from sfu.api.schemas.common import ID, STRING, TIME, Schema, described, nullable, page_of, record
from sfu.store.audit import ACTIONS, Kind

ACTION: Schema = {
    "type": "string",
    "enum": sorted({*ACTIONS, *(name.partition(".")[0] for name in ACTIONS)}),
    "description": "An action such as `room.changed`, or the part before its dot for all of these, such as `room`.",
}
STATE: Schema = {"type": ["object", "null"], "additionalProperties": True}

DEFINITIONS: Mapping[str, dict[str, Any]] = {
    "AuditEntry": record(
        id=ID,
        at=TIME,
        by_kind={
            "type": "string",
            "enum": list(get_args(Kind)),
            "description": "`key`: an API key. `token`: a moderator's token over REST. `person`: somebody in a call. "
            "`command`: the operator, on the machine. `admin`: an admin key. `server`: the server by itself.",
        },
        by_id=described(STRING, "The id of the key, the token, or the person's session; empty if there is none."),
        by_name=described(STRING, "The beginning of the key, or the name of the person; empty for the operator."),
        address=described(STRING, "Where the request or the person came from; empty for the operator."),
        request_id=described(STRING, "`X-Request-Id` of the request, as in the server's log; else empty."),
        action=described(STRING, "What was done: " + ", ".join(f"`{name}`" for name in ACTIONS) + "."),
        room_id=nullable(STRING),
        target=described(
            STRING,
            "The id of what was changed: a company, key, token, room, session, ban, line, file or webhook, or somebody "
            "who waits in a lobby.",
        ),
        user_name=described(STRING, "The person it is about; empty if it is not about one."),
        session_id=described(nullable(ID), "Their session."),
        before=described(STATE, "What was there before, of what was changed; null for something new."),
        after=described(STATE, "What is there now; null for something that is gone."),
    ),
    "AuditEntries": page_of("AuditEntry"),
}
