"""Request and response schemas (JSON Schema, the subset that OpenAPI 3.1 shares), one file per resource. Pure."""

from __future__ import annotations

from typing import Any

from sfu.api.schemas import audit, calls, companies, history, keys, rooms, tokens, webhooks
from sfu.api.schemas.common import STRING

DEFINITIONS: dict[str, dict[str, Any]] = {
    **tokens.DEFINITIONS,
    **rooms.DEFINITIONS,
    **calls.DEFINITIONS,
    **history.DEFINITIONS,
    **keys.DEFINITIONS,
    **companies.DEFINITIONS,
    **audit.DEFINITIONS,
    **webhooks.DEFINITIONS,
    "Problem": {
        "type": "object",
        "description": "RFC 9457. `code` is stable; `field` names the invalid field or parameter, if there is one, "
        "`scope` the one that the key lacks, and `limit` the one that is reached.",
        "properties": {
            "type": STRING,
            "title": STRING,
            "status": {"type": "integer"},
            "detail": STRING,
            "code": STRING,
            "field": STRING,
            "scope": STRING,
            "limit": STRING,
        },
        "required": ["type", "title", "status", "detail", "code"],
    },
}
