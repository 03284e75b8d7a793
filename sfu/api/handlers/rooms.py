"""Rooms: their settings, and who is in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any
from urllib.parse import quote

from sfu.api.handlers.requests import ApiRequest, ApiResponse, Calls, found_room, moment, plain
from sfu.api.schemas import DEFINITIONS
from sfu.api.validation import bounded
from sfu.refusals import RoomChanged, RoomExists
from sfu.store import Store
from sfu.store.records import Room, RoomSettings
from sfu.store.rooms import Changes

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
        room, made = await self._made(call, settings)
        answer = await self._described(room)
        headers = answer.headers | {"Location": f"rooms/{_segment(room.room_id)}"}
        return ApiResponse(answer.body, headers, changed=made, status=201 if made else 200)

    async def _made(self, call: ApiRequest, settings: RoomSettings) -> tuple[Room, bool]:
        """The room, and whether it is new. Raises RoomExists unless the room that exists is wanted."""
        place = (call.company.id, call.body["room_id"])
        try:
            return await self._store.rooms.create(*place, settings, call.author), True
        except RoomExists:
            room = await self._store.rooms.get(*place) if call.query["if_exists"] == "return" else None
            if room is None:  # or it was deleted in between, and the client tries again
                raise
            return room, False

    async def get_room(self, call: ApiRequest) -> ApiResponse:
        return await self._described(await found_room(self._store, call))

    async def change_room(self, call: ApiRequest) -> ApiResponse:
        return await self._change(call, call.body)

    async def patch_room(self, call: ApiRequest) -> ApiResponse:
        return await self._change(call, partial(_merged, call.body))

    async def _change(self, call: ApiRequest, changes: Changes) -> ApiResponse:
        judge = partial(_require, call.if_match)
        place = (call.company.id, call.path["room_id"])
        changed = await self._store.rooms.update(*place, changes, call.author, judge=judge)
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


def _merged(patch: Mapping[str, Any], room: Room) -> Mapping[str, Any]:
    """The changes that a merge patch makes. Raises BadField if the room's metadata would become too large."""
    if "metadata" not in patch:
        return patch
    metadata = _merge(room.metadata, patch["metadata"])
    return {**patch, "metadata": bounded(DEFINITIONS["Metadata"], metadata, "metadata")}


def _merge(target: Any, patch: Mapping[str, Any]) -> dict[str, Any]:
    """RFC 7396 section 2, for a patch that is an object."""
    found = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = _merge(found.get(name), value) if isinstance(value, Mapping) else value
    return found


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
