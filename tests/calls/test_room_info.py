"""What the page is told before joining: no more than who asks could see by joining."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from support.control import Server, running, settings
from support.rest_client import request
from test_moderation import moderate, ticket, welcomed

from sfu.calls import room_info
from sfu.store.records import RoomSettings

if TYPE_CHECKING:
    from support.rest_client import Reply


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as started:
        yield started


async def ask(server: Server, query: str = "room=team", token: str = "") -> Reply:
    headers = {"Host": "x", "Connection": "close"} | ({"Authorization": f"Bearer {token}"} if token else {})
    return await request(server.port, "GET", f"/room-info?{query}", headers)


def info(name: str, *participants: str, refused: str | None = None) -> dict[str, Any]:
    return {"name": name, "participants": list(participants), "open": refused is None, "refused": refused}


async def test_who_could_enter_sees_who_is_in(server: Server) -> None:
    assert (await ask(server)).json == info("team")
    async with server.joined(name="alice"), server.joined(name="bob"), server.joined("other", "eve"):
        reply = await ask(server)
        assert reply.json == info("team", "alice", "bob")
        assert reply.headers["cache-control"] == "no-store"
        assert (await ask(server, "")).json == info("default")
        assert (await ask(server, "room=" + quote(" team\t"))).json == info("team", "alice", "bob")
        token = (await ticket(server)).partition("token=")[2]
        for reply in (await ask(server, f"token={token}"), await ask(server, "", token)):
            assert reply.json == info("team", "alice", "bob")
    assert (await ask(server, "room=" + "x" * 256)).code == "bad_name"


CLOSED: dict[str, dict[str, Any]] = {
    "token_required": {"access": "token"},
    "room_locked": {"locked": True},
    "lobby": {"lobby": True},
    "room_full": {"max_participants": 1},
}


@pytest.mark.parametrize("code", CLOSED)
async def test_who_could_not_sees_nobody_and_is_told_why(server: Server, code: str) -> None:
    closed = CLOSED[code]
    mod = (await ticket(server, "mod", moderate=True)).partition("token=")[2]
    await server.store.rooms.create(server.default.id, "team", RoomSettings(**closed))
    async with server.connect(f"/ws?token={mod}") as client:
        await welcomed(client)
        assert (await ask(server)).json == info("team", refused=code)
        full = code == "room_full"
        assert (await ask(server, "", mod)).json == (info("team", refused=code) if full else info("team", "mod"))
        guest = (await ticket(server)).partition("token=")[2]
        expected = info("team", "mod") if code == "token_required" else info("team", refused=code)
        assert (await ask(server, "", guest)).json == expected


async def test_an_address_that_joined_too_often_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking is not joining: it uses nothing up."""
    monkeypatch.setattr("sfu.calls.registry.JOINS", ((2, 600.0),))
    async with running(tmp_path) as server, server.joined(name="alice"):
        for _ in range(3):
            assert (await ask(server)).json == info("team", "alice")
        async with server.joined(name="bob"):
            assert (await ask(server)).json == info("team", refused="too_many_joins")
            assert (await ask(server, "room=other")).json == info("other", refused="too_many_joins")
            assert (await server.refused("/ws?room=team"))["code"] == "too_many_joins"
            token = (await ticket(server)).partition("token=")[2]
            assert (await ask(server, "", token)).json == info("team", "alice", "bob")


async def test_who_was_removed_sees_nobody(server: Server) -> None:
    async with server.connect(await ticket(server, "mod", moderate=True)) as mod, server.joined(name="eve") as eve:
        await welcomed(mod)
        await moderate(mod, "remove", eve.peer)
        await eve.expect_bye("removed", 4403, rejoin=False)
        assert (await ask(server, "room=team&username=EVE")).json == info("team", refused="removed")
        assert (await ask(server, "room=team&username=bob")).json == info("team", "mod")


async def test_a_token_that_is_not_accepted_is_refused(server: Server) -> None:
    token = (await ticket(server)).partition("token=")[2]
    (record,) = (await server.store.tokens.list(server.default.id)).items
    assert (await ask(server, f"room=other&token={token}")).code == "token_room"
    await server.store.tokens.revoke(server.default.id, record.id)
    assert (await ask(server, "", token)).code == "token_revoked"
    await server.store.companies.set_active(server.default.id, False)
    assert (await ask(server)).code == "company_disabled"
    for _ in range(11):
        assert (await ask(server, "", "x.y.z")).code == "token_malformed"
    forged = token[:-8] + "AAAAAAAA"
    for _ in range(10):
        assert (await ask(server, "", forged)).code == "token_signature"
    assert (await ask(server, "", forged)).code == "too_many_failures"


async def test_a_server_of_tokens_tells_strangers_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, settings(allow_anonymous=False)) as server:
        assert (await ask(server)).code == "token_required"


async def test_asking_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_info, "ASKS", 2)
    async with running(tmp_path) as server:
        assert [(await ask(server)).status for _ in range(3)] == [200, 200, 429]


async def test_a_limit_of_the_tier_that_a_join_would_reach(server: Server) -> None:
    await server.store.tiers.set("free", {"rooms": 1, "people": 1})
    assert (await ask(server)).json == info("team")
    async with server.joined(name="alice"):
        assert (await ask(server)).json == info("team", refused="quota_exceeded")
        await server.store.tiers.set("free", {"people": 2})
        assert (await ask(server)).json == info("team", "alice")
        assert (await ask(server, "room=other")).json == info("other", refused="quota_exceeded")
