"""History: sessions, and the usage of rooms by day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from sfu.api.handlers.requests import ApiRequest, ApiResponse, found_room, moment, narrowed, plain
from sfu.api.refusals import BadField, SessionNotFound
from sfu.store import Store
from sfu.store.records import RoomDay, Session

DEFAULT_DAYS = 30


class HistoryHandlers:
    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    async def list_sessions(self, call: ApiRequest) -> ApiResponse:
        answer = await self.all_sessions(call)
        if not (answer.body or {})["items"] and not call.query.get("cursor"):
            place = (call.company.id, call.path["room_id"])
            if not (await self._store.history.room_sessions(*place, limit=1)).items:
                await found_room(self._store, call)  # 404 only if there is neither: history outlives its room
        return answer

    async def all_sessions(self, call: ApiRequest) -> ApiResponse:
        page = await self._store.history.sessions(
            narrowed(call), cursor=call.query.get("cursor"), limit=call.query["limit"]
        )
        return ApiResponse({"items": [_session(session) for session in page.items], "next": page.next})

    async def get_session(self, call: ApiRequest) -> ApiResponse:
        session = await self._store.history.session(call.company.id, call.path["session_id"])
        if session is None:
            raise SessionNotFound
        return ApiResponse(_session(session))

    async def user_rooms(self, call: ApiRequest) -> ApiResponse:
        rooms = await self._store.history.user_rooms(call.company.id, call.path["user_name"])
        items = [
            {"room_id": r.room_id, "name": r.name, "participant_count": r.participants, "since": moment(r.since)}
            for r in rooms
        ]
        return ApiResponse({"items": items})

    async def room_days(self, call: ApiRequest) -> ApiResponse:
        zone = _zone(call.query["tz"])
        last = _day(call.query.get("to")) or self._clock().astimezone(zone).date()
        first = _day(call.query.get("from")) or max(date.min + timedelta(DEFAULT_DAYS), last) - timedelta(
            DEFAULT_DAYS - 1
        )
        if first > last:
            raise BadField("from", "must not be after `to`")
        history, more = self._store.history, {"cursor": call.query.get("cursor"), "limit": call.query["limit"]}
        if zone is UTC:
            page = await history.room_days(call.company.id, first, last, **more)
        else:
            page = await history.zone_days(call.company.id, first, last, zone, **more)
        items = [_room_day(day) for day in page.items]
        return ApiResponse({"from": first.isoformat(), "to": last.isoformat(), "items": items, "next": page.next})


def _session(session: Session) -> dict[str, Any]:
    who = ("id", "room_id", "user_name", "user_id", "token_id", "peer_address")
    return (
        plain(session, (*who, "connected_at", "last_seen_at", "disconnected_at", "leave_reason", "duration_s"))
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


def _zone(name: str) -> tzinfo:
    """A time zone. Raises BadField."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, no zone at all, or a folder of zones
        raise BadField("tz", "must be a time zone such as Europe/Berlin") from None
