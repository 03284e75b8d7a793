"""Schemas of events, and of webhooks that they are sent to. Pure."""

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
    TIME,
    Schema,
    described,
    nullable,
    page_of,
    record,
)
from sfu.store.events import TYPES

FAMILIES = tuple(dict.fromkeys(f"{kind.partition('.')[0]}.*" for kind in TYPES))
MOST_ROOMS = 100

_TYPE: Schema = {"type": "string", "enum": [*TYPES, *FAMILIES]}
_SETTINGS: Mapping[str, Schema] = {
    "url": {
        "type": "string",
        "maxLength": 2048,
        "pattern": r"^https?://[!-~]+$",
        "description": "Where events are sent: an https URL of a host on the internet.",
    },
    "description": {"type": "string", "maxLength": 255, "pattern": LINE},
    "events": {
        "type": "array",
        "items": _TYPE,
        "maxItems": len(TYPES) + len(FAMILIES),
        "description": "The types to send. `participant.*` stands for all that begin so; empty: all.",
    },
    "rooms": {
        "type": "array",
        "items": NAME,
        "maxItems": MOST_ROOMS,
        "description": "The rooms whose events are sent. Empty: those of all rooms, and those of no room.",
    },
}
_WEBHOOK: Mapping[str, Schema] = {
    "id": ID,
    "url": STRING,
    "description": STRING,
    "events": {"type": "array", "items": STRING},
    "rooms": {"type": "array", "items": STRING},
    "previous_secret_until": described(
        nullable(TIME), "Until then, the secret before the last rotation signs as well."
    ),
    "failing_since": described(nullable(TIME), "The first failure since the last success; null: the last one was one."),
    "paused_at": described(nullable(TIME), "Since when nothing is sent."),
    "paused_why": described(
        nullable(STRING),
        "`failing`: for five days; `gone`: the response was 410; `secret`: the server cannot read it, so rotate it.",
    ),
    "created_at": TIME,
    "updated_at": TIME,
}
_SECRET = described(STRING, "`whsec_` and base64. It is shown only here.")

STATES = ("waiting", "delivered", "failed")
AFTER: Schema = {
    "type": "integer", "minimum": 0, "maximum": 10**15, "default": 0,
    "description": "The `last_seq` of the previous answer: events with higher numbers follow.",
}  # fmt: skip
SINCE: Schema = {
    "type": "string",
    "pattern": r"^([0-9]{1,15}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z)$",
    "default": "1",
    "description": "The `seq` of the first event to send again, or a time such as 2026-01-31T08:00:00Z.",
}
OVERLAP: Schema = {
    "type": "integer", "minimum": 0, "maximum": 2_592_000, "default": 86_400,
    "description": "Seconds for which the secret until now signs as well.",
}  # fmt: skip

DEFINITIONS: Mapping[str, dict[str, Any]] = {
    "WebhookRequest": record(
        ["url"],
        url=_SETTINGS["url"],
        description={**_SETTINGS["description"], "default": ""},
        events={**_SETTINGS["events"], "default": []},
        rooms={**_SETTINGS["rooms"], "default": []},
    ),
    "WebhookChange": described(record([], **_SETTINGS), "Omitted fields keep their value."),
    "Webhook": record(**_WEBHOOK),
    "CreatedWebhook": record(**_WEBHOOK, secret=_SECRET),
    "Webhooks": record(items={"type": "array", "items": {"$ref": "#/components/schemas/Webhook"}}),
    "Delivery": record(
        id=ID,
        event_id=described(ID, "`webhook-id` of the message, and `id` of the event."),
        seq=described(COUNT, "Of the event; 0: of a test."),
        type=STRING,
        room_id=nullable(STRING),
        state={"type": "string", "enum": list(STATES)},
        attempts=COUNT,
        status=described(nullable({"type": "integer"}), "Of the last response."),
        error=described(nullable(STRING), "What went wrong in the last attempt."),
        took_ms=nullable(COUNT),
        created_at=TIME,
        tried_at=nullable(TIME),
        next_at=described(nullable(TIME), "When it is tried next; null: it is over, or waits for one of its room."),
    ),
    "Deliveries": page_of("Delivery"),
    "Replay": record(
        from_seq=described(COUNT, "The first event that is sent again; above `to_seq` if there is none."), to_seq=COUNT
    ),
    "Event": record(
        id=ID,
        type=described(STRING, "One of: " + ", ".join(TYPES) + "."),
        timestamp=described(TIME, "When it happened."),
        seq=described(COUNT, "1, 2, 3 … in the company, in the order in which it was recorded."),
        company_id=ID,
        room_id=nullable(STRING),
        data={"type": "object", "additionalProperties": True},
    ),
    "Events": record(
        items={"type": "array", "items": {"$ref": "#/components/schemas/Event"}},
        last_seq=described(COUNT, "Ask with this as `after` next, also if `items` is empty."),
        more=described(BOOLEAN, "Whether there are more already."),
    ),
}
