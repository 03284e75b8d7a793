"""Who may ask what: every route with every kind of key and token, and that other companies' things do not exist."""

from __future__ import annotations

import base64
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from support.rows import room

from sfu.api.routes import ROUTES
from sfu.calls.rooms import new_id
from sfu.limits.rates import FAILURES, FAILURES_S
from sfu.store import Store, keys
from sfu.store.bans import Bans
from sfu.store.companies import Companies
from sfu.store.records import Line
from sfu.store.webhooks import Webhooks
from sfu.tenancy import hooks, tokens
from sfu.tenancy.keys import ServerKey
from sfu.tenancy.tokens import Permissions

if TYPE_CHECKING:
    from support.rest import Reply, Rest, Tenant

pytest_plugins = ["support.rest"]

ROOM = "team"
REQUESTS: dict[str, tuple[str, Any]] = {
    "issue_token": ("/tokens", {"room_id": ROOM, "user_name": "alice"}),
    "list_tokens": ("/tokens", None),
    "issue_tokens": ("/tokens/bulk", {"tokens": [{"room_id": ROOM, "name": "alice"}]}),
    "inspect_token": ("/tokens/inspect", {"token": "x"}),
    "get_token": ("/tokens/{token}", None),
    "revoke_token": ("/tokens/{token}", None),
    "set_own_secret": ("/company/secret", {"secret": "s" * 32}),
    "remove_own_secret": ("/company/secret", None),
    "list_rooms": ("/rooms", None),
    "create_room": ("/rooms", {"room_id": "new"}),
    "get_room": (f"/rooms/{ROOM}", None),
    "change_room": (f"/rooms/{ROOM}", {"name": "New"}),
    "patch_room": (f"/rooms/{ROOM}", {"metadata": {"a": 1}}),
    "list_participants": (f"/rooms/{ROOM}/participants", None),
    "get_participant": (f"/rooms/{ROOM}/participants/{{token}}", None),
    "change_participant": (f"/rooms/{ROOM}/participants/{{token}}", {"permissions": {"chat": False}}),
    "move_participant": (f"/rooms/{ROOM}/participants/{{token}}/move", {"room_id": "other"}),
    "remove_participant": (f"/rooms/{ROOM}/participants/{{token}}", None),
    "mute_participant": (f"/rooms/{ROOM}/participants/{{token}}/mute", {}),
    "turn_spotlight": (f"/rooms/{ROOM}/spotlight", {"session_id": None}),
    "send_message": (f"/rooms/{ROOM}/messages", {"data": 1}),
    "list_lobby": (f"/rooms/{ROOM}/lobby", None),
    "admit_all": (f"/rooms/{ROOM}/lobby/admit", None),
    "admit_participant": (f"/rooms/{ROOM}/lobby/someone/admit", None),
    "refuse_participant": (f"/rooms/{ROOM}/lobby/someone/refuse", None),
    "end_call": (f"/rooms/{ROOM}/end", None),
    "list_chat": (f"/rooms/{ROOM}/chat", None),
    "add_line": (f"/rooms/{ROOM}/chat", {"user_name": "Desk", "text": "hello"}),
    "delete_line": (f"/rooms/{ROOM}/chat/{{token}}", None),
    "list_bans": (f"/rooms/{ROOM}/bans", None),
    "lift_ban": (f"/rooms/{ROOM}/bans/{{token}}", None),
    "delete_room": (f"/rooms/{ROOM}", None),
    "list_sessions": (f"/rooms/{ROOM}/sessions", None),
    "all_sessions": ("/sessions", None),
    "get_session": ("/sessions/{token}", None),
    "user_rooms": ("/users/alice/rooms", None),
    "room_days": ("/analytics/rooms", None),
    "usage": ("/usage", None),
    "list_keys": ("/keys", None),
    "create_key": ("/keys", {"name": "ci", "scopes": ["rooms:read"]}),
    "get_key": ("/keys/{token}", None),
    "change_key": ("/keys/{token}", {"name": "other"}),
    "rotate_key": ("/keys/{token}/rotate", {}),
    "revoke_key": ("/keys/{token}", None),
    "list_companies": ("/companies", None),
    "create_company": ("/companies", {"name": "New Ltd."}),
    "get_company": ("/companies/{token}", None),
    "change_company": ("/companies/{token}", {"tier": "pro"}),
    "company_usage": ("/companies/{token}/usage", None),
    "list_audit": ("/audit", None),
    "list_events": ("/events", None),
    "list_webhooks": ("/webhooks", None),
    "create_webhook": ("/webhooks", {"url": "https://example.org/hook"}),
    "get_webhook": ("/webhooks/{token}", None),
    "change_webhook": ("/webhooks/{token}", {"events": ["room.*"]}),
    "rotate_webhook": ("/webhooks/{token}/rotate", None),
    "test_webhook": ("/webhooks/{token}/test", None),
    "resume_webhook": ("/webhooks/{token}/resume", None),
    "replay_webhook": ("/webhooks/{token}/replay?from=1", None),
    "list_deliveries": ("/webhooks/{token}/deliveries", None),
    "delete_webhook": ("/webhooks/{token}", None),
    "openapi": ("/openapi.json", None),
    "docs": ("/docs", None),
}
"""A request for each route that is answered well. A new route fails until it is listed.

`token` is the id of a token, and of whatever else there is.
"""

