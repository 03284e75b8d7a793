"""What a company conducts in a running call: who may do what, the lobby, the spotlight, messages, moves."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sfu.api.handlers.calls import line_of, participant
from sfu.api.handlers.requests import ApiRequest, ApiResponse, Calls, check_here, found_room, moment, place_of
from sfu.api.refusals import BadField, ParticipantNotFound, ScopeMissing, WaiterNotFound
from sfu.calls.lobby import Waiter
from sfu.calls.registry import Seat
from sfu.logs import quoted
from sfu.protocol.client_messages import CHAT_BYTES
from sfu.refusals import NoCall, RoomElsewhere
from sfu.store import Store
from sfu.store.records import Line
from sfu.tenancy.scopes import allows

DATA_BYTES = 1 << 14


def _waiting(waiter: Waiter) -> dict[str, Any]:
    grant = waiter.entry.grant
    return {
        "id": waiter.id,
        "user_name": waiter.entry.user_name,
        "user_id": grant.user_id if grant else "",
        "token_id": grant.id if grant else None,
        "waiting_since": moment(_whole_ms(waiter.since)),
    }


class ConductHandlers:
    def __init__(self, store: Store, calls: Calls) -> None:
        self._store = store
        self._conduct = calls.conduct

    # --- one participant ----------------------------------------------------------------------------------------------

    async def get_participant(self, call: ApiRequest) -> ApiResponse:
        return _described(await self._seat(call))

    async def change_participant(self, call: ApiRequest) -> ApiResponse:
        seat = await self._seat(call)
        about = {"name": quoted(seat.peer.name)}
        changed = self._conduct.permits.change(
            seat, call.author, name=call.body.get("user_name"), permissions=call.body.get("permissions")
        )
        allowed = [name for name, yes in seat.peer.permissions.to_json().items() if yes]
        about |= {"shown": quoted(seat.peer.name), "may": ",".join(allowed) or "nothing"}
        return ApiResponse(_described(seat).body, about=about, changed=changed)

    async def move_participant(self, call: ApiRequest) -> ApiResponse:
        seat, to = await self._seat(call), call.body["room_id"]
        if to == call.path["room_id"]:
            raise BadField("room_id", "is the room that they are in")
        if (server := await self._store.sessions.elsewhere(call.company.id, to)) is not None:
            raise RoomElsewhere(server)
        may = replace(seat.peer.permissions, **({"moderate": False} | call.body.get("permissions", {})))
        if may.moderate and not allows(call.scopes, "rooms:write"):
            raise ScopeMissing("rooms:write", "A token with `moderate` changes its room.")
        grant = await self._conduct.moves.move(call.company, seat, to, may, call.author)
        about = {"name": quoted(seat.peer.name), "to": quoted(to), "token": grant.id}
        return ApiResponse(about=about)

    async def turn_spotlight(self, call: ApiRequest) -> ApiResponse:
        session_id, room = call.body["session_id"], self._conduct.room(*place_of(call))
        if room is None:
            await found_room(self._store, call)
            await check_here(self._store, call)
            raise NoCall
        if session_id is None:
            self._conduct.spotlights.turn(room, None, call.author)
            return ApiResponse()
        seat = self._conduct.seat(*place_of(call), session_id)
        if seat is None or seat.peer.id not in room.peers:
            raise ParticipantNotFound
        self._conduct.spotlights.turn(room, seat.peer.id, call.author)
        return ApiResponse(about={"session": session_id, "name": quoted(seat.peer.name)})

    async def _seat(self, call: ApiRequest) -> Seat:
        """The session that the path names. Raises ParticipantNotFound or RoomElsewhere."""
        seat = self._conduct.seat(*place_of(call), call.path["session_id"])
        if seat is None:
            await check_here(self._store, call)
            raise ParticipantNotFound
        return seat

    # --- what the company says ----------------------------------------------------------------------------------------

    async def send_message(self, call: ApiRequest) -> ApiResponse:
        size = len(json.dumps(call.body["data"], ensure_ascii=False).encode())
        if size > DATA_BYTES:
            raise BadField("data", f"must be at most {DATA_BYTES} bytes of JSON")
        seats = self._conduct.seats(*place_of(call))
        if not seats:
            await found_room(self._store, call)
            await check_here(self._store, call)
            raise NoCall
        if (to := call.body.get("to")) is not None:
            known = {seat.record.id: seat for seat in seats}
            if any(session_id not in known for session_id in to):
                raise ParticipantNotFound
            seats = [known[session_id] for session_id in dict.fromkeys(to)]
        key = "/".join(place_of(call))
        sent = self._conduct.messages.send(key, seats, call.body["topic"], call.body["data"], size, call.author)
        return ApiResponse({"delivered": sent}, about={"topic": quoted(call.body["topic"]), "delivered": str(sent)})

    async def add_line(self, call: ApiRequest) -> ApiResponse:
        text = call.body["text"]
        if len(text.encode()) > CHAT_BYTES or not text.strip():
            raise BadField("text", f"must be at most {CHAT_BYTES} bytes, and not only white space")
        room = await found_room(self._store, call)
        await check_here(self._store, call)
        line = self._conduct.messages.say(room, call.body["user_name"], text, call.author)
        body = line_of(Line(line.id, line.peer, line.name, line.text, line.time))
        return ApiResponse(body, {"Location": f"chat/{line.id}"}, {"line": line.id, "name": quoted(line.name)})

    # --- the lobby ----------------------------------------------------------------------------------------------------

    async def list_lobby(self, call: ApiRequest) -> ApiResponse:
        await found_room(self._store, call)
        waiting = self._conduct.waiting(*place_of(call))
        if not waiting:
            await check_here(self._store, call)
        return ApiResponse({"items": [_waiting(one) for one in waiting]})

    async def admit_all(self, call: ApiRequest) -> ApiResponse:
        await found_room(self._store, call)
        waiting = self._conduct.waiting(*place_of(call))
        if not waiting:
            await check_here(self._store, call)
        for waiter in waiting:
            waiter.invite(call.author)
        return ApiResponse({"admitted": len(waiting)}, about={"admitted": str(len(waiting))})

    async def admit_participant(self, call: ApiRequest) -> ApiResponse:
        waiter = await self._waiter(call)
        waiter.invite(call.author)
        return ApiResponse(about={"name": quoted(waiter.entry.user_name)})

    async def refuse_participant(self, call: ApiRequest) -> ApiResponse:
        waiter = await self._waiter(call)
        self._conduct.refuse(waiter, call.author)
        return ApiResponse(about={"name": quoted(waiter.entry.user_name)})

    async def _waiter(self, call: ApiRequest) -> Waiter:
        """Who waits under the id in the path. Raises WaiterNotFound or RoomElsewhere."""
        waiter = self._conduct.waiter(*place_of(call), call.path["waiter_id"])
        if waiter is None or waiter.decided.is_set():
            await check_here(self._store, call)
            raise WaiterNotFound
        return waiter


def _described(seat: Seat) -> ApiResponse:
    session = replace(seat.record, drops=seat.drops.now)
    return ApiResponse(participant(session, seat.peer.described(), seat.peer.permissions))


def _whole_ms(time: datetime) -> datetime:
    return datetime.fromtimestamp(round(time.timestamp(), 3), UTC)
