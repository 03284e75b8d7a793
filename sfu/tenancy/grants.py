"""What a token grants: to whom, where, when, and what they may do. Pure. tokens.py makes it a token and back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from sfu.errors import BadName
from sfu.refusals import BadValue
from sfu.tenancy.names import canonical

MAX_LIFE_S = 24 * 3600
AHEAD_DAYS = 366
"""How far ahead a token may begin to be valid."""
MAX_STAY_S = 30 * 24 * 3600
USER_ID_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a peer may do in its room. `moderate` also permits its token to manage the room over REST."""

    publish: bool = True
    subscribe: bool = True
    chat: bool = True
    moderate: bool = False

    @classmethod
    def of(cls, value: object) -> Permissions:
        """Parses a JSON object; missing names keep their default. Raises BadValue."""
        names = [spec.name for spec in fields(cls)]
        if not isinstance(value, Mapping):
            raise BadValue("permissions: must be an object.")
        for name, allowed in value.items():
            if name not in names:
                raise BadValue(f"permissions: {str(name)[:40]!r} is not one of {', '.join(names)}.")
            if type(allowed) is not bool:
                raise BadValue(f"permissions.{name}: must be true or false.")
        return cls(**value)

    def to_json(self) -> dict[str, bool]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Grant:
    """The content of a valid token: a person, a room of a company, a period, and permissions. Times are UTC.

    `user_id` is the company's own id of the person, `max_duration_s` limits each stay. `own`: the company signed it by
    itself, and no record exists before its first use; of other tokens, only the record has `metadata` and `single_use`.
    """

    id: str
    company_id: str
    room_id: str
    user_name: str
    permissions: Permissions
    issued_at: datetime
    not_before: datetime
    expires_at: datetime
    user_id: str = ""
    max_duration_s: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    single_use: bool = False
    own: bool = False


def grant(
    *,
    company_id: str,
    room_id: str,
    user_name: str,
    duration_s: int,
    now: datetime,
    permissions: Permissions | None = None,
    token_id: str | None = None,
    not_before: datetime | None = None,
    user_id: str = "",
    max_duration_s: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Grant:
    """A new grant, valid from now on, or for `duration_s` from `not_before`; its id is new unless given.

    Raises BadValue for an invalid duration or name.
    """
    if not 1 <= duration_s <= MAX_LIFE_S:
        raise BadValue(f"duration: must be 1 to {MAX_LIFE_S} seconds.")
    try:
        room_id, user_name = canonical(room_id, "room_id"), canonical(user_name, "user_name")
    except BadName as error:
        raise BadValue(str(error)) from None
    issued = now.astimezone(UTC).replace(microsecond=0)
    start = issued if not_before is None else not_before.astimezone(UTC).replace(microsecond=0)
    return Grant(
        id=token_id or str(uuid.uuid4()),
        company_id=company_id,
        room_id=room_id,
        user_name=user_name,
        permissions=permissions or Permissions(),
        issued_at=issued,
        not_before=start,
        expires_at=start + timedelta(seconds=duration_s),
        user_id=user_id,
        max_duration_s=max_duration_s,
        metadata=metadata or {},
    )
