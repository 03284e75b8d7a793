"""Every route with keys of every scope, and with another company's: what each may do, and what it is told it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from test_api_auth import ROOM, World, ask, furnish
from test_api_auth import world as world

from sfu.api import openapi
from sfu.api.routes import PREFIX, ROUTES
from sfu.store import Store
from sfu.tenancy.scopes import SCOPES

if TYPE_CHECKING:
    from support.rest import Rest, Tenant

pytest_plugins = ["support.rest"]

MAY: dict[str, set[str]] = {
    "rooms:read": {
        "list_rooms", "get_room", "list_participants", "get_participant", "list_lobby", "list_chat", "list_bans",
    },
    "rooms:write": {
        "create_room", "change_room", "patch_room", "delete_room", "remove_participant", "mute_participant", "end_call",
        "delete_line", "lift_ban", "change_participant", "turn_spotlight", "send_message", "add_line", "admit_all",
        "admit_participant", "refuse_participant",
    },
    "tokens:create": {
        "issue_token", "issue_tokens", "list_tokens", "get_token", "inspect_token", "revoke_token", "move_participant",
    },
    "history:read": {
        "list_sessions", "all_sessions", "get_session", "user_rooms", "room_days", "usage", "list_audit", "list_events",
    },
    "webhooks:write": {
        "list_webhooks", "create_webhook", "get_webhook", "change_webhook", "rotate_webhook", "test_webhook",
        "resume_webhook", "replay_webhook", "list_deliveries", "delete_webhook",
    },
    "admin": {
        "list_keys", "create_key", "get_key", "change_key", "rotate_key", "revoke_key", "set_own_secret",
        "remove_own_secret",
    },
}  # fmt: skip
"""The routes that need each scope. A new route fails until it is listed."""
OF_COMPANIES = {"list_companies", "create_company", "get_company", "change_company", "company_usage"}


def test_every_route_of_a_company_needs_one_scope() -> None:
    assert MAY.keys() == SCOPES.keys()
    listed = [name for names in MAY.values() for name in names]
    assert sorted(listed) == sorted(route.name for route in ROUTES if route.access in ("key", "moderator"))
    assert {route.name for route in ROUTES if route.access == "admin"} == OF_COMPANIES
    assert {route.name for route in ROUTES if route.scope and route.access == "admin"} == set()


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_key_does_what_its_scope_allows_and_nothing_else(
    store: Store, clock: Any, acme: Tenant, world: World, scope: Any
) -> None:
    from support.rest import serving

    await furnish(store, acme, world)
    _, text = await store.keys.create(acme.company.id, scope, [scope])
    async with serving(store, clock, limits=False) as rest:
        for route in ROUTES:
            needed = next((name for name, routes in MAY.items() if route.name in routes), "")
            reply = await ask(rest, route.name, world.token, f"Bearer {text.reveal()}")
            if route.access == "admin":
                assert (reply.status, reply.code) == (403, "admin_key_required"), route.name
            elif needed and scope not in (needed, "admin"):
                assert (reply.status, reply.code) == (403, "scope_missing"), route.name
                assert reply.json["scope"] == needed
                assert f"`{needed}`" in reply.json["detail"]
            else:
                assert reply.status == route.status, (route.name, reply.body)


async def test_a_key_may_have_several_scopes(rest: Rest, store: Store, acme: Tenant) -> None:
    _, text = await store.keys.create(acme.company.id, "ci", ["rooms:read", "tokens:create"])
    body = {"room_id": ROOM, "user_name": "alice"}
    for method, path, sent, status in (
        ("GET", "/rooms", None, 200),
        ("POST", "/tokens", body, 201),
        ("POST", "/rooms", {"room_id": "new"}, 403),
    ):
        assert (await rest(method, path, sent, key=text.reveal())).status == status


async def rows_of(store: Store, company_id: str) -> list[str]:
    tables = ("rooms", "tokens", "sessions", "chat_lines", "bans", "keys")
    values = {"company_id": company_id}
    found = [await store.database.read(f"SELECT * FROM {t} WHERE company_id = :company_id", **values) for t in tables]
    return sorted(str(sorted(row.items())) for rows in found for row in rows)


@pytest.mark.parametrize("scope", SCOPES)
async def test_another_companys_key_changes_and_shows_nothing(
    store: Store, clock: Any, acme: Tenant, rival: Tenant, world: World, scope: Any
) -> None:
    from support.rest import serving

    await furnish(store, acme, world)
    for queue in (store.rulings, store.lines):
        await queue.flush()
    _, text = await store.keys.create(rival.company.id, scope, [scope])
    before = await rows_of(store, acme.company.id)
    async with serving(store, clock, limits=False) as rest:
        for route in ROUTES:
            reply = await ask(rest, route.name, world.token, f"Bearer {text.reveal()}")
            for hidden in (world.token, acme.company.id, "Furnished", "hello", '"eve"'):
                assert hidden not in reply.body.decode() or route.access == "public", route.name
    assert await rows_of(store, acme.company.id) == before


def test_the_description_names_the_scope() -> None:
    paths = openapi.document()["paths"]
    for route in ROUTES:
        security = paths[PREFIX + route.path][route.method.lower()]["security"]
        assert ({"apiKey": [route.scope]} in security) == (route.access in ("key", "moderator"))
