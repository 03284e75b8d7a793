"""The parts that schemas are made of. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfu.tenancy.grants import USER_ID_CHARACTERS
from sfu.tenancy.names import CONTROLS, INVISIBLE, NAME_CHARACTERS

Schema = Mapping[str, Any]

LINE = rf"^[^{CONTROLS}]*$"
TEXT = r"^[^\u0000]*$"
"""Text that every database can store. It must not contain surrogates either, which a JSON Schema pattern cannot
exclude (see `_check_text`)."""


def record(required: list[str] | None = None, /, **properties: Any) -> dict[str, Any]:
    """An object schema. By default every property is required, as in responses."""
    needed = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def nullable(schema: Schema) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


def page_of(name: str, **more: Schema) -> dict[str, Any]:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    return record(
        **more, items=items, next=nullable(described(STRING, "The cursor of the next page; null on the last page."))
    )


def described(schema: Schema, description: str) -> dict[str, Any]:
    return {**schema, "description": description}


STRING: Schema = {"type": "string"}
TIME: Schema = {"type": "string", "format": "date-time"}
ID: Schema = {"type": "string", "format": "uuid"}
COUNT: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
SECONDS = NUMBER
NAME: Schema = {
    "type": "string",
    "format": "name",
    "minLength": 1,
    "maxLength": NAME_CHARACTERS,
    "pattern": f"[^{INVISIBLE}]",
    "description": f"1 to {NAME_CHARACTERS} characters, at least one of them visible. The server stores them in NFC, "
    "with single blanks, and without control characters.",
}
USER_ID: Schema = {"type": "string", "maxLength": USER_ID_CHARACTERS, "pattern": LINE}

DROPS: Mapping[str, Schema] = {
    "drops": described(COUNT, "How often the connection was lost, for example by a bad network or a reloaded page."),
    "returns": described(COUNT, "How often the person came back after that."),
    "last_drop": described(nullable(STRING), "Why it was lost last, a code as in `leave_reason`; null: it never was."),
}

DATE: Schema = {"type": "string", "format": "date"}
MONTH: Schema = {
    "type": "string",
    "pattern": "^2[0-9]{3}-(0[1-9]|1[0-2])$",
    "description": "A month of UTC such as 2026-11. Default: this month.",
}
LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100, "description": "Items per page."}
CURSOR: Schema = {"type": "string", "description": "`next` of the previous page."}
FORMAT: Schema = {"type": "string", "enum": ["json", "csv"], "description": "Overrides the Accept header."}
IF_EXISTS: Schema = {
    "type": "string",
    "enum": ["fail", "return"],
    "default": "fail",
    "description": "If there is such a room: 409, or 200 with the room as it is.",
}
PAGED = {"limit": LIMIT, "cursor": CURSOR, "format": FORMAT}


def sorted_by(time: str) -> Schema:
    """A parameter that sorts a list by this time."""
    order = {"type": "string", "enum": [f"-{time}", time], "default": f"-{time}"}
    return described(order, "With `-`, the newest first.")
