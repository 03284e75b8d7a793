"""API keys of a company."""

from __future__ import annotations

from typing import Any

from sfu.api.handlers.requests import ApiRequest, ApiResponse, Calls, plain
from sfu.api.times import instant
from sfu.store import Store
from sfu.store.keys import Key


class KeyHandlers:
    def __init__(self, store: Store, calls: Calls) -> None:
        self._store = store
        self._calls = calls

    async def list_keys(self, call: ApiRequest) -> ApiResponse:
        page = await self._store.keys.list(call.company.id, cursor=call.query.get("cursor"), limit=call.query["limit"])
        return ApiResponse({"items": [_key(key) for key in page.items], "next": page.next})

    async def create_key(self, call: ApiRequest) -> ApiResponse:
        wanted = _changes(call.body)
        key, text = await self._store.keys.create(
            call.company.id, wanted["name"], wanted["scopes"], expires_at=wanted.get("expires_at"), author=call.author
        )
        return ApiResponse(_key(key) | {"key": text.reveal()}, {"Location": f"keys/{key.id}"}, {"made": key.id})

    async def get_key(self, call: ApiRequest) -> ApiResponse:
        return ApiResponse(_key(await self._store.keys.get(call.company.id, call.path["key_id"])))

    async def change_key(self, call: ApiRequest) -> ApiResponse:
        key = await self._store.keys.change(
            call.company.id, call.path["key_id"], _changes(call.body), author=call.author
        )
        return ApiResponse(_key(key), about={"changed": ",".join(sorted(call.body))})

    async def rotate_key(self, call: ApiRequest) -> ApiResponse:
        key, text = await self._store.keys.rotate(
            call.company.id, call.path["key_id"], call.body["overlap"], author=call.author
        )
        return ApiResponse(_key(key) | {"key": text.reveal()}, {"Location": f"../{key.id}"}, {"made": key.id})

    async def revoke_key(self, call: ApiRequest) -> ApiResponse:
        changed = await self._store.keys.revoke(call.company.id, call.path["key_id"], author=call.author)
        if call.query["tokens"] == "keep":
            return ApiResponse(changed=changed)
        revoked = await self._store.tokens.revoke_of_key(call.company.id, call.path["key_id"], call.author)
        for token_id in revoked:
            self._calls.end_token(token_id)
        return ApiResponse(changed=changed or bool(revoked), about={"tokens": str(len(revoked))})


def _changes(body: Any) -> dict[str, Any]:
    """The values of a request as the store takes them. Raises BadField."""
    changes = dict(body)
    if changes.get("expires_at") is not None:
        changes["expires_at"] = instant(changes["expires_at"], "expires_at")
    if "scopes" in changes:
        changes["scopes"] = list(dict.fromkeys(changes["scopes"]))
    return changes


def _key(key: Key) -> dict[str, Any]:
    times = ("created_at", "expires_at", "last_used_at", "revoked_at")
    return plain(key, ("id", "name", "prefix", *times)) | {"scopes": list(key.scopes)}
