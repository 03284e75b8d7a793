"""Tokens: who may enter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from typing import Any

from sfu.api.handlers.requests import ApiRequest, ApiResponse, Calls, moment, plain
from sfu.api.refusals import TokenNotFound
from sfu.calls.admission import verified
from sfu.errors import Removed, SfuError
from sfu.logs import quoted
from sfu.refusals import TokenError
from sfu.store import Store
from sfu.store.records import Token
from sfu.store.tokens import held_against
from sfu.tenancy import tokens


class TokenHandlers:
    def __init__(self, store: Store, calls: Calls, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._calls = calls
        self._clock = clock

    async def issue_token(self, call: ApiRequest) -> ApiResponse:
        grant = tokens.grant(
            company_id=call.company.id,
            room_id=call.body["room_id"],
            user_name=call.body["user_name"],
            duration_s=call.body["duration"],
            now=self._clock(),
            permissions=tokens.Permissions.of(call.body.get("permissions", {})),
            token_id=call.once,
        )
        token = tokens.encode(grant, self._store.companies.secret(call.company).reveal())
        await self._store.tokens.add(grant, token, call.author, single_use=call.body["single_use"])
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
        token = await self._store.tokens.revoke(call.company.id, call.path["token_id"], call.author)
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


def _token(token: Token) -> dict[str, Any]:
    names = ("id", "room_id", "user_name", "single_use", "created_at", "expires_at", "used_at", "revoked_at")
    return plain(token, names) | {"permissions": token.permissions.to_json()}
