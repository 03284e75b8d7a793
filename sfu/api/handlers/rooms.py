"""Rooms: their settings, and who is in them."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import partial
from typing import Any
from urllib.parse import quote

from sfu.api.handlers.requests import ApiRequest, ApiResponse, Calls, found_room, moment, plain
from sfu.refusals import RoomChanged
from sfu.store import Store
from sfu.store.records import Room, RoomSettings

_VERSION = re.compile(r'"([^".]*\.[^".]*)(?:\.[^"]*)?"')


class RoomHandlers:
    def __init__(self, store: Store, calls: Calls, max_participants: int) -> None:
        """`max_participants` applies to rooms that a request creates without saying."""
        self._store = store
        self._calls = calls
        self._max_participants = max_participants

    async def list_rooms(self, call: ApiRequest) -> ApiResponse:
        page = await self._store.rooms.list(call.company.id, cursor=call.query.get("cursor"), limit=call.query["limit"])
        return ApiResponse({"items": [_room(room) for room in page.items], "next": page.next})

    async def create_room(self, call: ApiRequest) -> ApiResponse:
        changes = {name: value for name, value in call.body.items() if name != "room_id"}
        settings = RoomSettings(**{"max_participants": self._max_participants, **changes})
        room = await self._store.rooms.create(call.company.id, call.body["room_id"], settings, call.author)
        answer = await self._described(room)
        return ApiResponse(answer.body, answer.headers | {"Location": f"rooms/{_segment(room.room_id)}"})

    async def get_room(self, call: ApiRequest) -> ApiResponse:
        return await self._described(await found_room(self._store, call))

    async def change_room(self, call: ApiRequest) -> ApiResponse:
        judge = partial(_require, call.if_match)
        place = (call.company.id, call.path["room_id"])
        changed = await self._store.rooms.update(*place, call.body, call.author, judge=judge)
        self._calls.change_room(changed)
        answer = await self._described(changed)
        return ApiResponse(answer.body, answer.headers, {"changed": ",".join(sorted(call.body))})

    async def delete_room(self, call: ApiRequest) -> ApiResponse:
        judge = partial(_require, call.if_match)
        await self._store.rooms.delete(call.company.id, call.path["room_id"], call.author, judge=judge)
        self._calls.end_room(call.company.id, call.path["room_id"])
        return ApiResponse()

    async def _described(self, room: Room) -> ApiResponse:
        present = await self._store.history.participants(room.company_id, room.room_id)
        people = [
            {"session_id": one.id, "user_name": one.user_name, "connected_at": moment(one.connected_at)}
            for one in present
        ]
        return ApiResponse(
            _room(room) | {"participant_count": len(people), "participants": people}, {"ETag": _etag(room)}
        )


def _segment(name: str) -> str:
    """A name as a segment of a path. Clients would resolve `.` and `..`, and the server ignores the blank."""
    return f"%20{name}" if name in (".", "..") else quote(name, safe="")


def _etag(room: Room) -> str:
    """Changes with every edit, and when a room is deleted and created again, but not when somebody joins or leaves."""
    return f'"{room.id[:8]}.{room.version}"'


def _require(if_match: str | None, room: Room) -> None:
    """Raises RoomChanged unless If-Match fits.

    The tags of GET have a third part, for the rest of the answer (sfu.api.answering).

    A weak tag counts too, against RFC 9110 section 13.1.1: proxies that compress responses make all tags weak, and a
    tag of ours names a version of the room, however it is encoded.
    """
    if if_match is None or if_match.strip() == "*":
        return
    if _etag(room) not in (f'"{tag}"' for tag in _VERSION.findall(if_match)):
        raise RoomChanged


def _room(room: Room) -> dict[str, Any]:
    names = ("id", "room_id", *(spec.name for spec in fields(RoomSettings)))
    times = ("created_at", "updated_at", "last_join_at")
    return plain(room, names + times) | {"participant_count": room.participants}
