"""What happens in calls, as the audit log and the events tell it: of real WebSockets, files and a real database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.control import Client, Server, running, settings
from support.rest_client import request
from test_moderation import moderate, moderator, ticket, welcomed

from sfu.store.records import RoomSettings
from sfu.store.trail import Entry, Wanted

pytest_plugins = ["support.postgres"]


@pytest.fixture
async def server(tmp_path: Path, database_url: str) -> AsyncIterator[Server]:
    async with running(tmp_path, database_url=database_url) as started:
        yield started


async def told(server: Server, *actions: str) -> list[Entry]:
    """The entries of these actions, the oldest first."""
    found = (await server.store.trail.list(Wanted(server.default.id))).items
    return [entry for entry in reversed(found) if entry.change.action in actions]


async def events(server: Server, prefix: str) -> list[tuple[str, dict[str, Any]]]:
    await server.store.rulings.flush()
    rows = await server.store.database.read("SELECT type, room_id, user_name, data FROM events ORDER BY seq")
    assert {row["room_id"] for row in rows} <= {"team"}
    assert all(row["user_name"] == json.loads(row["data"]).get("user_name", "") for row in rows)
    return [(row["type"], json.loads(row["data"])) for row in rows if row["type"].startswith(prefix)]


def by(server: Server, entry: Entry, mod: Client) -> bool:
    """Whether an entry is this moderator's: their session, their name, their address, the request of their join."""
    seat, author = server.signaling.calls.seats[mod.peer], entry.author
    who = (author.kind, author.id, author.name, author.address, author.request_id)
    return who == ("person", seat.record.id, "mod", "127.0.0.1", seat.who["request_id"])


async def test_what_a_moderator_does_to_people(server: Server) -> None:
    async with moderator(server) as mod, server.joined(name="bob") as bob, server.joined(name="eve") as eve:
        bobs, eves = (server.signaling.calls.seats[one.peer].record.id for one in (bob, eve))
        await bob.answer()
        await mod.until("track")
        for _ in range(2):
            await moderate(mod, "mute", bob.peer, "microphone")
        await moderate(mod, "ask_unmute", bob.peer, "microphone")
        await moderate(mod, "remove", eve.peer)
        assert (await eve.until("bye"))["code"] == "removed"
        muted, removed = await told(server, "participant.muted", "participant.removed")
        assert by(server, muted, mod)
        assert by(server, removed, mod)
        assert (muted.change.target, muted.change.session_id, muted.change.user_name) == (bobs, bobs, "bob")
        assert muted.change.after == {"user_name": "bob", "source": "microphone"}
        assert (removed.change.target, removed.change.room_id) == (eves, "team")
        assert (removed.change.after or {})["banned_until"]
        who = {"kind": "person", "id": muted.author.id}
        mute, removal = await events(server, "participant.m") + await events(server, "participant.removed")
        assert mute[1] == {"session_id": bobs, "user_name": "bob", "source": "microphone", "by": who}
        assert (removal[1]["session_id"], removal[1]["user_name"], removal[1]["by"]) == (eves, "eve", who)


async def test_whoever_is_removed_is_removed_from_all_tabs(server: Server) -> None:
    async with moderator(server) as mod, server.joined(name="eve") as one, server.joined(name="Eve") as two:
        ids = {server.signaling.calls.seats[eve.peer].record.id for eve in (one, two)}
        await moderate(mod, "remove", one.peer)
        for eve in (one, two):
            assert (await eve.until("bye"))["code"] == "removed"
        found = await told(server, "participant.removed")
        assert {entry.change.session_id for entry in found} == ids
        assert len(await events(server, "participant.removed")) == 2
        assert len((await server.store.bans.list(server.default.id, "team")).items) == 1


async def test_a_lock_and_a_lobby(server: Server) -> None:
    async with moderator(server) as mod:
        for state in ({"locked": True}, {"locked": True, "lobby": True}, {"lobby": True}):
            await mod.send("room", {"locked": None, "lobby": None, **state})
        await mod.until("room")
        await mod.until("room")
        found = await told(server, "room.changed")
        assert all(by(server, entry, mod) for entry in found)
        assert [(entry.change.before, entry.change.after) for entry in found] == [
            ({"locked": False}, {"locked": True}),
            ({"lobby": False}, {"lobby": True}),
        ]
        assert [data["changed"] for _, data in await events(server, "room.changed")] == [
            {"locked": True},
            {"lobby": True},
        ]


