"""Webhooks and events over REST. That and how they are sent is in tests/webhooks."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from support.rest_client import request

from sfu.store import Store
from sfu.store.webhooks import MOST

if TYPE_CHECKING:
    from support.rest import Rest, Tenant

pytest_plugins = ["support.rest"]

URL = "https://example.org/hook"


async def call(store: Store, acme: Tenant, room_id: str = "team", name: str = "alice") -> None:
    session = await store.sessions.admit_anonymous(acme.company.id, room_id, name)
    store.sessions.close(session, "left")
    await store.sessions.flush()


async def test_a_webhook_is_made_changed_and_deleted(rest: Rest) -> None:
    made = await rest("POST", "/webhooks", {"url": URL, "events": ["participant.*"], "rooms": ["  a  b "]})
    assert made.status == 201
    secret = made.json.pop("secret")
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    path = "/" + made.headers["location"]
    assert path == f"/webhooks/{made.json['id']}"
    shown = (await rest("GET", path)).json
    assert shown == {
        "id": made.json["id"], "url": URL, "description": "", "events": ["participant.*"], "rooms": ["a b"],
        "previous_secret_until": None, "failing_since": None, "paused_at": None, "paused_why": None,
        "created_at": "2025-10-21T17:21:27.123Z", "updated_at": "2025-10-21T17:21:27.123Z",
    }  # fmt: skip
    assert (await rest("GET", "/webhooks")).json["items"] == [shown]
    changed = await rest("PUT", path, {"description": "Billing", "events": []})
    assert changed.json == shown | {"description": "Billing", "events": []}
    assert (await rest("DELETE", path)).status == 204
    for method, way in (("GET", path), ("DELETE", path), ("POST", f"{path}/test"), ("GET", f"{path}/deliveries")):
        assert (await rest(method, way)).code == "webhook_not_found"


async def test_secrets_are_shown_once_and_rotated(rest: Rest, clock: Any) -> None:
    made = (await rest("POST", "/webhooks", {"url": URL})).json
    path = f"/webhooks/{made['id']}"
    rotated = (await rest("POST", f"{path}/rotate?overlap=60")).json
    assert rotated["secret"] != made["secret"]
    assert rotated["previous_secret_until"] == "2025-10-21T17:22:27.123Z"
    for _, text in [await _text(rest, way) for way in (path, "/webhooks")]:
        assert "whsec_" not in text
        assert "sealed" not in text


async def _text(rest: Rest, path: str) -> tuple[int, str]:
    reply = await rest("GET", path)
    return reply.status, reply.body.decode()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": "http://example.org/"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "https://[::ffff:127.0.0.1]/"}, "url"),
        ({"url": "https://a b/"}, "url"),
        ({"url": "https://example.org/" + 2048 * "x"}, "url"),
        ({"url": URL, "events": ["no.such"]}, "events[0]"),
        ({"url": URL, "events": "room.ended"}, "events"),
        ({"url": URL, "rooms": 101 * ["a"]}, "rooms"),
        ({"url": URL, "rooms": [" "]}, "rooms[0]"),
        ({"url": URL, "secret": "whsec_"}, "secret"),
    ],
)
async def test_what_cannot_be_a_webhook(rest: Rest, body: Any, field: str) -> None:
    reply = await rest("POST", "/webhooks", body)
    assert (reply.status, reply.json["field"]) == (422, field)
    assert (await rest("GET", "/webhooks")).json["items"] == []


async def test_a_change_is_checked_as_well(rest: Rest) -> None:
    made = (await rest("POST", "/webhooks", {"url": URL})).json
    assert (await rest("PUT", f"/webhooks/{made['id']}", {"url": "https://127.0.0.1/"})).json["field"] == "url"


async def test_private_addresses_can_be_allowed(store: Store, clock: Any, acme: Tenant) -> None:
    from support.rest import serving

    async with serving(store, clock, webhook_allow_private=True) as rest:
        rest.key = acme.key
        assert (await rest("POST", "/webhooks", {"url": "http://127.0.0.1:9000/hook"})).status == 201


async def test_a_company_has_so_many_webhooks(rest: Rest, rival: Tenant) -> None:
    for _ in range(MOST):
        assert (await rest("POST", "/webhooks", {"url": URL})).status == 201
    assert (await rest("POST", "/webhooks", {"url": URL})).code == "webhooks_full"
    assert (await rest("POST", "/webhooks", {"url": URL}, key=rival.key)).status == 201


async def test_the_log_shows_what_waits(rest: Rest, store: Store, acme: Tenant, clock: Any) -> None:
    made = (await rest("POST", "/webhooks", {"url": URL, "events": ["participant.*"]})).json
    path = f"/webhooks/{made['id']}"
    await call(store, acme)
    await store.deliveries.spread(made["id"])
    clock.advance(1)
    test = await rest("POST", f"{path}/test")
    assert (test.status, test.json["type"], test.json["seq"]) == (202, "webhook.test", 0)
    page = (await rest("GET", f"{path}/deliveries?limit=1")).json
    assert page["items"] == [test.json]
    log = (await rest("GET", f"{path}/deliveries?limit=5&cursor={page['next']}")).json["items"]
    waiting = {one["type"]: (one["state"], one["next_at"]) for one in log}
    assert waiting == {
        "participant.joined": ("waiting", "2025-10-21T17:21:27.123Z"), "participant.left": ("waiting", None)
    }  # fmt: skip
    assert (await rest("GET", f"{path}/deliveries?state=delivered")).json["items"] == []
    assert (await rest("GET", f"{path}/deliveries?format=csv")).body.startswith(b"id,event_id,seq,type,room_id,state")


async def test_a_replay_says_what_it_sends(rest: Rest, store: Store, acme: Tenant, clock: Any) -> None:
    made = (await rest("POST", "/webhooks", {"url": URL})).json
    path = f"/webhooks/{made['id']}/replay"
    await call(store, acme)
    clock.advance(10)
    await call(store, acme)
    await store.deliveries.spread(made["id"])
    for since, first in (("3", 3), ("2025-10-21T17:21:30Z", 5), ("2030-01-01T00:00:00Z", 9)):
        reply = await rest("POST", f"{path}?from={since}")
        assert (reply.status, reply.json) == (202, {"from_seq": first, "to_seq": 8})
        await store.deliveries.spread(made["id"])
    for wrong in ("yesterday", "-1", "2025-13-01T00:00:00Z"):
        assert (await rest("POST", f"{path}?from={wrong}")).json["field"] == "from"


async def test_events_are_read_in_order_and_from_where_one_was(rest: Rest, store: Store, acme: Tenant) -> None:
    assert (await rest("GET", "/events")).json == {"items": [], "last_seq": 0, "more": False}
    await call(store, acme)
    await call(store, acme, "other", "bob")
    first = (await rest("GET", "/events?limit=3")).json
    assert [item["seq"] for item in first["items"]] == [1, 2, 3]
    assert (first["last_seq"], first["more"]) == (3, True)
    rest_of_them = (await rest("GET", f"/events?after={first['last_seq']}")).json
    assert [item["seq"] for item in rest_of_them["items"]] == [4, 5, 6, 7, 8]
    assert (rest_of_them["last_seq"], rest_of_them["more"]) == (8, False)
    some = (await rest("GET", "/events?type=participant.left&room=other")).json
    assert [(item["type"], item["room_id"], item["data"]["user_name"]) for item in some["items"]] == [
        ("participant.left", "other", "bob")
    ]
    assert some["last_seq"] == 8
    assert (await rest("GET", "/events?after=8&room=nowhere")).json == {"items": [], "last_seq": 8, "more": False}


async def test_events_of_others_are_not_seen(rest: Rest, store: Store, acme: Tenant, rival: Tenant) -> None:
    await call(store, acme)
    assert (await rest("GET", "/events", key=rival.key)).json["items"] == []


async def test_what_waits_is_in_the_metrics(rest: Rest, store: Store, acme: Tenant, clock: Any) -> None:
    made = (await rest("POST", "/webhooks", {"url": URL})).json
    await call(store, acme)
    await store.deliveries.spread(made["id"])
    clock.advance(90)
    await store.sending.measure()
    metrics = (await request(rest.port, "GET", "/metrics", {"Host": "localhost", "Connection": "close"})).body.decode()
    assert "\nsfu_webhook_waiting 4\n" in metrics
    assert "\nsfu_webhook_oldest_seconds 90\n" in metrics


async def test_every_change_is_in_the_audit_log(rest: Rest, store: Store, acme: Tenant) -> None:
    made = (await rest("POST", "/webhooks", {"url": f"{URL}?token=hidden"})).json
    path = f"/webhooks/{made['id']}"
    await rest("PUT", path, {"description": "Billing"})
    for way in ("rotate", "test", "resume", "replay"):
        await rest("POST", f"{path}/{way}")
    await rest("DELETE", path)
    sql = "SELECT * FROM audit_entries WHERE company_id = :id AND action LIKE 'webhook.%'"
    rows = await store.database.read(sql, id=acme.company.id)
    done = ("created", "changed", "secret_rotated", "tested", "resumed", "replayed", "deleted")
    assert sorted(row["action"] for row in rows) == sorted(f"webhook.{one}" for one in done)
    assert {row["by_name"] for row in rows} == {acme.key[:11]}
    assert "hidden" not in str(rows)
