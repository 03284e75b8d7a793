"""Request and response schemas (JSON Schema, the subset that OpenAPI 3.1 shares), and validation against them.

The OpenAPI description shows the same data that requests are validated with, so the two cannot differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from sfu.api.refusals import BadField
from sfu.errors import BadName
from sfu.tenancy.names import CONTROLS, INVISIBLE, NAME_CHARACTERS, canonical

Schema = Mapping[str, Any]

MAX_DEPTH = 32
"""Deepest nesting of objects and arrays. Only metadata can be nested."""

LINE = rf"^[^{CONTROLS}]*$"
TEXT = r"^[^\u0000]*$"
"""Text that every database can store. It must not contain surrogates either, which a JSON Schema pattern cannot
exclude (see `_check_text`)."""


def check(schema: Schema, value: Any, field: str = "", depth: int = 0) -> Any:
    """Validates `value` and fills in the defaults of absent properties. Raises BadField with the path of the fault."""
    if depth > MAX_DEPTH:
        raise BadField(field, f"is nested deeper than {MAX_DEPTH} levels")
    if "anyOf" in schema:
        return _check_any(schema["anyOf"], value, field, depth)
    if "$ref" in schema:
        return check(DEFINITIONS[schema["$ref"].rpartition("/")[2]], value, field, depth)
    kind = schema["type"]
    if kind == "integer" and type(value) is float and value.is_integer():
        value = int(value)
    if type(value) not in _TYPES[kind]:
        raise BadField(field, f"must be {_ARTICLES[kind]}")
    if kind == "object":
        return _check_object(schema, value, field, depth)
    if kind == "array":
        return [check(schema["items"], item, f"{field}[{i}]", depth + 1) for i, item in enumerate(value)]
    if "enum" in schema and value not in schema["enum"]:
        raise BadField(field, f"must be one of {', '.join(schema['enum'])}")
    if schema.get("format") == "name":
        return _check_name(value, field)
    if kind == "string":
        _check_text(schema, value, field)
    if type(value) is float and not math.isfinite(value):
        raise BadField(field, "must be a finite number")
    low, high = schema.get("minimum"), schema.get("maximum")
    if (low is not None and value < low) or (high is not None and value > high):
        raise BadField(field, f"must be from {low} to {high}")
    return value


_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
_ARTICLES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "an array",
    "null": "null",
}


def _check_any(choices: list[Schema], value: Any, field: str, depth: int) -> Any:
    """Validates against the choice of the value's type. The types of the choices are distinct."""
    for choice in choices:
        kind = choice["type"]
        if type(value) in _TYPES[kind] or (kind == "integer" and type(value) is float and value.is_integer()):
            return check(choice, value, field, depth)
    raise BadField(field, "must be " + " or ".join(_ARTICLES[choice["type"]] for choice in choices))


def _check_object(schema: Schema, value: dict[str, Any], field: str, depth: int) -> dict[str, Any]:
    known, other = schema.get("properties", {}), schema.get("additionalProperties", False)
    names = schema.get("propertyNames")
    found: dict[str, Any] = {}
    for name, item in value.items():
        path = f"{field}.{name}" if field else name
        if name not in known and other is False:
            raise BadField(path, f"is not a field of this {'object' if field else 'request'}")
        if names is not None:
            check({"type": "string", **names}, name, path)
        found[name] = check(known.get(name, other), item, path, depth + 1)
    for name in schema.get("required", ()):
        if name not in found:
            raise BadField(f"{field}.{name}" if field else name, "is missing")
    for name, property_schema in known.items():
        if name not in found and "default" in property_schema:
            found[name] = property_schema["default"]
    return found


def _check_name(value: str, field: str) -> str:
    """The name's canonical spelling, to which its length applies."""
    try:
        return canonical(value, field)
    except BadName:
        raise BadField(field, f"must be 1 to {NAME_CHARACTERS} characters, at least one of them visible") from None


def _check_text(schema: Schema, value: str, field: str) -> None:
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    if len(value) < low or (high is not None and len(value) > high):
        raise BadField(field, f"must be {low} to {high} characters")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadField(field, "must not contain half of a surrogate pair")
    pattern = schema.get("pattern")
    if pattern is not None and not re.search(pattern.removesuffix("$") + r"\Z", value):
        raise BadField(field, schema.get("description") or "contains characters that are not accepted")
    if schema.get("format") == "date":
        try:
            fits = date.fromisoformat(value).isoformat() == value
        except ValueError:
            fits = False
        if not fits:
            raise BadField(field, "must be a date such as 2026-01-31")


def from_text(schema: Schema, text: str, field: str) -> Any:
    """Parses and validates the value of a query parameter."""
    if schema["type"] == "integer" and re.fullmatch(r"-?[0-9]{1,9}", text, re.ASCII):
        return check(schema, int(text), field)
    return check(schema, text, field)


# --- the schemas -----------------------------------------------------------------------------------------------------


