"""Schemas of tokens. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfu.api.schemas.common import (
    BOOLEAN,
    COUNT,
    ID,
    NAME,
    STRING,
    TEXT,
    TIME,
    USER_ID,
    Schema,
    described,
    nullable,
    page_of,
    record,
)
from sfu.tenancy.grants import AHEAD_DAYS, MAX_STAY_S

MOST_TOKENS = 100
"""Most tokens that one request creates."""
STATE: Schema = {
    "type": "string",
    "enum": ["valid", "early", "used", "revoked", "expired"],
    "description": "Whether it admits somebody now; `early`: before `not_before`; `used`: after its only use.",
}
_PERMISSION_NAMES = {"publish": True, "subscribe": True, "chat": True, "moderate": False}
_EXPIRY = described(TIME, "`exp` of the token. Clocks may differ, so it is accepted for another minute.")

DEFINITIONS: Mapping[str, dict[str, Any]] = {
    "TokenRequest": record(
        ["room_id"],
        room_id=NAME,
        user_name=described(NAME, f"What others see. Needed, unless `name` is given. {NAME['description']}"),
        name=described(NAME, "Another word for `user_name`."),
        user_id=described({**USER_ID, "default": ""}, "Your own id of the person, for lists and events."),
        metadata={"$ref": "#/components/schemas/Metadata"},
        not_before=described(TIME, f"When the token begins to be valid: up to {AHEAD_DAYS} days ahead. Default: now."),
        max_duration=described(
            {"type": "integer", "minimum": 1, "maximum": MAX_STAY_S},
            "Longest stay, in seconds from the join. Then the person's call ends with `time_over`.",
        ),
        duration=described(
            {"type": "integer", "minimum": 1, "maximum": 86400, "default": 3600},
            "Seconds from `not_before` for which it admits somebody, and a minute more. It does not limit the stay.",
        ),
        permissions=described(
            record([], **{name: {**BOOLEAN, "default": yes} for name, yes in _PERMISSION_NAMES.items()}),
            "`moderate` also permits the token to manage its room over REST.",
        ),
        single_use=described({**BOOLEAN, "default": False}, "Valid for a single join."),
    ),
    "TokenRequests": record(
        tokens={
            "type": "array",
            "items": {"$ref": "#/components/schemas/TokenRequest"},
            "minItems": 1,
            "maxItems": MOST_TOKENS,
        }
    ),
    "IssuedToken": record(
        token=STRING,
        expires_at=_EXPIRY,
        room_id=STRING,
        user_name=STRING,
        id=described(ID, "The token's `jti`, to look it up or revoke it."),
        not_before=described(TIME, "`nbf` of the token."),
    ),
    "IssuedTokens": record(items={"type": "array", "items": {"$ref": "#/components/schemas/IssuedToken"}}),
    "OwnSecret": record(
        secret=described(
            {"type": "string", "minLength": 32, "maxLength": 1024, "pattern": TEXT},
            "At least 32 bytes that nobody can guess, such as 43 characters of base64 from 32 random bytes. "
            "Its UTF-8 text is the key of HS256.",
        )
    ),
    "InspectRequest": record(["token"], token={"type": "string", "minLength": 1, "maxLength": 8192, "pattern": TEXT}),
    "Inspection": record(
        valid=BOOLEAN,
        code=described(STRING, "`valid`, or the error code of a join with this token."),
        message=STRING,
        advice=described(STRING, "How to fix it; empty if the token is valid."),
        header={"type": ["object", "null"], "additionalProperties": True},
        claims={"type": ["object", "null"], "additionalProperties": True},
    ),
    "Token": record(
        id=described(ID, "The token's `jti`."),
        room_id=STRING,
        user_name=STRING,
        permissions=record(**dict.fromkeys(_PERMISSION_NAMES, BOOLEAN)),
        single_use=BOOLEAN,
        created_at=TIME,
        expires_at=_EXPIRY,
        used_at=nullable(TIME),
        revoked_at=nullable(TIME),
        user_id=STRING,
        metadata={"type": "object", "additionalProperties": True},
        not_before=nullable(TIME),
        max_duration=described(nullable(COUNT), "Longest stay, in seconds; null: no limit."),
        state=STATE,
    ),
    "Tokens": page_of("Token"),
}
