"""Records that the store returns: frozen, with aware UTC times, text ids and JSON as dict, for both engines. Pure."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Literal

from sfu.refusals import BadValue
from sfu.tenancy.tokens import Permissions

Row = Mapping[str, Any]
Tier = Literal["free", "pro", "enterprise"]
Access = Literal["open", "token"]


@dataclass(frozen=True, slots=True)
class Company:
    """A tenant. `Companies.secret` decrypts `sealed_secret`."""

    id: str
    name: str
    sealed_secret: str = field(repr=False)
    tier: Tier
    is_active: bool
    is_default: bool
    created_at: datetime
    updated_at: datetime
    sealed_own_secret: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, row: Row) -> Company:
        return cls(
            id=str(row["id"]),
            name=row["name"],
            sealed_secret=row["sealed_secret"],
            tier=row["tier"],
            is_active=bool(row["is_active"]),
            is_default=bool(row["is_default"]),
            created_at=utc(row["created_at"]),
            updated_at=utc(row["updated_at"]),
            sealed_own_secret=row["sealed_own_secret"],
        )


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """The editable settings of a room. `access` is `open` (in the default company no token is needed) or `token`.

    `chat_kept_s`: 0 for not at all, None for the server's default.
    """

    name: str = ""
    description: str = ""
    max_participants: int = 100
    access: Access = "open"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    locked: bool = False
    lobby: bool = False
    files: bool = True
    chat_kept_s: int | None = None


@dataclass(frozen=True, slots=True)
class RoomRules:
    """The settings that a call needs. `chat_kept_s` is None for the server's default.

    `id` is the database's, so that a room is not taken for a deleted one of the same name. `version` increases with
    every edit.
    """

    id: str
    version: int
    access: Access
    locked: bool
    lobby: bool
    files: bool
    chat_kept_s: int | None

    @classmethod
    def of(cls, row: Row) -> RoomRules:
        return cls(
            id=str(row["id"]),
            version=row["version"],
            access=row["access"],
            locked=bool(row["locked"]),
            lobby=bool(row["lobby"]),
            files=bool(row["files"]),
            chat_kept_s=row["chat_kept_s"],
        )


@dataclass(frozen=True, slots=True)
class Room:
    """A room. `id` is the database's, `room_id` the one the company chose. `participants` counts its open sessions.

    The other fields are those of RoomSettings.
    """

    id: str
    company_id: str
    room_id: str
    name: str
    description: str
    max_participants: int
    access: Access
    locked: bool
    lobby: bool
    files: bool
    chat_kept_s: int | None
    metadata: dict[str, Any]
    version: int
    participants: int
    created_at: datetime
    updated_at: datetime
    last_join_at: datetime | None

    @classmethod
    def of(cls, row: Row) -> Room:
        return cls(
            id=str(row["id"]),
            company_id=str(row["company_id"]),
            room_id=row["room_id"],
            name=row["name"],
            description=row["description"],
            max_participants=row["max_participants"],
            access=row["access"],
            locked=bool(row["locked"]),
            lobby=bool(row["lobby"]),
            files=bool(row["files"]),
            chat_kept_s=row["chat_kept_s"],
            metadata=json.loads(row["metadata"]),
            version=row["version"],
            participants=row["participants"],
            created_at=utc(row["created_at"]),
            updated_at=utc(row["updated_at"]),
            last_join_at=maybe_utc(row["last_join_at"]),
        )


@dataclass(frozen=True, slots=True)
class Token:
    """The record of an issued token, without the token itself. `id` is its jti."""

    id: str
    company_id: str
    room_id: str
    user_name: str
    permissions: Permissions
    single_use: bool
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    revoked_at: datetime | None
    not_before: datetime | None = None
    max_duration_s: int | None = None
    user_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Row) -> Token:
        return cls(
            id=str(row["id"]),
            company_id=str(row["company_id"]),
            room_id=row["room_id"],
            user_name=row["user_name"],
            permissions=Permissions.of(json.loads(row["permissions"])),
            single_use=bool(row["single_use"]),
            created_at=utc(row["created_at"]),
            expires_at=utc(row["expires_at"]),
            used_at=maybe_utc(row["used_at"]),
            revoked_at=maybe_utc(row["revoked_at"]),
            not_before=maybe_utc(row["not_before"]),
            max_duration_s=row["max_duration_s"],
            user_id=row["user_id"],
            metadata=json.loads(row["metadata"]),
        )


@dataclass(frozen=True, slots=True)
class SessionQuality:
    """The call quality of a session: means over its duration, unless the name says otherwise.

    `up` is from the person to the server. Losses are fractions of packets, retransmitted or not. Values are None if
    there was no media, and until the session has ended.
    """

    score_mean: float | None = None
    score_min: float | None = None
    loss_up: float | None = None
    loss_down: float | None = None
    jitter_up_ms: float | None = None
    jitter_down_ms: float | None = None
    round_trip_ms: float | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None

    @classmethod
    def of(cls, row: Row) -> SessionQuality:
        return cls(**{spec.name: row[spec.name] for spec in fields(cls)})


@dataclass(frozen=True, slots=True)
class SessionDrops:
    """How often the connection of a session was lost, how often the person came back, and the code of the last loss."""

    drops: int = 0
    returns: int = 0
    last_drop: str | None = None

    @classmethod
    def of(cls, row: Row) -> SessionDrops:
        return cls(**{spec.name: row[spec.name] for spec in fields(cls)})


@dataclass(frozen=True, slots=True)
class Session:
    """One stay of one person in one room. `concurrency`: open sessions in the room at its start, including itself."""

    id: str
    company_id: str
    room_id: str
    user_name: str
    token_id: str | None
    server: str
    peer_address: str
    connected_at: datetime
    last_seen_at: datetime
    disconnected_at: datetime | None
    leave_reason: str | None
    duration_s: float | None
    concurrency: int
    metadata: dict[str, Any]
    quality: SessionQuality
    drops: SessionDrops = SessionDrops()
    user_id: str = ""

    @classmethod
    def of(cls, row: Row) -> Session:
        return cls(
            id=str(row["id"]),
            company_id=str(row["company_id"]),
            room_id=row["room_id"],
            user_name=row["user_name"],
            token_id=None if row["token_id"] is None else str(row["token_id"]),
            server=row["server"],
            peer_address=row["peer_address"],
            connected_at=utc(row["connected_at"]),
            last_seen_at=utc(row["last_seen_at"]),
            disconnected_at=maybe_utc(row["disconnected_at"]),
            leave_reason=row["leave_reason"],
            duration_s=row["duration_s"],
            concurrency=row["concurrency"],
            metadata=json.loads(row["metadata"]),
            quality=SessionQuality.of(row),
            drops=SessionDrops.of(row),
            user_id=row["user_id"],
        )


@dataclass(frozen=True, slots=True)
class Ban:
    """A ban of a person who was removed from a room. It applies to `token_id`, or if that is None to the name from
    `address`."""

    id: str
    company_id: str
    room_id: str
    user_name: str
    token_id: str | None
    address: str
    banned_by: str
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, row: Row) -> Ban:
        return cls(
            id=str(row["id"]),
            company_id=str(row["company_id"]),
            room_id=row["room_id"],
            user_name=row["user_name"],
            token_id=None if row["token_id"] is None else str(row["token_id"]),
            address=row["address"],
            banned_by=row["banned_by"],
            created_at=utc(row["created_at"]),
            expires_at=utc(row["expires_at"]),
        )


FILE_S = 3600
"""Least time that a file can be downloaded, even if no chat is kept."""


@dataclass(frozen=True, slots=True)
class File:
    """A file shared in a room. Anybody who knows `id` may download it. `size` is in bytes."""

    id: str
    name: str
    type: str
    size: int


@dataclass(frozen=True, slots=True)
class Line:
    """A chat line. `peer` is the sender's peer id in its call; `sent_ms` is in milliseconds since 1970."""

    id: str
    peer: str
    user_name: str
    text: str
    sent_ms: int
    file: File | None = None

    @classmethod
    def of(cls, row: Row) -> Line:
        file = None
        if row["file_id"] is not None:
            file = File(str(row["file_id"]), row["file_name"], row["file_type"], row["file_size"])
        return cls(str(row["id"]), row["peer"], row["user_name"], row["text"], row["sent_ms"], file)


