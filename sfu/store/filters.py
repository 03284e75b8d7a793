"""What lists of tokens and sessions can be narrowed to and sorted by, as parts and values of their statements. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sfu.store.pages import NEWEST, decode_cursor, moment
from sfu.store.trail import FIRST, LAST

OLDEST = (FIRST.isoformat(), "00000000-0000-0000-0000-000000000000")
"""A sort key (time, id) below every row."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows of a company a list has, from `since` until before `until`. Empty texts mean all.

    `user` is a name, or the company's own id of a person. `state` is a name that the list has for a condition.
    `ascending`: the oldest first.
    """

    company_id: str
    since: datetime = FIRST
    until: datetime = LAST
    room_id: str = ""
    user: str = ""
    state: str = ""
    ascending: bool = False

    def order(self, column: str) -> dict[str, str]:
        """The parts of a statement that begin behind the cursor, and sort by a column with times and the id."""
        direction, sign = ("ASC", ">") if self.ascending else ("DESC", "<")
        return {"after": f"({column}, id) {sign} (:at, :id)", "order": f"{column} {direction}, id {direction}"}

    def values(self, cursor: str | None) -> dict[str, Any]:
        """The values of the statement. Raises BadCursor."""
        at, after = moment(decode_cursor(cursor, 2) if cursor else OLDEST if self.ascending else NEWEST)
        return {
            "company_id": self.company_id,
            "since": self.since,
            "until": self.until,
            "room_id": self.room_id,
            "user": self.user,
            "at": at,
            "id": after,
        }
