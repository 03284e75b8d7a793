"""Who may moderate does it to a running call: mutes, asks, removes, locks, lets in from the lobby, ends it.

What has to outlive a restart runs on both engines; so do the store's own tests (test_store_chat.py).
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import trio
from support.control import Client, Server, running, settings
from support.rest_client import request
from support.waiting import until
from wsproto.events import TextMessage

from sfu.calls import websocket
from sfu.calls.admission import utc_now
from sfu.store.records import RoomSettings
from sfu.tenancy import tokens
from sfu.tenancy.tokens import Permissions

if TYPE_CHECKING:
    from support.rest_client import Reply

pytest_plugins = ["support.postgres"]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running(tmp_path) as started:
        yield started


async def ticket(
    server: Server,
    name: str = "alice",
    room: str = "team",
    *,
    moderate: bool = False,
    permissions: Permissions | None = None,
    age_s: float = 0,
) -> str:
    """The target of somebody with a token of the default company, whose rooms are open to others, too."""
    grant = tokens.grant(
        company_id=server.default.id,
        room_id=room,
        user_name=name,
        duration_s=600,
        now=utc_now() - timedelta(seconds=age_s),
        permissions=permissions or Permissions(moderate=moderate),
    )
    token = tokens.encode(grant, server.store.companies.secret(server.default).reveal())
    await server.store.tokens.add(grant, token)
    return "/ws?" + urlencode({"token": token})


async def welcomed(client: Client) -> dict[str, Any]:
    client.welcome = await client.expect("welcome")
    client.peer = client.welcome["peer"]
    await client.until("offer")  # others may come meanwhile
    return client.welcome


@asynccontextmanager
async def moderator(server: Server, target: str = "") -> AsyncIterator[Client]:
    """Somebody who may moderate, with their welcome and first offer read before anybody else comes."""
    async with server.connect(target or await ticket(server, "mod", moderate=True)) as mod:
        await welcomed(mod)
        yield mod


async def moderate(client: Client, action: str, peer: str, source: str | None = None) -> None:
    await client.send("moderate", {"action": action, "peer": peer, "source": source})


# --- hands and reactions ----------------------------------------------------------------------------------------------


async def test_hands_and_reactions_reach_everybody(server: Server) -> None:
    async with server.joined(name="alice") as alice:
        await alice.send("hand", {"raised": True})
        up = await alice.expect("hand")
        assert up["peer"] == alice.peer
        assert abs(up["raised"] - utc_now().timestamp() * 1000) < 10_000
        async with server.joined(name="bob") as bob:
            (seen,) = bob.welcome["participants"]
            assert (seen["hand"], seen["moderator"]) == (up["raised"], False)
            await alice.expect("joined")
            await alice.send("hand", {"raised": True})  # keeps its place
            await alice.send("hand", {"raised": False})
            await alice.send("reaction", {"reaction": "heart"})
            await alice.send("reaction", {"reaction": "spam"})
            for client in (alice, bob):
                if client is alice:
                    assert await client.expect("hand") == up, "told again"
                assert await client.expect("hand") == {"peer": alice.peer, "raised": 0}
                assert await client.expect("reaction") == {"peer": alice.peer, "reaction": "heart"}
            assert (await alice.expect("error"))["code"] == "bad_message"


# --- who may not ------------------------------------------------------------------------------------------------------


async def test_who_may_not_moderate_changes_nothing(server: Server) -> None:
    async with server.joined(name="alice") as alice, server.joined(name="bob") as bob:
        await alice.expect("joined")
        for event, data in (
            *(
                ("moderate", {"action": action, "peer": bob.peer})
                for action in ("mute", "ask_unmute", "remove", "admit")
            ),
            ("room", {"locked": True, "lobby": True}),
            ("end_call", {}),
        ):
            await alice.send(event, data)
            assert (await alice.expect("error"))["code"] == "not_allowed"
        await bob.send("chat", {"text": "still here"})
        await bob.expect("chat")
        await alice.expect("chat")
        assert not [name for name, _ in await alice.commands() if name == "Mute"]
    async with server.client(name="carol") as carol:
        assert (await carol.expect("welcome"))["state"]["locked"] is False


async def test_what_no_moderator_can_do(server: Server) -> None:
    async with (
        moderator(server) as mod,
        server.joined("elsewhere", "eve") as eve,
    ):
        assert mod.welcome["permissions"]["moderate"]
        for action, peer, source, code in (
            ("mute", "nobody", None, "unknown_peer"),
            ("mute", eve.peer, None, "unknown_peer"),
            ("remove", eve.peer, None, "unknown_peer"),
            ("admit", eve.peer, None, "unknown_peer"),
            ("remove", mod.peer, None, "not_allowed"),
            ("mute", mod.peer, "Screen!", "bad_source"),
            ("mute", mod.peer, "screen", "bad_source"),
            ("promote", mod.peer, None, "bad_message"),
        ):
            await moderate(mod, action, peer, source)
            assert (await mod.expect("error"))["code"] == code, action


# --- mute and ask -----------------------------------------------------------------------------------------------------


async def test_who_is_muted_is_muted_in_the_worker_and_told(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sfu.audit")
    async with (
        moderator(server) as mod,
        server.joined(name="bob") as bob,
        server.joined(name="carol") as carol,
    ):
        assert [(p["name"], p["moderator"]) for p in carol.welcome["participants"]] == [("mod", True), ("bob", False)]
        await bob.answer()
        await carol.until("track")
        await mod.until("track")
        await moderate(mod, "mute", bob.peer)
        muted = {"peer": bob.peer, "source": "microphone", "muted": True, "by": "mod"}
        told = [await client.until("mute") for client in (bob, carol, mod)]
        assert told == [muted, *[muted | {"by": ""}] * 2]
        await moderate(mod, "mute", bob.peer, "camera")  # before there is a picture
        assert (await bob.until("mute"))["source"] == "camera"
        session = server.signaling.calls.seats[bob.peer].record.id
        about = f"mute_participant room='{server.key('team')}' peer={bob.peer} name='bob' session={session}"
        by = f"by='mod' by_peer={mod.peer} client=127.0.0.1"
        assert caplog.messages == [f"{about} source={source} {by}" for source in ("microphone", "camera")]
        await moderate(mod, "ask_unmute", bob.peer)
        assert await bob.expect("asked") == {"name": "mod", "source": "microphone"}
        await bob.send("mute", {"source": "microphone", "muted": False})
        assert (await carol.expect("mute"))["muted"] is False
        mutes = [(f["peer"], f["source"], f["muted"]) for name, f in await carol.commands() if name == "Mute"]
        assert mutes == [(bob.peer, "microphone", True), (bob.peer, "camera", True), (bob.peer, "microphone", False)]


# --- remove -----------------------------------------------------------------------------------------------------------


async def test_a_removed_persons_token_stays_out_over_a_restart(tmp_path: Path, database_url: str) -> None:
    async with running(tmp_path, database_url=database_url) as server:
        target = await ticket(server, "eve")
        async with (
            moderator(server) as mod,
            server.connect(target) as eve,
            server.connect(target) as again,
            server.joined(name="bob") as bob,
        ):
            await welcomed(eve)
            await welcomed(again)
            await moderate(mod, "remove", eve.peer)
            for client in (eve, again):
                assert (await client.until("bye"))["code"] == "removed"
                assert await client.closed() == 4403
            assert (await bob.until("left"))["reason"] == "removed"
            assert (await server.refused(target))["code"] == "removed"
            async with server.connect(await ticket(server, "eve")) as other:  # another token is another matter
                await welcomed(other)
            (ban,) = (await server.store.bans.list(server.default.id, "team")).items
            assert (ban.user_name, ban.banned_by, ban.address) == ("eve", "mod", "")
    async with running(tmp_path, database_url=database_url) as server:
        problem = await server.refused(target)
        assert (problem["status"], problem["code"]) == (403, "removed")
        async with server.connect(target) as eve:
            await eve.expect_bye("removed", 4403, rejoin=False)
        assert await server.store.bans.lift(server.default.id, "team", ban.id) == ban
        async with server.connect(target) as eve:
            await welcomed(eve)


async def test_who_came_without_a_token_stays_out_by_name_and_address(server: Server) -> None:
    async with (
        moderator(server) as mod,
        server.joined(name="Eve") as eve,
    ):
        await moderate(mod, "remove", eve.peer)
        await eve.expect_bye("removed", 4403, rejoin=False)
        assert (await server.refused("/ws?room=team&username=eve"))["code"] == "removed"
        for target in ("/ws?room=team&username=bob", "/ws?room=other&username=Eve", await ticket(server, "Eve")):
            async with server.connect(target) as client:
                await welcomed(client)


# --- lock -------------------------------------------------------------------------------------------------------------


async def test_a_locked_room_stays_locked_over_a_restart(tmp_path: Path, database_url: str) -> None:
    async with running(tmp_path, database_url=database_url) as server:
        keys = await ticket(server, "mod", moderate=True)
        async with moderator(server, keys) as mod, server.joined(name="bob") as bob:
            assert mod.welcome["state"]["locked"] is False
            await mod.expect("joined")
            await mod.send("room", {"locked": True, "lobby": None})
            for client in (mod, bob):
                assert (await client.expect("room"))["locked"] is True
            problem = await server.refused("/ws?room=team&username=carol")
            assert (problem["status"], problem["code"]) == (403, "room_locked")
            assert (await server.refused(await ticket(server, "carol")))["code"] == "room_locked"
            async with server.joined("other"):
                pass
    async with running(tmp_path, database_url=database_url) as server:
        async with server.client() as client:
            await client.expect_bye("room_locked", 4403, rejoin=False)
        async with server.connect(keys) as mod:
            assert (await welcomed(mod))["state"]["locked"] is True
            await mod.send("room", {"locked": False})
            assert (await mod.expect("room"))["locked"] is False
            async with server.joined():
                pass


# --- the lobby --------------------------------------------------------------------------------------------------------


async def test_who_waits_in_the_lobby_is_let_in_or_refused(server: Server) -> None:
    async with server.connect(await ticket(server, "mod", moderate=True)) as mod:
        await welcomed(mod)
        await mod.send("room", {"lobby": True, "locked": None})
        assert (await mod.expect("room"))["lobby"] is True
        async with server.client(name="bob") as bob, server.client(name="carol") as carol:
            assert await bob.expect("waiting") == {"room": "team", "name": "bob", "attended": True}
            (waiter,) = (await mod.expect("lobby"))["waiting"]
            await carol.expect("waiting")
            both = (await mod.expect("lobby"))["waiting"]
            assert [one["name"] for one in both] == ["bob", "carol"]
            assert len(server.rooms.peers) == 1, "who waits has no media"
            room = await server.store.rooms.get(server.default.id, "team")
            assert room is not None
            assert room.participants == 1, "nor a seat"
            async with server.connect(await ticket(server, "mod2", moderate=True)) as second:
                await second.expect("welcome")
                assert (await second.expect("lobby"))["waiting"] == both
                await mod.expect("joined")
            await mod.expect("left")
            await moderate(mod, "admit", waiter["peer"])
            await welcomed(bob)
            assert bob.peer != waiter["peer"]
            assert (await mod.until("lobby"))["waiting"] == both[1:]
            await moderate(mod, "refuse", both[1]["peer"])
            await carol.expect_bye("lobby_refused", 4403, rejoin=False)
            assert (await mod.until("lobby"))["waiting"] == []
            await moderate(mod, "admit", both[1]["peer"])
            assert (await mod.until("error"))["code"] == "unknown_peer"


async def test_nobody_gets_credentials_for_turn_before_admission(tmp_path: Path) -> None:
    turn = settings(turn_urls=("turn:turn.example.org",), turn_secret="north-by-northwest")
    async with running(tmp_path, turn) as server, server.connect(await ticket(server, "mod", moderate=True)) as mod:
        await welcomed(mod)
        await mod.send("room", {"lobby": True})
        async with server.client(name="bob") as bob:
            (waiter,) = (await mod.until("lobby"))["waiting"]
            assert (await bob.expect("waiting")).keys() == {"room", "name", "attended"}
            await moderate(mod, "admit", waiter["peer"])
            (turn_server,) = (await bob.expect("welcome"))["ice_servers"]
            assert turn_server["username"].partition(":")[2] != waiter["peer"]


async def test_who_waits_is_told_whether_anybody_can_let_them_in(server: Server) -> None:
    await server.store.rooms.create(server.default.id, "team", RoomSettings(lobby=True))
    async with server.client(name="bob") as bob:
        assert (await bob.expect("waiting"))["attended"] is False
        async with moderator(server) as mod:
            assert (await bob.expect("waiting"))["attended"] is True
            async with server.connect(await ticket(server, "guest")) as guest:
                await guest.expect("waiting")  # and bob hears nothing of that
            async with server.connect(await ticket(server, "second", moderate=True)):
                await mod.until("joined")
            await mod.until("left")
        assert (await bob.expect("waiting"))["attended"] is False


async def test_a_message_in_too_many_parts_ends_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "MAX_PARTS", 10)
    async with running(tmp_path, settings(ping_s=0.1)) as server:
        await server.store.rooms.create(server.default.id, "team", RoomSettings(lobby=True))
        async with server.client(name="alice") as alice:
            await alice.expect("waiting")
            for _ in range(20):
                await alice.ws._send(TextMessage(data="", message_finished=False))
            await alice.expect_bye("message_too_large", 1009, rejoin=False)


async def test_taking_the_lobby_away_lets_everybody_in(server: Server) -> None:
    async with server.connect(await ticket(server, "mod", moderate=True)) as mod:
        await welcomed(mod)
        await mod.send("room", {"lobby": True})
        await mod.expect("room")
        async with server.client(name="bob") as bob, server.client(name="bare", full=False) as bare:
            await bob.expect("waiting")
            while len((await mod.expect("lobby"))["waiting"]) < 2:
                pass
            await mod.send("room", {"lobby": False})
            await welcomed(bob)
            assert set(await bare.expect("offer")) == {"type", "sdp"}


async def test_who_is_admitted_comes_into_a_locked_room(server: Server) -> None:
    async with server.connect(await ticket(server, "mod", moderate=True)) as mod:
        await welcomed(mod)
        await mod.send("room", {"lobby": True})
        await mod.until("room")
        async with server.client(name="bob") as bob:
            await bob.expect("waiting")
            (waiter,) = (await mod.until("lobby"))["waiting"]
            await mod.send("room", {"locked": True})
            await mod.until("room")
            assert (await server.refused("/ws?room=team&username=late"))["code"] == "room_locked"
            await moderate(mod, "admit", waiter["peer"])
            await welcomed(bob)


async def test_who_waits_may_leave_and_the_lobby_is_bounded(tmp_path: Path) -> None:
    async with running(tmp_path, settings(max_waiting=10)) as server:
        async with server.connect(await ticket(server, "mod", moderate=True)) as mod:
            await welcomed(mod)
            await mod.send("room", {"lobby": True})
            await mod.expect("room")
            async with server.client(name="bob") as bob:
                async with server.client(name="carol") as carol:
                    await bob.expect("waiting")
                    await carol.expect("waiting")
                    assert (await server.refused("/ws?room=team&username=dave"))["code"] == "room_full"
                await until(lambda: len(server.signaling.calls.lobby.waiting(server.key("team")).waiting) == 1)
                await bob.send("chat", {"text": "hello?"})
                await bob.send("leave")
                await bob.expect_bye("left", 1000, rejoin=False)
            await until(lambda: not server.signaling.calls.lobby.waiting(server.key("team")).waiting)
            async with server.client(name="spam") as spam:
                await spam.expect("waiting")
                for _ in range(20):
                    await spam.send("reaction", {"reaction": "clap"})
                await spam.expect_bye("left", 1000, rejoin=False)
        assert len((await server.store.history.room_sessions(server.default.id, "team")).items) == 1


async def test_nobody_waits_for_ever(tmp_path: Path) -> None:
    async with running(tmp_path, settings(lobby_s=0.2)) as server:
        async with server.connect(await ticket(server, "mod", moderate=True)) as mod:
            await welcomed(mod)
            await mod.send("room", {"lobby": True})
            await mod.expect("room")
        async with server.client(name="bob") as bob:  # nobody is there who could let him in
            await bob.expect("waiting")
            await bob.expect_bye("lobby_timeout", 4408, rejoin=True)
        async with server.client(name="bob", full=False) as bare:
            assert await bare.closed() == 4408


async def test_a_token_revoked_in_the_lobby_gets_nobody_in(server: Server) -> None:
    target = await ticket(server, "bob")
    async with server.connect(await ticket(server, "mod", moderate=True)) as mod:
        await welcomed(mod)
        await mod.send("room", {"lobby": True})
        await mod.expect("room")
        async with server.connect(target) as bob:
            await bob.expect("waiting")
            (record,) = [t for t in (await server.store.tokens.list(server.default.id)).items if t.user_name == "bob"]
            await server.store.tokens.revoke(server.default.id, record.id)
            (waiter,) = (await mod.expect("lobby"))["waiting"]
            await moderate(mod, "admit", waiter["peer"])
            await bob.expect_bye("token_revoked", 4401, rejoin=False)


async def test_a_token_that_expires_in_the_lobby_has_its_minute(server: Server) -> None:
    async with server.connect(await ticket(server, "mod", moderate=True)) as mod:
        await welcomed(mod)
        await mod.send("room", {"lobby": True})
        await mod.expect("room")
        expires = utc_now() + timedelta(seconds=1)
        async with server.connect(await ticket(server, "bob", age_s=599)) as bob:
            await bob.expect("waiting")
            (waiter,) = (await mod.expect("lobby"))["waiting"]
            await until(lambda: utc_now() > expires + timedelta(seconds=1))
            await moderate(mod, "admit", waiter["peer"])
            await welcomed(bob)


# --- over REST ------------------------------------------------------------------------------------------------------


async def rest(server: Server, method: str, path: str, key: str, body: Any = None) -> Reply:
    headers = {"Host": "x", "Connection": "close", "Authorization": f"Bearer {key}"}
    raw = b""
    if body is not None:
        raw = json.dumps(body).encode()
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(raw))}
    return await request(server.port, method, "/api/v1" + path, headers, raw)


async def test_the_api_does_it_too(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sfu.audit")
    key = (await server.store.companies.rotate_key(server.default.id))[1].reveal()
    async with server.joined(name="bob") as bob, server.joined(name="eve") as eve:
        await bob.answer()
        await eve.until("track")
        await eve.send("hand", {"raised": True})
        up = await bob.until("hand")
        present = (await rest(server, "GET", "/rooms/team/participants", key)).json["items"]
        assert [(p["peer"], p["user_name"], p["hand"]) for p in present] == [
            (bob.peer, "bob", 0),
            (eve.peer, "eve", up["raised"]),
        ]
        assert present[0]["tracks"] == [{"source": "microphone", "kind": "audio", "muted": False}]
        paths = [f"/rooms/team/participants/{p['session_id']}" for p in present]
        assert (await rest(server, "POST", paths[0] + "/mute", key, {})).status == 204
        assert (await bob.expect("mute")) == {"peer": bob.peer, "source": "microphone", "muted": True, "by": ""}
        reply = await rest(server, "POST", paths[0] + "/mute", key, {"source": "screen"})
        assert (reply.status, reply.code) == (400, "bad_source")
        assert (await rest(server, "DELETE", paths[0].replace("team", "other"), key)).code == "participant_not_found"
        assert (await rest(server, "DELETE", paths[1], key)).status == 204
        done = [line for line in caplog.messages if "_participant " in line]
        assert [(line.split()[0], " name='" in line) for line in done] == [
            ("mute_participant", True),
            ("remove_participant", True),
        ]
        assert (await eve.until("bye"))["code"] == "removed"
        assert (await server.refused("/ws?room=team&username=eve"))["code"] == "removed"
        (ban,) = (await rest(server, "GET", "/rooms/team/bans", key)).json["items"]
        assert (ban["user_name"], ban["banned_by"], ban["address"]) == ("eve", "", "127.0.0.1")
        assert (await rest(server, "DELETE", f"/rooms/team/bans/{ban['id']}", key)).status == 204
        async with server.joined(name="eve"):
            pass
        assert (await rest(server, "PUT", "/rooms/team", key, {"locked": True, "chat_kept_s": 60})).status == 200
        state = {
            "locked": True,
            "lobby": False,
            "files": True,
            "chat_kept_s": 60,
            "public": True,
            "chat_cleared": False,
        }
        assert await bob.until("room") == state
        assert (await server.refused("/ws?room=team&username=eve"))["code"] == "room_locked"
        await bob.send("chat", {"text": "hello"})
        line = await bob.expect("chat")
        (kept,) = (await rest(server, "GET", "/rooms/team/chat", key)).json["items"]
        assert (kept["id"], kept["text"], kept["user_name"]) == (line["id"], "hello", "bob")
        assert (await rest(server, "DELETE", f"/rooms/team/chat/{line['id']}", key)).status == 204
        assert await bob.expect("chat_deleted") == {"id": line["id"]}
        assert (await rest(server, "DELETE", f"/rooms/team/chat/{line['id']}", key)).code == "line_not_found"
        assert (await rest(server, "POST", "/rooms/team/end", key)).status == 204
        await bob.expect_bye("call_ended", 1000, rejoin=False)


async def test_taking_the_lobby_away_over_rest_lets_everybody_in(server: Server) -> None:
    key = (await server.store.companies.rotate_key(server.default.id))[1].reveal()
    assert (await rest(server, "POST", "/rooms", key, {"room_id": "team", "lobby": True})).json["lobby"] is True
    async with server.client(name="bob") as bob:  # nobody is in
        await bob.expect("waiting")
        assert (await rest(server, "PUT", "/rooms/team", key, {"lobby": False})).status == 200
        await welcomed(bob)


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_the_end_of_the_call_is_everybodys(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sfu.audit")
    async with (
        moderator(server) as mod,
        server.joined(name="bob") as bob,
        server.joined("other", "carol") as carol,
    ):
        await mod.expect("joined")
        await mod.send("room", {"lobby": True})
        await mod.expect("room")
        await bob.expect("room")
        async with server.client(name="dave") as dave:
            await dave.expect("waiting")
            await mod.expect("lobby")
            await mod.send("end_call")
            for client in (mod, bob, dave):
                data = await client.until("bye")
                assert (data["code"], data["rejoin"]) == ("call_ended", False)
                assert await client.closed() == 1000
        await carol.send("chat", {"text": "still here"})
        await carol.expect("chat")
    await server.store.sessions.flush()
    ended = (await server.store.history.room_sessions(server.default.id, "team")).items
    assert {session.leave_reason for session in ended} == {"call_ended"}
    by = f"by='mod' by_peer={mod.peer} client=127.0.0.1"
    assert [line for line in caplog.messages if mod.peer in line] == [
        f"change_room room='{server.key('team')}' locked=False lobby=True {by}",
        f"end_call room='{server.key('team')}' {by}",
    ]


async def test_nobody_slips_past_a_lock(server: Server) -> None:
    """Nobody comes in before a lock that was put on is in force, however soon they ask."""
    async with server.connect(await ticket(server, "mod", moderate=True)) as mod, trio.open_nursery() as nursery:
        await welcomed(mod)
        codes: list[str] = []

        async def knock(n: int) -> None:
            async with server.client(name=f"user-{n}") as client:
                event, data = await client.receive()
                codes.append(data["code"] if event == "bye" else event)

        await mod.send("room", {"locked": True})
        await mod.expect("room")
        for n in range(8):
            nursery.start_soon(knock, n)
    assert codes == ["room_locked"] * 8