ROOMLESS = {"issue_tokens", "set_own_secret", "remove_own_secret"}
"""Changes that concern no room, or several."""
KEY = (401, "api_key_invalid")
EXPECTED: dict[str, dict[str, tuple[int, str]]] = {
    "no key": {"key": (401, "api_key_missing"), "moderator": (401, "api_key_missing")},
    "wrong scheme": {"key": (401, "api_key_missing"), "moderator": (401, "api_key_missing")},
    "wrong key": {"key": KEY, "moderator": KEY},
    "half a key": {"key": KEY, "moderator": KEY},
    "disabled company": {"key": (403, "company_disabled"), "moderator": (403, "company_disabled")},
    "moderator": {"key": KEY, "moderator": (0, "")},
    "no moderator": {"key": KEY, "moderator": (403, "not_allowed")},
    "another room's": {"key": KEY, "moderator": (403, "token_room")},
    "expired": {"key": KEY, "moderator": (401, "token_expired")},
    "not yet valid": {"key": KEY, "moderator": (401, "token_not_yet_valid")},
    "lives too long": {"key": KEY, "moderator": (401, "token_lifetime")},
    "revoked": {"key": KEY, "moderator": (401, "token_revoked")},
    "not recorded": {"key": KEY, "moderator": (401, "token_unknown")},
    "tampered": {"key": KEY, "moderator": (401, "token_signature")},
    "alg none": {"key": KEY, "moderator": (401, "token_algorithm")},
    "HS512": {"key": KEY, "moderator": (401, "token_algorithm")},
    "wrong audience": {"key": KEY, "moderator": (401, "token_audience")},
    "no audience": {"key": KEY, "moderator": (401, "token_audience")},
    "no expiry": {"key": KEY, "moderator": (401, "token_claim")},
    "other tenant's kid": {"key": KEY, "moderator": (401, "token_signature")},
    "other tenant's claim": {"key": KEY, "moderator": (401, "token_company")},
    "nobody's kid": {"key": KEY, "moderator": (401, "token_signature")},
    "disabled company's": {"key": KEY, "moderator": (403, "company_disabled")},
    "no token": {"key": KEY, "moderator": (401, "token_malformed")},
    "ticket": {"key": KEY, "moderator": (401, "token_malformed")},
    "session's secret": {"key": KEY, "moderator": (401, "token_malformed")},
    "company's secret": {"key": KEY, "moderator": (401, "token_malformed")},
    "key in quotes": {"key": KEY, "moderator": (401, "token_malformed")},
    "key without prefix": {"key": KEY, "moderator": (401, "token_malformed")},
    "revoked key": {"key": KEY, "moderator": KEY},
    "expired key": {"key": KEY, "moderator": KEY},
    "revoked admin key": {"key": KEY, "moderator": KEY},
    "admin key": dict.fromkeys(("key", "moderator"), (403, "company_key_required")) | {"admin": (0, "")},
}
EXPECTED["disabled company"]["admin"] = (403, "admin_key_required")
for _answers in EXPECTED.values():
    _answers.setdefault("admin", _answers["key"])
