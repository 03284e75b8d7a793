"""Schemas of API keys. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfu.api.schemas.common import ID, NAME, STRING, TIME, Schema, described, nullable, page_of, record
from sfu.tenancy.scopes import SCOPES

LONGEST_OVERLAP_S = 30 * 86_400

_SCOPES: Schema = {
    "type": "array",
    "items": {"type": "string", "enum": list(SCOPES)},
    "minItems": 1,
    "maxItems": len(SCOPES),
    "description": "What the key may do. " + " ".join(f"`{name}`: {text}." for name, text in SCOPES.items()),
}
_EXPIRES: Schema = {
    "anyOf": [TIME, {"type": "null"}],
    "description": "When the key stops working, a time of RFC 3339 with its zone. null: it works until revoked.",
}
_KEY: Mapping[str, Schema] = {
    "id": ID,
    "name": STRING,
    "prefix": described(STRING, "The first characters of the key."),
    "scopes": {"type": "array", "items": STRING},
    "created_at": TIME,
    "expires_at": nullable(TIME),
    "last_used_at": described(nullable(TIME), "To the minute."),
    "revoked_at": nullable(TIME),
}
_TEXT = described(STRING, "The key itself, `pk_…`. It cannot be read again.")

DEFINITIONS: Mapping[str, dict[str, Any]] = {
    "Key": record(**_KEY),
    "Keys": page_of("Key"),
    "NewKey": record(**_KEY, key=_TEXT),
    "KeyRequest": record(["name", "scopes"], name=NAME, scopes=_SCOPES, expires_at=_EXPIRES),
    "KeyChange": described(
        record([], name=NAME, scopes=_SCOPES, expires_at=_EXPIRES), "Omitted fields keep their value."
    ),
    "RotateRequest": record(
        [],
        overlap={
            "type": "integer",
            "minimum": 0,
            "maximum": LONGEST_OVERLAP_S,
            "default": 86_400,
            "description": "For how many seconds the old key works beside the new one.",
        },
    ),
}
TOKENS: Schema = {
    "type": "string",
    "enum": ["keep", "revoke"],
    "default": "keep",
    "description": "What becomes of tokens that the key issued: `revoke` also ends calls of who entered with them.",
}
