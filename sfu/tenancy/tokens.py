"""Join tokens: encodes and verifies JWT (RFC 7519). Pure: the clock is an argument.

Only HS256 is accepted, whatever the header says. The header's `kid` is the company's id. It selects the secret to
verify with, is trusted for nothing else, and must equal the signed `company_id`. Revocation and single use are recorded
in the database and not checked here.
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from sfu.errors import BadName, SfuError
from sfu.refusals import (
    BadValue,
    TokenAlgorithm,
    TokenAudience,
    TokenClaim,
    TokenCompany,
    TokenExpired,
    TokenLifetime,
    TokenMalformed,
    TokenNotYetValid,
    TokenSignature,
)
from sfu.tenancy.grants import MAX_LIFE_S as MAX_LIFE_S
from sfu.tenancy.grants import MAX_STAY_S, USER_ID_CHARACTERS
from sfu.tenancy.grants import Grant as Grant
from sfu.tenancy.grants import Permissions as Permissions
from sfu.tenancy.grants import grant as grant
from sfu.tenancy.keys import is_api_key
from sfu.tenancy.names import CONTROLS, NAME_CHARACTERS, canonical

ALGORITHM = "HS256"
ISSUER = "sfu"
AUDIENCE = "webrtc"
LEEWAY_S = 60
"""Accepted difference between two clocks."""

TOKEN_BYTES = 8192
_LAST_SECOND = 253402300799
"""The last second of the year 9999, the maximum of datetime."""

_LIFT = "A moderator removed the holder. Lift the ban with DELETE /api/v1/rooms/{room_id}/bans/{ban_id}."
_LINE = re.compile(f"[^{CONTROLS}]*")
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]*", re.ASCII)
_FOREIGN = (
    "The token was not made by this company: its key id (`kid`) is another's.",
    "Inspect it with the API key of the company that made it, or make one with POST /api/v1/tokens.",
)
_NOBODY = secrets.token_bytes(32)
"""The secret to verify tokens of unknown companies with, so that they take as long to fail as others."""


def encode(grant: Grant, secret: bytes) -> str:
    """The token for a grant, signed with the company's secret."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": grant.user_name,
        "jti": grant.id,
        "company_id": grant.company_id,
        "room_id": grant.room_id,
        "user_name": grant.user_name,
        "permissions": grant.permissions.to_json(),
        "iat": int(grant.issued_at.timestamp()),
        "nbf": int(grant.not_before.timestamp()),
        "exp": int(grant.expires_at.timestamp()),
    }
    if grant.user_id:
        claims["user_id"] = grant.user_id
    if grant.max_duration_s is not None:
        claims["max_duration"] = grant.max_duration_s
    return jwt.encode(claims, secret, ALGORITHM, headers={"kid": grant.company_id}, json_encoder=_Utf8)


def peek(token: str) -> str:
    """The id of the company that supposedly signed the token. Unverified: use it only to look up the secret.

    Raises TokenMalformed or TokenAlgorithm.
    """
    return _kid(_header(token))


def is_jwt(text: str) -> bool:
    """Whether the text has the form of a token: three parts in base64url."""
    return _JWT.fullmatch(text) is not None


def claimed(token: str) -> dict[str, str]:
    """The `room`, after its company's id, and the `name` that a token claims, for the log. Nothing is verified."""
    _, claims = _unverified(token)
    found = [(claims or {}).get(name) for name in ("company_id", "room_id", "user_name")]
    company_id, room_id, name = (value if isinstance(value, str) else "" for value in found)
    said = {"room": "/".join(filter(None, (company_id, room_id))), "name": name}
    return {key: value for key, value in said.items() if value}


