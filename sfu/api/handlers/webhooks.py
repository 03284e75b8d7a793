"""Webhooks, what was sent to them, and the events that they are sent."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any

from sfu.api.handlers.requests import ApiRequest, ApiResponse, moment, plain
from sfu.api.refusals import BadField
from sfu.api.times import instant
from sfu.store import Store
from sfu.store.deliveries import Delivery
from sfu.store.webhooks import Webhook
from sfu.webhooks import addresses


class WebhookHandlers:
    def __init__(self, store: Store, *, allow_private: bool) -> None:
        """`allow_private`: webhooks may reach this machine and private networks."""
        self._store, self._allow_private = store, allow_private

    async def list_webhooks(self, call: ApiRequest) -> ApiResponse:
        found = await self._store.webhooks.list(call.company.id)
        return ApiResponse({"items": [_webhook(one) for one in found]})

    async def create_webhook(self, call: ApiRequest) -> ApiResponse:
        self._check(call.body["url"])
        made, secret = await self._store.webhooks.create(call.company.id, author=call.author, **call.body)
        about = {"webhook": made.id}
        body = _webhook(made) | {"secret": secret.reveal()}
        return ApiResponse(body, {"Location": f"webhooks/{made.id}"}, about)

    async def get_webhook(self, call: ApiRequest) -> ApiResponse:
        return ApiResponse(_webhook(await self._store.webhooks.get(*_key(call))))

    async def change_webhook(self, call: ApiRequest) -> ApiResponse:
        if "url" in call.body:
            self._check(call.body["url"])
        changed = await self._store.webhooks.change(*_key(call), call.body, call.author)
        return ApiResponse(_webhook(changed), about={"changed": ",".join(sorted(call.body))})

    async def delete_webhook(self, call: ApiRequest) -> ApiResponse:
        await self._store.webhooks.delete(*_key(call), call.author)
        return ApiResponse()

    async def rotate_webhook(self, call: ApiRequest) -> ApiResponse:
        rotated, secret = await self._store.webhooks.rotate(*_key(call), call.query["overlap"], call.author)
        return ApiResponse(_webhook(rotated) | {"secret": secret.reveal()})

    async def test_webhook(self, call: ApiRequest) -> ApiResponse:
        webhook = await self._store.webhooks.get(*_key(call))
        return ApiResponse(_delivery(await self._store.deliveries.test(webhook, call.author)))

    async def resume_webhook(self, call: ApiRequest) -> ApiResponse:
        return ApiResponse(_webhook(await self._store.webhooks.resume(*_key(call), call.author)))

    async def replay_webhook(self, call: ApiRequest) -> ApiResponse:
        first, last = await self._store.webhooks.replay(*_key(call), _since(call.query["from"]), call.author)
        return ApiResponse({"from_seq": first, "to_seq": last})

    async def list_deliveries(self, call: ApiRequest) -> ApiResponse:
        webhook, query = await self._store.webhooks.get(*_key(call)), call.query
        page = await self._store.deliveries.list(
            webhook, state=query.get("state", ""), cursor=query.get("cursor"), limit=query["limit"]
        )
        return ApiResponse({"items": [_delivery(one) for one in page.items], "next": page.next})

    async def list_events(self, call: ApiRequest) -> ApiResponse:
        query = call.query
        feed = await self._store.events.after(
            call.company.id, query["after"], query["limit"], kind=query.get("type", ""), room_id=query.get("room", "")
        )
        return ApiResponse({"items": list(feed.items), "last_seq": feed.last_seq, "more": feed.more})

    def _check(self, url: str) -> None:
        """Raises BadField for a URL to which nothing could be sent."""
        if said := addresses.fault(url, allow_private=self._allow_private):
            raise BadField("url", said)


def _key(call: ApiRequest) -> tuple[str, str]:
    return call.company.id, call.path["webhook_id"]


def _since(text: str) -> int | datetime:
    return int(text) if text.isdecimal() else instant(text, "from")


def _webhook(webhook: Webhook) -> dict[str, Any]:
    names = ("id", "url", "description", "failing_since", "paused_at", "paused_why", "created_at", "updated_at")
    until = webhook.previous_until
    return plain(webhook, names) | {
        "events": list(webhook.events),
        "rooms": list(webhook.rooms),
        "previous_secret_until": None if until is None else moment(until),
    }


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return plain(delivery, [spec.name for spec in fields(delivery)])
