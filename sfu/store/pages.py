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
"""A sort key (time, id) above every row: where a list that shows the newest first begins."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list. `next` is the cursor of the next page, None on the last one."""

    items: tuple[T, ...]
    next: str | None


def encode_cursor(*key: str) -> str:
    """Encodes the sort key of a page's last item. Clients must treat cursors as opaque."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, length: int) -> tuple[str, ...]:
    """The sort key in a cursor, which must have `length` parts. Raises BadCursor."""
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):
        raise BadCursor from None
    if not isinstance(key, list) or len(key) != length or not all(isinstance(part, str) for part in key):
        raise BadCursor
    return tuple(key)


def moment(key: tuple[str, ...]) -> tuple[datetime, str]:
    """Parses the sort key (time, id) of a cursor. Raises BadCursor."""
    time, found = key
    known = canonical_id(found)
    try:
        at = datetime.fromisoformat(time)
        in_utc = at.astimezone(UTC)  # overflows near the ends of datetime's range
    except (ValueError, OverflowError):
        raise BadCursor from None
    if known is None or at.tzinfo is None:
        raise BadCursor
    return in_utc, known


def page(items: list[T], limit: int, key: Callable[[T], tuple[str, ...]]) -> Page[T]:
    """A page with the first `limit` of `items`, which were queried with a limit of `limit` + 1.

    `key` returns the sort key of an item.
    """
    kept = tuple(items[:limit])
    return Page(kept, encode_cursor(*key(kept[-1])) if len(items) > limit else None)
