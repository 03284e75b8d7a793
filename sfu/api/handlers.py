"""REST handlers: each takes a validated request and returns a response. Each is named after its route."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any, Protocol
from urllib.parse import quote

from sfu.api.refusals import BadField, BanNotFound, LineNotFound, ParticipantNotFound, TokenNotFound
from sfu.calls.admission import verified
from sfu.calls.chat import file_info
from sfu.errors import Removed, SfuError
from sfu.logs import quoted
from sfu.protocol.server_messages import Participant
from sfu.refusals import NoCall, RoomChanged, RoomElsewhere, RoomNotFound, TokenError
from sfu.store import Store
from sfu.store.records import Company, Line, Room, RoomDay, RoomSettings, Session, Token
from sfu.store.tokens import held_against
from sfu.tenancy import tokens

DEFAULT_DAYS = 30

_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')


class Calls(Protocol):
    """The calls of this server, as the API changes and ends them. No method waits."""

    def end_token(self, token_id: str) -> None:
        """Ends the sessions of a token that was revoked."""

    def end_room(self, company_id: str, room_id: str) -> None:
        """Ends the call in a room that was deleted."""

    def end_call(self, company_id: str, room_id: str) -> bool:
        """Ends the call for everybody. False if nobody is in it or in its lobby."""

    def change_room(self, room: Room) -> None:
        """Applies changed room settings to the call."""

    def participants(self, company_id: str, room_id: str) -> list[tuple[Session, Participant]]:
        """The participants of the call."""

    def mute(self, company_id: str, room_id: str, session_id: str, source: str) -> bool:
        """Mutes a source of a participant. False if the session is not in the call. Raises BadSource."""

    def remove(self, company_id: str, room_id: str, session_id: str) -> bool:
        """Removes and bans a participant. False if the session is not in the call."""

    def chat_deleted(self, company_id: str, room_id: str, line_id: str) -> None:
        """A chat line was deleted: the participants are told."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """An authenticated and validated request. `if_match` is the text of the header, or None."""

    company: Company
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]
    if_match: str | None


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """`about` says in the log what was changed, besides what the path names; nothing is logged unless `changed`."""

    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    changed: bool = True


class Handlers:
    def __init__(self, store: Store, calls: Calls, clock: Callable[[], datetime], max_participants: int) -> None:
        self._store = store
        self._calls = calls
        self._clock = clock
        self._max_participants = max_participants

    # --- tokens -------------------------------------------------------------------------------------------------------

    async def issue_token(self, call: ApiRequest) -> ApiResponse:
        grant = tokens.grant(
            company_id=call.company.id,
            room_id=call.body["room_id"],
            user_name=call.body["user_name"],
            duration_s=call.body["duration"],
            now=self._clock(),
            permissions=tokens.Permissions.of(call.body.get("permissions", {})),
        )
        token = tokens.encode(grant, self._store.companies.secret(call.company).reveal())
        await self._store.tokens.add(grant, token, single_use=call.body["single_use"])
        body = {
            "token": token,
            "expires_at": moment(grant.expires_at),
            "room_id": grant.room_id,
            "user_name": grant.user_name,
        }
        about = {"issued": grant.id, "name": quoted(grant.user_name)}
        return ApiResponse(body, {"Location": f"tokens/{grant.id}"}, about)

    async def list_tokens(self, call: ApiRequest) -> ApiResponse:
        page = await self._store.tokens.list(
            call.company.id, cursor=call.query.get("cursor"), limit=call.query["limit"]
        )
        return ApiResponse({"items": [_token(token) for token in page.items], "next": page.next})

    async def revoke_token(self, call: ApiRequest) -> ApiResponse:
        before = await self._store.tokens.get(call.company.id, call.path["token_id"])
        token = await self._store.tokens.revoke(call.company.id, call.path["token_id"])
        if token is None:
            raise TokenNotFound
        self._calls.end_token(token.id)
        room = quoted(f"{token.company_id}/{token.room_id}")
        about = {"room": room, "name": quoted(token.user_name)}
        return ApiResponse(about=about, changed=before is None or before.revoked_at is None)

    async def inspect_token(self, call: ApiRequest) -> ApiResponse:
        token, now = call.body["token"], self._clock()
        secret: bytes | None = None
        recorded: SfuError | None = None
        try:
            if tokens.peek(token) == call.company.id:
                secret = self._store.companies.secret(call.company).reveal()
                _, grant = await verified(self._store, token, now)
                recorded = held_against(await self._store.tokens.get(call.company.id, grant.id))
                who = (grant.company_id, grant.room_id, grant.user_name)
                if recorded is None and await self._store.bans.holds(*who, token_id=grant.id, address=""):
                    recorded = Removed()
        except TokenError:
            pass  # tokens.inspect finds the same error and explains it
        found = tokens.inspect(token, secret, now, recorded)
        return ApiResponse({spec.name: getattr(found, spec.name) for spec in fields(found)})

    # --- rooms --------------------------------------------------------------------------------------------------------

    async def list_rooms(self, call: ApiRequest) -> ApiResponse:
        page = await self._store.rooms.list(call.company.id, cursor=call.query.get("cursor"), limit=call.query["limit"])
        return ApiResponse({"items": [_room(room) for room in page.items], "next": page.next})

    async def create_room(self, call: ApiRequest) -> ApiResponse:
        changes = {name: value for name, value in call.body.items() if name != "room_id"}
        settings = RoomSettings(**{"max_participants": self._max_participants, **changes})
        room = await self._store.rooms.create(call.company.id, call.body["room_id"], settings)
        answer = await self._described(room)
        return ApiResponse(answer.body, answer.headers | {"Location": f"rooms/{_segment(room.room_id)}"})

    async def get_room(self, call: ApiRequest) -> ApiResponse:
        return await self._described(await self._room(call))

    async def change_room(self, call: ApiRequest) -> ApiResponse:
        judge = partial(_require, call.if_match)
        changed = await self._store.rooms.update(call.company.id, call.path["room_id"], call.body, judge=judge)
        self._calls.change_room(changed)
        answer = await self._described(changed)
        return ApiResponse(answer.body, answer.headers, {"changed": ",".join(sorted(call.body))})

    async def delete_room(self, call: ApiRequest) -> ApiResponse:
        judge = partial(_require, call.if_match)
        await self._store.rooms.delete(call.company.id, call.path["room_id"], judge=judge)
        self._calls.end_room(call.company.id, call.path["room_id"])
        return ApiResponse()

    async def _room(self, call: ApiRequest) -> Room:
        room = await self._store.rooms.get(call.company.id, call.path["room_id"])
        if room is None:
            raise RoomNotFound
        return room

    async def _described(self, room: Room) -> ApiResponse:
        present = await self._store.history.participants(room.company_id, room.room_id)
        people = [
            {"session_id": one.id, "user_name": one.user_name, "connected_at": moment(one.connected_at)}
            for one in present
        ]
        return ApiResponse(
            _room(room) | {"participant_count": len(people), "participants": people}, {"ETag": _etag(room)}
        )

    # --- calls --------------------------------------------------------------------------------------------------------

    async def list_participants(self, call: ApiRequest) -> ApiResponse:
        await self._room(call)
        present = self._calls.participants(call.company.id, call.path["room_id"])
        if not present:
            await self._check_here(call)
        return ApiResponse({"items": [_participant(session, person) for session, person in present]})

    async def remove_participant(self, call: ApiRequest) -> ApiResponse:
        about = self._person(call)
        if not self._calls.remove(call.company.id, call.path["room_id"], call.path["session_id"]):
            await self._check_here(call)
            raise ParticipantNotFound
        return ApiResponse(about=about)

    async def mute_participant(self, call: ApiRequest) -> ApiResponse:
        room_id, session_id = call.path["room_id"], call.path["session_id"]
        if not self._calls.mute(call.company.id, room_id, session_id, call.body["source"]):
            await self._check_here(call)
            raise ParticipantNotFound
        return ApiResponse(about=self._person(call) | {"source": call.body["source"]})

    def _person(self, call: ApiRequest) -> dict[str, str]:
        """The participant whose session the path names, for the log."""
        present = self._calls.participants(call.company.id, call.path["room_id"])
        names = [person.name for session, person in present if session.id == call.path["session_id"]]
        return {"name": quoted(names[0])} if names else {}

    async def end_call(self, call: ApiRequest) -> ApiResponse:
        await self._room(call)
        if not self._calls.end_call(call.company.id, call.path["room_id"]):
            await self._check_here(call)
            raise NoCall
        return ApiResponse()

    async def _check_here(self, call: ApiRequest) -> None:
        """Raises RoomElsewhere if another server has the call of this room."""
        server = await self._store.sessions.elsewhere(call.company.id, call.path["room_id"])
        if server is not None:
            raise RoomElsewhere(server)

    async def list_chat(self, call: ApiRequest) -> ApiResponse:
        page = await self._store.chat.list(
            call.company.id, call.path["room_id"], cursor=call.query.get("cursor"), limit=call.query["limit"]
        )
        if not page.items:
            await self._room(call)
        return ApiResponse({"items": [_line(line) for line in page.items], "next": page.next})

    async def delete_line(self, call: ApiRequest) -> ApiResponse:
        place = (call.company.id, call.path["room_id"], call.path["line_id"])
        if not await self._store.chat.delete(*place):
            raise LineNotFound
        self._calls.chat_deleted(*place)
        return ApiResponse()

    async def list_bans(self, call: ApiRequest) -> ApiResponse:
        page = await self._store.bans.list(
            call.company.id, call.path["room_id"], cursor=call.query.get("cursor"), limit=call.query["limit"]
        )
        if not page.items:
            await self._room(call)
        names = ("id", "user_name", "token_id", "address", "banned_by", "created_at", "expires_at")
        return ApiResponse({"items": [_plain(ban, names) for ban in page.items], "next": page.next})

    async def lift_ban(self, call: ApiRequest) -> ApiResponse:
        if await self._store.bans.lift(call.company.id, call.path["room_id"], call.path["ban_id"]) is None:
            raise BanNotFound
        return ApiResponse()

    # --- history ------------------------------------------------------------------------------------------------------

    async def list_sessions(self, call: ApiRequest) -> ApiResponse:
        page = await self._store.history.room_sessions(
            call.company.id, call.path["room_id"], cursor=call.query.get("cursor"), limit=call.query["limit"]
        )
        if not page.items and not call.query.get("cursor"):
            await self._room(call)  # 404 only if there is neither history nor room: history outlives its room
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


def _segment(name: str) -> str:
    """A name as a segment of a path. Clients would resolve `.` and `..`, and the server ignores the blank."""
    return f"%20{name}" if name in (".", "..") else quote(name, safe="")


def _etag(room: Room) -> str:
    """Changes with every edit, and when a room is deleted and created again, but not when somebody joins or leaves."""
    return f'"{room.id[:8]}.{room.version}"'


def _require(if_match: str | None, room: Room) -> None:
    """Raises RoomChanged unless If-Match fits.

    A weak tag counts too, against RFC 9110 section 13.1.1: proxies that compress responses make all tags weak, and a
    tag of ours names a version of the room, however it is encoded.
    """
    if if_match is not None and if_match.strip() != "*" and _etag(room) not in _ETAG.findall(if_match):
        raise RoomChanged


def _token(token: Token) -> dict[str, Any]:
    names = ("id", "room_id", "user_name", "single_use", "created_at", "expires_at", "used_at", "revoked_at")
    return _plain(token, names) | {"permissions": token.permissions.to_json()}


def _room(room: Room) -> dict[str, Any]:
    names = ("id", "room_id", *(spec.name for spec in fields(RoomSettings)))
    times = ("created_at", "updated_at", "last_join_at")
    return _plain(room, names + times) | {"participant_count": room.participants}


def _participant(session: Session, person: Participant) -> dict[str, Any]:
    tracks = [{"source": track.source, "kind": track.kind, "muted": track.muted} for track in person.tracks]
    return {
        "session_id": session.id,
        "peer": person.peer,
        "user_name": person.name,
        "moderator": person.moderator,
        "hand": person.hand,
        **asdict(session.drops),
        "tracks": tracks,
    }


def _line(line: Line) -> dict[str, Any]:
    file = None if line.file is None else file_info(line.file)
    return {
        "id": line.id,
        "user_name": line.user_name,
        "text": line.text,
        "sent_at": moment(datetime.fromtimestamp(line.sent_ms / 1000, UTC)),
        "file_name": file and file.name,
        "file_url": file and file.url,
    }


def _session(session: Session) -> dict[str, Any]:
    names = ("id", "room_id", "user_name", "token_id", "peer_address", "connected_at", "last_seen_at")
    return (
        _plain(session, (*names, "disconnected_at", "leave_reason", "duration_s"))
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


def _plain(record: object, names: Iterable[str]) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in names}
    return {name: moment(value) if isinstance(value, datetime) else value for name, value in values.items()}


def moment(time: datetime) -> str:
    """The time in UTC as RFC 3339, with milliseconds unless it has whole seconds."""
    precision = "milliseconds" if time.microsecond else "seconds"
    return time.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)
