"""Schemas of tokens. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfu.api.schemas.common import (
    BOOLEAN,
    ID,
    NAME,
    STRING,
    TEXT,
    TIME,
    described,
    nullable,
    page_of,
    record,
)

_PERMISSION_NAMES = {"publish": True, "subscribe": True, "chat": True, "moderate": False}
_EXPIRY = described(TIME, "`exp` of the token. Clocks may differ, so it is accepted for another minute.")

DEFINITIONS: Mapping[str, dict[str, Any]] = {
    "TokenRequest": record(
        ["room_id", "user_name"],
        room_id=NAME,
        user_name=NAME,
        duration=described(
            {"type": "integer", "minimum": 1, "maximum": 86400, "default": 3600},
            "Seconds for which the token admits somebody, and a minute more. It does not limit the length of the stay.",
        ),
        permissions=described(
            record([], **{name: {**BOOLEAN, "default": yes} for name, yes in _PERMISSION_NAMES.items()}),
            "`moderate` also permits the token to manage its room over REST.",
        ),
        single_use=described({**BOOLEAN, "default": False}, "Valid for a single join."),
    ),
    "IssuedToken": record(token=STRING, expires_at=_EXPIRY, room_id=STRING, user_name=STRING),
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
    ),
    "Tokens": page_of("Token"),
}
