"""Chat of a call: who comes later is told, also after a restart, and nobody waits for the database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.control import Client, Server, running, settings
from support.waiting import until

from sfu.refusals import DatabaseUnavailable
from sfu.store.records import RoomSettings

if TYPE_CHECKING:
    from support.away import Away

pytest_plugins = ["support.away", "support.postgres"]


async def said(client: Client, text: str) -> dict[str, Any]:
    await client.send("chat", {"text": text})
    line: dict[str, Any] = await client.expect("chat")
    assert line["text"] == text
    return line


async def history(server: Server, room: str = "team") -> list[dict[str, Any]] | None:
    """What somebody is told who comes now; None for nothing."""
    async with server.client(room, "late") as client:
        await client.expect("welcome")
        event, data = await client.receive()
        return data["lines"] if event == "history" else None


async def test_who_comes_later_is_told_also_after_a_restart(tmp_path: Path, database_url: str) -> None:
    async with running(tmp_path, database_url=database_url) as server, server.joined() as alice:
        lines = [await said(alice, f"line {n}") for n in range(3)]
        assert await history(server) == lines
        assert await history(server, "other") is None
    async with running(tmp_path, database_url=database_url) as server:
        assert await history(server) == lines
        async with server.client(name="bob") as bob:
            await bob.expect("welcome")
            assert (await bob.expect("history"))["lines"] == lines
            await bob.expect("offer")
            lines.append(await said(bob, "and one more"))
            assert await history(server) == lines


async def test_a_room_may_keep_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, settings(chat_kept_s=60)) as server:
        await server.store.rooms.create(server.default.id, "team", RoomSettings(chat_kept_s=0))
        async with server.joined() as alice, server.joined("other") as bob:
            assert alice.welcome["state"]["chat_kept_s"] == 0
            assert bob.welcome["state"]["chat_kept_s"] == 60
            await said(alice, "psst")
            await said(bob, "hello")
            assert await history(server) is None
            assert len(await history(server, "other") or []) == 1
        await server.store.lines.flush()
        assert [row["text"] for row in await server.store.database.read("SELECT text FROM chat_lines")] == ["hello"]


async def test_no_line_is_lost_while_the_database_is_away(
    tmp_path: Path,
    away: Away,
    database_url: str,
) -> None:
    async with running(tmp_path, database_url=database_url) as server, server.joined() as alice:
        with away():
            with pytest.raises(DatabaseUnavailable):
                await server.store.companies.create("Acme")
            lines = [await said(alice, f"line {n}") for n in range(5)]
            assert len(server.store.lines) == 5
        await until(lambda: not server.store.lines)
        kept = (await server.store.chat.list(server.default.id, "team")).items
        assert [line.text for line in reversed(kept)] == [line["text"] for line in lines]


async def refused_line(client: Client, text: str) -> str:
    """The code that a line is refused with, after those that are sent."""
    while True:
        await client.send("chat", {"text": text})
        event, data = await client.receive()
        if event == "error":
            return str(data["code"])
        assert event == "chat"


async def test_chat_has_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """People write less; a script would fill the database and everybody's line."""
    monkeypatch.setattr("sfu.calls.chat.BY_PEER", (0.001, 10_000))
    monkeypatch.setattr("sfu.calls.chat.BY_ROOM", (0.001, 25_000))
    async with running(tmp_path, settings(messages_burst=100)) as server:
        async with server.joined() as alice:
            for number in range(15):
                await said(alice, f"line {number}")
            assert await refused_line(alice, "x" * 4000) == "chat_limit"
            async with server.joined(name="bob") as bob:  # for each on their own …
                await said(bob, "hello")
                assert await refused_line(bob, "x" * 4000) == "chat_limit"
                async with server.joined(name="carol") as carol:  # … until the room has enough
                    assert await refused_line(carol, "x" * 4000) == "chat_limit"
                    await carol.send("reaction", {"reaction": "clap"})  # and the call goes on
                    assert (await carol.expect("reaction"))["reaction"] == "clap"
        async with server.joined("other", name="alice") as alice:  # nor does leaving and another room help
            assert await refused_line(alice, "x" * 4000) == "chat_limit"
