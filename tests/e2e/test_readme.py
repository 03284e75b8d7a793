"""README's "Your backend", word for word: its commands lead a browser into a room."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

from people import Person
from support.process import ROOT, Server
from support.waiting import eventually


def block(language: str, server: Server) -> str:
    """The code of that language in the section, for this server instead of the reader's."""
    section = (ROOT / "README.md").read_text().partition("## Your backend\n")[2].partition("\n## ")[0]
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", section, re.M | re.S)
    assert "http://localhost:8080" in code
    return code.replace("http://localhost:8080", server.url).replace(".venv/bin/sfu", f"{sys.executable} -m sfu")


def output(command: list[str], server: Server, **more: str) -> str:
    done = subprocess.run(command, env=server.env | more, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_lead_into_a_room(server: Server, person: Callable[..., Person]) -> None:
    shell = block("sh", server)
    assert len(re.findall(r"^\S", shell, re.M)) == 3, "three commands"
    said = output(["sh", "-euc", f'{shell}\necho "$KEY"'], server)
    link, key = said.split()
    python = block("python", server)
    assert len([line for line in python.splitlines() if line]) <= 10, "ten lines"
    other_link = output([sys.executable, "-c", python], server, KEY=key).strip()
    assert link != other_link
    one, two = person(server, "alice", quiet=True), person(server, "alice")
    for someone, where in ((one, link), (two, other_link)):
        someone.page.goto(where)
        someone.page.click("#join-button")
        eventually(lambda someone=someone: someone.peer, "in the room")  # type: ignore[misc]
        assert someone.page.evaluate("[window.room.room, window.room.name]") == ["team-meeting", "alice"]
    one.sees(two)
