"""Two servers on one database: a room has one call, and what the API does on one server is true of the other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from support.control import Client, Server, running, settings
from support.rest_client import Reply, request
from support.tables import database
from support.variants import variants
from support.waiting import until

from sfu.calls.admission import utc_now

pytest_plugins = ["support.postgres"]


@pytest.fixture(params=["postgresql", *variants("sqlite")])
def database_url(request: pytest.FixtureRequest) -> str:
    """Of the engine that is meant for several servers."""
    return database(request)


@pytest.fixture
async def servers(tmp_path: Path, database_url: str) -> AsyncIterator[tuple[Server, Server]]:
    """Two servers, `a` and `b`."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    config = settings(chat_kept_s=3600)
    async with (
        running(tmp_path / "a", config, database_url=database_url, name="a") as a,
        running(tmp_path / "b", config, database_url=database_url, name="b") as b,
    ):
        yield a, b


async def ask(server: Server, key: str, method: str, path: str, body: Any = None) -> Reply:
    """A request to the REST API."""
    raw = b"" if body is None else json.dumps(body).encode()
    headers = {"Host": "localhost", "Connection": "close", "Authorization": f"Bearer {key}"}
    headers |= {"Content-Type": "application/json", "Content-Length": str(len(raw))} if raw else {}
    return await request(server.port, method, "/api/v1" + path, headers, raw)


async def default_key(server: Server) -> str:
    _, key = await server.store.companies.rotate_key(server.default.id)
    return key.reveal()


async def test_a_shared_sqlite_file_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite:///{tmp_path}/sfu.db"
    async with running(tmp_path / "a", database_url=url, name="a"):
        assert "database=shared" not in caplog.text
        async with running(tmp_path / "b", database_url=url, name="b"):
            assert "database=shared" in caplog.text


async def said(client: Client, text: str) -> None:
    await client.send("chat", {"text": text})
    assert (await client.expect("chat"))["text"] == text


async def test_a_call_is_joined_where_it_is(servers: tuple[Server, Server]) -> None:
    a, b = servers
    async with a.joined():
        problem = await b.refused("/ws?room=team&username=bob")
        assert (problem["status"], problem["code"]) == (409, "room_elsewhere")
        assert "'a'" in problem["detail"]
        async with b.client(name="bob") as bob:
            await bob.expect_bye("room_elsewhere", 1013, rejoin=True)
        preview = await request(b.port, "GET", "/room-info?room=team", {"Host": "localhost", "Connection": "close"})
        assert preview.json == {"name": "team", "participants": [], "open": False, "refused": "room_elsewhere"}
        async with b.joined("other"):
            pass
    await until(lambda: not a.rooms.rooms and not a.store.leaves)
    async with b.joined(name="bob"):
        pass


async def died(server: Server, seconds: float) -> None:
    """Makes every session one of a server that recorded it last so long ago, and never again."""
    await server.store.sessions.flush()
    await server.store.database.run(
        "UPDATE sessions SET server = 'dead', disconnected_at = NULL, leave_reason = NULL, last_seen_at = :seen_at",
        seen_at=utc_now() - timedelta(seconds=seconds),
    )


async def test_people_of_a_dead_server_have_their_seats_in_a_full_room(tmp_path: Path, database_url: str) -> None:
    async with running(tmp_path, settings(hold_s=0.0, max_peers=2), database_url=database_url) as server:
        async with server.joined() as alice, server.joined(name="bob"):
            ticket = alice.welcome["ticket"]
            await alice.ws.aclose(1001)
        await until(lambda: not server.rooms.peers)
        await died(server, seconds=20)
        async with server.connect("/ws?room=team&username=alice", ticket=ticket) as early:
            await early.expect_bye("room_elsewhere", 1013, rejoin=True)  # that server may still live
        await died(server, seconds=40)
        assert (await server.refused("/ws?room=team&username=carol"))["code"] == "room_full"
        async with server.connect("/ws?room=team&username=alice", ticket=ticket) as again:
            assert (await again.expect("welcome"))["ticket"] == ticket
            assert (await server.refused("/ws?room=team&username=carol"))["code"] == "room_full"
        await until(lambda: not server.rooms.peers)
        rows = await server.store.database.read("SELECT user_name FROM sessions WHERE server = 'sfu'")
        assert [row["user_name"] for row in rows] == ["alice"]


async def test_a_session_that_continues_on_another_server_ends_here(servers: tuple[Server, Server]) -> None:
    """This server was paused for so long that others took it for dead."""
    a, b = servers
    async with a.joined() as alice:
        await b.store.database.run("UPDATE sessions SET server = 'b'")
        await alice.expect_bye("replaced", 4409, rejoin=False)
    await a.store.sessions.flush()
    (session,) = (await b.store.history.room_sessions(b.default.id, "team")).items
    assert session.disconnected_at is None


