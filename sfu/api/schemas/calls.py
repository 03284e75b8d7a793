"""Schemas of the call in a room. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfu.api.schemas.common import (
    BOOLEAN,
    COUNT,
    DROPS,
    ID,
    LINE,
    NAME,
    STRING,
    TEXT,
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
        permissions=record(publish=BOOLEAN, subscribe=BOOLEAN, chat=BOOLEAN, moderate=BOOLEAN),
        hand=described(COUNT, "When the hand was raised, in milliseconds since 1970; 0: it is down."),
        **DROPS,
        tracks={
            "type": "array",
            "items": record(source=STRING, kind={"type": "string", "enum": ["audio", "video"]}, muted=BOOLEAN),
        },
    ),
    "ParticipantChange": described(
        record([], user_name=NAME, permissions={"$ref": "#/components/schemas/PermissionsChange"}),
        "Omitted fields keep their value. The change holds for this stay: whoever leaves and joins again has the name "
        "and permissions of their token.",
    ),
    "PermissionsChange": record([], publish=BOOLEAN, subscribe=BOOLEAN, chat=BOOLEAN, moderate=BOOLEAN),
    "MoveRequest": record(
        ["room_id"],
        room_id=NAME,
        permissions=described(
            {"$ref": "#/components/schemas/PermissionsChange"},
            "What they may do there. What is omitted is as in this call, except for `moderate`: false.",
        ),
    ),
    "SpotlightRequest": record(session_id={"anyOf": [ID, {"type": "null"}]}),
    "MessageRequest": record(
        ["data"],
        topic={"type": "string", "maxLength": 64, "pattern": LINE, "default": ""},
        data=described({"$ref": "#/components/schemas/MetadataValue"}, "Any JSON of at most 16 KiB in UTF-8."),
        to=described(
            {"type": "array", "items": ID, "maxItems": 1000}, "The sessions to send it to. Omitted: everybody's."
        ),
    ),
    "Delivered": record(delivered=described(COUNT, "To how many connected participants it was sent.")),
    "Waiter": record(
        id=STRING,
        user_name=STRING,
        user_id=described(STRING, "Of their token; empty if it has none."),
        token_id=described(nullable(ID), "Null: they came without a token."),
        waiting_since=TIME,
    ),
    "Lobby": record(items={"type": "array", "items": {"$ref": "#/components/schemas/Waiter"}}),
    "Admitted": record(admitted=COUNT),
    "LineRequest": record(
        user_name=described(NAME, "The name to show. The page marks the line as the organizer's."),
        text=described(
            {"type": "string", "minLength": 1, "maxLength": 4096, "pattern": TEXT}, "At most 4,096 bytes of UTF-8."
        ),
    ),
    "MuteRequest": record([], source={"type": "string", "pattern": "^[a-z][a-z0-9-]{0,31}$", "default": "microphone"}),
    "ChatLine": record(
        id=ID,
        user_name=STRING,
        company=described(BOOLEAN, "The company wrote it, over REST."),
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