GONE = ("revoked key", "expired key", "revoked admin key")
GUESSES: dict[str, list[str]] = {
    "key": ["wrong key", *GONE],
    "admin": ["wrong key", *GONE],
    "moderator": ["wrong key", *GONE, "tampered", "other tenant's kid", "nobody's kid"],
}
"""What could have been valid, by the access of a route. Everything else in EXPECTED is a mistake."""
ONCE_VALID = ("expired", "not yet valid", "revoked", "disabled company", "disabled company's")


@dataclass
class World:
    """Every credential by its name in EXPECTED: the value of the Authorization header."""

    credentials: dict[str, str | None]
    token: str

    def right(self, name: str, acme: Tenant) -> str:
        """What the route of this name takes."""
        admin = next(route for route in ROUTES if route.name == name).access == "admin"
        return str(self.credentials["admin key"]) if admin else f"bearer {acme.key}"


Issue = Callable[..., Awaitable[tuple[tokens.Grant, str]]]


@pytest.fixture
async def world(store: Store, acme: Tenant, rival: Tenant, issue: Issue, clock: Any) -> World:
    may = Permissions(moderate=True)
    grant, token = await issue(acme.company, permissions=may)
    revoked_grant, revoked = await issue(acme.company, permissions=may)
    await store.tokens.revoke(acme.company.id, revoked_grant.id)
    past = clock.now - timedelta(days=1)
    secret = store.companies.secret(acme.company).reveal()
    claims = jwt.decode(token, options={"verify_signature": False})
    kid = {"kid": acme.company.id}
    disabled, disabled_key = await store.companies.create("Closed")
    _, disabled_token = await issue(disabled, permissions=may)
    await store.companies.set_active(disabled.id, False)

    revoked_key, revoked_text = await store.keys.create(acme.company.id, "revoked", ["admin"])
    await store.keys.revoke(acme.company.id, revoked_key.id)
    _, expired_text = await store.keys.create(acme.company.id, "expired", ["admin"], expires_at=clock.now)
    gone, gone_text = await store.keys.create_admin("gone")
    await store.keys.revoke(None, gone.id)

    def signed(changes: dict[str, Any], *, key: bytes = secret, alg: str = "HS256", head: dict[str, str] = kid) -> str:
        kept = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(kept, key if alg != "none" else None, alg, headers=head)

    head, body, signature = token.split(".")
    found = {
        "wrong key": acme.key[:-4] + "AAAA",
        "half a key": acme.key[:20],
        "disabled company": disabled_key.reveal(),
        "moderator": token,
        "no moderator": (await issue(acme.company))[1],
        "another room's": (await issue(acme.company, permissions=may, room_id="other"))[1],
        "expired": (await issue(acme.company, permissions=may, now=past))[1],
        "not yet valid": (await issue(acme.company, permissions=may, now=clock.now + timedelta(hours=1)))[1],
        "lives too long": signed({"exp": claims["iat"] + 86401}),
        "revoked": revoked,
        "not recorded": signed({"jti": "00000000-0000-4000-8000-000000000001"}),
        "tampered": f"{head}.{body}.{signature[:-6]}{'A' * 6}",
        "alg none": signed({}, alg="none"),
        "HS512": signed({}, key=secret * 2, alg="HS512"),
        "wrong audience": signed({"aud": "other"}),
        "no audience": signed({"aud": None}),
        "no expiry": signed({"exp": None}),
        "other tenant's kid": signed({}, head={"kid": rival.company.id}),
        "other tenant's claim": signed({"company_id": rival.company.id}),
        "nobody's kid": signed({}, head={"kid": "00000000-0000-4000-8000-000000000002"}),
        "disabled company's": disabled_token,
        "no token": "x.y.z",
        "ticket": store.returns.ticket(grant.id),
        "session's secret": f"{new_id()}.{'A' * 32}",
        "company's secret": base64.b64encode(secret).decode(),
        "key in quotes": f'"{acme.key}"',
        "key without prefix": acme.key.removeprefix("pk_"),
        "revoked key": revoked_text.reveal(),
        "expired key": expired_text.reveal(),
        "revoked admin key": gone_text.reveal(),
        "admin key": (await store.keys.create_admin("operator"))[1].reveal(),
    }
    credentials: dict[str, str | None] = {name: f"Bearer {value}" for name, value in found.items()}
    credentials |= {"no key": None, "wrong scheme": f"Basic {acme.key}"}
    assert credentials.keys() == EXPECTED.keys()
    return World(credentials, grant.id)