async def test_everybody_who_waits_has_an_outcome(tmp_path: Path, database_url: str) -> None:
    """Those that somebody decided are in the audit log, too."""
    async with running(tmp_path, settings(lobby_s=1), database_url=database_url) as server:
        await server.store.rooms.create(server.default.id, "team", RoomSettings(lobby=True))
        async with moderator(server) as mod:
            names = ("bob", "carol", "dave")
            ids: dict[str, str] = {}
            async with server.client(name="bob") as bob, server.client(name="carol") as carol:
                async with server.client(name="dave") as dave:
                    while set(ids) < set(names):
                        ids |= {one["name"]: one["peer"] for one in (await mod.until("lobby"))["waiting"]}
                    await dave.send("leave")
                    while len((await mod.until("lobby"))["waiting"]) > 2:
                        pass
                await moderate(mod, "admit", ids["bob"])
                await bob.until("welcome")
                await moderate(mod, "refuse", ids["carol"])
                await carol.until("bye")
            async with server.client(name="late") as late:
                assert (await late.until("bye"))["code"] == "lobby_timeout"
            async with server.client(name="free") as free:
                await free.expect("waiting")
                await mod.send("room", {"lobby": False})
                await free.until("welcome")
            admitted, refused = await told(server, "lobby.admitted", "lobby.refused")
            assert by(server, admitted, mod)
            assert by(server, refused, mod)
            assert (admitted.change.target, admitted.change.user_name) == (ids["bob"], "bob")
            assert (refused.change.target, (refused.change.after or {})["reason"]) == (ids["carol"], "lobby_refused")
            found = await events(server, "lobby.")
            assert sorted(data["user_name"] for kind, data in found if kind == "lobby.waiting") == sorted(
                [*names, "late", "free"]
            )
            outcomes = {data["user_name"]: (kind, data.get("reason")) for kind, data in found if "by" in data}
            assert outcomes == {
                "bob": ("lobby.admitted", None),
                "carol": ("lobby.refused", "lobby_refused"),
                "dave": ("lobby.refused", "left"),
                "late": ("lobby.refused", "lobby_timeout"),
                "free": ("lobby.admitted", None),
            }
            kinds = {data["user_name"]: data["by"]["kind"] for _, data in found if "by" in data}
            assert kinds == {"bob": "person", "carol": "person", "dave": "server", "late": "server", "free": "server"}


async def test_the_end_for_everybody(server: Server) -> None:
    async with server.connect(await ticket(server, "mod", moderate=True)) as mod, server.joined(name="bob") as bob:
        await welcomed(mod)
        (seat,) = [seat for seat in server.signaling.calls.sessions() if seat.peer.id == mod.peer]
        await mod.send("end_call")
        await bob.until("bye")
        (entry,) = await told(server, "call.ended")
        assert (entry.author.kind, entry.author.id, entry.change.target) == ("person", seat.record.id, "team")
        assert entry.change.before == {"people": 2, "waiting": 0}


async def test_a_shared_file(server: Server) -> None:
    async with server.joined(name="bob") as bob:
        headers = {
            "Host": "x",
            "Connection": "close",
            "Authorization": f"Bearer {bob.welcome['session']}",
            "X-File-Name": "plan.txt",
            "Content-Type": "text/plain",
            "Content-Length": "5",
        }
        reply = await request(server.port, "POST", "/files", headers, b"hello")
        assert reply.status == 201
        (entry,) = await told(server, "file.shared")
        (seat,) = server.signaling.calls.sessions()
        assert (entry.author.kind, entry.author.id, entry.author.name) == ("person", seat.record.id, "bob")
        assert (entry.change.session_id, entry.change.user_name) == (seat.record.id, "bob")
        assert entry.change.after == {"name": "plan.txt", "type": "text/plain", "size": 5}
        assert entry.change.target == reply.headers["location"].rpartition("/")[2]


async def test_who_may_not_moderate_leaves_nothing(server: Server) -> None:
    async with server.joined(name="alice") as alice, server.joined(name="bob") as bob:
        for event, data in (("moderate", {"action": "mute", "peer": bob.peer}), ("room", {"locked": True})):
            await alice.send(event, data)
            assert (await alice.until("error"))["code"] == "not_allowed"
        assert [entry.author.kind for entry in (await server.store.trail.list(Wanted())).items] == ["server"]
