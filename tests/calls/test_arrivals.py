"""Many who join within moments are announced together, to clients that take it; and before anything else of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from support.control import Server, running, settings

from sfu.calls.arrivals import WINDOW_S, Arrivals
from sfu.calls.rooms import Peer, Rooms

CROWD = 25


class House:
    """A room whose clients all take several arrivals in a message. `told` is who heard of whom, in order."""

    def __init__(self) -> None:
        self.rooms, self.told = Rooms(settings()), list[tuple[str, str]]()
        self.arrivals = Arrivals(self._send)

    def _send(self, receiver: Peer, text: str) -> None:
        frame = json.loads(text)
        people = frame["data"].get("people", [frame["data"]])
        assert frame["event"] == ("arrivals" if len(people) > 1 else "joined")
        self.told.append((receiver.name, " ".join(one["name"] for one in people)))

    def join(self, name: str, *, batches: bool = True) -> Peer:
        peer, deliveries = self.rooms.join("team", name, full=True, pick=lambda: 0, batches=batches)
        assert [to.name for to, _ in deliveries if to.batches and to is not peer] == []
        self.arrivals.came(peer)
        return peer


@pytest.fixture
async def house(nursery: Any, autojump_clock: Any) -> House:
    made = House()
    nursery.start_soon(made.arrivals.run)
    return made


async def test_the_first_is_told_at_once_and_the_others_together(house: House) -> None:
    house.join("ann")
    await trio.sleep(2 * WINDOW_S)
    house.join("ben")
    assert house.told == [("ann", "ben")]
    for name in ("cas", "dan"):
        house.join(name)
    assert len(house.told) == 1
    await trio.sleep(1.5 * WINDOW_S)
    assert house.told[1:] == [("ann", "cas dan"), ("ben", "cas dan"), ("cas", "dan")], "nobody hears of earlier ones"
    house.join("eve")
    assert len(house.told) == 4, "the next window has begun"
    await trio.sleep(1.5 * WINDOW_S)
    assert house.told[4:] == [(name, "eve") for name in ("ann", "ben", "cas", "dan")]


async def test_what_else_is_told_of_somebody_comes_after_their_arrival(house: House) -> None:
    for name in ("ann", "ben", "cas"):
        house.join(name)
    eve = house.join("eve")
    house.arrivals.before("nobody")
    before = len(house.told)
    house.arrivals.before(eve.id)
    assert ("ann", "ben cas eve") in house.told[before:]
    await trio.sleep(2 * WINDOW_S)
    assert len(house.told) == before + 3, "and only once"


async def test_who_takes_them_one_by_one_is_not_told_here(house: House) -> None:
    house.join("old", batches=False)
    house.join("ann")
    house.join("ben")
    await trio.sleep(2 * WINDOW_S)
    assert house.told == [("ann", "ben")]


# --- over WebSockets --------------------------------------------------------------------------------------------------


@pytest.fixture
async def server(tmp_path: Path, database_url: str) -> AsyncIterator[Server]:
    async with running(tmp_path, settings(limits=False), database_url=database_url) as started:
        yield started


async def test_a_crowd_at_once_knows_everybody_in_fewer_messages(server: Server) -> None:
    known: dict[str, list[str]] = {}
    messages: list[str] = []
    everybody = {f"p{number}" for number in range(CROWD)}
    met = trio.Event()

    async def listen(name: str) -> None:
        async with server.connect(f"/ws?room=team&username={name}", batch=name != "p0") as client:
            welcome = await client.until("welcome")
            known[name] = [one["name"] for one in welcome["participants"]]
            while len(known[name]) < CROWD - 1:
                event, data = await client.receive()
                if event in ("joined", "arrivals"):
                    messages.append(event)
                    known[name] += [one["name"] for one in data.get("people", [data])]
            if len(known) == CROWD and all(len(others) >= CROWD - 1 for others in known.values()):
                met.set()
            await met.wait()

    async with trio.open_nursery() as nursery:
        for name in everybody:
            nursery.start_soon(listen, name)
    for name, others in known.items():
        assert sorted(others) == sorted(everybody - {name}), "each once"
    assert messages.count("arrivals") > 0
    assert len(messages) < CROWD * (CROWD - 1) / 2


async def test_a_line_of_a_newcomer_comes_after_them(server: Server) -> None:
    async with server.connect("/ws?username=ann", batch=True) as ann:
        await ann.until("offer")
        for name in ("ben", "cas"):
            async with server.connect(f"/ws?username={name}") as other:
                await other.send("chat", {"text": "hi"})
                seen = [await ann.receive() for _ in range(2)]
                assert [event for event, _ in seen] == ["joined", "chat"]
                await other.send("leave")
            await ann.expect("left")
