"""The audit log of a company."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sfu.api.handlers.requests import ApiRequest, ApiResponse, moment
from sfu.api.times import instant
from sfu.store import Store
from sfu.store.trail import FIRST, LAST, Entry, Wanted


class AuditHandlers:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def list_audit(self, call: ApiRequest) -> ApiResponse:
        query = call.query
        wanted = Wanted(
            call.company.id,
            instant(query["from"], "from") if "from" in query else FIRST,
            instant(query["to"], "to") if "to" in query else LAST,
            query.get("room", ""),
            query.get("user", ""),
            query.get("action", ""),
            query.get("by", ""),
        )
        page = await self._store.trail.list(wanted, cursor=query.get("cursor"), limit=query["limit"])
        return ApiResponse({"items": [_entry(entry) for entry in page.items], "next": page.next})


OPERATORS = ("command", "admin")
"""Authors that a company did not choose. It learns that they did something, not their names and where they live."""


def _entry(entry: Entry) -> dict[str, Any]:
    author, change = entry.author, entry.change
    if author.kind in OPERATORS:
        author = replace(author, name="", address="")
    return {
        "id": entry.id,
        "at": moment(entry.at),
        "by_kind": author.kind,
        "by_id": author.id,
        "by_name": author.name,
        "address": author.address,
        "request_id": author.request_id,
        "action": change.action,
        "room_id": change.room_id,
        "target": change.target,
        "user_name": change.user_name,
        "session_id": change.session_id,
        "before": change.before,
        "after": change.after,
    }
