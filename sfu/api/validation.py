"""Validation of requests against the schemas.

The OpenAPI description shows the same data that requests are validated with, so the two cannot differ. Only metadata
is described more simply than it is validated (openapi.py).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from sfu.api.refusals import BadField
from sfu.api.schemas import DEFINITIONS
from sfu.api.schemas.common import Schema
from sfu.errors import BadName
from sfu.tenancy.names import NAME_CHARACTERS, canonical

MAX_DEPTH = 32
"""Deepest nesting of objects and arrays. Only metadata can be nested."""


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
        return bounded(schema, _check_object(schema, value, field, depth), field)
    if kind == "array":
        low, high = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        if not low <= len(value) <= high:
            raise BadField(field, f"must have {low} to {high} items")
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


def bounded(schema: Schema, value: dict[str, Any], field: str) -> dict[str, Any]:
    """The value. Raises BadField if it takes more bytes of JSON than the schema allows."""
    most = schema.get("x-max-bytes")
    if (
        most is not None
        and len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")) > most
    ):
        raise BadField(field, f"must have at most {most} bytes as JSON")
    return value


def _wanted(schema: Schema) -> str:
    text = str(schema.get("description", "")).rstrip(".")
    return f"is not accepted. {text}" if text else "contains characters that are not accepted"


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
        raise BadField(field, _wanted(schema))
    if schema.get("format") == "date":
        try:
            fits = date.fromisoformat(value).isoformat() == value
        except ValueError:
            fits = False
        if not fits:
            raise BadField(field, "must be a date such as 2026-01-31")


def from_text(schema: Schema, text: str, field: str) -> Any:
    """Parses and validates the value of a query parameter."""
    if schema["type"] == "integer" and re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
        return check(schema, int(text), field)
    return check(schema, text, field)
