"""Idempotency-Key: a repeated POST has its effect once, whoever dies in between."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.process import Server
from support.variants import variants

from sfu.refusals import DatabaseUnavailable
from sfu.store import Store
from sfu.store.answers import KEPT_S, RUNNING_S
from sfu.store.database import connect

if TYPE_CHECKING:
    from support.rest import Rest, Tenant

pytest_plugins = ["support.rest"]

WANTED = {"room_id": "team", "user_name": "alice"}
KEYED = {"Idempotency-Key": "order-7"}


async def issued(rest: Rest) -> int:
    return len((await rest("GET", "/tokens")).json["items"])


async def test_a_repeated_request_gets_the_first_answer(rest: Rest, rival: Tenant) -> None:
    first = await rest("POST", "/tokens", WANTED, headers=KEYED)
    again = await rest("POST", "/tokens", dict(reversed(WANTED.items())), headers=KEYED)
    assert (again.status, again.json) == (201, first.json)
    assert again.headers["location"] == first.headers["location"]
    assert (again.headers["idempotent-replayed"], "idempotent-replayed" in first.headers) == ("true", False)
    assert await issued(rest) == 1
    other = await rest("POST", "/tokens", WANTED | {"user_name": "bob"}, headers=KEYED)
    assert (other.status, other.code) == (422, "idempotency_mismatch")
    assert (await rest("POST", "/rooms", {"room_id": "team"}, headers=KEYED)).code == "idempotency_mismatch"
    theirs = await rest("POST", "/tokens", WANTED, headers=KEYED, key=rival.key)
    assert theirs.json["token"] != first.json["token"]
    assert (await rest("POST", "/rooms/team/end", headers={"Idempotency-Key": "end"})).code == "room_not_found"


async def test_a_refused_request_may_be_sent_again(rest: Rest) -> None:
    await rest("POST", "/rooms", {"room_id": "team"})
    assert (await rest("POST", "/rooms", {"room_id": "team"}, headers=KEYED)).code == "room_exists"
    await rest("DELETE", "/rooms/team")
    assert (await rest("POST", "/rooms", {"room_id": "team"}, headers=KEYED)).status == 201
    for wrong in ("", "a b", "x" * 256):
        reply = await rest("POST", "/tokens", WANTED, headers={"Idempotency-Key": wrong})
        assert (reply.code, reply.json["field"]) == ("bad_field", "Idempotency-Key")


async def test_many_at_once_have_one_effect(rest: Rest) -> None:
    replies = []

    async def ask() -> None:
        replies.append(await rest("POST", "/tokens", WANTED, headers=KEYED))

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(ask)
    assert await issued(rest) == 1
    assert {reply.status for reply in replies} <= {201, 409}
    late = [reply for reply in replies if reply.status == 409]
    assert all((reply.code, reply.headers["retry-after"]) == ("idempotency_running", "1") for reply in late)
    assert len({reply.json["token"] for reply in replies if reply.status == 201}) == 1


async def test_what_a_dead_server_began_is_carried_out_once(
    rest: Rest, store: Store, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is recorded, and the server is killed before it has kept the answer."""

    async def die(*_args: object) -> None:
        raise DatabaseUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(type(store.answers), "keep", die)
        assert (await rest("POST", "/tokens", WANTED, headers=KEYED)).status == 503
    assert await issued(rest) == 1
    clock.advance(RUNNING_S - 10)
    waits = await rest("POST", "/tokens", WANTED, headers=KEYED)
    assert (waits.code, waits.headers["retry-after"]) == ("idempotency_running", "10")
    clock.advance(10)
    done = await rest("POST", "/tokens", WANTED, headers=KEYED)
    assert (done.status, await issued(rest)) == (201, 1)
    found = await rest("POST", "/tokens/inspect", {"token": done.json["token"]})
    assert found.json["valid"]
    (record,) = (await rest("GET", "/tokens")).json["items"]
    assert record["expires_at"] == done.json["expires_at"]
    claims = found.json["claims"]
    assert await store.tokens.same(claims["company_id"], claims["jti"], done.json["token"])


async def test_an_answer_is_kept_for_a_day(rest: Rest, store: Store, clock: Any) -> None:
    first = await rest("POST", "/tokens", WANTED, headers=KEYED)
    (row,) = await store.database.read("SELECT sealed FROM answers")
    assert first.json["token"] not in row["sealed"]
    clock.advance(KEPT_S - 1)
    assert (await rest("POST", "/tokens", WANTED, headers=KEYED)).json == first.json
    clock.advance(1)
    assert (await rest("POST", "/tokens", WANTED, headers=KEYED)).json != first.json
    clock.now += timedelta(seconds=KEPT_S)
    await store.retention.sweep()
    assert await store.database.read("SELECT id FROM answers") == []


def ask(server: Server, key: str, number: int) -> tuple[int, Any]:
    """A token with the key of this number: status and answer; status 0 if the server did not answer."""
    body = json.dumps({"room_id": "team", "user_name": f"p{number}"}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Idempotency-Key": f"k{number}"}
    asked = urllib.request.Request(f"{server.url}/api/v1/tokens", body, headers)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)
    except (OSError, HTTPException):
        return 0, None


@pytest.mark.parametrize("database_url", ["sqlite", *variants("postgresql")], indirect=True)
async def test_a_killed_server_makes_each_token_once(
    start_server: Callable[..., Server], database_url: str, tmp_path: Path
) -> None:
    """It is killed amid many requests. Whatever a client knows of each, repeating it gives one token."""
    server = start_server(database_url=database_url, data_dir=str(tmp_path / "data"))
    key = server.company("Acme")
    numbers, first = range(60), dict[int, tuple[int, Any]]()

    def one(number: int) -> None:
        first[number] = ask(server, key, number)

    def storm() -> None:
        with ThreadPoolExecutor(6) as clients:
            list(clients.map(one, numbers))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, storm)
        while sum(status == 201 for status, _ in first.values()) < 20:  # noqa: ASYNC110 -- threads tell of no event
            await trio.sleep(0.001)
        await trio.to_thread.run_sync(server.kill)
    assert any(status == 0 for status, _ in first.values())
    await trio.to_thread.run_sync(server.start)
    again = {number: await trio.to_thread.run_sync(ask, server, key, number) for number in numbers}
    for number, (status, answer) in first.items():
        if status == 201:
            assert again[number] == (201, answer)
    assert {status for status, _ in again.values()} <= {201, 409}
    async with connect(database_url) as database:  # a minute passes
        await database.run("UPDATE answers SET created_at = :ago", ago=datetime.now(UTC) - timedelta(minutes=2))
        done = {number: await trio.to_thread.run_sync(ask, server, key, number) for number in numbers}
        assert {status for status, _ in done.values()} == {201}
        rows = await database.read("SELECT id, user_name FROM tokens")
    assert sorted(str(row["id"]) for row in rows) == sorted(answer["id"] for _, answer in done.values())
