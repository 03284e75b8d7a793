"""Schemas of sessions and usage. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfu.api.schemas.common import (
    COUNT,
    DROPS,
    ID,
    NUMBER,
    SECONDS,
    STRING,
    TIME,
    Schema,
    described,
    nullable,
    page_of,
    record,
)

STATE = described({"type": "string", "enum": ["open", "ended"]}, "`open`: the person is in the call now.")
ZONE: Schema = described(
    {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9_+/-]*$", "default": "UTC"},
    "The time zone whose days these are, such as Europe/Berlin.",
)

DEFINITIONS: Mapping[str, dict[str, Any]] = {
    "Session": record(
        id=ID,
        room_id=STRING,
        user_name=STRING,
        user_id=described(STRING, "Your own id of the person, from the token; empty without."),
        token_id=nullable(ID),
        peer_address=STRING,
        connected_at=TIME,
        last_seen_at=TIME,
        disconnected_at=nullable(TIME),
        leave_reason=nullable(STRING),
        duration_s=nullable(SECONDS),
        **DROPS,
        score_mean=described(
            nullable(NUMBER),
            "Mean quality of the call, 1 (bad) to 4.4. Like the fields below, null until the "
            "session has ended, and if there was no media.",
        ),
        score_min=described(nullable(NUMBER), "Worst quality of the call."),
        loss_up=described(nullable(NUMBER), "Mean fraction of packets lost from the person to the server."),
        loss_down=nullable(NUMBER),
        jitter_up_ms=nullable(NUMBER),
        jitter_down_ms=nullable(NUMBER),
        round_trip_ms=described(nullable(NUMBER), "Mean round-trip time between the person and the server."),
        bytes_up=described(nullable(COUNT), "From the person to the server. Divide by duration_s for the mean rate."),
        bytes_down=nullable(COUNT),
    ),
    "UserRoom": record(room_id=STRING, name=STRING, participant_count=COUNT, since=TIME),
    "RoomDay": record(
        date={"type": "string", "format": "date"},
        room_id=STRING,
        unique_users=COUNT,
        total_sessions=COUNT,
        avg_session_duration_s=described(nullable(SECONDS), "Mean of the ended sessions; null if none has ended."),
        total_duration_s=SECONDS,
        peak_concurrency=COUNT,
        avg_score=described(
            nullable(NUMBER), "The mean of the sessions' means, 1 (bad) to 4.4; null if none is known."
        ),
        min_score=described(nullable(NUMBER), "The worst quality in any of the sessions."),
    ),
    "Sessions": page_of("Session"),
    "UserRooms": record(items={"type": "array", "items": {"$ref": "#/components/schemas/UserRoom"}}),
    "RoomDays": page_of(
        "RoomDay", **{"from": {"type": "string", "format": "date"}, "to": {"type": "string", "format": "date"}}
    ),
}