async def test_what_another_server_should_be_asked_is_not_done_in_silence(servers: tuple[Server, Server]) -> None:
    a, b = servers
    key = await default_key(b)
    async with a.joined():
        (session,) = await a.store.history.participants(a.default.id, "team")
        person = f"/rooms/team/participants/{session.id}"
        for method, path, body in (
            ("POST", "/rooms/team/end", None),
            ("DELETE", person, None),
            ("POST", f"{person}/mute", {"source": "microphone"}),
            ("GET", "/rooms/team/participants", None),
        ):
            reply = await ask(b, key, method, path, body)
            assert (path, reply.status, reply.code) == (path, 409, "room_elsewhere")
            assert "'a'" in reply.json["detail"]
        assert len(a.rooms.peers) == 1
        assert (await ask(a, key, "POST", "/rooms/team/end")).status == 204
    reply = await ask(a, key, "POST", "/rooms/team/end")
    assert (reply.status, reply.code) == (409, "no_call")


async def test_a_room_deleted_through_another_server_ends_its_call(servers: tuple[Server, Server]) -> None:
    a, b = servers
    key = await default_key(b)
    async with a.joined() as alice:
        await said(alice, "old")
        assert (await ask(b, key, "DELETE", "/rooms/team")).status == 204
        await said(alice, "written after the deletion")
        await alice.expect_bye("room_deleted", 4410, rejoin=False)
    for server in (a, b):
        async with server.client(name="bob") as bob:
            await bob.expect("welcome")
            assert (await bob.receive())[0] == "offer"  # and no history before it
        await until(lambda server=server: not server.rooms.rooms and not server.store.leaves)  # type: ignore[misc]


async def test_the_first_who_enters_a_room_made_anew_meets_nothing_old(
    servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even before their server has noticed that the room was deleted."""
    a, b = servers
    key = await default_key(b)
    async with a.joined() as alice:
        await said(alice, "old")
        monkeypatch.setattr(a.signaling, "_end", lambda ended: None)
        assert (await ask(b, key, "DELETE", "/rooms/team")).status == 204
        async with a.client(name="bob") as bob:
            assert (await bob.expect("welcome"))["participants"] == []
            assert (await bob.receive())[0] == "offer"
            await said(alice, "still talking")
            await said(bob, "new")
        monkeypatch.undo()
        await alice.expect_bye("room_deleted", 4410, rejoin=False)
    lines = (await a.store.chat.list(a.default.id, "team")).items
    assert [line.text for line in lines] == ["new"]


async def test_chat_that_meets_a_deletion_is_gone(servers: tuple[Server, Server]) -> None:
    """Somebody writes all the time while the room is deleted: none of it shows in the next room of that name."""
    a, b = servers
    key = await default_key(b)
    for turn in range(10):
        async with a.joined() as alice, trio.open_nursery() as nursery:
            nursery.start_soon(alice.spam_chat, 200)
            await until(lambda: len(a.store.lines))
            server = (a, b)[turn % 2]
            nursery.start_soon(ask, server, key, "DELETE", "/rooms/team")
            await alice.closed()
            nursery.cancel_scope.cancel()
        await until(lambda: not a.rooms.rooms and not a.store.leaves and not a.store.lines)
        assert (await a.store.database.read("SELECT * FROM chat_lines")) == []


@pytest.mark.parametrize("through", [0, 1], ids=["here", "there"])
async def test_chat_that_meets_its_end_is_not_kept(servers: tuple[Server, Server], through: int) -> None:
    """`chat_kept_s` is set to 0 while somebody writes."""
    a, _ = servers
    key = await default_key(a)
    async with a.joined() as alice, trio.open_nursery() as nursery:
        nursery.start_soon(alice.spam_chat, 1000)
        await until(lambda: len(a.store.lines))
        assert (await ask(servers[through], key, "PUT", "/rooms/team", {"chat_kept_s": 0})).status == 200
        nursery.cancel_scope.cancel()
    await a.store.lines.flush()
    assert (await a.store.database.read("SELECT * FROM chat_lines")) == []


async def test_settings_changed_through_another_server_reach_the_call(servers: tuple[Server, Server]) -> None:
    a, b = servers
    key = await default_key(b)
    async with a.joined() as alice:
        await said(alice, "old")
        assert (await ask(b, key, "PUT", "/rooms/team", {"lobby": True, "chat_kept_s": 0})).status == 200
        state = await alice.expect("room")
        assert (state["lobby"], state["chat_kept_s"]) == (True, 0)
        async with a.client(name="bob") as bob:
            await bob.expect("waiting")
            assert (await ask(b, key, "PUT", "/rooms/team", {"lobby": False, "files": False})).status == 200
            state = (await bob.expect("welcome"))["state"]
            assert (state["lobby"], state["files"]) == (False, False)
            assert (await bob.receive())[0] == "offer"  # and no history before it
