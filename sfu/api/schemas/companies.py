"""Schemas of companies and their usage. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfu.api.schemas.common import (
    BOOLEAN,
    COUNT,
    DATE,
    ID,
    NAME,
    NUMBER,
    STRING,
    TIME,
    Schema,
    described,
    nullable,
    page_of,
    record,
)

_TIER: Schema = {"type": "string", "enum": ["free", "pro", "enterprise"], "description": "Decides the limits."}
_COMPANY: Mapping[str, Schema] = {
    "id": ID,
    "name": STRING,
    "tier": STRING,
    "is_active": described(BOOLEAN, "false: its keys and tokens are refused."),
    "is_default": described(BOOLEAN, "Whether its rooms can be entered without a token."),
    "created_at": TIME,
}
_ACTIVE = described(BOOLEAN, "false refuses its keys and tokens, and ends its calls.")
_FIGURES: Mapping[str, Schema] = {
    "minutes": described(NUMBER, "Of all people together; a session counts on the day it began, an open one so far."),
    "sessions": COUNT,
    "unique_people": described(COUNT, "By name."),
    "peak": described(COUNT, "Most people in calls at once."),
    "tokens": described(COUNT, "Tokens issued."),
    "rooms": described(COUNT, "Rooms that somebody entered."),
}
_LIMIT = nullable(COUNT)

DEFINITIONS: Mapping[str, dict[str, Any]] = {
    "Company": record(**_COMPANY),
    "Companies": page_of("Company"),
    "CompanyRequest": record(["name"], name=NAME, tier={**_TIER, "default": "free"}),
    "NewCompany": record(**_COMPANY, key=described(STRING, "Its API key, `pk_…`. It cannot be read again.")),
    "CompanyChange": described(
        record([], name=NAME, tier=_TIER, is_active=_ACTIVE), "Omitted fields keep their value."
    ),
    "Limits": described(
        record(
            room_people=described(_LIMIT, "People in one room."),
            rooms=described(_LIMIT, "Rooms that exist."),
            people=described(_LIMIT, "People in calls at once."),
            minutes_month=described(_LIMIT, "Minutes of all people in a month."),
            tokens_minute=described(_LIMIT, "Tokens issued in a minute."),
            file_bytes=described(_LIMIT, "Size of one shared file."),
            history_days=described(_LIMIT, "How long sessions are kept."),
            recording=described(BOOLEAN, "Whether calls may be recorded."),
        ),
        "What the tier allows. null: no limit.",
    ),
    "UsageDay": record(date=DATE, **_FIGURES),
    "Usage": record(
        month=STRING,
        tier=STRING,
        **_FIGURES,
        now=described(record(people=COUNT, rooms=COUNT), "People in calls, and rooms that exist, now."),
        limits={"$ref": "#/components/schemas/Limits"},
        days={"type": "array", "items": {"$ref": "#/components/schemas/UsageDay"}},
    ),
}
