"""The programs of docs/recipes.md do what the page says, with a server process and people on WebSockets."""

from __future__ import annotations

import csv
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from support.process import ROOT, Server, environment, free_port
from support.rest_client import Reply, request
from support.waiting import until
from support.wire import Wire, connected, joined

PAGE = (ROOT / "docs" / "recipes.md").read_text()
DEADLINE_S = 60.0


class Recipe:
    """The program under a heading of the page, in a folder of its own, for a company of the server."""

    def __init__(self, server: Server, folder: Path, heading: str) -> None:
        self.server, self.folder, self.port = server, folder, free_port()
        section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        (program,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        (folder / "program.py").write_text(program)
        self._key = server.company("Acme")
        self.env = environment() | {"SFU_URL": server.url, "KEY": self._key, "PORT": str(self.port)}
        self.env |= {"PYTHONPATH": str(ROOT / "sdk" / "python"), "PYTHONUTF8": "1"}

    async def __call__(self, *arguments: str) -> str:
        """What the program prints, to its end, which must be a good one."""
        with trio.fail_after(DEADLINE_S):
            done = await trio.run_process(
                self._command(*arguments), capture_stdout=True, capture_stderr=True, check=False, **self._place
            )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().rstrip()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Path]:
        """`serve` until the block ends, and the file that it prints to. It answers, and refuses what nobody signed."""
        forged = {"Host": "localhost", "Connection": "close", "Content-Length": "2", "webhook-id": "1"}
        printed = self.folder / "printed"
        with printed.open("wb") as output:
            run = partial(trio.run_process, self._command("serve"), stdout=output, stderr=output, **self._place)
            async with trio.open_nursery() as nursery:
                await nursery.start(run)
                await until(self._listens, "the program listens")
                assert (await request(self.port, "POST", "/", forged, b"{}")).status == 400
                yield printed
                nursery.cancel_scope.cancel()

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    async def tokens(self, *arguments: str) -> dict[str, str]:
        """Those in the links that the program prints, by the name before each."""
        lines = (line.split("\t") for line in (await self(*arguments)).splitlines())
        return {name: self.token(link) for name, link in lines}

    def token(self, link: str) -> str:
        assert link.startswith(f"{self.server.url}/?token=")
        return link.partition("=")[2]

    async def ask(self, path: str, method: str = "GET") -> Reply:
        headers = {"Host": "localhost", "Connection": "close", "Authorization": f"Bearer {self._key}"}
        return await request(self.server.port, method, f"/api/v1{path}", headers)

    @property
    def _place(self) -> dict[str, Any]:
        return {"cwd": self.folder, "env": self.env}

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-W", "error", "program.py", *arguments]


Recipes = Callable[[str], Recipe]


@pytest.fixture
def recipe(start_server: Callable[..., Server], tmp_path: Path) -> Recipes:
    return lambda heading: Recipe(start_server(webhook_allow_private="on"), tmp_path, heading)


def entering(url: str, token: str) -> AbstractAsyncContextManager[Wire]:
    """Somebody who may get no further than the lobby, or has nothing to send yet."""
    return connected(url, "", None, room="", token=token)


async def bye(wire: Wire) -> Any:
    """The code that the server says goodbye with."""
    with pytest.raises(AssertionError) as said:
        await wire.expect("bye once more")
    return said.value.args[0]["data"]["code"]


def events(calendar: bytes) -> dict[str, str]:
    """The values in a file with one event, by their names; as RFC 5545 has it."""
    assert all(len(line) <= 75 for line in calendar.split(b"\r\n"))
    lines = calendar.decode().replace("\r\n ", "").removesuffix("\r\n").split("\r\n")
    assert lines[0] == "BEGIN:VCALENDAR"
    assert lines[-2:] == ["END:VEVENT", "END:VCALENDAR"]
    return {name: re.sub(r"\\(.)", r"\1", value) for name, _, value in (line.partition(":") for line in lines)}


async def test_a_calendar_invitation(recipe: Recipes) -> None:
    invite = recipe("A calendar invitation")
    now = datetime.now(UTC).replace(microsecond=0)
    for ahead, enters in ((timedelta(days=7), False), (timedelta(0), True)):
        await invite((now + ahead).isoformat())
        found = {path.stem: events(path.read_bytes()) for path in invite.folder.glob("*.ics")}
        assert found.keys() == {"ana", "bo"}
        for guest, event in found.items():
            assert event["DTSTART"] == (now + ahead).strftime("%Y%m%dT%H%M%SZ")
            assert event["DTEND"] == (now + ahead + timedelta(hours=1)).strftime("%Y%m%dT%H%M%SZ")
            assert event["SUMMARY"] == "Design review, March"
            assert event["DESCRIPTION"].endswith(event["URL"])
            token = invite.token(event["URL"])
            async with entering(invite.server.url, token) as person:
                if not enters:
                    assert await bye(person) == "token_not_yet_valid"
                    continue
                assert (await person.expect("welcome"))["room"] == "review-2027-03"
                (session,) = (await invite.ask(f"/sessions?user={guest}")).json["items"]
                assert session["user_name"] == {"ana": "Ana Lima", "bo": "Bo Ødegård"}[guest]
    issued = (await invite.ask("/tokens?user=ana")).json["items"]
    assert [one["state"] for one in issued] == ["valid", "early"]
    ends = [datetime.fromisoformat(one["expires_at"]) for one in issued]
    assert ends == [now + timedelta(hours=1), now + timedelta(days=7, hours=1)]


