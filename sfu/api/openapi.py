"""The OpenAPI 3.1 description, generated from the table of routes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from sfu import __version__
from sfu.api.codes import codes
from sfu.api.routes import PREFIX, ROUTES, Route
from sfu.api.schemas import DEFINITIONS
from sfu.api.validation import MAX_DEPTH
from sfu.store.events import TYPES

ABOUT = """\
Rooms, join tokens and history of one company. Times are UTC, durations are in seconds. Errors are problems (RFC 9457)
with a stable `code`. Lists are paginated: repeat the request with `cursor` set to `next` until `next` is null. With
`Accept: text/csv` or `?format=csv`, lists are CSV. After 10 requests with a wrong key within a minute, further wrong
ones from that address get 429; a valid key always works. A POST with an `Idempotency-Key` that is repeated within a day
has its effect once. `If-None-Match` with an `ETag` gets 304 while the answer is the same. `X-Request-Id` is kept.
`RateLimit` says how many requests a key has left.
"""
WHY = {
    400: "The request is malformed.",
    401: "The key or token is missing, wrong, expired or revoked.",
    403: "The company is disabled, the key or token may not do this, or a limit of the tier is reached.",
    404: "It does not exist in this company, or the cursor does not belong to this list.",
    409: "It already exists, or the call is on another server, or there is none, or the same request still runs.",
    412: "Somebody else changed it: If-Match does not match.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "A field is missing, unknown or invalid; `field` names it.",
    431: "The head of the request is too large.",
    429: "Too many requests with this key, or wrong keys from this address; Retry-After says when to try again.",
    503: "The database is unavailable; Retry-After says when to try again.",
}
TAGS = {
    "tokens": "Who may enter",
    "rooms": "Rooms",
    "calls": "The current call in a room, and its chat",
    "history": "Sessions and usage",
    "keys": "API keys of the company",
    "companies": "All companies of the server, for its operator",
    "audit": "Who changed what",
    "webhooks": "Events, and where they are sent",
    "about": "This description",
}
_SECURITY: dict[str, list[dict[str, list[str]]]] = {
    "public": [],
    "key": [{"apiKey": []}],
    "moderator": [{"apiKey": []}, {"moderatorToken": []}],
    "admin": [{"adminKey": []}],
}


_PATH: dict[str, Any] = {
    "room_id": {"type": "string", "minLength": 1},
    **{
        name: {"type": "string", "format": "uuid"}
        for name in ("token_id", "session_id", "line_id", "ban_id", "webhook_id", "key_id", "company_id")
    },
    "user_name": {"type": "string", "minLength": 1},
    "waiter_id": {"type": "string", "minLength": 1, "maxLength": 32},
}


_EVENT: dict[str, Any] = {
    "tags": ["webhooks"],
    "parameters": [
        {"name": name, "in": "header", "required": True, "schema": {"type": "string"}, "description": text}
        for name, text in {
            "webhook-id": "`id` of the event; the same if it is sent again.",
            "webhook-timestamp": "Seconds since 1970.",
            "webhook-signature": "`v1,` and base64 of HMAC-SHA256; one for each secret, separated by blanks.",
        }.items()
    ],
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Event"}}},
    },
    "responses": {"2XX": {"description": "It arrived."}, "410": {"description": "The webhook is paused at once."}},
}
_EXAMPLES: dict[str, Any] = {
    "TokenRequest": {"room_id": "team-meeting", "user_name": "alice", "duration": 3600},
    "TokenRequests": {"tokens": [{"room_id": "team-meeting", "user_name": name} for name in ("alice", "bob")]},
    "RoomRequest": {"room_id": "team-meeting", "name": "Team meeting", "access": "token"},
    "RoomChange": {"locked": True, "metadata": {"course": "B2"}},
    "MuteRequest": {"source": "microphone"},
    "ParticipantChange": {"user_name": "Alice", "permissions": {"chat": False}},
    "MessageRequest": {"topic": "quiz", "data": {"question": 3}},
    "LineRequest": {"user_name": "Acme", "text": "The meeting ends in five minutes."},
    "KeyRequest": {"name": "Backend", "scopes": ["rooms:read", "tokens:create"]},
    "KeyChange": {"name": "Old backend"},
    "CompanyRequest": {"name": "Acme", "tier": "pro"},
    "CompanyChange": {"tier": "enterprise"},
    "WebhookRequest": {"url": "https://example.org/events", "events": ["participant.*"]},
    "WebhookChange": {"events": ["participant.*", "room.*"]},
}
"""By the schema of the body; each is a valid request."""


def document() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "sfu-rooms", "version": __version__, "description": ABOUT},
        "servers": [{"url": "../.."}],  # relative to this document (OpenAPI 3.1, 4.8.5)
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "webhooks": {kind: {"post": {"summary": text, **_EVENT}} for kind, text in TYPES.items()},
        "x-codes": codes(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "A company's API key, `pk_…`."},
                "adminKey": {"type": "http", "scheme": "bearer", "description": "The server's admin key, `ak_…`."},
                "moderatorToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A token with the permission `moderate`, for its own room.",
                },
            },
        },
    }


def _schemas() -> dict[str, Any]:
    """The schemas that requests are validated with, and metadata as a free object.

    Its values are defined by themselves, which generators of clients cannot follow; its limits are said in words.
    """
    schemas = {name: _opened(schema) for name, schema in DEFINITIONS.items() if name != "MetadataValue"}
    strict = schemas["Metadata"]
    text = f"{strict['description']} Texts hold no U+0000; objects and arrays are nested at most {MAX_DEPTH} deep."
    schemas["Metadata"] = {"type": "object", "description": text, "additionalProperties": True}
    return schemas


def _opened(schema: Any) -> Any:
    """The schema without references to MetadataValue: what is not described may be any JSON."""
    if isinstance(schema, list):
        return [_opened(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    any_json = schema.get("$ref") == "#/components/schemas/MetadataValue"
    return {name: _opened(one) for name, one in schema.items() if not (any_json and name == "$ref")}


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": route.summary,
        "x-changes": route.changes,
        "security": _security(route),
        "parameters": _parameters(route),
        "responses": {str(route.status): _success(route)}
        | ({"200": _success(route)} if "if_exists" in route.query else {})
        | ({"304": {"description": "It is what If-None-Match names."}} if route.method == "GET" else {})
        | {str(status): _problem(status) for status in _refused(route)},
    }
    if route.body:
        schema: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{route.body}"}}
        if route.body in _EXAMPLES:
            schema["example"] = _EXAMPLES[route.body]
        content = dict.fromkeys(route.body_types, schema)
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _security(route: Route) -> list[dict[str, list[str]]]:
    """Which credentials are accepted; of an API key, with which scope (OpenAPI 3.1, 4.8.30)."""
    needed = [route.scope] if route.scope else []
    return [{name: list(needed) if name == "apiKey" else roles for name, roles in one.items()}
            for one in _SECURITY[route.access]]  # fmt: skip


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _PATH[name]} for name in route.parameters
    ]
    for name, schema in route.query.items():
        found.append({"name": name, "in": "query", "required": False, "schema": schema})
    if route.if_match:
        found.append(
            _header_parameter(
                "If-Match", "The ETag of the room to change. If somebody else changed it since, the response is 412."
            )
        )
    if route.method == "GET":
        found.append(
            _header_parameter("If-None-Match", "An ETag. If the answer is the same, it is 304, without a body.")
        )
    if route.method == "POST" and route.changes and route.access != "admin":
        schema = {"type": "string", "maxLength": 255, "pattern": "^[!-~]+$"}
        text = "A text of your own, such as a UUID: repeated with it, the request has its effect once."
        found.append(_header_parameter("Idempotency-Key", text) | {"schema": schema})
    return found


def _header_parameter(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": text}


def _refused(route: Route) -> list[int]:
    """The error statuses of a route."""
    when = {
        400: True,
        401: route.access != "public",
        403: route.access != "public",
        404: route.not_found or "cursor" in route.query,
        409: route.conflict or (route.method == "POST" and route.changes),  # Idempotency-Key
        412: route.if_match,
        413: True,
        415: bool(route.body),
        422: True,
        431: True,
        429: route.access != "public",
        503: route.access != "public",
    }
    return [status for status, may in when.items() if may]


def _success(route: Route) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": HTTPStatus(route.status).phrase}
    if route.answer:
        schema: dict[str, Any] = {"$ref": f"#/components/schemas/{route.answer}"}
        answer["content"] = {"application/json": {"schema": schema}}
        if route.rows:
            answer["content"]["text/csv"] = {"schema": {"type": "string"}}
    elif route.status != 204:
        text = {"type": "string"} if route.content_type.startswith("text/") else {"type": "object"}
        answer["content"] = {route.content_type.partition(";")[0]: {"schema": text}}
    headers: dict[str, Any] = {}
    if route.answer == "Room":
        headers["ETag"] = _header("The room's version, for If-Match; of a GET, the answer, too, for If-None-Match.")
    elif route.method == "GET":
        headers["ETag"] = _header("Names this answer, for If-None-Match.")
    if route.status == 201:
        headers["Location"] = _header("The new resource, relative to the path of the request.")
    if route.access != "public":
        headers |= _RATE
    if "cursor" in route.query:
        headers["Link"] = _header('The next page, with rel="next".')
    return answer | ({"headers": headers} if headers else {})


def _header(text: str) -> dict[str, Any]:
    return {"description": text, "schema": {"type": "string"}}


_RATE = {
    "RateLimit-Policy": _header('How many requests the key may send in how many seconds: `"key";q=6000;w=60`.'),
    "RateLimit": _header('How many are left, and in how many seconds they are full again: `"key";r=5999;t=60`.'),
}


def _problem(status: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    headers = {"Retry-After": _header("Seconds.")} if status in (429, 503) else {}
    return {"description": WHY[status], "content": content} | ({"headers": headers} if headers else {})