async def ask(rest: Rest, name: str, token: str, authorization: str | None) -> Reply:
    route = next(route for route in ROUTES if route.name == name)
    path, body = REQUESTS[name]
    headers = {"Authorization": authorization} if authorization else {}
    return await rest(route.method, path.format(token=token), body, key="", headers=headers)


async def furnish(store: Store, acme: Tenant, world: World) -> None:
    """Something of Acme's for every request."""
    session = await store.sessions.admit_anonymous(acme.company.id, ROOM, "alice")
    await store.database.run("UPDATE sessions SET id = :new WHERE id = :id", new=world.token, id=session.id)
    store.chat.add(await room(store, acme.company, ROOM), Line(world.token, "p", "alice", "hello", 2**41))
    later = session.connected_at + timedelta(hours=1)
    ban = {"company_id": acme.company.id, "room_id": ROOM, "user_name": "eve", "token_id": world.token}
    ban |= {"id": world.token, "name_key": "", "address": "", "banned_by": ""}
    webhook = {"company_id": acme.company.id, "id": world.token, "url": "https://example.org/", "description": ""}
    webhook |= {"events": "", "rooms": "[]"}
    sealed = ServerKey(bytes(range(32))).seal(hooks.new_secret(), world.token)
    await store.database.write(Webhooks.CREATE, **webhook, sealed_secret=sealed, most=9, now=session.connected_at)
    store.rulings.add(Bans.ADD, **ban, now=session.connected_at, expires_at=later)
    now = session.connected_at
    own = {"id": world.token, "name": "Furnished", "now": now}
    await store.database.run(Companies.ADD, **own, sealed_secret="x", tier="free", is_default=False)
    key = {"company_id": acme.company.id, "prefix": "pk_furnished", "hash": "x", "scopes": "admin", "expires_at": None}
    await store.database.run(keys.ADD, **own, **key)


def test_every_route_is_listed() -> None:
    assert list(REQUESTS) == [route.name for route in ROUTES]


async def test_every_route_with_the_right_key(rest: Rest, store: Store, acme: Tenant, world: World) -> None:
    await furnish(store, acme, world)
    for route in ROUTES:
        reply = await ask(rest, route.name, world.token, world.right(route.name, acme))
        assert reply.status == route.status, (route.name, reply.body)