def _object(required: list[str] | None = None, /, **properties: Any) -> dict[str, Any]:
    """An object schema. By default every property is required, as in responses."""
    needed = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def _maybe(schema: Schema) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


def _page(name: str, **more: Schema) -> dict[str, Any]:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    return _object(
        **more, items=items, next=_maybe(_described(_STRING, "The cursor of the next page; null on the last page."))
    )


def _described(schema: Schema, description: str) -> dict[str, Any]:
    return {**schema, "description": description}


_STRING: Schema = {"type": "string"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_ID: Schema = {"type": "string", "format": "uuid"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_BOOLEAN: Schema = {"type": "boolean"}
_NUMBER: Schema = {"type": "number"}
_SECONDS = _NUMBER
_NAME: Schema = {
    "type": "string",
    "format": "name",
    "minLength": 1,
    "maxLength": NAME_CHARACTERS,
    "pattern": f"[^{INVISIBLE}]",
    "description": f"1 to {NAME_CHARACTERS} characters, at least one of them visible. The server stores them in NFC, "
    "with single blanks, and without control characters.",
}
_PERMISSION_NAMES = {"publish": True, "subscribe": True, "chat": True, "moderate": False}
_SETTINGS: Mapping[str, Schema] = {
    "name": {"type": "string", "maxLength": 255, "pattern": LINE},
    "description": {"type": "string", "maxLength": 4096, "pattern": TEXT},
    "max_participants": {"type": "integer", "minimum": 1, "maximum": 10_000},
    "access": {"type": "string", "enum": ["open", "token"]},
    "locked": _described(_BOOLEAN, "Only moderators may enter."),
    "lobby": _described(_BOOLEAN, "Everybody except moderators waits until they are admitted."),
    "files": _described(_BOOLEAN, "Files may be shared in the chat."),
    "chat_kept_s": {
        "anyOf": [{"type": "integer", "minimum": 0, "maximum": 315_360_000}, {"type": "null"}],
        "description": "How long chat is kept, in seconds. 0: not at all; null: the server's default.",
    },
    "metadata": {"$ref": "#/components/schemas/Metadata"},
}
_EXPIRY = _described(_TIME, "`exp` of the token. Clocks may differ, so it is accepted for another minute.")
_DROPS: Mapping[str, Schema] = {
    "drops": _described(_COUNT, "How often the connection was lost, for example by a bad network or a reloaded page."),
    "returns": _described(_COUNT, "How often the person came back after that."),
    "last_drop": _described(_maybe(_STRING), "Why it was lost last, a code as in `leave_reason`; null: it never was."),
}
_ROOM: Mapping[str, Schema] = {
    "id": _ID,
    "room_id": _STRING,
    "name": _STRING,
    "description": _STRING,
    "max_participants": _COUNT,
    **{name: _SETTINGS[name] for name in ("access", "locked", "lobby", "files", "chat_kept_s")},
    "metadata": {"type": "object", "additionalProperties": True},
    "participant_count": _described(_COUNT, "Number of participants now."),
    "created_at": _TIME,
    "updated_at": _TIME,
    "last_join_at": _maybe(_TIME),
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

DEFINITIONS: dict[str, dict[str, Any]] = {
    "TokenRequest": _object(
        ["room_id", "user_name"],
        room_id=_NAME,
        user_name=_NAME,
        duration=_described(
            {"type": "integer", "minimum": 1, "maximum": 86400, "default": 3600},
            "Seconds for which the token admits somebody, and a minute more. It does not limit the length of the stay.",
        ),
        permissions=_described(
            _object([], **{name: {**_BOOLEAN, "default": yes} for name, yes in _PERMISSION_NAMES.items()}),
            "`moderate` also permits the token to manage its room over REST.",
        ),
        single_use=_described({**_BOOLEAN, "default": False}, "Valid for a single join."),
    ),
    "IssuedToken": _object(token=_STRING, expires_at=_EXPIRY, room_id=_STRING, user_name=_STRING),
    "InspectRequest": _object(["token"], token={"type": "string", "minLength": 1, "maxLength": 8192, "pattern": TEXT}),
    "Inspection": _object(
        valid=_BOOLEAN,
        code=_described(_STRING, "`valid`, or the error code of a join with this token."),
        message=_STRING,
        advice=_described(_STRING, "How to fix it; empty if the token is valid."),
        header={"type": ["object", "null"], "additionalProperties": True},
        claims={"type": ["object", "null"], "additionalProperties": True},
    ),
    "Token": _object(
        id=_described(_ID, "The token's `jti`."),
        room_id=_STRING,
        user_name=_STRING,
        permissions=_object(**dict.fromkeys(_PERMISSION_NAMES, _BOOLEAN)),
        single_use=_BOOLEAN,
        created_at=_TIME,
        expires_at=_EXPIRY,
        used_at=_maybe(_TIME),
        revoked_at=_maybe(_TIME),
    ),
    "Metadata": {
        "type": "object",
        "description": "Any JSON of yours.",
        "propertyNames": {"pattern": TEXT},
        "additionalProperties": {"$ref": "#/components/schemas/MetadataValue"},
    },
    "MetadataValue": {"anyOf": _METADATA_VALUE},
    "RoomRequest": _object(["room_id"], room_id=_NAME, **_SETTINGS),
    "RoomChange": _described(_object([], **_SETTINGS), "Omitted fields keep their value."),
    "Participant": _object(session_id=_ID, user_name=_STRING, connected_at=_TIME),
    "RoomSummary": _object(**_ROOM),
    "Room": _object(**_ROOM, participants={"type": "array", "items": {"$ref": "#/components/schemas/Participant"}}),
    "Session": _object(
        id=_ID,
        room_id=_STRING,
        user_name=_STRING,
        token_id=_maybe(_ID),
        peer_address=_STRING,
        connected_at=_TIME,
        last_seen_at=_TIME,
        disconnected_at=_maybe(_TIME),
        leave_reason=_maybe(_STRING),
        duration_s=_maybe(_SECONDS),
        **_DROPS,
        score_mean=_described(
            _maybe(_NUMBER),
            "Mean quality of the call, 1 (bad) to 4.4. Like the fields below, null until the "
            "session has ended, and if there was no media.",
        ),
        score_min=_described(_maybe(_NUMBER), "Worst quality of the call."),
        loss_up=_described(_maybe(_NUMBER), "Mean fraction of packets lost from the person to the server."),
        loss_down=_maybe(_NUMBER),
        jitter_up_ms=_maybe(_NUMBER),
        jitter_down_ms=_maybe(_NUMBER),
        round_trip_ms=_described(_maybe(_NUMBER), "Mean round-trip time between the person and the server."),
        bytes_up=_described(_maybe(_COUNT), "From the person to the server. Divide by duration_s for the mean rate."),
        bytes_down=_maybe(_COUNT),
    ),
    "CallParticipant": _object(
        session_id=_ID,
        peer=_described(_STRING, "The id in the signalling protocol."),
        user_name=_STRING,
        moderator=_BOOLEAN,
        hand=_described(_COUNT, "When the hand was raised, in milliseconds since 1970; 0: it is down."),
        **_DROPS,
        tracks={
            "type": "array",
            "items": _object(source=_STRING, kind={"type": "string", "enum": ["audio", "video"]}, muted=_BOOLEAN),
        },
    ),
    "MuteRequest": _object([], source={"type": "string", "pattern": "^[a-z][a-z0-9-]{0,31}$", "default": "microphone"}),
    "ChatLine": _object(
        id=_ID,
        user_name=_STRING,
        text=_STRING,
        sent_at=_TIME,
        file_name=_maybe(_STRING),
        file_url=_described(_maybe(_STRING), "Relative to the server."),
    ),
    "Ban": _object(
        id=_ID,
        user_name=_STRING,
        token_id=_described(_maybe(_ID), "The banned token; null: the name from this address is banned."),
        address=_STRING,
        banned_by=_described(_STRING, "The moderator's name; empty if the API banned them."),
        created_at=_TIME,
        expires_at=_TIME,
    ),
    "UserRoom": _object(room_id=_STRING, name=_STRING, participant_count=_COUNT, since=_TIME),
    "RoomDay": _object(
        date={"type": "string", "format": "date"},
        room_id=_STRING,
        unique_users=_COUNT,
        total_sessions=_COUNT,
        avg_session_duration_s=_described(_maybe(_SECONDS), "Mean of the ended sessions; null if none has ended."),
        total_duration_s=_SECONDS,
        peak_concurrency=_COUNT,
        avg_score=_described(
            _maybe(_NUMBER), "The mean of the sessions' means, 1 (bad) to 4.4; null if none is known."
        ),
        min_score=_described(_maybe(_NUMBER), "The worst quality in any of the sessions."),
    ),
    "Problem": {
        "type": "object",
        "description": "RFC 9457. `code` is stable; `field` names the invalid field or parameter, if there is one.",
        "properties": {
            "type": _STRING,
            "title": _STRING,
            "status": {"type": "integer"},
            "detail": _STRING,
            "code": _STRING,
            "field": _STRING,
        },
        "required": ["type", "title", "status", "detail", "code"],
    },
}
DEFINITIONS |= {
    "Tokens": _page("Token"),
    "Rooms": _page("RoomSummary"),
    "Sessions": _page("Session"),
    "CallParticipants": _object(items={"type": "array", "items": {"$ref": "#/components/schemas/CallParticipant"}}),
    "ChatLines": _page("ChatLine"),
    "Bans": _page("Ban"),
    "UserRooms": _object(items={"type": "array", "items": {"$ref": "#/components/schemas/UserRoom"}}),
    "RoomDays": _page(
        "RoomDay", **{"from": {"type": "string", "format": "date"}, "to": {"type": "string", "format": "date"}}
    ),
}
DATE: Schema = {"type": "string", "format": "date"}