@dataclass(frozen=True, slots=True)
class UserRoom:
    """A room that somebody is in now, since when, and how many people are in it."""

    room_id: str
    name: str
    participants: int
    since: datetime


@dataclass(frozen=True, slots=True)
class RoomDay:
    """Figures of one room on one UTC day. A session counts on the day it began; open ones have no duration or score.

    `avg_score` is the mean of the sessions' means, `min_score` the worst score of any of them.
    """

    room_id: str
    day: date
    unique_users: int
    sessions: int
    avg_duration_s: float | None
    total_duration_s: float
    peak_concurrency: int
    avg_score: float | None
    min_score: float | None

    @classmethod
    def of(cls, row: Row) -> RoomDay:
        figures = ("unique_users", "sessions", "avg_duration_s", "total_duration_s", "peak_concurrency")
        return cls(row["room_id"], day_of(row["day"]), *(row[name] for name in (*figures, "avg_score", "min_score")))


def utc(value: datetime | str) -> datetime:
    """An aware UTC time. SQLite returns text without a zone."""
    return (datetime.fromisoformat(value) if isinstance(value, str) else value).replace(tzinfo=UTC)


@lru_cache(maxsize=512)
def day_of(value: date | str) -> date:
    """A date. SQLite returns text. Cached, since a year of rooms has each day many times."""
    return date.fromisoformat(value) if isinstance(value, str) else value


def maybe_utc(value: datetime | str | None) -> datetime | None:
    return None if value is None else utc(value)


def json_text(name: str, value: Mapping[str, Any]) -> str:
    """Serializes an object for the database. Raises BadValue for values that JSON or PostgreSQL's JSONB cannot hold."""
    try:
        text = json.dumps(dict(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadValue(f"{name}: cannot be stored as JSON: {error}.") from None
    if "\\u0000" in text.replace("\\\\", ""):
        raise BadValue(f"{name}: must not contain NUL.")
    return text


def canonical_id(text: str) -> str | None:
    """A UUID in the spelling that the database uses; None for text that is not a UUID, which no row can have."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None
