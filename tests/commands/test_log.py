"""`sfu log`: one person's story, from the database of a server that runs or not."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.operating import Place, placed
from support.process import environment, sfu
from support.waiting import until

from sfu.calls.moderation import Moderation
from sfu.commands.log import since
from sfu.store.records import SessionDrops, SessionQuality

pytest_plugins = ["support.postgres"]

QUALITY = SessionQuality(
    score_mean=3.94, score_min=2.12, loss_up=0.012, loss_down=0.003, jitter_up_ms=6.2, jitter_down_ms=3.0,
    round_trip_ms=45.4, bytes_up=12_340_000, bytes_down=34_560_000,
)  # fmt: skip


@pytest.fixture
async def place(tmp_path: Path, database_url: str) -> AsyncIterator[Place]:
    async with placed(tmp_path, database_url) as found:
        yield found


async def test_it_tells_joins_paths_quality_and_ends(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    store, default = place.server.store, place.server.default
    acme = await place.acme()
    await store.sessions.admit_anonymous(default.id, "team", "Bob")
    one = await store.sessions.admit_anonymous(default.id, "team", "Eve", peer_address="198.51.100.4")
    path = {"transport": "tcp", "address": "203.0.113.7"}
    store.sessions.close(one, "unresponsive", path, QUALITY, SessionDrops(3, 2, "unresponsive"))
    two = await store.sessions.admit_anonymous(acme.id, "board", "eve")
    await store.sessions.flush()

    await place.run("log", "EVE")
    first, second = re.split(r"(?m)^(?=\S)", capsys.readouterr().out)[1:]
    lines = [line.strip() for line in first.splitlines()]
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    how_it_went = (
        "quality: 3.9 in the mean, 2.1 at worst; up 1.2% lost, jitter 6 ms; down 0.3% lost, jitter 3 ms; "
        "round trip 45 ms; 12.3 MB up, 34.6 MB down"
    )
    assert lines[0] == "Eve in team"
    assert re.fullmatch(rf"{time}  joined from 198\.51\.100\.4; 1 other was there", lines[1])
    assert re.fullmatch(rf"{time}  unresponsive: The client stopped responding\. After \d s\.", lines[2])
    assert lines[3:] == [
        "path: tcp from 203.0.113.7",
        how_it_went,
        "connection lost 3 times, back 2 times; last: unresponsive",
        f"session {one.id} on sfu, without a token",
    ]
    assert "eve in Acme/board" in second
    assert "0 others were there" in second
    assert "the session is open" in second

    await place.run("log", "eve", "--room", "Acme/board", "--json")
    (said,) = json.loads(capsys.readouterr().out)
    assert (said["session"], said["room"], said["disconnected_at"]) == (two.id, "Acme/board", None)
    await place.run("log", "eve", "--limit", "1", "--json")
    assert [one["session"] for one in json.loads(capsys.readouterr().out)] == [two.id], "the last"


async def test_the_path_of_a_call_is_in_its_story(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    async with place.server.joined("team", "Eve") as eve:
        await eve.do(("Connected", {"address": "203.0.113.7", "transport": "udp"}))
        seat = place.server.signaling.calls.seats[eve.peer]
        await until(lambda: seat.path)
        await eve.send("leave")
        await eve.closed()
    await place.server.store.sessions.flush()
    await place.run("log", "Eve")
    said = capsys.readouterr().out
    assert "left by themselves." in said
    assert "path: udp from 203.0.113.7" in said


async def test_whoever_was_removed_is_told_of_with_who_did_it(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """By a moderator, by the operator, by the REST API, and with the whole call."""
    store, acme = place.server.store, await place.acme()

    async def story(name: str) -> str:
        await store.sessions.flush()
        capsys.readouterr()
        await place.run("log", name)
        return capsys.readouterr().out

    async with (
        place.joined(acme, "board", "Mia", moderate=True) as mia,
        place.joined(acme, "board", "Eve") as eve,
        place.joined(acme, "board", "Tom") as tom,
        place.joined(acme, "board", "Ada") as ada,
    ):
        await mia.send("moderate", {"action": "remove", "peer": eve.peer})
        await eve.closed()
        assert "removed: removed from the room by Mia. After" in await story("Eve")
        await place.run("kick", "Acme/board", "Tom")
        await tom.closed()
        assert "removed: removed from the room by the operator. After" in await story("Tom")
        seat = place.server.signaling.calls.seats[ada.peer]
        Moderation(place.server.signaling.calls).remove(acme.id, "board", seat.record.id)
        await ada.closed()
        assert "removed: removed from the room by the REST API. After" in await story("Ada")
        await mia.send("end_call", {})
        await mia.closed()
        assert "call_ended: the call was ended for everybody by Mia. After" in await story("Mia")
    await place.run("log", "Eve", "--json")
    assert json.loads(capsys.readouterr().out)[0]["ended_by"] == "Mia"


async def test_nobody_of_the_name_is_said(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    await place.run("log", "Eve", "--since", "2026-01-02", "--room", "team")
    assert capsys.readouterr().out == "Nobody was called 'Eve' in team since 2026-01-02 00:00:00 UTC.\n"


def test_it_makes_no_database(tmp_path: Path) -> None:
    done = sfu("log", "Eve", env=environment(data_dir=str(tmp_path / "none")))
    assert (done.returncode, done.stdout) == (2, "")
    assert "sfu: There is no database at" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["yesterday", "5w", "2026-13-01", "999999d"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Exception, match="it must be a time such as 90m, 8h, 30d or 2026-11-30"):
        since(text)
