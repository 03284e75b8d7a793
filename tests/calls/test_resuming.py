"""WebSockets that break and are replaced: the peer stays in its room meanwhile, and only its own client may go on."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from support.control import Client, Server, open_files, running, settings, tasks
from support.waiting import until
from test_moderation import moderate, moderator
from trio_websocket import ConnectionClosed

from sfu.calls.admission import utc_now
from sfu.store.records import Session, SessionDrops
from sfu.tenancy import tokens
from sfu.tenancy.tokens import Permissions

LONG = settings(hold_s=60.0)
SHORT = settings(hold_s=0.2)


async def cut(client: Client) -> None:
    """The network goes, without a close frame."""
    await client.ws._stream.aclose()


async def held(server: Server, client: Client, secret: str = "") -> None:
    await cut(client)
    secret = secret or client.welcome["session"]
    await until(lambda: server.signaling.calls.session_of(secret)._link is None)  # type: ignore[union-attr]


@asynccontextmanager
async def resumed(server: Server, before: Client) -> AsyncIterator[Client]:
    """A client on another connection that goes on with a session, and has read its welcome."""
    async with server.connect("/ws", resume=before.welcome["session"]) as client:
        client.welcome = await client.expect("welcome")
        client.peer = client.welcome["peer"]
        assert client.welcome["resumed"]
        assert (client.peer, client.welcome["session"]) == (before.peer, before.welcome["session"])
        yield client


async def records(server: Server) -> list[Session]:
    await server.store.sessions.flush()
    return list((await server.store.history.room_sessions(server.default.id, "team")).items)


async def test_a_peer_whose_connection_broke_is_still_there_and_goes_on(tmp_path: Path) -> None:
    async with (
        running(tmp_path, LONG) as server,
        server.joined(name="bob") as bob,
        server.joined(name="alice") as alice,
    ):
        await bob.expect("joined")
        await alice.answer()
        await bob.expect("track")
        await alice.send("mute", {"source": "microphone", "muted": True})
        await bob.expect("mute")
        await held(server, alice)
        assert set(server.rooms.peers) == {alice.peer, bob.peer}
        await bob.send("mute", {"source": "microphone", "muted": True})
        await bob.answer()
        await until(lambda: server.rooms.peers[bob.peer].tracks)
        await bob.send("chat", {"text": "while she is away"})
        await bob.expect("chat")  # and no `left` before it
        async with resumed(server, alice) as again:
            tracks = [{"source": "microphone", "kind": "audio", "muted": True}]
            assert again.welcome["participants"] == [
                {
                    "peer": bob.peer,
                    "name": "bob",
                    "tracks": tracks,
                    "hand": 0,
                    "moderator": False,
                    "publish": True,
                    "lost": False,
                }
            ]
            assert [line["text"] for line in (await again.expect("history"))["lines"]] == ["while she is away"]
            assert again.welcome["room"] == "team"
            assert again.welcome["name"] == "alice"
            assert server.rooms.peers[alice.peer].muted == {"microphone"}
            await again.send("chat", {"text": "back"})
            assert (await bob.expect("chat"))["peer"] == alice.peer
            assert await again.expect("chat")
            holds = [fields["held"] for name, fields in await again.commands() if name == "Hold"]
            assert holds == [True, False]
        assert (await bob.expect("left"))["reason"] == "left"


async def test_the_new_connection_wins_also_before_the_server_knows_that_the_old_one_is_dead(tmp_path: Path) -> None:
    async with running(tmp_path, LONG) as server, server.joined() as alice, resumed(server, alice) as again:
        await alice.expect_bye("replaced", 4409, rejoin=False)
        await again.send("chat", {"text": "here"})
        await again.expect("chat")
        assert server.rooms.created == 1


async def test_what_the_old_connection_still_says_counts_for_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, LONG) as server, server.joined() as alice, resumed(server, alice) as again:
        for _ in range(3):
            try:
                await alice.send("leave")
            except ConnectionClosed:
                break
        await again.send("chat", {"text": "here"})
        await again.expect("chat")


async def test_what_a_moderator_wants_is_said_again_until_it_was_heard(tmp_path: Path) -> None:
    """Otherwise a muted person talks without having been told, or waits for a request that was already made."""
    async with running(tmp_path, LONG) as server, moderator(server) as mod, server.joined(name="alice") as alice:
        await held(server, alice)
        server.rooms.hand(server.rooms.peers[alice.peer], 1)  # and its answer was lost
        await moderate(mod, "mute", alice.peer, "microphone")
        await moderate(mod, "ask_unmute", alice.peer, "camera")
        await until(lambda: "microphone" in server.rooms.peers[alice.peer].muted)
        for _ in range(2):  # that connection may break as well
            async with resumed(server, alice) as again:
                assert (await again.until("hand")) == {"peer": alice.peer, "raised": 1}
                assert (await again.until("mute")) == {
                    "peer": alice.peer,
                    "source": "microphone",
                    "muted": True,
                    "by": "mod",
                }
                assert (await again.until("asked")) == {"name": "mod", "source": "camera"}
                await held(server, again)
        async with resumed(server, alice) as again:
            await again.send("mute", {"source": "microphone", "muted": True})
            await again.send("mute", {"source": "camera", "muted": False})
            await again.send("chat", {"text": "heard"})
            await again.until("chat")
            await held(server, again)
        async with resumed(server, alice) as again:
            await again.send("chat", {"text": "still here"})
            while (event := await again.receive())[0] != "chat" or event[1]["text"] != "still here":
                assert event[0] not in ("mute", "asked")


async def test_nobody_who_does_not_come_back_in_time_is_waited_for(tmp_path: Path) -> None:
    async with running(tmp_path, SHORT) as server, server.joined(name="bob") as bob, server.joined() as alice:
        await bob.expect("joined")
        began = trio.current_time()
        await cut(alice)
        assert await bob.expect("left") == {"peer": alice.peer, "reason": "unresponsive"}
        assert trio.current_time() - began > 0.15
        assert ("Leave", {"peer": alice.peer}) in await bob.commands()
        await refused(server, alice.welcome["session"])
        (alices, _) = sorted(await records(server), key=lambda record: record.user_name)
        assert alices.leave_reason == "unresponsive"


async def refused(server: Server, secret: str) -> None:
    async with server.connect("/ws", resume=secret) as client:
        await client.expect_bye("session_gone", 4408, rejoin=True)


async def test_only_the_sessions_own_secret_resumes_it(tmp_path: Path) -> None:
    async with running(tmp_path, LONG) as server, server.joined(name="bob") as bob, server.joined() as alice:
        secret = alice.welcome["session"]
        bobs = bob.welcome["session"].partition(".")[2]
        for wrong in ("", "x", alice.peer, f"{alice.peer}.", secret[:-1], secret + "x", f"{alice.peer}.{bobs}"):
            await refused(server, wrong)
        problem = await server.refused("/ws", resume=secret)  # it is no client of sfu.v1
        assert (problem["status"], problem["code"]) == (410, "session_gone")
        problem = await server.refused("/ws", resume=secret, origin="https://evil.example")
        assert problem["code"] == "origin_not_allowed"
        await alice.send("chat", {"text": "undisturbed"})
        await alice.expect("chat")


async def test_the_credentials_for_turn_are_renewed_and_in_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    turn = settings(turn_urls=("turn:turn.example.org",), turn_secret="north-by-northwest", hold_s=60.0)
    with caplog.at_level(logging.DEBUG, "sfu"):
        async with running(tmp_path, turn) as server, server.joined() as alice:
            await held(server, alice)
            async with resumed(server, alice) as again:
                (first,), (second,) = alice.welcome["ice_servers"], again.welcome["ice_servers"]
                assert first["urls"] == second["urls"] == ["turn:turn.example.org"]
                assert second["username"].endswith(f":{alice.peer}")
                assert second["username"] >= first["username"]
    for text in ("north-by-northwest", first["credential"], second["credential"]):
        assert text not in caplog.text


async def test_the_secret_is_in_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "sfu"):
        async with running(tmp_path, LONG) as server, server.joined() as alice:
            await held(server, alice)
            async with resumed(server, alice) as again:
                await refused(server, alice.welcome["session"] + "x")
                await held(server, again)
                assert "resumed" in caplog.text
    assert alice.welcome["session"].partition(".")[2] not in caplog.text


async def test_before_there_is_anything_to_resume_nothing_is_resumed(tmp_path: Path) -> None:
    async with running(tmp_path, SHORT, plan="mute") as server, server.client() as alice:
        secret = (await alice.expect("welcome"))["session"]
        await held(server, alice, secret)
        await refused(server, secret)
        await until(lambda: not server.rooms.peers)


async def test_a_bare_client_has_no_way_back_and_is_gone_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, LONG) as server, server.client(full=False) as bare:
        await bare.expect("offer")
        await cut(bare)
        await until(lambda: not server.rooms.peers)
        assert server.counters.get("sfu_ends_total", code="left") == 1


async def test_it_stays_one_session_that_counts_its_drops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sfu.calls")
    async with running(tmp_path, settings(hold_s=60.0, max_peers=1)) as server, server.joined() as alice:
        await held(server, alice)
        assert (await server.refused("/ws?room=team"))["code"] == "room_full"
        async with resumed(server, alice) as again, resumed(server, again) as last:
            await last.send("leave")
            await last.expect_bye("left", 1000, rejoin=False)
        (record,) = await records(server)
        assert (record.leave_reason, record.drops) == ("left", SessionDrops(2, 2, "unresponsive"))
        (said,) = [line for line in caplog.messages if line.startswith("left ")]
        assert said.endswith(" reason=left drops=2 returns=2 last_drop=unresponsive")
        assert server.counters.get("sfu_resumes_total") == 2


async def test_a_viewer_who_was_offered_nothing_yet_goes_on_too(tmp_path: Path) -> None:
    async with running(tmp_path, LONG, plan="mute") as server:
        token = await issued(server, server.default, permissions=Permissions(publish=False))
        async with server.connect("/ws", token=token) as alone:
            alone.welcome = await alone.expect("welcome")
            alone.peer = alone.welcome["peer"]
            await held(server, alone)
            async with resumed(server, alone) as again:
                await again.send("chat", {"text": "still here"})
                await again.expect("chat")


async def test_a_token_for_one_use_is_not_used_again(tmp_path: Path) -> None:
    async with running(tmp_path, LONG) as server:
        company, _ = await server.store.companies.create("Acme")
        token = await issued(server, company, single_use=True)
        async with server.connect("/ws", token=token) as alice:
            await welcomed(alice)
            await held(server, alice)
            async with server.connect("/ws", token=token, resume=alice.welcome["session"]) as again:
                assert (await again.expect("welcome"))["peer"] == alice.peer


async def issued(
    server: Server, company: Any, *, single_use: bool = False, permissions: Permissions | None = None
) -> str:
    who = {"company_id": company.id, "room_id": "team", "user_name": "alice", "permissions": permissions}
    grant = tokens.grant(**who, duration_s=600, now=utc_now())
    token = tokens.encode(grant, server.store.companies.secret(company).reveal())
    await server.store.tokens.add(grant, token, single_use=single_use)
    return token


async def welcomed(client: Client) -> None:
    client.welcome = await client.expect("welcome")
    client.peer = client.welcome["peer"]
    await client.expect("offer")


@pytest.mark.parametrize("end", ["token", "room", "stop", "worker", "media"])
async def test_who_is_held_is_ended_like_everybody_else(tmp_path: Path, end: str) -> None:
    async with running(tmp_path, LONG) as server, server.joined("elsewhere", "bob") as bob:
        company, _ = await server.store.companies.create("Acme")
        token = await issued(server, company)
        async with server.connect("/ws", token=token) as alice:
            await welcomed(alice)
            session = server.signaling.calls.session_of(alice.welcome["session"])
            assert session is not None
            await held(server, alice)
            if end == "token":
                server.signaling.moderation.end_token(session.record.token_id or "")
            elif end == "room":
                server.signaling.moderation.end_room(company.id, "team")
            elif end == "stop":
                server.signaling.stop()
            elif end == "worker":
                os.kill(int(server.workers.advertised[0]), signal.SIGKILL)
            else:
                await bob.do(("Failed", {"peer": alice.peer, "code": "media_lost", "message": "Gone."}))
            reasons = {
                "token": "token_revoked", "room": "room_deleted", "stop": "server_stopping",
                "worker": "media_restarted", "media": "media_lost",
            }  # fmt: skip
            await until(lambda: alice.peer not in server.rooms.peers)
            assert server.counters.get("sfu_ends_total", code=reasons[end]) >= 1


async def test_resuming_costs_as_much_as_a_message(tmp_path: Path) -> None:
    config = settings(hold_s=60.0, messages_burst=3, messages_per_s=0)  # how long four of them take is the machine's
    async with running(tmp_path, config) as server, server.joined() as alice:
        last = alice
        for _ in range(3):
            async with resumed(server, last) as last:
                pass_on = last.welcome["session"]
                await held(server, last)
        async with server.connect("/ws", resume=pass_on) as one_too_many:
            await one_too_many.expect_bye("rate_limited", 4429, rejoin=False)
        assert alice.peer in server.rooms.peers


async def test_many_that_break_and_resume_leave_nothing_behind(tmp_path: Path) -> None:
    async with running(tmp_path, settings(hold_s=60.0, messages_burst=100)) as server:
        before = tasks()
        async with server.joined():
            pass
        await until(lambda: tasks() == before)
        files = open_files()
        async with AsyncExitStack() as stack:
            last = await stack.enter_async_context(server.joined())
            for turn in range(20):
                last = await stack.enter_async_context(resumed(server, last))
                if turn % 2:
                    await held(server, last)
            last = await stack.enter_async_context(resumed(server, last))
            await last.send("leave")
            await last.expect_bye("left", 1000, rejoin=False)
        await until(lambda: tasks() == before)
        await until(lambda: open_files() == files)
        assert not server.rooms.peers
