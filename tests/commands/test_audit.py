"""`sfu audit`: who changed what, also by commands, from the database of a server that runs or not."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.operating import Place, placed
from support.process import sfu

from sfu.refusals import CompanyNotFound
from sfu.store.audit import Author
from sfu.store.records import RoomSettings

MAX = Author("key", "k1", "pk_max", "192.0.2.7", "req1")
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setenv("SUDO_USER", "ops")
    monkeypatch.setenv("SSH_CONNECTION", "198.51.100.4 50000 203.0.113.9 22")
    async with placed(tmp_path) as found:
        yield found


async def test_it_tells_what_was_done_by_whom(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    store = place.server.store
    acme = await place.acme()
    await store.rooms.create(acme.id, "board", RoomSettings(), MAX)
    await store.rooms.update(acme.id, "board", {"name": "\x1b[31mBoard", "locked": True}, MAX)
    await store.rooms.create(place.server.default.id, "team", RoomSettings(), MAX)
    await place.run("token", "Acme/board", "--name", "Eve", "--url", "https://x")
    capsys.readouterr()

    await place.run("audit", "--company", "Acme")
    created, room, changed, issued = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{TIME}  company\.created  'Acme'  by server  name=\"Acme\", tier=\"free\"", created)
    assert re.match(rf"{TIME}  room\.created  'Acme/board'  by key pk_max from 192\.0\.2\.7  name=\"\", ", room)
    assert changed.endswith('name: "" → "\\\\u001b[31mBoard", locked: false → true'), changed
    assert re.match(
        rf"{TIME}  token\.issued  'Acme/board'  by command 'ops' from 198\.51\.100\.4  user_name=\"Eve\", ", issued
    )

    for options, count in (
        (["--room", "Acme/board"], 3),
        (["--room", "team"], 1),
        (["--user", "Eve"], 1),
        (["--by", "ops"], 1),
        (["--by", "k1", "--action", "room"], 3),
        (["--action", "room.changed", "--limit", "5"], 1),
        (["--limit", "2"], 2),
    ):
        await place.run("audit", "--json", *options)
        found = json.loads(capsys.readouterr().out)
        assert len(found) == count, options
    assert (found[-1]["action"], found[-1]["by_kind"], found[-1]["user_name"]) == ("token.issued", "command", "Eve")
    await place.run("audit", "--user", "Nobody")
    assert capsys.readouterr().out.startswith("There is no such entry since ")
    with pytest.raises(CompanyNotFound, match="There is no company 'Nobody'"):
        await place.run("audit", "--company", "Nobody")


def test_a_limit_is_a_number() -> None:
    done = sfu("audit", "--limit", "0")
    assert done.returncode == 2
    assert "from 1 to 10000" in done.stderr
