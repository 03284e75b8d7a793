"""The audit log: every route that changes something leaves an entry, and everybody finds their own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import pytest
import trio
from support.control import Client, Server, running
from support.rest_client import request
from test_api_auth import REQUESTS, ROOM, furnish
from test_api_auth import World as Credentials

from sfu.api.routes import ROUTES, Route
from sfu.calls.admission import utc_now
from sfu.store import Store
from sfu.store.audit import ACTIONS, Author
from sfu.store.trail import Entry, Wanted
from sfu.tenancy import tokens
from sfu.tenancy.tokens import Permissions

if TYPE_CHECKING:
    from support.rest import Rest, Tenant
    from support.rest_client import Reply

pytest_plugins = ["support.rest"]

NOTHING: dict[str, str] = {}
"""Routes with `changes` that leave no entry, with the reason."""


@dataclass
class World:
    """A server with bob in a call, an API key and a moderator's token of its company, and something to act on."""

    server: Server
    bob: Client
    key: str
    token: str
    id: str
    session_id: str
    waiter_id: str
    admin: str

    def right(self, route: Route) -> tuple[str, str]:
        """What the route takes, of a moderator's token where there may be one, and its kind in an entry."""
        kinds = {"key": (self.key, "key"), "moderator": (self.token, "token"), "admin": (self.admin, "admin")}
        return kinds.get(route.access, ("", ""))

    async def ask(self, route: Route, credential: str) -> Reply:
        path, body = REQUESTS[route.name]
        target = path.format(token=self.session_id if "/participants/" in path else self.id)
        target = target.replace("someone", self.waiter_id)
        headers = {"Host": "x", "Connection": "close", "Authorization": f"Bearer {credential}"}
        raw = b""
        if body is not None:
            raw = json.dumps(body).encode()
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(raw))}
        return await request(self.server.port, route.method, "/api/v1" + target, headers, raw)

    async def told(self, request_id: str) -> list[Entry]:
        found = await self.server.store.trail.list(Wanted(), limit=1000)
        return [entry for entry in found.items if entry.author.request_id == request_id]


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    async with running(folder) as server, server.joined(ROOM, "bob") as bob:
        await bob.answer()
        (seat,) = server.signaling.calls.sessions()
        who = {"company_id": server.default.id, "room_id": ROOM, "user_name": "mod"}
        grant = tokens.grant(**who, duration_s=600, now=utc_now(), permissions=Permissions(moderate=True))
        token = tokens.encode(grant, server.store.companies.secret(server.default).reveal())
        await server.store.tokens.add(grant, token)
        key = (await server.store.companies.rotate_key(server.default.id))[1].reveal()
        tenant = cast("Tenant", SimpleNamespace(company=server.default, key=key))
        await furnish(server.store, tenant, Credentials({}, grant.id))
        admin = (await server.store.keys.create_admin("operator"))[1].reveal()
        server.store.rooms.set(server.default.id, ROOM, locked=None, lobby=True)
        async with server.client(ROOM, "eve") as eve:
            await eve.expect("waiting")
            (waiter,) = server.signaling.calls.lobby.waiters(server.key(ROOM))
            yield World(server, bob, key, token, grant.id, seat.record.id, waiter.id, admin)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.changes], ids=lambda route: route.name)
async def test_every_change_leaves_an_entry_of_its_author(route: Route, tmp_path: Path) -> None:
    """If this fails for a new route: its handler passes `call.author` to the store, which records the change."""
    async with world(tmp_path) as here:
        credential, kind = here.right(route)
        reply = await here.ask(route, credential)
        assert reply.status == route.status, reply.body
        found = await here.told(reply.headers["x-request-id"])
        while not found and "/lobby/" in route.path:  # it is recorded once the person has gone from there
            await trio.sleep(0.01)
            found = await here.told(reply.headers["x-request-id"])
        if route.name in NOTHING:
            assert found == [], NOTHING[route.name]
            return
        assert found, "nothing was recorded"
        for entry in found:
            assert (entry.author.kind, entry.author.address) == (kind, "127.0.0.1")
            assert entry.author.name == ("mod" if kind == "token" else credential[:11])
            assert (entry.change.company_id == here.server.default.id) == (kind != "admin")
            assert entry.change.action in ACTIONS
            assert entry.change.target
            assert entry.change.before != entry.change.after or entry.change.before is None
            for secret in (here.key, here.token, here.admin):
                assert secret not in repr(entry)


