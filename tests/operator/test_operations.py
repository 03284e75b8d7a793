"""The operator's commands on running calls: which room and person is meant, what changes, what is logged."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from support.operating import Place, placed
from support.waiting import until

from sfu.logs import fields
from sfu.operator.control import Control, Declined, ask
from sfu.operator.operations import Operations
from sfu.process import users
from sfu.store.audit import Author
from sfu.store.trail import Wanted

if TYPE_CHECKING:
    from support.away import Away

pytest_plugins = ["support.away", "support.postgres"]

QUALITY = {
    "score": 3.87, "up": {"loss": 0.021, "jitter_ms": 4.0, "round_trip_ms": 45.4, "bitrate_bps": 1_000_000},
    "down": {"loss": 0.0, "jitter_ms": 4.0, "round_trip_ms": 45.4, "bitrate_bps": 1_000_000}, "cause": None,
    "bytes_up": 5_000_000, "bytes_down": 7_000_000,
}  # fmt: skip


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as found:
        yield found


async def test_rooms_have_the_names_that_operators_use(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    await place.run("rooms")
    assert capsys.readouterr().out == "Nobody is in a room.\n"
    acme = await place.acme()
    here = place.server.joined
    async with here("team", "alice"), here("team", "bob"), place.joined(acme, "team", "Carol"):
        await place.run("rooms")
        head, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert head[:3] == ["ROOM", "PEOPLE", "WAITING"]
        assert [(row[0], row[1], row[2], row[-1]) for row in rows] == [
            ("Acme/team", "1", "0", "open"),
            ("team", "2", "0", "open"),
        ]
        assert {row[-2] for row in rows} == {"0", "1"}
        await place.run("rooms", "--json")
        (one, two) = json.loads(capsys.readouterr().out)
        assert (one["company"], one["room_id"], two["company"]) == ("Acme", "team", "default")
        assert abs((datetime.fromisoformat(two["since"]) - datetime.now(UTC)).total_seconds()) < 60


async def test_participants_show_path_quality_and_tracks(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    async with place.server.joined("team", "alice") as alice, place.server.joined("team", "bob") as bob:
        await alice.do(
            ("Connected", {"address": "203.0.113.7", "transport": "tcp"}),
            ("Track", {"source": "camera", "kind": "video"}),
            ("Track", {"source": "microphone", "kind": "audio"}),
            ("Quality", QUALITY),
        )
        await alice.send("mute", {"source": "camera", "muted": True})
        seats = place.server.signaling.calls.seats
        await until(lambda: seats[alice.peer].peer.muted and seats[alice.peer].peer.room.scores)
        await place.run("participants", "team")
        title, _, first, second = capsys.readouterr().out.splitlines()
        assert title.startswith("team: 2 participants, open, media worker ")
        assert first.split() == [
            *(
                "alice",
                alice.peer,
                *first.split()[2:4],
                "127.0.0.1",
                "tcp",
                "3.9",
                "2.1%",
                "/",
                "0.0%",
                "45",
                "ms",
                "0",
            ),
            *("camera", "(muted),", "microphone"),
        ]
        assert second.split() == ["bob", bob.peer, *second.split()[2:4], "127.0.0.1", "none", "-", "-", "-", "0", "-"]
        found = await ask(place.config, "participants", room="team")
        assert [person["name"] for person in found["people"]] == ["alice", "bob"]
        assert found["people"][0]["media_address"] == "203.0.113.7"
        assert found["people"][1]["path"] == ""


async def test_a_relayed_path_is_told_apart(place: Place, tmp_path: Path, nursery: trio.Nursery) -> None:
    """By the address of the TURN server, which `localhost` stands for here."""
    config = replace(place.config, turn_urls=("turn:localhost:3478",), turn_secret="x", data_dir=tmp_path / "other")
    control, calls = Control(config.data_dir), place.server.signaling.calls
    Operations(config, calls, place.server.signaling.moderation, lambda: None).register(control)
    await nursery.start(control.run)
    async with place.server.joined("team", "alice") as alice:
        seat = calls.seats[alice.peer]
        seat.entry = replace(seat.entry, address="198.51.100.4")
        for address, path in (("127.0.0.1", "relay"), ("198.51.100.4", "udp")):
            await alice.do(("Connected", {"address": address, "transport": "udp"}))
            await until(lambda address=address: seat.path.get("address") == address)
            (person,) = (await ask(config, "participants", room="team"))["people"]
            assert person["path"] == path
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("team", "team"),
        (" team ", "team"),
        ("Acme/team", "Acme/team"),
        ("Acme/solo", "Acme/solo"),
        ("solo", "Acme/solo"),
        ("https://meet.example.org/?room=team&username=x", "team"),
        ("https://meet.example.org/meet/?token={token}", "Acme/team"),
        ("http://localhost:8080/?invited=solo", "Acme/solo"),
        ("{key}", "Acme/team"),
    ],
)
async def test_a_room_is_found_as_people_write_it(place: Place, text: str, found: str) -> None:
    acme = await place.acme()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(place.server.joined("team", "alice"))
        for room in ("team", "solo"):
            await stack.enter_async_context(place.joined(acme, room, "Carol"))
        token = await place.token(acme, "team", "Eve")
        asked = text.format(token=token, key=f"{acme.id}/team")
        assert (await ask(place.config, "participants", room=asked))["room"] == found


async def test_a_room_that_may_be_two_is_asked_for(place: Place) -> None:
    acme = await place.acme()
    beta, _ = await place.server.store.companies.create("Beta", "free")
    async with place.joined(acme, "x", "Carol"), place.joined(beta, "x", "Dave"):
        with pytest.raises(Declined, match="'x' may be Acme/x or Beta/x") as declined:
            await ask(place.config, "end", room="x")
        assert declined.value.code == "room_ambiguous"
        async with place.server.joined("Acme/x", "alice"):
            with pytest.raises(Declined, match=f"{place.server.default.id}/Acme/x"):
                await ask(place.config, "end", room="Acme/x")
            assert (await ask(place.config, "participants", room=f"{acme.id}/x"))["people"][0]["name"] == "Carol"


async def test_nobody_there_is_said(place: Place) -> None:
    for command in ("participants", "end"):
        with pytest.raises(Declined, match=r"Nobody is in a room 'team' on this server\. `sfu rooms`"):
            await ask(place.config, command, room="team")
    with pytest.raises(Declined, match="leads into no room"):
        await ask(place.config, "end", room="https://example.org/")


async def test_a_kick_removes_bans_and_is_in_the_audit(
    place: Place, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "ops")
    monkeypatch.setenv("SSH_CONNECTION", "198.51.100.4 50000 203.0.113.9 22")
    caplog.set_level(logging.INFO)
    async with place.server.joined("team", "alice") as alice, place.server.joined("team", "Eve") as eve:
        await place.run("kick", "team", "eve")
        said = capsys.readouterr().out
        assert said.startswith("Eve was removed from team. They cannot come back before ")
        await eve.expect_bye("removed", 4403, rejoin=False)
        await alice.expect("joined")
        assert (await alice.expect("left"))["reason"] == "removed"
        (line,) = [one for one in caplog.messages if one.startswith("remove_participant ")]
        assert f"room='{place.server.key('team')}' peer={eve.peer} name='Eve' session=" in line
        assert line.endswith("by='ops' client=198.51.100.4")
        wanted = Wanted(place.server.default.id, action="participant")
        (entry,) = (await place.server.store.trail.list(wanted)).items
        assert entry.author == Author("command", name="ops", address="198.51.100.4")
        assert (entry.change.action, entry.change.user_name) == ("participant.removed", "Eve")
        refused = await place.server.refused("/ws?room=team&username=Eve")
        assert refused["code"] == "removed"
        with pytest.raises(Declined, match=r"Nobody in team is called 'Eve'\. There are alice\."):
            await ask(place.config, "kick", room="team", who="Eve")


async def test_a_kick_without_a_ban_lets_them_back(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    async with place.server.joined("team", "Eve") as eve:
        await place.run("kick", "team", eve.peer, "--no-ban")
        assert capsys.readouterr().out == "Eve was removed from team. They may come back.\n"
        await eve.expect_bye("removed", 4403, rejoin=False)
    async with place.server.joined("team", "Eve"):
        pass


async def test_people_of_one_name_are_told_apart_by_id(place: Place) -> None:
    acme = await place.acme()
    async with place.joined(acme, "team", "Eve") as one, place.joined(acme, "team", "Eve") as two:
        with pytest.raises(Declined, match="Several people are called 'Eve'") as declined:
            await ask(place.config, "kick", room="Acme/team", who="Eve")
        assert declined.value.code == "person_ambiguous"
        assert all(f"{client.peer} (127.0.0.1)" in str(declined.value) for client in (one, two))
        assert (await ask(place.config, "kick", room="Acme/team", who=two.peer))["sessions"] == 1
        found = await ask(place.config, "participants", room="Acme/team")
        assert [person["peer"] for person in found["people"]] == [one.peer]


async def test_one_person_in_two_windows_is_removed_from_both(place: Place) -> None:
    async with place.server.joined("team", "Eve"), place.server.joined("team", "Eve"):
        assert (await ask(place.config, "kick", room="team", who="Eve"))["sessions"] == 2


async def test_whoever_waits_in_the_lobby_is_shown_and_refused(
    place: Place, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    acme = await place.acme()
    async with place.joined(acme, "team", "Mo", moderate=True) as moderator:
        await moderator.send("room", {"lobby": True})
        while (await moderator.receive())[0] != "room":
            pass
        token = await place.token(acme, "team", "Eve")
        async with place.server.connect("/ws", token=token) as eve:
            await eve.expect("waiting")
            await place.run("participants", "Acme/team")
            title, *_, last = capsys.readouterr().out.splitlines()
            assert title.startswith("Acme/team: 1 participant, lobby, media worker ")
            assert last.startswith("waits in the lobby: Eve, ")
            assert [room["waiting"] for room in await ask(place.config, "rooms")] == [1]
            await place.run("kick", "Acme/team", "Eve")
            assert capsys.readouterr().out == "Eve waited for Acme/team and was refused.\n"
            await eve.expect_bye("lobby_refused", 4403, rejoin=False)
    assert any(one.startswith("refuse_participant ") and "name='Eve'" in one for one in caplog.messages)
    (entry,) = (await place.server.store.trail.list(Wanted(action="lobby.refused"))).items
    assert (entry.author.kind, entry.change.user_name) == ("command", "Eve")


async def test_a_call_ends_for_acme_made(
    place: Place, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with place.server.joined("team", "alice") as alice, place.server.joined("other", "bob") as bob:
        await place.run("end", "team")
        assert capsys.readouterr().out == "The call in team was ended: 1 participant.\n"
        await alice.expect_bye("call_ended", 1000, rejoin=False)
        await bob.send("chat", {"text": "still here"})
        assert (await bob.expect("chat"))["text"] == "still here"
    (line,) = [one for one in caplog.messages if one.startswith("end_call ")]
    assert f"room='{place.server.key('team')}' by='{users.caller()}'" in line


async def test_it_works_while_the_database_is_away(tmp_path: Path, away: Away, database_url: str) -> None:
    async with placed(tmp_path, database_url) as place, place.server.joined("team", "Eve") as eve:
        with away(), trio.fail_after(40):
            assert [room["room"] for room in await ask(place.config, "rooms")] == ["team"]
            assert (await ask(place.config, "kick", room="team", who="Eve"))["sessions"] == 1
            await eve.expect_bye("removed", 4403, rejoin=False)


async def test_each_line_about_somebody_says_who_and_which_session(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """From the join over a lost connection to the end; what others did to them, too."""
    caplog.set_level(logging.INFO)
    async with place.joined(await place.acme(), "team", "Eve", moderate=True) as eve:
        seat = place.server.signaling.calls.seats[eve.peer]
        await eve.expect("offer")
        await eve.do(
            ("Connected", {"address": "203.0.113.7", "transport": "udp"}),
            ("Unreached", {"heard": True, "hosts": ["127.0.0.1"], "port": 8080}),
        )
        await eve.expect("unreached")
        await trio.aclose_forcefully(eve.ws._stream)
        await until(lambda: not seat.connected)
        await ask(place.config, "kick", room="Acme/team", who="Eve")
        await until(lambda: not place.server.rooms.peers)
    lines = [(message.split()[0], fields(message)) for message in caplog.messages if eve.peer in message]
    assert {"joined", "connected", "unreached", "held", "remove_participant", "left"} <= {event for event, _ in lines}
    for event, found in lines:
        who = (found["room"], found["peer"], found["name"], found["session"])
        assert who == (seat.entry.key, eve.peer, "Eve", seat.record.id), event
        assert event == "remove_participant" or found["request_id"] == seat.who["request_id"]