async def test_a_classroom(recipe: Recipes) -> None:
    classroom = recipe("A classroom")
    url, tokens = classroom.server.url, await classroom.tokens("open")
    assert tokens.keys() == {"Ms Okafor", "Ben", "Chloé"}
    async with joined(url, token=tokens["Ms Okafor"]) as teacher, entering(url, tokens["Ben"]) as ben:
        await ben.expect("welcome")
        await publish(ben)
        assert (await ben.expect("error"))["code"] == "not_allowed"
        assert await classroom("allow", "s18") == "0 allowed"
        assert await classroom("allow", "s17") == "1 allowed"
        assert (await ben.expect("permissions"))["publish"] is True
        assert (await teacher.expect("changed"))["name"] == "Ben"
        await publish(ben)
        await ben.expect("offer")
        people = (await classroom.ask("/rooms/physics-2027-03-01/participants")).json["items"]
        assert [one["permissions"]["moderate"] for one in people] == [True, False]
    async with entering(url, tokens["Ben"]) as ben:
        await ben.expect("welcome")
    ended: list[Any] = []
    while len(ended) < 3:
        ended = (await classroom.ask("/sessions?state=ended")).json["items"]
    head, ben_row, chloe_row = csv.reader((await classroom("attendance")).splitlines())
    stays = [one for one in ended if one["user_id"] == "s17"]
    assert len(stays) == 2
    seconds = round(sum(one["duration_s"] for one in stays))
    assert head == ["student", "name", "came", "seconds"]
    assert ben_row == ["s17", "Ben", stays[-1]["connected_at"], str(seconds)]
    assert chloe_row == ["s18", "Chloé", "", "0"]


async def publish(wire: Wire) -> None:
    await wire.ws.send_message('{"event": "publish", "data": {"source": "screen", "kind": "video"}}')


def lines(printed: Path) -> list[tuple[str, str]]:
    """The names and links that the agent was told."""
    return re.findall(r"^(\S+) is in ticket-4711: (\S+)$", printed.read_text(), re.MULTILINE)


async def test_a_support_desk(recipe: Recipes) -> None:
    desk = recipe("A support desk")
    url = desk.server.url
    desk.env["WEBHOOK_SECRET"] = await desk("hook", f"http://127.0.0.1:{desk.port}/hook")
    asked = ("open", "4711", "Ana", "request-1")
    link = await desk(*asked)
    assert await desk(*asked) == link
    assert await desk(*asked[:-1], "request-2") != link
    async with desk.serving() as printed, joined(url, token=desk.token(link)) as ana:
        told = (await until(lambda: lines(printed)))[0]
        async with joined(url, token=desk.token(told[1])) as agent:
            assert (await ana.expect("joined"))["name"] == "Support"
            await desk("close", "4711")
            assert [await bye(one) for one in (ana, agent)] == ["room_deleted"] * 2
        assert (await desk.ask("/rooms/ticket-4711")).code == "room_not_found"
        async with entering(url, desk.token(link)) as late:
            assert await bye(late) == "token_revoked"
        (webhook,) = (await desk.ask("/webhooks")).json["items"]
        assert (await desk.ask(f"/webhooks/{webhook['id']}/replay?from=1", "POST")).status < 300
        async with joined(url, token=desk.token(await desk(*asked[:-1], "request-3"))):
            links = await until(lambda: [one for one in lines(printed) if one[1] not in told] and lines(printed))
        assert [name for name, _ in links] == ["Ana", "Ana"]  # the message that came again told nothing new


async def test_a_waiting_room(recipe: Recipes) -> None:
    visit = recipe("A waiting room")
    url, tokens = visit.server.url, await visit.tokens("open", "visit-7", "Ana", "Dr. Roth")
    records = (await visit.ask("/tokens")).json["items"]
    assert {one["user_name"]: one["single_use"] for one in records} == {"Ana": True, "Dr. Roth": True}
    async with entering(url, tokens["Ana"]) as ana:
        await ana.expect("waiting")
        ((waiter, name, _),) = [line.split("\t") for line in (await visit("waiting", "visit-7")).splitlines()]
        assert name == "Ana"
        async with joined(url, token=tokens["Dr. Roth"]) as doctor:
            await visit("admit", "visit-7", waiter)
            await ana.expect("welcome")
            assert (await doctor.expect("joined"))["name"] == "Ana"
            assert await visit("waiting", "visit-7") == ""
            await ana.talks("it is my knee")
            assert (await visit.ask("/rooms/visit-7/chat")).json["items"] == []
            await visit("end", "visit-7")
            assert [await bye(one) for one in (ana, doctor)] == ["room_deleted"] * 2
