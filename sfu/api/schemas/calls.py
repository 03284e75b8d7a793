"""Schemas of the call in a room. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfu.api.schemas.common import (
    BOOLEAN,
    COUNT,
    DROPS,
    ID,
    STRING,
    TIME,
    described,
    nullable,
    page_of,
    record,
)

DEFINITIONS: Mapping[str, dict[str, Any]] = {
    "CallParticipant": record(
        session_id=ID,
        peer=described(STRING, "The id in the signalling protocol."),
        user_name=STRING,
        user_id=described(STRING, "Your own id of the person, from the token; empty without."),
        moderator=BOOLEAN,
        hand=described(COUNT, "When the hand was raised, in milliseconds since 1970; 0: it is down."),
        **DROPS,
        tracks={
            "type": "array",
            "items": record(source=STRING, kind={"type": "string", "enum": ["audio", "video"]}, muted=BOOLEAN),
        },
    ),
    "MuteRequest": record([], source={"type": "string", "pattern": "^[a-z][a-z0-9-]{0,31}$", "default": "microphone"}),
    "ChatLine": record(
        id=ID,
        user_name=STRING,
        text=STRING,
        sent_at=TIME,
        file_name=nullable(STRING),
        file_url=described(nullable(STRING), "Relative to the server."),
    ),
    "Ban": record(
        id=ID,
        user_name=STRING,
        token_id=described(nullable(ID), "The banned token; null: the name from this address is banned."),
        address=STRING,
        banned_by=described(STRING, "The moderator's name; empty if the API banned them."),
        created_at=TIME,
        expires_at=TIME,
    ),
    "CallParticipants": record(items={"type": "array", "items": {"$ref": "#/components/schemas/CallParticipant"}}),
    "ChatLines": page_of("ChatLine"),
    "Bans": page_of("Ban"),
}
