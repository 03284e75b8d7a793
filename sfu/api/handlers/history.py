"""History: sessions, and the usage of rooms by day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sfu.api.handlers.requests import ApiRequest, ApiResponse, found_room, moment, plain
from sfu.api.refusals import BadField
from sfu.store import Store
from sfu.store.records import RoomDay, Session

DEFAULT_DAYS = 30


class HistoryHandlers:
    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    async def list_sessions(self, call: ApiRequest) -> ApiResponse:
        page = await self._store.history.room_sessions(
            call.company.id, call.path["room_id"], cursor=call.query.get("cursor"), limit=call.query["limit"]
        )
        if not page.items and not call.query.get("cursor"):
            await found_room(
                self._store, call
            )  # 404 only if there is neither history nor room: history outlives its room
        return ApiResponse({"items": [_session(session) for session in page.items], "next": page.next})

    async def user_rooms(self, call: ApiRequest) -> ApiResponse:
        rooms = await self._store.history.user_rooms(call.company.id, call.path["user_name"])
        items = [
            {"room_id": r.room_id, "name": r.name, "participant_count": r.participants, "since": moment(r.since)}
            for r in rooms
        ]
        return ApiResponse({"items": items})

    async def room_days(self, call: ApiRequest) -> ApiResponse:
        last = _day(call.query.get("to")) or self._clock().astimezone(UTC).date()
        first = _day(call.query.get("from")) or max(date.min + timedelta(DEFAULT_DAYS), last) - timedelta(
            DEFAULT_DAYS - 1
        )
        if first > last:
            raise BadField("from", "must not be after `to`")
        page = await self._store.history.room_days(
            call.company.id, first, last, cursor=call.query.get("cursor"), limit=call.query["limit"]
        )
        items = [_room_day(day) for day in page.items]
        return ApiResponse({"from": first.isoformat(), "to": last.isoformat(), "items": items, "next": page.next})


def _session(session: Session) -> dict[str, Any]:
    names = ("id", "room_id", "user_name", "token_id", "peer_address", "connected_at", "last_seen_at")
    return (
        plain(session, (*names, "disconnected_at", "leave_reason", "duration_s"))
        | asdict(session.drops)
        | asdict(session.quality)
    )


def _room_day(day: RoomDay) -> dict[str, Any]:
    return {
        "date": day.day.isoformat(),
        "room_id": day.room_id,
        "unique_users": day.unique_users,
        "total_sessions": day.sessions,
        "avg_session_duration_s": day.avg_duration_s,
        "total_duration_s": day.total_duration_s,
        "peak_concurrency": day.peak_concurrency,
        "avg_score": day.avg_score,
        "min_score": day.min_score,
    }


def _day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)
