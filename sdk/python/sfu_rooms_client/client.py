"""The client: tokens, rooms, participants and sessions."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Unpack, cast

from sfu_rooms_client.errors import ApiError
from sfu_rooms_client.transport import Transport, segment
from sfu_rooms_client.types import (
    Inspection,
    IssuedToken,
    Participant,
    Room,
    RoomSettings,
    Session,
    Token,
    TokenOptions,
    TokenRequest,
    UserRoom,
)


class Client:
    """Asks a server with an API key. Every method raises ApiError. Threads may share a client.

    `timeout_s` is how long each attempt may wait for an answer, `attempts` how often a request is sent at most.
    """

    def __init__(self, base_url: str, key: str, *, timeout_s: float = 20.0, attempts: int = 4) -> None:
        if attempts < 1:
            raise ValueError("There must be at least one attempt.")
        self._transport = Transport(base_url, key, timeout_s, attempts)
        self.tokens = Tokens(self._transport)
        self.rooms = Rooms(self._transport)
        self.participants = Participants(self._transport)
        self.sessions = Sessions(self._transport)

    def link(self, token: str, *, preview: bool = True) -> str:
        """Where a person enters with a token; without a preview of camera and microphone if it is False."""
        asked = {"token": token} | ({} if preview else {"preview": "off"})
        return f"{self._transport.base_url}/?{urllib.parse.urlencode(asked)}"

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        idempotency_key: str = "",
    ) -> Any:
        """Any other request to the API, such as `request("GET", "/audit", query={"limit": 10})`."""
        return self._transport.send(method, path, body, query=query, idempotency_key=idempotency_key).body


class _Resource:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport


class Tokens(_Resource):
    def issue(
        self, room_id: str, user_name: str, *, idempotency_key: str = "", **options: Unpack[TokenOptions]
    ) -> IssuedToken:
        """Creates a token for one person and one room."""
        body = _token({"room_id": room_id, "user_name": user_name, **options})
        return cast(IssuedToken, self._transport.send("POST", "/tokens", body, idempotency_key=idempotency_key).body)

    def bulk(self, requests: Sequence[TokenRequest], *, idempotency_key: str = "") -> list[IssuedToken]:
        """Creates up to 100 tokens: all of them, or none."""
        body = {"tokens": [_token(one) for one in requests]}
        answer = self._transport.send("POST", "/tokens/bulk", body, idempotency_key=idempotency_key).body
        return cast(list[IssuedToken], answer["items"])

    def inspect(self, token: str) -> Inspection:
        """Whether a token is accepted now, and if not, why."""
        return cast(Inspection, self._transport.send("POST", "/tokens/inspect", {"token": token}).body)

    def get(self, token_id: str) -> Token:
        return cast(Token, self._transport.send("GET", f"/tokens/{segment(token_id)}").body)

    def list(self, *, room: str | None = None, user: str | None = None, state: str | None = None) -> Iterator[Token]:
        """Newest first. `user` is a name, or your id of the person."""
        return self._transport.pages("/tokens", {"room": room, "user": user, "state": state})

    def revoke(self, token_id: str) -> None:
        """For good; it ends the call of whoever entered with it."""
        self._transport.send("DELETE", f"/tokens/{segment(token_id)}")


class Rooms(_Resource):
    def create(self, room_id: str, *, idempotency_key: str = "", **settings: Unpack[RoomSettings]) -> Room:
        """Raises ApiError with the code `room_exists` if there is one."""
        body = {"room_id": room_id, **settings}
        return cast(Room, self._transport.send("POST", "/rooms", body, idempotency_key=idempotency_key).body)

    def get_or_create(self, room_id: str, **settings: Unpack[RoomSettings]) -> Room:
        """A room that exists is returned as it is: the settings are only those of a new one."""
        try:
            return self.create(room_id, **settings)
        except ApiError as error:
            if error.code != "room_exists":
                raise
        return self.get(room_id)

    def get(self, room_id: str) -> Room:
        """The room and who is in it now."""
        return self.get_versioned(room_id)[0]

    def get_versioned(self, room_id: str) -> tuple[Room, str]:
        """The room, and the ETag to change or delete it with if nobody else changed it in the meantime."""
        answer = self._transport.send("GET", f"/rooms/{segment(room_id)}")
        return cast(Room, answer.body), answer.headers.get("ETag", "")

    def list(self) -> Iterator[Room]:
        """By id, without their participants."""
        return self._transport.pages("/rooms")

    def change(self, room_id: str, *, if_match: str = "", **settings: Unpack[RoomSettings]) -> Room:
        """Changes what is given. With an ETag that no longer fits, it raises ApiError with the status 412."""
        answer = self._transport.send("PUT", f"/rooms/{segment(room_id)}", settings, if_match=if_match)
        return cast(Room, answer.body)

    def delete(self, room_id: str, *, if_match: str = "") -> None:
        """Deletes the room and its chat, ends its call and revokes its tokens."""
        self._transport.send("DELETE", f"/rooms/{segment(room_id)}", if_match=if_match)

    def end_call(self, room_id: str) -> None:
        """For everybody; the room remains."""
        self._transport.send("POST", f"/rooms/{segment(room_id)}/end")


class Participants(_Resource):
    def list(self, room_id: str) -> list[Participant]:
        """Who is in the call, and what they publish."""
        answer = self._transport.send("GET", f"/rooms/{segment(room_id)}/participants").body
        return cast("list[Participant]", answer["items"])

    def mute(self, room_id: str, session_id: str, source: str = "microphone") -> None:
        """They can unmute themselves."""
        path = f"/rooms/{segment(room_id)}/participants/{segment(session_id)}/mute"
        self._transport.send("POST", path, {"source": source})

    def remove(self, room_id: str, session_id: str) -> None:
        """Removes somebody from the call, and keeps them out."""
        self._transport.send("DELETE", f"/rooms/{segment(room_id)}/participants/{segment(session_id)}")


class Sessions(_Resource):
    def list(self, room: str | None = None, *, user: str | None = None, state: str | None = None) -> Iterator[Session]:
        """Past and present stays in a room, or in all, newest first. `user` is a name, or your id of the person."""
        return self._transport.pages("/sessions", {"room": room, "user": user, "state": state})

    def get(self, session_id: str) -> Session:
        return cast(Session, self._transport.send("GET", f"/sessions/{segment(session_id)}").body)

    def rooms_of(self, user_name: str) -> Sequence[UserRoom]:
        """The rooms somebody is in now."""
        answer = self._transport.send("GET", f"/users/{segment(user_name)}/rooms").body
        return cast("Sequence[UserRoom]", answer["items"])


def _token(wanted: TokenRequest) -> dict[str, Any]:
    """The request as JSON has it. A `datetime` without a zone is local time, as everywhere in Python."""
    body: dict[str, Any] = dict(wanted)
    if isinstance(at := body.get("not_before"), datetime):
        body["not_before"] = at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return body
