"""Tokens: who may enter."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from sfu.api.handlers.requests import ApiRequest, ApiResponse, Calls, moment, narrowed, plain
from sfu.api.refusals import BadField, ScopeMissing, TokenNotFound
from sfu.api.times import instant
from sfu.calls.admission import verified
from sfu.errors import Removed, SfuError
from sfu.logs import quoted
from sfu.refusals import TokenError, TokenSignature
from sfu.store import Store
from sfu.store.records import Token
from sfu.store.tokens import State, held_against
from sfu.tenancy import tokens
from sfu.tenancy.grants import AHEAD_DAYS
from sfu.tenancy.keys import KEY_BYTES, Secret
from sfu.tenancy.scopes import allows


class TokenHandlers:
    def __init__(self, store: Store, calls: Calls, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._calls = calls
        self._clock = clock

    async def issue_token(self, call: ApiRequest) -> ApiResponse:
        grant = self._grant(call, call.body, call.once)
        token = tokens.encode(grant, self._store.companies.secret(call.company).reveal())
        async with self._store.tiers.issuing(call.company):
            await self._store.tokens.add(grant, token, call.author, single_use=call.body["single_use"])
        about = {"issued": grant.id, "name": quoted(grant.user_name)}
        return ApiResponse(_issued(grant, token), {"Location": f"tokens/{grant.id}"}, about)

    async def issue_tokens(self, call: ApiRequest) -> ApiResponse:
        secret = self._store.companies.secret(call.company).reveal()
        issued = []
        for number, wanted in enumerate(call.body["tokens"]):
            token_id = None if call.once is None else str(uuid.uuid5(uuid.UUID(call.once), str(number)))
            grant = self._grant(call, wanted, token_id, f"tokens[{number}].")
            issued.append((grant, tokens.encode(grant, secret), wanted["single_use"]))
        async with self._store.tiers.issuing(call.company, len(issued)):
            await self._store.tokens.add_many(issued, call.author)
        body = {"items": [_issued(grant, token) for grant, token, _ in issued]}
        return ApiResponse(body, about={"issued": str(len(issued))})

    def _grant(
        self, call: ApiRequest, wanted: Mapping[str, Any], token_id: str | None, place: str = ""
    ) -> tokens.Grant:
        """What a request asks for. Raises BadField, whose field begins with `place`."""
        name, other = wanted.get("user_name"), wanted.get("name")
        if name is None and other is None:
            raise BadField(f"{place}user_name", "is missing")
        if None not in (name, other) and name != other:
            raise BadField(f"{place}name", "is another word for user_name: give one of them")
        permissions = tokens.Permissions.of(wanted.get("permissions", {}))
        if permissions.moderate and not allows(call.scopes, "rooms:write"):
            raise ScopeMissing("rooms:write", "A token with `moderate` changes its room.")
        start = self._start(wanted, place)
        grant = tokens.grant(
            company_id=call.company.id,
            room_id=wanted["room_id"],
            user_name=name or other or "",
            duration_s=wanted["duration"],
            now=self._clock(),
            permissions=permissions,
            token_id=token_id,
            not_before=start,
            user_id=wanted["user_id"],
            max_duration_s=wanted.get("max_duration"),
            metadata=wanted.get("metadata", {}),
        )
        if grant.expires_at <= self._clock():
            raise BadField(f"{place}not_before", "is so long ago that the token has expired")
        return grant

    def _start(self, wanted: Mapping[str, Any], place: str) -> datetime | None:
        if "not_before" not in wanted:
            return None
        start = instant(wanted["not_before"], f"{place}not_before")
        if start - self._clock() > timedelta(days=AHEAD_DAYS):
            raise BadField(f"{place}not_before", f"must be within {AHEAD_DAYS} days")
        return start

    async def list_tokens(self, call: ApiRequest) -> ApiResponse:
        page = await self._store.tokens.find(narrowed(call), cursor=call.query.get("cursor"), limit=call.query["limit"])
        return ApiResponse({"items": [self._token(token) for token in page.items], "next": page.next})

    async def get_token(self, call: ApiRequest) -> ApiResponse:
        token = await self._store.tokens.get(call.company.id, call.path["token_id"])
        if token is None:
            raise TokenNotFound
        return ApiResponse(self._token(token))

    async def revoke_token(self, call: ApiRequest) -> ApiResponse:
        before = await self._store.tokens.get(call.company.id, call.path["token_id"])
        token = await self._store.tokens.revoke(call.company.id, call.path["token_id"], call.author)
        if token is None and call.company.sealed_own_secret is not None:
            token = await self._store.tokens.bury(call.company.id, call.path["token_id"], call.author)
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
                recorded = held_against(await self._store.tokens.get(call.company.id, grant.id), own=grant.own)
                who = (grant.company_id, grant.room_id, grant.user_name)
                if recorded is None and await self._store.bans.holds(*who, token_id=grant.id, address=""):
                    recorded = Removed()
        except TokenError:
            pass  # tokens.inspect finds the same error and explains it
        found = tokens.inspect(token, secret, now, recorded)
        theirs = None if secret is None else self._store.companies.own_secret(call.company)
        if found.code == TokenSignature.code and theirs is not None:
            found = tokens.inspect(token, theirs.reveal(), now, recorded, own=True)
        return ApiResponse({spec.name: getattr(found, spec.name) for spec in fields(found)})

    async def set_own_secret(self, call: ApiRequest) -> ApiResponse:
        secret = call.body["secret"].encode()
        if len(secret) < KEY_BYTES:
            raise BadField("secret", f"must have at least {KEY_BYTES} bytes")
        await self._store.companies.set_own_secret(call.company.id, Secret(secret), call.author)
        return ApiResponse()

    async def remove_own_secret(self, call: ApiRequest) -> ApiResponse:
        await self._store.companies.set_own_secret(call.company.id, None, call.author)
        return ApiResponse(changed=call.company.sealed_own_secret is not None)

    def _token(self, token: Token) -> dict[str, Any]:
        names = ("id", "room_id", "user_name", "user_id", "single_use", "created_at", "expires_at", "not_before")
        return plain(token, (*names, "used_at", "revoked_at", "metadata")) | {
            "max_duration": token.max_duration_s,
            "state": _state(token, self._clock()),
            "permissions": token.permissions.to_json(),
        }


def _state(token: Token, now: datetime) -> State:
    """As Tokens.find finds it."""
    leeway = timedelta(seconds=tokens.LEEWAY_S)
    if token.revoked_at is not None:
        return "revoked"
    if token.expires_at <= now - leeway:
        return "expired"
    if token.single_use and token.used_at is not None:
        return "used"
    return "early" if token.not_before is not None and token.not_before > now + leeway else "valid"


def _issued(grant: tokens.Grant, token: str) -> dict[str, Any]:
    return {
        "token": token,
        "expires_at": moment(grant.expires_at),
        "room_id": grant.room_id,
        "user_name": grant.user_name,
        "id": grant.id,
        "not_before": moment(grant.not_before),
    }
