"""Cursor pagination: a cursor is the sort key of a page's last item. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from sfu.refusals import BadCursor
from sfu.store.records import canonical_id

T = TypeVar("T")

NEWEST = ("9999-12-31T23:59:59+00:00", "ffffffff-ffff-ffff-ffff-ffffffffffff")
"""The sort key (time, id) before which every row of a list comes that shows the newest first."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list. `next` is the cursor to the rest, None at the end."""

    items: tuple[T, ...]
    next: str | None


def encode_cursor(*key: str) -> str:
    """Opaque to clients: the sort key of a page's last item."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, length: int) -> tuple[str, ...]:
    """Raises BadCursor."""
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):
        raise BadCursor from None
    if not isinstance(key, list) or len(key) != length or not all(isinstance(part, str) for part in key):
        raise BadCursor
    return tuple(key)


def moment(key: tuple[str, ...]) -> tuple[datetime, str]:
    """The sort key (time, id) out of a cursor. Raises BadCursor."""
    time, found = key
    known = canonical_id(found)
    try:
        at = datetime.fromisoformat(time)
        in_utc = at.astimezone(UTC)  # near the ends of datetime's range there is none
    except (ValueError, OverflowError):
        raise BadCursor from None
    if known is None or at.tzinfo is None:
        raise BadCursor
    return in_utc, known


def page(items: list[T], limit: int, key: Callable[[T], tuple[str, ...]]) -> Page[T]:
    """The first `limit` of the `limit` + 1 items that were asked for; `key` is the list's sort key."""
    kept = tuple(items[:limit])
    return Page(kept, encode_cursor(*key(kept[-1])) if len(items) > limit else None)
