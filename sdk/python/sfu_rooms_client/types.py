"""What the API takes and returns. Times are texts such as 2026-01-31T08:15:02.120Z."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NotRequired, Required, TypedDict


class Permissions(TypedDict, total=False):
    publish: bool
    subscribe: bool
    chat: bool
    moderate: bool


class TokenOptions(TypedDict, total=False):
    """`duration` and `max_duration` are in seconds."""

    user_id: str
    metadata: dict[str, Any]
    not_before: str | datetime
    duration: int
    max_duration: int
    permissions: Permissions
    single_use: bool


class TokenRequest(TokenOptions):
    room_id: Required[str]
    user_name: Required[str]


class IssuedToken(TypedDict):
    token: str
    id: str
    room_id: str
    user_name: str
    not_before: str
    expires_at: str


class Token(TypedDict):
    """A token's record, without the token."""

    id: str
    room_id: str
    user_name: str
    user_id: str
    metadata: dict[str, Any]
    permissions: Permissions
    single_use: bool
    created_at: str
    not_before: str | None
    expires_at: str
    used_at: str | None
    revoked_at: str | None
    max_duration: int | None
    state: Literal["valid", "early", "used", "revoked", "expired"]


class Inspection(TypedDict):
    valid: bool
    code: str
    message: str
    advice: str
    header: dict[str, Any] | None
    claims: dict[str, Any] | None


class RoomSettings(TypedDict, total=False):
    name: str
    description: str
    max_participants: int
    access: Literal["open", "token"]
    locked: bool
    lobby: bool
    files: bool
    chat_kept_s: int | None
    metadata: dict[str, Any]


class Room(RoomSettings):
    id: Required[str]
    room_id: Required[str]
    participant_count: Required[int]
    created_at: Required[str]
    updated_at: Required[str]
    last_join_at: Required[str | None]
    participants: NotRequired[list[dict[str, Any]]]


class Participant(TypedDict):
    session_id: str
    peer: str
    user_name: str
    moderator: bool
    hand: int
    drops: int
    returns: int
    last_drop: str | None
    tracks: list[dict[str, Any]]


class Session(TypedDict):
    """One stay of one person. It has more fields about quality once it has ended."""

    id: str
    room_id: str
    user_name: str
    token_id: str | None
    peer_address: str
    connected_at: str
    last_seen_at: str
    disconnected_at: str | None
    leave_reason: str | None
    duration_s: float | None
    drops: int
    returns: int
    last_drop: str | None
    score_mean: float | None
    score_min: float | None


class UserRoom(TypedDict):
    room_id: str
    name: str
    participant_count: int
    since: str


class Event(TypedDict):
    """What a webhook is sent. `room_id` is None for an event of no room, `data` depends on the `type`."""

    id: str
    type: str
    timestamp: str
    seq: int
    company_id: str
    room_id: str | None
    data: dict[str, Any]
