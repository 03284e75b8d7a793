"""Tokens over REST beyond the simplest: ids, times, lists, many at once, and those that a company signs by itself."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from sfu.calls.admission import verified
from sfu.refusals import TokenRevoked, TokenSignature, TokenUnknown, TokenUsed
from sfu.store import Store
from sfu.store.records import Session

if TYPE_CHECKING:
    from support.rest import Rest, Tenant

pytest_plugins = ["support.rest"]

WANTED = {"room_id": "team", "user_name": "alice"}
SECRET = "a secret that Acme's backend shares with us, and with nobody else"


async def test_what_a_token_says_of_a_person_is_in_its_record(rest: Rest) -> None:
    asked = {"room_id": "team", "name": "Alice", "user_id": "u-7", "metadata": {"plan": ["a", None]}}
    issued = (await rest("POST", "/tokens", asked | {"max_duration": 900})).json
    claims = jwt.decode(issued["token"], options={"verify_signature": False})
    assert (claims["jti"], claims["user_id"], claims["max_duration"]) == (issued["id"], "u-7", 900)
    record = (await rest("GET", f"/tokens/{issued['id']}")).json
    assert record == (await rest("GET", "/tokens")).json["items"][0]
    expected = {"user_name": "Alice", "user_id": "u-7", "metadata": asked["metadata"], "max_duration": 900}
    assert {name: record[name] for name in expected} == expected
    assert record["state"] == "valid"
    assert (await rest("GET", f"/tokens/{uuid.uuid4()}")).code == "token_not_found"


async def test_a_token_may_begin_weeks_ahead_and_lives_from_then_on(rest: Rest, clock: Any) -> None:
    start = clock.now.replace(microsecond=0) + timedelta(days=21)
    issued = (await rest("POST", "/tokens", WANTED | {"not_before": start.isoformat(), "duration": 7200})).json
    assert issued["expires_at"] == f"{start + timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"
    assert (await rest("GET", f"/tokens/{issued['id']}")).json["state"] == "early"
    for later_s, code in ((0, "token_not_yet_valid"), (21 * 86400, "valid"), (7260, "token_expired")):
        clock.advance(later_s)
        assert (await rest("POST", "/tokens/inspect", {"token": issued["token"]})).json["code"] == code


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "bob"}, "name"),
    ({"user_id": "x" * 256}, "user_id"),
    ({"user_id": "a\nb"}, "user_id"),
    ({"max_duration": 0}, "max_duration"),
    ({"metadata": {"a": "x" * 16_384}}, "metadata"),
    ({"not_before": "tomorrow"}, "not_before"),
    ({"not_before": "2025-10-21"}, "not_before"),
    ({"not_before": "2027-10-21T00:00:00Z"}, "not_before"),
    ({"not_before": "2025-10-21T10:00:00Z"}, "not_before"),
]


async def test_what_is_wrong_with_a_wish_is_named(rest: Rest) -> None:
    for change, field in WRONG:
        reply = await rest("POST", "/tokens", WANTED | change)
        assert (reply.status, reply.json["field"]) == (422, field), change
        many = await rest("POST", "/tokens/bulk", {"tokens": [WANTED, WANTED | change]})
        assert many.json["field"] == f"tokens[1].{field}"
    for tokens in ([], [WANTED] * 101):
        assert (await rest("POST", "/tokens/bulk", {"tokens": tokens})).json["field"] == "tokens"
    assert (await rest("GET", "/tokens")).json["items"] == []


async def test_many_tokens_at_once(rest: Rest) -> None:
    wanted = [WANTED | {"user_name": f"p{n}", "single_use": n % 2 == 0} for n in range(100)]
    keyed = {"Idempotency-Key": "class"}
    made = await rest("POST", "/tokens/bulk", {"tokens": wanted}, headers=keyed)
    assert [one["user_name"] for one in made.json["items"]] == [one["user_name"] for one in wanted]
    assert (await rest("POST", "/tokens/bulk", {"tokens": wanted}, headers=keyed)).json == made.json
    records = (await rest("GET", "/tokens")).json["items"]
    assert [one["id"] for one in reversed(records)] == [one["id"] for one in made.json["items"]]
    assert [one["single_use"] for one in reversed(records)] == [one["single_use"] for one in wanted]


async def test_lists_of_tokens_are_filtered(rest: Rest, store: Store, clock: Any, acme: Tenant, issue: Any) -> None:
    ids = {}
    for name, room, more in (
        ("valid", "team", {"user_id": "u-1"}),
        ("early", "team", {"not_before": (clock.now + timedelta(days=1)).isoformat()}),
        ("revoked", "other", {}),
        ("expired", "other", {"duration": 1}),
    ):
        ids[name] = (await rest("POST", "/tokens", WANTED | {"room_id": room, "user_name": name} | more)).json["id"]
    grant, token = await issue(acme.company, single_use=True, user_name="used", room_id="third")
    await store.sessions.admit(grant, token)
    ids["used"] = grant.id
    await rest("DELETE", f"/tokens/{ids['revoked']}")
    clock.advance(100)

    async def found(query: str) -> set[str]:
        return {one["id"] for one in (await rest("GET", f"/tokens?{query}")).json["items"]}

    for state, token_id in ids.items():
        assert await found(f"state={state}") == {token_id}
        assert (await rest("GET", f"/tokens/{token_id}")).json["state"] == state
    assert await found("room=team") == {ids["valid"], ids["early"]}
    assert await found("user=u-1") == await found("user=valid") == {ids["valid"]}
    assert await found("room=team&state=expired") == set()
    assert (await rest("GET", "/tokens?state=lost")).json["field"] == "state"


# --- tokens that a company signs by itself ---------------------------------------------------------------------------


@pytest.fixture
def sign(acme: Tenant, clock: Any) -> Callable[..., str]:
    """As docs/api.md says, with the least that is needed."""

    def make(secret: str = SECRET, **changes: Any) -> str:
        now = int(clock.now.timestamp())
        claims = {"iss": "sfu", "aud": "webrtc", "jti": str(uuid.uuid4()), "room_id": "team", "user_name": "alice"}
        claims |= {"iat": now, "exp": now + 600}
        return jwt.encode(claims | changes, secret, "HS256", headers={"kid": acme.company.id})

    return make


async def enter(store: Store, token: str, clock: Any) -> Session:
    _, grant = await verified(store, token, clock.now)
    return await store.sessions.admit(grant, token)


async def test_a_company_signs_by_itself(rest: Rest, store: Store, clock: Any, sign: Callable[..., str]) -> None:
    token = sign(user_id="u-7", metadata={"a": 1}, max_duration=60, permissions={"moderate": True})
    with pytest.raises(TokenSignature):
        await enter(store, token, clock)
    assert (await rest("PUT", "/company/secret", {"secret": "é" * 15})).json["field"] == "secret"
    assert (await rest("PUT", "/company/secret", {"secret": SECRET})).status == 204
    assert (await rest("POST", "/tokens/inspect", {"token": token})).json["code"] == "valid"
    assert (await rest("GET", "/tokens")).json["items"] == []
    session = await enter(store, token, clock)
    assert (await enter(store, token, clock)).id != session.id  # it is for any number of joins
    (record,) = (await rest("GET", "/tokens")).json["items"]
    assert (session.user_id, session.token_id) == ("u-7", record["id"])
    assert (record["metadata"], record["max_duration"], record["single_use"]) == ({"a": 1}, 60, False)
    assert (await rest("GET", "/rooms/team", key=token)).status == 200
    assert (await rest("DELETE", "/company/secret")).status == 204
    with pytest.raises(TokenSignature):
        await enter(store, token, clock)
    (row,) = await store.database.read("SELECT sealed_secret FROM companies WHERE name = 'Acme Ltd.'")
    assert SECRET not in str(row)


async def test_single_use_and_revocation_work_by_id(
    rest: Rest, store: Store, clock: Any, acme: Tenant, sign: Callable[..., str]
) -> None:
    unknown = str(uuid.uuid4())
    assert (await rest("DELETE", f"/tokens/{unknown}")).code == "token_not_found"
    await rest("PUT", "/company/secret", {"secret": SECRET})
    once = sign(single_use=True)
    await enter(store, once, clock)
    with pytest.raises(TokenUsed):
        await enter(store, once, clock)
    assert (await rest("DELETE", f"/tokens/{unknown}")).status == 204
    assert (await rest("DELETE", f"/tokens/{unknown}")).status == 204
    revoked = sign(jti=unknown)
    with pytest.raises(TokenRevoked):
        await enter(store, revoked, clock)
    assert (await rest("POST", "/tokens/inspect", {"token": revoked})).json["code"] == "token_revoked"
    assert (await rest("GET", "/rooms/team", key=sign(jti=unknown, permissions={"moderate": True}))).status == 401
    mine = (await rest("POST", "/tokens", WANTED)).json["id"]
    with pytest.raises(TokenUnknown):  # another token has this id
        await enter(store, sign(jti=mine), clock)


async def test_what_a_company_may_not_sign(rest: Rest, rival: Tenant, sign: Callable[..., str]) -> None:
    await rest("PUT", "/company/secret", {"secret": SECRET})
    now = jwt.decode(sign(), options={"verify_signature": False})["iat"]
    for changes, code in (
        ({"jti": "7"}, "token_claim"),
        ({"exp": now + 86_401}, "token_lifetime"),
        ({"company_id": rival.company.id}, "token_company"),
        ({"metadata": []}, "token_claim"),
        ({"metadata": {"a": "\0"}}, "token_claim"),
        ({"single_use": 1}, "token_claim"),
        ({"max_duration": 0}, "token_claim"),
        ({"user_id": 7}, "token_claim"),
        ({"permissions": {"fly": True}}, "token_claim"),
        ({"sub": "bob"}, "token_claim"),
        ({"aud": "other"}, "token_audience"),
    ):
        found = await rest("POST", "/tokens/inspect", {"token": sign(**changes)})
        assert found.json["code"] == code, changes
    assert (await rest("POST", "/tokens/inspect", {"token": sign("s" * 32)})).json["code"] == "token_signature"


async def test_lists_of_tokens_have_a_period_and_an_order(rest: Rest, clock: Any) -> None:
    for name in ("a", "b", "c"):
        await rest("POST", "/tokens", {"room_id": "team", "name": name})
        clock.advance(10)

    async def found(query: str) -> list[str]:
        return [item["user_name"] for item in (await rest("GET", f"/tokens?{query}")).json["items"]]

    assert await found("from=2025-10-21T17:21:30Z") == ["c", "b"]
    assert await found("to=2025-10-21T19:21:40%2B02:00&sort=created_at") == ["a", "b"]
    first = (await rest("GET", "/tokens?sort=created_at&limit=2")).json
    assert [item["user_name"] for item in first["items"]] == ["a", "b"]
    assert await found(f"sort=created_at&limit=2&cursor={first['next']}") == ["c"]
    for wrong in ("sort=name", "from=yesterday"):
        assert (await rest("GET", f"/tokens?{wrong}")).json["field"] == wrong.partition("=")[0]
