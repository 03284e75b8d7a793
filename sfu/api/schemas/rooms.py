"""Schemas of rooms. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfu.api.schemas.common import (
    BOOLEAN,
    COUNT,
    ID,
    LINE,
    NAME,
    STRING,
    TEXT,
    TIME,
    Schema,
    described,
    nullable,
    page_of,
    record,
)

METADATA_BYTES = 16_384
"""Most bytes of metadata, as compact JSON, so that lists stay small."""
_SETTINGS: Mapping[str, Schema] = {
    "name": {"type": "string", "maxLength": 255, "pattern": LINE},
    "description": {"type": "string", "maxLength": 4096, "pattern": TEXT},
    "max_participants": {"type": "integer", "minimum": 1, "maximum": 10_000},
    "access": {"type": "string", "enum": ["open", "token"]},
    "locked": described(BOOLEAN, "Only moderators may enter."),
    "lobby": described(BOOLEAN, "Everybody except moderators waits until they are admitted."),
    "files": described(BOOLEAN, "Files may be shared in the chat."),
    "chat_kept_s": {
        "anyOf": [{"type": "integer", "minimum": 0, "maximum": 315_360_000}, {"type": "null"}],
        "description": "How long chat is kept, in seconds. 0: not at all; null: the server's default.",
    },
    "metadata": {"$ref": "#/components/schemas/Metadata"},
}
_ROOM: Mapping[str, Schema] = {
    "id": ID,
    "room_id": STRING,
    "name": STRING,
    "description": STRING,
    "max_participants": COUNT,
    **{name: _SETTINGS[name] for name in ("access", "locked", "lobby", "files", "chat_kept_s")},
    "metadata": {"type": "object", "additionalProperties": True},
    "participant_count": described(COUNT, "Number of participants now."),
    "created_at": TIME,
    "updated_at": TIME,
    "last_join_at": nullable(TIME),
}
_METADATA_VALUE: list[Schema] = [
    {"type": "null"},
    {"type": "boolean"},
    {"type": "number"},
    {"type": "string", "pattern": TEXT},
    {"type": "array", "items": {"$ref": "#/components/schemas/MetadataValue"}},
    {
        "type": "object",
        "propertyNames": {"pattern": TEXT},
        "additionalProperties": {"$ref": "#/components/schemas/MetadataValue"},
    },
]

DEFINITIONS: Mapping[str, dict[str, Any]] = {
    "Metadata": {
        "type": "object",
        "description": f"Any JSON of yours, up to {METADATA_BYTES // 1024} KB.",
        "x-max-bytes": METADATA_BYTES,
        "propertyNames": {"pattern": TEXT},
        "additionalProperties": {"$ref": "#/components/schemas/MetadataValue"},
    },
    "MetadataValue": {"anyOf": _METADATA_VALUE},
    "RoomRequest": record(["room_id"], room_id=NAME, **_SETTINGS),
    "RoomChange": described(record([], **_SETTINGS), "Omitted fields keep their value."),
    "Participant": record(session_id=ID, user_name=STRING, connected_at=TIME),
    "RoomSummary": record(**_ROOM),
    "Room": record(**_ROOM, participants={"type": "array", "items": {"$ref": "#/components/schemas/Participant"}}),
    "Rooms": page_of("RoomSummary"),
}
