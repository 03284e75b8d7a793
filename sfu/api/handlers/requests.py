"""What handlers take and return, the calls they act on, and the values that several of them use."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from sfu.api.times import instant
from sfu.calls.conduct import Conduct
from sfu.protocol.server_messages import Participant
from sfu.refusals import RoomElsewhere, RoomNotFound
from sfu.store import Store
from sfu.store.audit import Author
from sfu.store.filters import Wanted
from sfu.store.records import Company, Room, Session
from sfu.store.trail import FIRST, LAST


class Calls(Protocol):
    """The calls of this server, as the API changes and ends them. No method waits. Those that take an author record
    what they do in the audit log; what the others do, the store has recorded already."""

    @property
    def conduct(self) -> Conduct:
        """What a company conducts in its calls."""

    def end_token(self, token_id: str) -> None:
        """Ends the sessions of a token that was revoked."""

    def end_room(self, company_id: str, room_id: str) -> None:
        """Ends the call in a room that was deleted."""

    def end_call(self, company_id: str, room_id: str, author: Author) -> bool:
        """Ends the call for everybody. False if nobody is in it or in its lobby."""

    def change_room(self, room: Room) -> None:
        """Applies changed room settings to the call."""

    def participants(self, company_id: str, room_id: str) -> list[tuple[Session, Participant]]:
        """The participants of the call."""

    def mute(self, company_id: str, room_id: str, session_id: str, source: str, author: Author) -> bool:
        """Mutes a source of a participant. False if the session is not in the call. Raises BadSource."""

    def remove(self, company_id: str, room_id: str, session_id: str, author: Author) -> bool:
        """Removes and bans a participant. False if the session is not in the call."""

    def chat_deleted(self, company_id: str, room_id: str, line_id: str) -> None:
        """A chat line was deleted: the participants are told."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """An authenticated and validated request, and who sent it. `if_match` is the text of the header, or None.

    `once` is a UUID that a repeated request with the same Idempotency-Key has, too, if the server died before it could
    keep the answer; None without such a key. What a handler makes under ids that follow from it is made once.
    """

    company: Company
    author: Author
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]
    if_match: str | None
    once: str | None = None
    scopes: Collection[str] = ()
    """Of the API key that asks."""


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """`about` says in the log what was changed, besides what the path names; nothing is logged unless `changed`.
    `status` replaces that of the route."""

    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    changed: bool = True
    status: int | None = None


async def found_room(store: Store, call: ApiRequest) -> Room:
    """The room that the path names. Raises RoomNotFound."""
    room = await store.rooms.get(call.company.id, call.path["room_id"])
    if room is None:
        raise RoomNotFound
    return room


def place_of(call: ApiRequest) -> tuple[str, str]:
    """The company and the room that the path names."""
    return call.company.id, call.path["room_id"]


async def check_here(store: Store, call: ApiRequest) -> None:
    """Raises RoomElsewhere if another server has the call of this room."""
    server = await store.sessions.elsewhere(call.company.id, call.path["room_id"])
    if server is not None:
        raise RoomElsewhere(server)


def narrowed(call: ApiRequest) -> Wanted:
    """What the query narrows a list to, and how it sorts it. Raises BadField."""
    query = call.query
    return Wanted(
        call.company.id,
        instant(query["from"], "from") if "from" in query else FIRST,
        instant(query["to"], "to") if "to" in query else LAST,
        call.path.get("room_id") or query.get("room", ""),
        query.get("user", ""),
        query.get("state", ""),
        ascending=not query["sort"].startswith("-"),
    )


def plain(record: object, names: Iterable[str]) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in names}
    return {name: moment(value) if isinstance(value, datetime) else value for name, value in values.items()}


def moment(time: datetime) -> str:
    """The time in UTC as RFC 3339, with milliseconds unless it has whole seconds."""
    precision = "milliseconds" if time.microsecond else "seconds"
    return time.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")
