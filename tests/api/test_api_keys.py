"""Keys, companies and usage over REST, and how many requests a key may send."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sfu.store import Store

if TYPE_CHECKING:
    from support.rest import Rest, Tenant

pytest_plugins = ["support.rest"]

NO_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def operator(store: Store) -> str:
    return (await store.keys.create_admin("operator"))[1].reveal()


# --- keys ------------------------------------------------------------------------------------------------------------


async def test_a_key_is_shown_once(rest: Rest, acme: Tenant, clock: Any) -> None:
    clock.advance(1)
    made = await rest("POST", "/keys", {"name": " CI ", "scopes": ["rooms:read", "rooms:read"]})
    assert made.status == 201
    assert re.fullmatch(r"pk_[\w-]{43}", made.json["key"])
    assert made.json["key"].startswith(made.json["prefix"])
    assert made.headers["location"] == f"keys/{made.json['id']}"
    assert made.headers["cache-control"] == "no-store"
    shown = (await rest("GET", f"/keys/{made.json['id']}")).json
    assert shown == {name: value for name, value in made.json.items() if name != "key"}
    assert (shown["name"], shown["scopes"], shown["expires_at"]) == ("CI", ["rooms:read"], None)
    assert [key["name"] for key in (await rest("GET", "/keys")).json["items"]] == ["CI", "first"]
    table = (await rest("GET", "/keys?format=csv")).body.decode()
    assert made.json["key"] not in table
    assert acme.key not in table


async def test_tokens_of_a_leaked_key_are_revoked_with_it(rest: Rest, store: Store, acme: Tenant) -> None:
    """Those that it issued, bookings ahead as well, and no others; a key with the right to issue only does no more."""
    leaked = (await rest("POST", "/keys", {"name": "site", "scopes": ["tokens:create", "rooms:write"]})).json
    wanted = {"room_id": "team", "user_name": "eve"}
    ahead = {**wanted, "not_before": "2026-06-01T00:00:00Z", "permissions": {"moderate": True}}
    one = (await rest("POST", "/tokens", wanted, key=leaked["key"])).json["id"]
    two = (await rest("POST", "/tokens/bulk", {"tokens": [ahead]}, key=leaked["key"])).json["items"][0]["id"]
    other = (await rest("POST", "/tokens", wanted)).json["id"]
    assert (await rest("DELETE", f"/keys/{leaked['id']}?tokens=revoke")).status == 204
    states = [(await rest("GET", f"/tokens/{token_id}")).json["state"] for token_id in (one, two, other)]
    assert states == ["revoked", "revoked", "valid"]
    told = (await rest("GET", "/audit?action=token.revoked")).json["items"]
    assert {entry["target"] for entry in told} == {one, two}
    events = (await rest("GET", "/events?after=0&type=token.revoked")).json["items"]
    assert len(events) == 2


async def test_who_may_only_issue_tokens_issues_none_that_moderate(rest: Rest) -> None:
    key = (await rest("POST", "/keys", {"name": "site", "scopes": ["tokens:create"]})).json["key"]
    wanted = {"room_id": "team", "user_name": "eve", "permissions": {"moderate": True}}
    for path, body in (("/tokens", wanted), ("/tokens/bulk", {"tokens": [wanted]})):
        refused = await rest("POST", path, body, key=key)
        assert (refused.status, refused.code, refused.json["scope"]) == (403, "scope_missing", "rooms:write")


async def test_a_body_may_be_left_out_if_it_needs_nothing_and_is_refused_where_there_is_none(rest: Rest) -> None:
    made = (await rest("POST", "/keys", {"name": "ci", "scopes": ["rooms:read"]})).json
    assert (await rest("POST", f"/keys/{made['id']}/rotate")).status == 201
    refused = await rest("DELETE", f"/keys/{made['id']}", {"tokens": "revoke"})
    assert (refused.status, refused.code, refused.json["field"]) == (422, "bad_field", "body")
    assert (await rest("GET", f"/keys/{made['id']}")).json["revoked_at"] is None


async def test_a_key_is_changed_rotated_and_revoked(rest: Rest, clock: Any) -> None:
    made = (await rest("POST", "/keys", {"name": "ci", "scopes": ["rooms:read"]})).json
    path = f"/keys/{made['id']}"
    wide = (await rest("PATCH", path, {"scopes": ["rooms:read", "history:read"]})).json
    assert (wide["name"], wide["scopes"]) == ("ci", ["rooms:read", "history:read"])
    assert (await rest("GET", "/usage", key=made["key"])).status == 200
    rotated = await rest("POST", f"{path}/rotate", {"overlap": 60})
    assert rotated.status == 201
    assert rotated.headers["location"] == f"../{rotated.json['id']}"
    for key in (made["key"], rotated.json["key"]):
        assert (await rest("GET", "/rooms", key=key)).status == 200
    clock.advance(60)
    assert (await rest("GET", "/rooms", key=made["key"])).code == "api_key_invalid"
    assert (await rest("DELETE", f"/keys/{rotated.json['id']}")).status == 204
    assert (await rest("DELETE", f"/keys/{rotated.json['id']}")).status == 204
    assert (await rest("GET", "/rooms", key=rotated.json["key"])).code == "api_key_invalid"
    for method, end in (("GET", ""), ("PATCH", ""), ("POST", "/rotate"), ("DELETE", "")):
        for absent in (NO_ID, "x"):
            body = None if method in ("GET", "DELETE") else {}
            reply = await rest(method, f"/keys/{absent}{end}", body)
            assert (reply.status, reply.code) == (404, "key_not_found")


async def test_a_key_expires_when_it_says(rest: Rest, clock: Any) -> None:
    end = (clock.now + timedelta(minutes=1)).isoformat()
    made = (await rest("POST", "/keys", {"name": "ci", "scopes": ["rooms:read"], "expires_at": end})).json
    assert (await rest("GET", "/rooms", key=made["key"])).status == 200
    clock.advance(60)
    assert (await rest("GET", "/rooms", key=made["key"])).code == "api_key_invalid"
    await rest("PATCH", f"/keys/{made['id']}", {"expires_at": None})
    assert (await rest("GET", "/rooms", key=made["key"])).status == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": ["admin"]}, "name"),
        ({"name": "\u200b", "scopes": ["admin"]}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["admin"] * 7}, "scopes"),
        ({"name": "x", "scopes": ["everything"]}, "scopes[0]"),
        ({"name": "x", "scopes": ["admin"], "expires_at": "2026-01-31"}, "expires_at"),
        ({"name": "x", "scopes": ["admin"], "expires_at": "2026-01-31T09:00:00"}, "expires_at"),
        ({"name": "x", "scopes": ["admin"], "expires_at": "2026-02-31T09:00:00Z"}, "expires_at"),
        ({"name": "x", "scopes": ["admin"], "hash": "x"}, "hash"),
    ],
)
async def test_what_is_no_key_is_refused_by_field(rest: Rest, body: Any, field: str) -> None:
    reply = await rest("POST", "/keys", body)
    assert (reply.status, reply.code, reply.json["field"]) == (422, "bad_field", field)


# --- companies -------------------------------------------------------------------------------------------------------


async def test_an_operator_makes_and_changes_companies(rest: Rest, store: Store, operator: str, acme: Tenant) -> None:
    made = await rest("POST", "/companies", {"name": "  Zoë & Co "}, key=operator)
    assert (made.status, made.json["name"], made.json["tier"]) == (201, "Zoë & Co", "free")
    assert (await rest("GET", "/rooms", key=made.json["key"])).status == 200
    path = f"/{made.headers['location']}"
    shown = {name: value for name, value in made.json.items() if name != "key"}
    assert (await rest("GET", path, key=operator)).json == shown
    changed = await rest("PATCH", path, {"tier": "pro", "name": "Zoë"}, key=operator)
    assert changed.json == shown | {"tier": "pro", "name": "Zoë"}
    assert (await rest("PATCH", path, {"is_active": False}, key=operator)).json["is_active"] is False
    assert (await rest("GET", "/rooms", key=made.json["key"])).code == "company_disabled"
    await rest("PATCH", path, {"is_active": True}, key=operator)
    assert (await rest("GET", "/rooms", key=made.json["key"])).status == 200
    taken = {"name": acme.company.name}
    for reply in (
        await rest("POST", "/companies", taken, key=operator),
        await rest("PATCH", path, taken, key=operator),
    ):
        assert (reply.status, reply.code) == (409, "company_exists")
    assert (await rest("GET", "/companies/x", key=operator)).code == "company_not_found"
    names: list[str] = []
    page: Any = {"next": ""}
    while page["next"] is not None:
        cursor = f"&cursor={page['next']}" if page["next"] else ""
        page = (await rest("GET", f"/companies?limit=1{cursor}", key=operator)).json
        names += [company["name"] for company in page["items"]]
    assert names == ["Acme Ltd.", "Zoë"]
    rows = await store.database.read("SELECT by_name, action FROM audit_entries WHERE by_kind = 'admin'")
    said = [(row["by_name"], row["action"]) for row in rows]
    assert said.count((operator[:11], "company.changed")) == 3
    assert said.count((operator[:11], "company.created")) == 1


async def test_an_operator_sees_the_usage_of_a_company(rest: Rest, store: Store, operator: str, acme: Tenant) -> None:
    await store.sessions.admit_anonymous(acme.company.id, "team", "alice")
    theirs = (await rest("GET", f"/companies/{acme.company.id}/usage", key=operator)).json
    assert theirs == (await rest("GET", "/usage")).json
    assert theirs["now"] == {"people": 1, "rooms": 1}
    assert (await rest("GET", f"/companies/{NO_ID}/usage", key=operator)).status == 404


# --- usage and limits ------------------------------------------------------------------------------------------------


async def test_usage_is_beside_its_limits(rest: Rest, store: Store, acme: Tenant, clock: Any) -> None:
    await store.tiers.set("free", {"people": 2, "minutes_month": 100})
    session = await store.sessions.admit_anonymous(acme.company.id, "team", "alice")
    clock.advance(90)
    store.sessions.close(session, "left")
    await store.sessions.flush()
    await rest("POST", "/tokens", {"room_id": "team", "user_name": "alice"})
    used = (await rest("GET", "/usage?month=2025-10")).json
    day = {"minutes": 1.5, "sessions": 1, "unique_people": 1, "peak": 1, "tokens": 1, "rooms": 1}
    assert used["days"] == [{"date": "2025-10-21", **day}]
    assert {name: used[name] for name in day} == day
    assert (used["month"], used["tier"], used["now"]) == ("2025-10", "free", {"people": 0, "rooms": 1})
    assert (used["limits"]["people"], used["limits"]["minutes_month"], used["limits"]["rooms"]) == (2, 100, None)
    assert (await rest("GET", "/usage?month=2025-09")).json["days"] == []
    for wrong in ("2025-13", "2025-1", "0000-01", "9999-12", "x"):
        assert (await rest("GET", f"/usage?month={wrong}")).json["field"] == "month"


async def test_a_limit_that_is_reached_is_named(rest: Rest, store: Store) -> None:
    await store.tiers.set("free", {"rooms": 1, "tokens_minute": 1})
    body = {"room_id": "team", "user_name": "alice"}
    assert (await rest("POST", "/rooms", {"room_id": "one"})).status == 201
    assert (await rest("POST", "/tokens", body)).status == 201
    for path, sent, limit in (("/rooms", {"room_id": "two"}, "rooms"), ("/tokens", body, "tokens_minute")):
        reply = await rest("POST", path, sent)
        assert (reply.status, reply.code, reply.json["limit"]) == (403, "quota_exceeded", limit)


async def test_a_key_is_told_how_many_requests_it_has_left(store: Store, clock: Any, acme: Tenant, issue: Any) -> None:
    from support.rest import serving

    _, other = await store.keys.create(acme.company.id, "other", ["rooms:read"])
    async with serving(store, clock, key_requests=3) as rest:
        for left in (2, 1, 0):
            reply = await rest("POST" if left else "GET", "/rooms", {} if left else None, key=acme.key)
            assert reply.status == (422 if left else 200)
            assert reply.headers["ratelimit-policy"] == '"key";q=3;w=60'
            assert re.fullmatch(rf'"key";r={left};t=\d+', reply.headers["ratelimit"])
        reply = await rest("GET", "/rooms", key=acme.key)
        assert (reply.status, reply.code) == (429, "too_many_requests")
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert reply.headers["ratelimit"].startswith('"key";r=0;t=')
        assert (await rest("GET", "/rooms", key=other.reveal())).status == 200
        public = await rest("GET", "/openapi.json", key="")
        assert "ratelimit" not in public.headers
    async with serving(store, clock, key_requests=1, limits=False) as rest:
        for _ in range(3):
            reply = await rest("GET", "/rooms", key=acme.key)
            assert reply.status == 200
            assert "ratelimit" not in reply.headers