def decode(token: str, secret: bytes | None, now: datetime, *, own: bool = False) -> Grant:
    """Verifies a token and returns its grant. `secret` is that of the company from `peek`, None if it does not exist.

    `own`: the secret is the one that the company chose, to sign tokens by itself. Those may leave out what follows from
    other claims, and say what the record of other tokens says: `metadata` and `single_use`.
    Raises a TokenError, and nothing else, for any text.
    """
    company_id = peek(token)
    try:
        claims = jwt.decode(
            token,
            _NOBODY if secret is None else secret,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={
                "strict_aud": True,
                "require": ["iss", "aud"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
    except jwt.InvalidSignatureError:
        raise TokenSignature from None
    except (jwt.InvalidAudienceError, jwt.InvalidIssuerError, jwt.MissingRequiredClaimError) as error:
        raise TokenAudience(f"The token was not issued for this service: {error}.") from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise TokenMalformed from None
    found = _grant(_completed(claims, company_id) if own else claims, own=own)
    if found.company_id != company_id:
        raise TokenCompany
    _check_times(found, now)
    return found


@dataclass(frozen=True, slots=True)
class Inspection:
    """An explanation of a token for its issuer. `header` and `claims` are its content, verified or not."""

    valid: bool
    code: str
    message: str
    advice: str
    header: dict[str, Any] | None
    claims: dict[str, Any] | None


def inspect(
    token: str, secret: bytes | None, now: datetime, recorded: SfuError | None = None, *, own: bool = False
) -> Inspection:
    """Explains why a token is or is not accepted now, to the company with `secret`; None: the token's is another.

    `recorded`: the error of a join for what the database has about it, if any. `own`: see `decode`.
    """
    header, claims = _unverified(token)
    try:
        found = decode(token, secret, now, own=own)
        if recorded is not None:
            raise recorded
    except SfuError as error:
        foreign = secret is None and isinstance(error, TokenSignature)
        message, advice = _FOREIGN if foreign else (str(error), getattr(error, "advice", _LIFT))
        return Inspection(False, error.code, message, advice, header, claims)
    allowed = [name for name, yes in found.permissions.to_json().items() if yes]
    left = found.expires_at - now
    until = f"until {_clock(found.expires_at)}, {_span(left)} from now"
    if left <= timedelta(0):
        until = f"for {_span(left + timedelta(seconds=LEEWAY_S))} more, though the token has expired: clocks may differ"
    message = f"{found.user_name} may enter room {found.room_id} {until}, and may {_listed(allowed)} there."
    return Inspection(True, "valid", message, "", header, claims)


class _Utf8(json.JSONEncoder):
    """Writes names as they are. With escapes, long names of emoji would exceed TOKEN_BYTES."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"ensure_ascii": False})


# --- the parts -------------------------------------------------------------------------------------------------------


def _header(token: str) -> dict[str, Any]:
    if is_api_key(token.strip()):
        raise TokenMalformed("This is an API key, not a token. Keep it secret: your server gets tokens with it.")
    if not token.isascii() or len(token) > TOKEN_BYTES:
        raise TokenMalformed
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise TokenMalformed from None
    if header.get("alg") != ALGORITHM:
        raise TokenAlgorithm(f"The token is signed with {str(header.get('alg'))[:40]!r}, not with HS256.")
    return header


def _kid(header: Mapping[str, Any]) -> str:
    kid = header.get("kid")
    if not isinstance(kid, str) or not _is_uuid(kid):
        raise TokenMalformed("The token's header has no valid key id (`kid`), so it is unknown who signed it.")
    return kid


def _unverified(token: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    if not token.isascii() or len(token) > TOKEN_BYTES:
        return None, None
    try:
        whole = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return None, None
    return whole["header"], whole["payload"]


def _completed(claims: Mapping[str, Any], company_id: str) -> dict[str, Any]:
    """The claims of a token that a company signed by itself, with those that follow from others."""
    usual: dict[str, Any] = {"company_id": company_id, "sub": claims.get("user_name"), "permissions": {}}
    usual |= {"iat": claims.get("nbf"), "nbf": claims.get("iat")}
    return {**usual, **claims}


def _grant(claims: Mapping[str, Any], *, own: bool) -> Grant:
    """Checks the presence and type of every claim. Raises TokenClaim, which names the claim."""
    for name in ("jti", "company_id"):
        if not _is_uuid(claims.get(name)):
            raise TokenClaim(f"The claim `{name}` is missing or not a UUID.")
    names = {name: _name(claims, name) for name in ("sub", "room_id", "user_name")}
    if names["sub"] != names["user_name"]:
        raise TokenClaim("The claims `sub` and `user_name` differ.")
    for name in ("iat", "nbf", "exp"):
        value = claims.get(name)
        if type(value) is not int or not 0 <= value <= _LAST_SECOND:
            raise TokenClaim(f"The claim `{name}` is missing or not a time in whole seconds since 1970.")
    if "permissions" not in claims:
        raise TokenClaim("The claim `permissions` is missing.")
    try:
        permissions = Permissions.of(claims["permissions"])
    except BadValue as error:
        raise TokenClaim(f"The claim {error}") from None
    return Grant(
        id=claims["jti"],
        company_id=claims["company_id"],
        room_id=names["room_id"],
        user_name=names["user_name"],
        permissions=permissions,
        issued_at=datetime.fromtimestamp(claims["iat"], UTC),
        not_before=datetime.fromtimestamp(claims["nbf"], UTC),
        expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        user_id=_user_id(claims),
        max_duration_s=_max_duration(claims),
        **(_said(claims) if own else {}),
    )


def _user_id(claims: Mapping[str, Any]) -> str:
    found = claims.get("user_id", "")
    if not isinstance(found, str) or len(found) > USER_ID_CHARACTERS or not _LINE.fullmatch(found):
        raise TokenClaim(f"The claim `user_id` is not text of up to {USER_ID_CHARACTERS} characters.")
    return found


def _max_duration(claims: Mapping[str, Any]) -> int | None:
    found = claims.get("max_duration")
    if found is not None and (type(found) is not int or not 1 <= found <= MAX_STAY_S):
        raise TokenClaim(f"The claim `max_duration` is not a number of seconds from 1 to {MAX_STAY_S}.")
    return found


def _said(claims: Mapping[str, Any]) -> dict[str, Any]:
    """What a company says in a token of its own that it would otherwise say when it asks for one."""
    metadata, single_use = claims.get("metadata", {}), claims.get("single_use", False)
    if not isinstance(metadata, dict) or not _is_storable(metadata):
        raise TokenClaim("The claim `metadata` is not an object of storable text.")
    if type(single_use) is not bool:
        raise TokenClaim("The claim `single_use` is not true or false.")
    return {"metadata": metadata, "single_use": single_use, "own": True}


def _is_storable(metadata: Mapping[str, Any]) -> bool:
    """Whether PostgreSQL can store it. TOKEN_BYTES bounds its size."""
    try:
        text = json.dumps(metadata, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (ValueError, RecursionError):
        return False
    return "\\u0000" not in text.replace("\\\\", "")


def _check_times(found: Grant, now: datetime) -> None:
    leeway, longest = timedelta(seconds=LEEWAY_S), timedelta(seconds=MAX_LIFE_S)
    if found.expires_at - found.not_before > longest:
        raise TokenLifetime
    start = max(found.issued_at, found.not_before)
    if start - now > leeway:
        raise TokenNotYetValid(
            f"The token is valid from {_clock(start)} on, {_span(start - now)} from now. "
            f"The server's time is {_clock(now)}."
        )
    if now - found.expires_at >= leeway:
        raise TokenExpired(
            f"The token expired {_span(now - found.expires_at)} ago, at {_clock(found.expires_at)}. "
            f"The server's time is {_clock(now)}."
        )


def _name(claims: Mapping[str, Any], name: str) -> str:
    """The canonical spelling of a claim. Raises TokenClaim."""
    value = claims.get(name)
    try:
        return canonical(value if isinstance(value, str) else "")
    except BadName:
        raise TokenClaim(f"The claim `{name}` is missing or not text of 1 to {NAME_CHARACTERS} characters.") from None


def _is_uuid(value: object) -> bool:
    """Whether this is a UUID in the canonical spelling of `str`, so that ids can be compared as text."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _clock(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _span(time: timedelta) -> str:
    """A duration in the largest unit that gives at least two, such as `90 minutes`."""
    seconds = max(0, int(time.total_seconds()))
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return "1 second" if seconds == 1 else f"{seconds} seconds"


def _listed(names: list[str]) -> str:
    if len(names) < 2:
        return "".join(names) or "only watch the list of people"
    return ", ".join(names[:-1]) + " and " + names[-1]
