"""A company conducts a running call over REST: permissions, names, lobby, chat, messages, spotlight, moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.control import Client, Server, running
from support.waiting import until
from test_moderation import moderate, moderator, rest, ticket, welcomed

from sfu.tenancy.tokens import Permissions

if TYPE_CHECKING:
    from support.rest_client import Reply

pytest_plugins = ["support.postgres"]

ALL = {"publish": True, "subscribe": True, "chat": True, "moderate": False}


class Api:
    """The REST API with the key of the default company."""

    def __init__(self, server: Server, key: str) -> None:
        self._server, self._key = server, key

    async def __call__(self, method: str, path: str, body: Any = None) -> Reply:
        return await rest(self._server, method, "/rooms/team" + path, self._key, body)

    def session(self, client: Client) -> str:
        return self._server.signaling.calls.seats[client.peer].record.id

    async def permit(self, client: Client, **permissions: bool) -> Reply:
        return await self("PATCH", f"/participants/{self.session(client)}", {"permissions": permissions})


@pytest.fixture
async def server(tmp_path: Path, database_url: str) -> AsyncIterator[Server]:
    async with running(tmp_path, database_url=database_url) as started:
        yield started


@pytest.fixture
async def api(server: Server) -> Api:
    return Api(server, (await server.store.companies.rotate_key(server.default.id))[1].reveal())


# --- permissions and names --------------------------------------------------------------------------------------------


async def test_what_somebody_may_do_changes_at_once(server: Server, api: Api) -> None:
    async with server.joined(name="alice") as alice, server.joined(name="bob") as bob:
        await alice.expect("joined")
        reply = await api.permit(bob, publish=False, chat=False)
        assert (reply.status, reply.json["permissions"]) == (200, ALL | {"publish": False, "chat": False})
        assert await bob.expect("permissions") == ALL | {"publish": False, "chat": False}
        changed = {"peer": bob.peer, "name": "bob", "moderator": False, "publish": False}
        assert [await one.expect("changed") for one in (alice, bob)] == [changed, changed]
        for event, data in (("chat", {"text": "hi"}), ("publish", {"source": "screen", "kind": "video"})):
            await bob.send(event, data)
            assert (await bob.expect("error"))["code"] == "not_allowed"
        assert ("Permit", {"peer": bob.peer, "publish": False, "subscribe": True}) in await alice.commands()
        await api.permit(bob, publish=True)
        await bob.expect("permissions")
        assert (await alice.expect("changed"))["publish"] is True
        assert (await api.permit(bob, publish=True)).status == 200
        assert (await api.permit(bob, fly=True)).code == "bad_field"
        shown = await api("GET", f"/participants/{api.session(bob)}")
        assert (shown.json["user_name"], shown.json["permissions"]) == ("bob", ALL | {"chat": False})


async def test_who_is_made_a_moderator_has_the_controls_and_the_lobby(server: Server, api: Api) -> None:
    async with server.joined(name="bob") as bob:
        await api("PUT", "", {"lobby": True})
        await bob.expect("room")
        async with server.client(name="carol") as carol:
            assert (await carol.expect("waiting"))["attended"] is False
            await moderate(bob, "mute", bob.peer)
            assert (await bob.expect("error"))["code"] == "not_allowed"
            await api.permit(bob, moderate=True)
            assert (await bob.expect("permissions"))["moderate"] is True
            assert (await bob.expect("changed"))["moderator"] is True
            (waiter,) = (await bob.expect("lobby"))["waiting"]
            assert (await carol.expect("waiting"))["attended"] is True
            await api.permit(bob, moderate=False)
            assert (await carol.expect("waiting"))["attended"] is False
            assert (await bob.expect("permissions"))["moderate"] is False
            await bob.expect("changed")
            await moderate(bob, "admit", waiter["peer"])
            assert (await bob.expect("error"))["code"] == "not_allowed"


async def test_a_change_holds_over_a_reload_and_a_restart_but_not_for_a_new_join(
    tmp_path: Path, database_url: str
) -> None:
    async with running(tmp_path, database_url=database_url) as server:
        api = Api(server, (await server.store.companies.rotate_key(server.default.id))[1].reveal())
        async with server.joined(name="bob") as bob:
            path = f"/participants/{api.session(bob)}"
            body = {"user_name": "Dr. Bob", "permissions": {"publish": False}}
            assert (await api("PATCH", path, body)).json["user_name"] == "Dr. Bob"
            await bob.expect("permissions")
            assert (await bob.expect("changed"))["name"] == "Dr. Bob"
            await server.store.sessions.flush()
            server.signaling.stop()
            await bob.until("bye")
    async with running(tmp_path, database_url=database_url) as server:
        for name in ("bob", "Dr. Bob"):  # as the page knows the person, before and after the change
            target = f"/ws?room=team&username={name.replace(' ', '+')}"
            async with server.connect(target, ticket=bob.welcome["ticket"]) as back:
                welcome = await back.expect("welcome")
                assert (welcome["name"], welcome["permissions"]) == ("Dr. Bob", ALL | {"publish": False})
                if name == "bob":
                    await back.ws.aclose(1001)
                    continue
                await back.send("leave")
                await back.until("bye")
        async with server.client(name="bob") as anew:
            assert (await anew.expect("welcome"))["permissions"] == ALL


# --- the lobby --------------------------------------------------------------------------------------------------------


async def test_a_backend_sees_who_waits_and_decides(server: Server, api: Api) -> None:
    async with moderator(server) as mod:
        await mod.send("room", {"locked": None, "lobby": True})
        await mod.expect("room")
        async with server.client(name="ann") as ann, server.client(name="ben") as ben, server.client(name="cas") as cas:
            for one in (ann, ben, cas):
                await one.expect("waiting")
            waiting = (await api("GET", "/lobby")).json["items"]
            ids = {one["user_name"]: one["id"] for one in waiting}
            assert ids.keys() == {"ann", "ben", "cas"}
            assert {(one["user_id"], one["token_id"]) for one in waiting} == {("", None)}
            assert (await api("POST", f"/lobby/{ids['ann']}/refuse")).status == 204
            await ann.expect_bye("lobby_refused", 4403, rejoin=False)
            assert (await api("POST", f"/lobby/{ids['ben']}/admit")).status == 204
            await welcomed(ben)
            assert (await api("POST", f"/lobby/{ids['ben']}/admit")).code == "waiter_not_found"
            assert (await api("POST", "/lobby/admit")).json == {"admitted": 1}
            await welcomed(cas)
            assert (await api("GET", "/lobby")).json == {"items": []}


# --- chat and messages ------------------------------------------------------------------------------------------------


async def test_a_company_writes_in_the_chat_and_the_line_is_kept(server: Server, api: Api) -> None:
    line = {"user_name": "Front desk", "text": "Five minutes left"}
    assert (await api("POST", "/chat", line)).code == "room_not_found"
    async with server.joined(name="bob") as bob:
        reply = await api("POST", "/chat", line)
        assert (reply.status, reply.json["company"]) == (201, True)
        said = await bob.expect("chat")
        assert (said["peer"], said["name"], said["text"], said["id"]) == ("", *line.values(), reply.json["id"])
        assert (await api("POST", "/chat", line | {"text": "é" * 2049})).json["field"] == "text"
        await bob.send("leave")
        await bob.expect("bye")
    await until(lambda: not server.rooms.rooms)
    later = await api("POST", "/chat", line | {"text": "Nobody is here"})
    (second, first) = (await api("GET", "/chat")).json["items"]
    assert (first, second) == (reply.json, later.json)
    async with server.client(name="carol") as carol:
        await carol.expect("welcome")
        assert [one["text"] for one in (await carol.expect("history"))["lines"]] == [line["text"], "Nobody is here"]


async def test_data_reaches_the_pages_it_is_for(server: Server, api: Api) -> None:
    body = {"topic": "quiz", "data": {"question": "Why?", "choices": [1, None]}}
    async with server.joined(name="alice") as alice, server.joined(name="bob") as bob:
        await alice.expect("joined")
        assert (await api("POST", "/messages", body)).json == {"delivered": 2}
        assert [await one.expect("message") for one in (alice, bob)] == [body, body]
        only = {"data": "for bob", "to": [api.session(bob)]}
        assert (await api("POST", "/messages", only)).json == {"delivered": 1}
        assert await bob.expect("message") == {"topic": "", "data": "for bob"}
        absent = {"data": 1, "to": [api.session(bob), server.default.id]}
        assert (await api("POST", "/messages", absent)).code == "participant_not_found"
        assert (await api("POST", "/messages", {"data": "x" * 16_384})).json["field"] == "data"
        big = {"data": "x" * 16_000, "to": []}
        replies = [(await api("POST", "/messages", big)).status for _ in range(70)]
        assert replies[0] == 200
        assert replies[-1] == 429, "a room gets so much, and not more"
        await alice.send("chat", {"text": "hi"})
        await alice.expect("chat")  # and nothing else
    await until(lambda: not server.rooms.rooms)
    assert (await api("POST", "/messages", body)).code == "no_call"


# --- the spotlight ----------------------------------------------------------------------------------------------------


async def test_everybody_shows_the_one_in_the_spotlight(server: Server, api: Api) -> None:
    async with moderator(server) as mod, server.joined(name="bob") as bob:
        await mod.expect("joined")
        assert (await api("POST", "/spotlight", {"session_id": api.session(bob)})).status == 204
        assert [await one.expect("spotlight") for one in (mod, bob)] == [{"peer": bob.peer}] * 2
        assert ("Spotlight", {"peer": bob.peer, "on": True}) in await mod.commands()
        async with server.client(name="carol") as carol:
            await carol.expect("welcome")
            assert await carol.expect("spotlight") == {"peer": bob.peer}, "also who comes later"
            await mod.expect("joined")
            await bob.expect("joined")
            await mod.send("spotlight", {"peer": None})
            assert [await one.until("spotlight") for one in (mod, bob, carol)] == [{"peer": None}] * 3
            await bob.send("spotlight", {"peer": bob.peer})
            assert (await bob.expect("error"))["code"] == "not_allowed"
            await mod.send("spotlight", {"peer": "nobody"})
            assert (await mod.expect("error"))["code"] == "unknown_peer"
            await mod.send("spotlight", {"peer": bob.peer})
            assert await mod.expect("spotlight") == {"peer": bob.peer}
            await bob.send("leave")
            await mod.expect("left")
            assert await mod.expect("spotlight") == {"peer": None}, "who left is not shown any more"
        assert (await api("POST", "/spotlight", {"session_id": server.default.id})).code == "participant_not_found"


# --- another room -----------------------------------------------------------------------------------------------------


async def test_somebody_is_sent_to_another_room_with_a_token_for_one_use(server: Server, api: Api) -> None:
    target = await ticket(server, "bob", permissions=Permissions(chat=False, moderate=True))
    async with server.connect(target) as bob:
        await welcomed(bob)
        path = f"/participants/{api.session(bob)}/move"
        assert (await api("POST", path, {"room_id": "team"})).json["field"] == "room_id"
        assert (await api("POST", path, {"room_id": "breakout"})).status == 204
        move = await bob.expect("move")
        assert move["room"] == "breakout"
        async with server.connect("/ws", token=move["token"]) as there:
            welcome = await there.expect("welcome")
            assert (welcome["room"], welcome["name"]) == ("breakout", "bob")
            assert welcome["permissions"] == ALL | {"chat": False}, "as before, but no moderator of another room"
            assert (await server.refused(f"/ws?token={move['token']}"))["code"] == "token_used"
            await there.send("leave")
        key = target.partition("token=")[2]
        assert (await rest(server, "POST", "/rooms/team" + path, key, {"room_id": "vault"})).status == 401
    async with server.connect("/ws?room=team&username=bare", full=False):
        await until(lambda: server.rooms.peers)
        (seat,) = server.signaling.calls.sessions()
        reply = await api("POST", f"/participants/{seat.record.id}/move", {"room_id": "breakout"})
        assert reply.code == "cannot_move"