async def test_what_changes_nothing_leaves_none(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        for route in ROUTES:
            if not route.changes:
                reply = await here.ask(route, here.admin if route.access == "admin" else here.key)
                assert reply.status == route.status, reply.body
                assert await here.told(reply.headers["x-request-id"]) == [], route.name


async def test_a_company_reads_what_was_done(rest: Rest, acme: Tenant, rival: Tenant) -> None:
    await rest("POST", "/rooms", {"room_id": "team", "name": "=Team"})
    changed = await rest("PUT", "/rooms/team", {"locked": True})
    (entry, *others) = (await rest("GET", "/audit?room=team&action=room.changed")).json["items"]
    assert others == []
    assert entry == {
        "id": entry["id"],
        "at": entry["at"],
        "by_kind": "key",
        "by_id": entry["by_id"],
        "by_name": acme.key[:11],
        "address": "127.0.0.1",
        "request_id": changed.headers["x-request-id"],
        "action": "room.changed",
        "room_id": "team",
        "target": changed.json["id"],
        "user_name": "",
        "session_id": None,
        "before": {"locked": False},
        "after": {"locked": True},
    }
    theirs = (await rest("GET", "/audit", key=rival.key)).json["items"]
    assert {item["room_id"] for item in theirs} == {None}
    assert {item["action"] for item in theirs} == {"company.created"}


async def test_a_company_does_not_learn_where_its_operator_lives(rest: Rest, store: Store, acme: Tenant) -> None:
    await store.companies.rotate_secret(acme.company.id, Author("command", name="root", address="203.0.113.9"))
    reply = await rest("GET", "/audit?action=company.secret_rotated")
    (entry,) = reply.json["items"]
    assert (entry["by_kind"], entry["by_name"], entry["address"]) == ("command", "", "")
    assert b"203.0.113.9" not in reply.body


async def test_filters_and_pages(rest: Rest, acme: Tenant, clock: Any) -> None:
    began = clock.now
    for number in range(3):
        clock.advance(10)
        await rest("POST", "/tokens", {"room_id": f"r{number}", "user_name": f"user {number}"})

    async def who(query: str) -> list[str]:
        return [item["user_name"] for item in (await rest("GET", f"/audit?{query}")).json["items"] if item["user_name"]]

    key_id = (await rest("GET", "/keys")).json["items"][-1]["id"]
    assert await who("") == ["user 2", "user 1", "user 0"]
    assert await who("user=user%201") == await who("user=%20user++1") == ["user 1"]
    assert await who("room=r2&action=token") == ["user 2"]
    assert await who(f"by={acme.key[:11]}") == await who(f"by={key_id}") == await who("")
    assert await who("by=nobody") == await who("action=room") == []
    middle = began.replace(microsecond=0).isoformat()
    later = middle.replace("17:21:27", "17:21:42")
    assert await who(f"from={quote(later)}") == await who(f"from={later}") == ["user 2", "user 1"]
    assert await who(f"to={later.replace('+00:00', 'z').lower()}") == ["user 0"]
    assert await who("to=0001-01-01T00:00:00%2B14:00") == await who("from=9999-12-31T23:59:59-14:00") == []
    page = (await rest("GET", "/audit?action=token.issued&limit=2")).json
    last = (await rest("GET", f"/audit?action=token.issued&limit=2&cursor={page['next']}")).json
    assert [item["user_name"] for item in page["items"] + last["items"]] == await who("")
    assert last["next"] is None


@pytest.mark.parametrize(
    "query", ["from=yesterday", "to=2026-01-31", "to=2026-01-31T12:00:00", "action=Room", "room=", "by=%20", "cursor=x"]
)
async def test_what_cannot_be_meant_is_refused(rest: Rest, query: str) -> None:
    reply = await rest("GET", f"/audit?{query}")
    assert (reply.status, reply.json.get("field")) == (
        (404, None) if query == "cursor=x" else (422, query.partition("=")[0])
    )


async def test_it_is_a_table_for_spreadsheets(rest: Rest) -> None:
    await rest("POST", "/rooms", {"room_id": "=1+1"})
    reply = await rest("GET", "/audit?action=room&format=csv")
    (row,) = csv.DictReader(io.StringIO(reply.body.decode()))
    assert (row["action"], row["room_id"], row["before"]) == ("room.created", "'=1+1", "")
    assert json.loads(row["after"])["access"] == "open"