async def test_every_change_is_one_line_of_the_audit(
    rest: Rest, store: Store, acme: Tenant, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sfu.audit")
    await furnish(store, acme, world)
    admin = str(world.credentials["admin key"]).removeprefix("Bearer ")[:11]
    changing = [route.name for route in ROUTES if route.method != "GET" and route.name != "inspect_token"]
    for route in ROUTES:
        caplog.clear()
        by = f"key={admin}" if route.access == "admin" else f"company='Acme Ltd.' key={acme.key[:11]}"
        await ask(rest, route.name, world.token, world.right(route.name, acme))
        said = [record.getMessage() for record in caplog.records if record.name == "sfu.audit"]
        assert [line.split()[0] for line in said] == [route.name] * (route.name in changing)
        assert all(line.endswith(f" {by} client=127.0.0.1") for line in said), said
        about = " webhook=" if "webhook" in route.name else f" room='{acme.company.id}/"
        roomy = route.tag not in ("keys", "companies") and route.name not in ROOMLESS
        assert all((about in line) == roomy for line in said), said
        assert not any(acme.key in line or "=''" in line for line in said)
        if route.name == "revoke_token":
            assert f" token={world.token} " in said[0]
            assert " name='alice' " in said[0]
    caplog.clear()
    await ask(rest, "revoke_token", world.token, f"bearer {acme.key}")  # it is revoked already
    await rest("POST", "/rooms", {"room_id": ROOM})
    await ask(rest, "end_call", world.token, world.credentials["another room's"])  # refused: nothing was changed
    await rest("DELETE", "/rooms/nowhere")
    assert [record.getMessage().split()[0] for record in caplog.records] == ["create_room"]


def _settings() -> Any:
    from sfu.store.records import RoomSettings

    return RoomSettings()


# --- isolation -------------------------------------------------------------------------------------------------------


async def test_another_tenants_things_answer_as_what_is_not_there(
    rest: Rest, store: Store, acme: Tenant, rival: Tenant, issue: Issue
) -> None:
    """Byte for byte, headers included but for time and request id, for every route that names something."""
    await store.rooms.create(acme.company.id, "secret-room", _settings())
    session = await store.sessions.admit_anonymous(acme.company.id, "secret-room", "alice")
    grant, _ = await issue(acme.company, room_id="secret-room")
    webhook, _ = await store.webhooks.create(acme.company.id, "https://example.org/")
    pairs = {
        "room_id": ("secret-room", "absent-room"),
        "token_id": (grant.id, "00000000-0000-4000-8000-000000000000"),
        "user_name": ("alice", "nobody"),
        "session_id": (session.id, "00000000-0000-4000-8000-000000000000"),
        "webhook_id": (webhook.id, "00000000-0000-4000-8000-000000000000"),
        "key_id": ((await store.keys.create(acme.company.id, "ci", ["admin"]))[0].id, str(uuid.uuid4())),
    }
    for route in ROUTES:
        if not route.parameters or route.access == "admin":
            continue
        answers = []
        for name in pairs[route.parameters[0]]:
            body = REQUESTS[route.name][1]
            path = route.path.format(**(dict.fromkeys(route.parameters, grant.id) | {route.parameters[0]: name}))
            reply = await rest(route.method, path, body, key=rival.key)
            answers.append(
                replace(
                    reply,
                    headers={k: v for k, v in reply.headers.items() if k not in ("date", "x-request-id", "ratelimit")},
                )
            )
        assert answers[0] == answers[1], route.name
        assert answers[0].status in (200, 404)
    for path in ("/rooms", "/tokens", "/sessions", "/analytics/rooms?from=2025-01-01&to=2025-12-31"):
        assert (await rest("GET", path, key=rival.key)).json["items"] == []
        assert (await rest("GET", path)).json["items"]
    made = await rest("POST", "/rooms", {"room_id": "secret-room"}, key=rival.key)
    assert made.status == 201
    assert (await rest("GET", "/rooms/secret-room")).json["participant_count"] == 1
    assert rest.calls.ended == []


# --- guessing --------------------------------------------------------------------------------------------------------


WRONG = "pk_" + "x" * 43
"""A text of the form of a key."""


async def guess(rest: Rest, address: str = "192.0.2.1") -> None:
    """Uses up an address's failures."""
    for _ in range(FAILURES):
        assert (await rest("GET", "/rooms", key=WRONG, headers={"X-Forwarded-For": address})).status == 401


async def test_ten_failures_a_minute_then_no_guess_is_listened_to(rest: Rest, acme: Tenant, world: World) -> None:
    await guess(rest)
    for wrong in (WRONG, acme.key[:-4] + "AAAA"):
        reply = await rest("GET", "/rooms", key=wrong)
        assert (reply.status, reply.code) == (429, "too_many_failures")
        assert 1 <= int(reply.headers["retry-after"]) <= FAILURES_S
    assert (await ask(rest, "get_room", world.token, world.credentials["tampered"])).status == 429
    assert (await rest("GET", "/openapi.json", key="")).status == 200


async def test_nobodys_failures_refuse_who_is_known(rest: Rest, acme: Tenant, world: World) -> None:
    """People behind one proxy share an address: each gets the answer that the credential deserves."""
    await guess(rest)
    assert (await rest("POST", "/rooms", {"room_id": ROOM}, key=acme.key)).status == 201
    for credential in ("moderator", "no moderator", "another room's", *ONCE_VALID):
        status, code = EXPECTED[credential]["moderator"]
        reply = await ask(rest, "get_room", world.token, world.credentials[credential])
        assert reply.status == (status or 200), credential
        assert status == 0 or reply.code == code


@pytest.mark.soak
@pytest.mark.parametrize("access", GUESSES)
@pytest.mark.parametrize("credential", EXPECTED)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_mistake_is_no_guess(rest: Rest, world: World, credential: str, access: str) -> None:
    """On every route of that access, and often enough to use up the failures if it counted."""
    routes = [route.name for route in ROUTES if route.access == access]
    asked = [await ask(rest, name, world.token, world.credentials[credential]) for name in (routes * FAILURES)[:20]]
    refused = [reply.status == 429 for reply in asked]
    assert refused == [credential in GUESSES[access] and n >= FAILURES for n in range(20)]


async def test_failures_are_counted_by_the_address_a_trusted_proxy_names(store: Store, clock: Any) -> None:
    from ipaddress import ip_network

    from support.rest import serving

    async with serving(store, clock, trusted_proxies=(ip_network("127.0.0.0/8"),)) as rest:
        await guess(rest, "192.0.2.1")
        for address, status in (("192.0.2.1", 429), ("192.0.2.2", 401)):
            reply = await rest("GET", "/rooms", key=WRONG, headers={"X-Forwarded-For": address})
            assert reply.status == status


async def test_nobody_forges_an_address_without_a_trusted_proxy(rest: Rest) -> None:
    for n in range(FAILURES):
        await rest("GET", "/rooms", key=WRONG, headers={"X-Forwarded-For": f"192.0.2.{n}"})
    assert (await rest("GET", "/rooms", key=WRONG, headers={"X-Forwarded-For": "192.0.2.99"})).status == 429


async def test_a_refusal_is_logged_once_a_minute_and_address(
    store: Store, clock: Any, acme: Tenant, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    from ipaddress import ip_network

    from support.rest import serving

    caplog.set_level(logging.INFO, "sfu.api")
    async with serving(store, clock, trusted_proxies=(ip_network("127.0.0.0/8"),)) as rest:
        await guess(rest, "192.0.2.1")
        await rest("GET", "/rooms", key=acme.key[:-4] + "AAAA", headers={"X-Forwarded-For": "192.0.2.2"})
        await rest("GET", "/rooms/team", key="x.y.z", headers={"X-Forwarded-For": "192.0.2.3"})
        await rest("GET", "/rooms", key="", headers={"X-Forwarded-For": "192.0.2.4"})
        await rest("GET", "/rooms", key=acme.key, headers={"X-Forwarded-For": "192.0.2.5"})
        for name in ("no moderator", "disabled company"):
            token = str(world.credentials[name]).removeprefix("Bearer ")
            await rest("GET", f"/rooms/{ROOM}", key=token, headers={"X-Forwarded-For": "192.0.2.6"})
    said = [record.getMessage().partition(" detail=")[0] for record in caplog.records if record.name == "sfu.api"]
    closed = str(world.credentials["disabled company"]).removeprefix("Bearer ")[:11]
    assert said == [
        f"refused reason=api_key_invalid client=192.0.2.1 key={WRONG[:11]} request=list_rooms",
        f"refused reason=api_key_invalid client=192.0.2.2 key={acme.key[:11]} request=list_rooms",
        "refused reason=token_malformed room='team' client=192.0.2.3 request=get_room",
        "refused reason=api_key_missing client=192.0.2.4 request=list_rooms",
        f"refused reason=not_allowed room='{acme.company.id}/{ROOM}' name='alice' client=192.0.2.6 request=get_room",
        f"refused reason=company_disabled room='{ROOM}' client=192.0.2.6 key={closed} request=get_room",
    ]


async def test_a_wrong_credential_is_told_what_it_is(rest: Rest, acme: Tenant, world: World) -> None:
    """By the form only: an answer does not tell a key that was replaced from one that never was."""
    token = str(world.credentials["moderator"])
    said = {
        "": "has no API key",
        f"Basic {acme.key}": "is not `Bearer pk_…`",
        acme.key: "is not `Bearer pk_…`",
        token: "is a token, not an API key",
        f"Bearer {acme.key[:20]}": "only the beginning of an API key: it has 20 characters, and an API key has 46",
        f"Bearer {acme.key}x": "more than an API key: it has 47 characters",
        f"Bearer '{acme.key}'": "is in quotes",
        f"Bearer Bearer {acme.key}": "more than one word",
        f"Bearer {acme.key[3:]}": "an API key without its `pk_`",
        f"Bearer pk_{'.' * 43}": "a character that none has",
        "Bearer secret": "no API key: these begin with `pk_`",
        f"Bearer {WRONG}": "No company of this server has this API key",
        f"Bearer {acme.key[:-4]}AAAA": "No company of this server has this API key",
    }
    for header, words in said.items():
        for path in ("/rooms", f"/rooms/{ROOM}") if header != token else ("/rooms",):
            reply = await rest("GET", path, key="", headers={"Authorization": header} if header else {})
            assert reply.status == 401
            assert words in reply.json["detail"], (header, path)
            assert acme.key[3:20] not in reply.json["detail"]


# --- secrets ---------------------------------------------------------------------------------------------------------


async def test_every_route_with_every_credential_and_no_secret_in_answers_logs_or_database(
    store: Store, clock: Any, acme: Tenant, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    from support.rest import serving

    caplog.set_level(logging.DEBUG)
    await furnish(store, acme, world)
    said = []
    async with serving(store, clock, limits=False) as rest:
        wanted = {"room_id": ROOM, "user_name": "alice"}
        issued = (await rest("POST", "/tokens", wanted, key=acme.key)).json["token"]
        for credential in sorted(EXPECTED, key="moderator".__eq__):  # what that one may change comes last
            for route in ROUTES:
                reply = await ask(rest, route.name, world.token, world.credentials[credential])
                said.append(reply.body.decode())
                status, code = EXPECTED[credential].get(route.access, (0, ""))
                if status == 0:
                    assert reply.status == route.status, (route.name, credential, reply.body)
                else:
                    assert (reply.status, reply.code) == (status, code), (route.name, credential)
                    assert ("www-authenticate" in reply.headers) == (status == 401)
    dumped = [
        str(dict(row))
        for table in ("companies", "keys", "rooms", "tokens", "sessions", "audit_entries")
        for row in await store.database.read(f"SELECT * FROM {table}")
    ]
    everything = "\n".join([*said, *dumped, caplog.text])
    assert "alice" in everything
    secret = store.companies.secret(acme.company).reveal()
    admin = str(world.credentials["admin key"]).removeprefix("Bearer ")
    presented = [value.partition(" ")[2] for value in world.credentials.values() if value and value.count(".") == 2]
    for hidden in (acme.key, admin, secret.hex(), base64.b64encode(secret).decode(), issued, *presented):
        assert hidden == "x.y.z" or hidden not in everything
