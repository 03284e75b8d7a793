"""Idempotency-Key: a POST that is repeated with its key has its effect once, and gets the same answer for a day.

Only answers of success are kept. A request that was refused had no effect, so it may run again. If the server dies in
between, a repetition runs again later, with the same `ApiRequest.once`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace

import trio
from quart import request

from sfu.api.handlers import ApiRequest, ApiResponse, Handler
from sfu.api.refusals import BadField, IdempotencyMismatch, IdempotencyRunning
from sfu.api.routes import Route
from sfu.errors import SfuError
from sfu.refusals import DatabaseUnavailable
from sfu.store import Store

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
DEADLINE_S = 20.0
"""How long a request with a key may run. Then, a statement that has begun still ends; see RUNNING_S."""
SOON_S = 50
"""With more than this left of its time, a request has just begun and will soon be over."""

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Once:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def handle(self, route: Route, call: ApiRequest, handle: Handler, keys: Sequence[str]) -> ApiResponse:
        """What `handle` returns, or returned when this request came first.

        With an admin key, which has no company, it just runs. Raises IdempotencyMismatch, IdempotencyRunning, BadField,
        or what `handle` raises.
        """
        if not keys or route.method != "POST" or not route.changes or route.access == "admin":
            return await handle(call)
        if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
            raise BadField(HEADER, "must be one text of 1 to 255 visible ASCII characters")
        company_id, digest = call.company.id, _digest(route, call)
        found = await self._store.answers.claim(company_id, keys[0], digest)
        if found.request != digest:
            raise IdempotencyMismatch
        if found.text is not None:
            return _read(found.text)
        if not found.mine:
            raise IdempotencyRunning(1 if found.seconds_left > SOON_S else max(1, round(found.seconds_left)))
        answer = await self._first(replace(call, once=found.id), handle)
        await self._store.answers.keep(company_id, found.id, answer.status or route.status, _write(answer))
        return answer

    async def _first(self, call: ApiRequest, handle: Handler) -> ApiResponse:
        try:
            with trio.fail_after(DEADLINE_S):
                return await handle(call)
        except trio.TooSlowError:
            raise DatabaseUnavailable from None
        except DatabaseUnavailable:
            raise  # nobody knows whether it had an effect
        except SfuError:
            assert call.once is not None
            await self._store.answers.release(call.company.id, call.once)
            raise


def _digest(route: Route, call: ApiRequest) -> str:
    """Of what is asked for, and by what kind of credential: a moderator's token does not read a backend's answers."""
    who = call.author.id if call.author.kind == "token" else "key"
    what = [route.name, dict(call.path), dict(call.query), call.body, who, request.headers.get("If-Match", "")]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _write(answer: ApiResponse) -> str:
    return json.dumps([answer.body, answer.headers, answer.status])


def _read(text: str) -> ApiResponse:
    body, headers, status = json.loads(text)
    return ApiResponse(body, headers | {REPLAYED: "true"}, changed=False, status=status)
