"""The call in a room: its participants, chat and bans."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sfu.api.handlers.requests import ApiRequest, ApiResponse, Calls, check_here, found_room, moment, place_of, plain
from sfu.api.refusals import BanNotFound, LineNotFound, ParticipantNotFound
from sfu.calls.chat import file_info
from sfu.calls.rooms import COMPANY
from sfu.logs import quoted
from sfu.protocol.server_messages import Participant
from sfu.refusals import NoCall
from sfu.store import Store
from sfu.store.records import Line, Session
from sfu.tenancy.tokens import Permissions


class CallHandlers:
    def __init__(self, store: Store, calls: Calls) -> None:
        self._store = store
        self._calls = calls

    async def list_participants(self, call: ApiRequest) -> ApiResponse:
        await found_room(self._store, call)
        present = self._calls.participants(call.company.id, call.path["room_id"])
        if not present:
            await check_here(self._store, call)
        may = {one.record.id: one.peer.permissions for one in self._calls.conduct.seats(*place_of(call))}
        items = [participant(session, person, may[session.id]) for session, person in present]
        return ApiResponse({"items": items})

    async def remove_participant(self, call: ApiRequest) -> ApiResponse:
        about = self._person(call)
        if not self._calls.remove(call.company.id, call.path["room_id"], call.path["session_id"], call.author):
            await check_here(self._store, call)
            raise ParticipantNotFound
        return ApiResponse(about=about)

    async def mute_participant(self, call: ApiRequest) -> ApiResponse:
        room_id, session_id = call.path["room_id"], call.path["session_id"]
        if not self._calls.mute(call.company.id, room_id, session_id, call.body["source"], call.author):
            await check_here(self._store, call)
            raise ParticipantNotFound
        return ApiResponse(about=self._person(call) | {"source": call.body["source"]})

    def _person(self, call: ApiRequest) -> dict[str, str]:
        """The participant whose session the path names, for the log."""
        present = self._calls.participants(call.company.id, call.path["room_id"])
        names = [person.name for session, person in present if session.id == call.path["session_id"]]
        return {"name": quoted(names[0])} if names else {}

    async def end_call(self, call: ApiRequest) -> ApiResponse:
        await found_room(self._store, call)
        if not self._calls.end_call(call.company.id, call.path["room_id"], call.author):
            await check_here(self._store, call)
            raise NoCall
        return ApiResponse()

    async def list_chat(self, call: ApiRequest) -> ApiResponse:
        page = await self._store.chat.list(
            call.company.id, call.path["room_id"], cursor=call.query.get("cursor"), limit=call.query["limit"]
        )
        if not page.items:
            await found_room(self._store, call)
        return ApiResponse({"items": [line_of(line) for line in page.items], "next": page.next})

    async def delete_line(self, call: ApiRequest) -> ApiResponse:
        place = (call.company.id, call.path["room_id"], call.path["line_id"])
        if not await self._store.chat.delete(*place, call.author):
            raise LineNotFound
        self._calls.chat_deleted(*place)
        return ApiResponse()

    async def list_bans(self, call: ApiRequest) -> ApiResponse:
        page = await self._store.bans.list(
            call.company.id, call.path["room_id"], cursor=call.query.get("cursor"), limit=call.query["limit"]
        )
        if not page.items:
            await found_room(self._store, call)
        names = ("id", "user_name", "token_id", "address", "banned_by", "created_at", "expires_at")
        return ApiResponse({"items": [plain(ban, names) for ban in page.items], "next": page.next})

    async def lift_ban(self, call: ApiRequest) -> ApiResponse:
        place = (call.company.id, call.path["room_id"], call.path["ban_id"])
        if await self._store.bans.lift(*place, call.author) is None:
            raise BanNotFound
        return ApiResponse()


def participant(session: Session, person: Participant, may: Permissions) -> dict[str, Any]:
    tracks = [{"source": track.source, "kind": track.kind, "muted": track.muted} for track in person.tracks]
    return {
        "session_id": session.id,
        "peer": person.peer,
        "user_name": person.name,
        "user_id": session.user_id,
        "moderator": person.moderator,
        "permissions": may.to_json(),
        "hand": person.hand,
        **asdict(session.drops),
        "tracks": tracks,
    }


def line_of(line: Line) -> dict[str, Any]:
    file = None if line.file is None else file_info(line.file)
    return {
        "id": line.id,
        "user_name": line.user_name,
        "company": line.peer == COMPANY,
        "text": line.text,
        "sent_at": moment(datetime.fromtimestamp(line.sent_ms / 1000, UTC)),
        "file_name": file and file.name,
        "file_url": file and file.url,
    }
