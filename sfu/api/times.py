"""Times in requests. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from sfu.api.refusals import BadField
from sfu.api.schemas.common import Schema, described
from sfu.store.trail import FIRST, LAST

INSTANT: Schema = described({"type": "string", "format": "date-time"}, "A time with its zone, as 2026-01-31T12:00:00Z.")


def instant(text: str, field: str) -> datetime:
    """A time of a request (RFC 3339), in UTC. Raises BadField.

    The `+` of a zone may have become a blank: in a query it stands for one, unless it is written as %2B.
    """
    try:
        found: datetime | None = datetime.fromisoformat(text.upper().replace(" ", "+") if "T" in text.upper() else "")
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise BadField(field, "must be a time such as 2026-01-31T12:00:00Z")
    try:
        return min(max(found.astimezone(UTC), FIRST), LAST)
    except OverflowError:  # it exists in its own time zone only
        return FIRST if found.year == 1 else LAST
