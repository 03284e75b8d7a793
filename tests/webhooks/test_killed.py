"""A server process that is killed while people come and go: every fact is told, in order in each room, and no other."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import trio
from support.process import Server
from support.receivers import Message, receiving
from support.rest_client import request
from support.waiting import until
from support.wire import connected
from trio_websocket import ConnectionClosed, HandshakeError

from sfu.store import Store, open_store
from sfu.tenancy.keys import ServerKey

pytest_plugins = ["support.storing"]

KEY = bytes(range(32))
ROOMS, AT_ONCE = 5, 8
LOST = (OSError, ConnectionClosed, HandshakeError, AssertionError, trio.BrokenResourceError, trio.TooSlowError)
"""What a client notices of a server that was killed, or is not there."""


class Crowd:
    """People who enter a room and leave it again, over WebSockets."""

    def __init__(self, server: Server, seed: int) -> None:
        self._server, self._chance, self.visits = server, random.Random(seed), 0

    async def come_and_go(self, until_visits: int) -> None:
        """Until there were so many visits in all, AT_ONCE at a time."""
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(self._visitor, until_visits)

    async def _visitor(self, until_visits: int) -> None:
        while self.visits < until_visits:
            self.visits += 1
            name, room = f"user-{self.visits}", f"room-{self._chance.randrange(ROOMS)}"
            try:
                async with connected(self._server.url, name, None, room=room) as wire:
                    await wire.expect("welcome")
                    await trio.sleep(self._chance.random() / 20)
            except* LOST:
                await trio.sleep(0.01)


async def killed_in_the_middle(server: Server, crowd: Crowd, visits: int) -> None:
    """Kills the server, as the kernel would, when about so many visits were made, and starts it again."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.come_and_go, visits)
        await until(lambda: crowd.visits >= visits - AT_ONCE, timeout_s=600)
        await trio.to_thread.run_sync(server.kill)
        nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(server.start)


@pytest.mark.parametrize("visits", [60, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
async def test_every_fact_is_told_whenever_the_server_is_killed(
    database_url: str, start_server: Callable[..., Server], visits: int
) -> None:
    settings = {"limits": "off", "hold_s": "1", "server_key": KEY.hex(), "heartbeat_s": "0.5"}
    settings |= {"database_url": database_url, "server_name": "a", "webhook_allow_private": "on"}
    async with open_store(database_url, ServerKey(KEY)) as store, receiving() as receiver:
        company = await store.companies.ensure_default()
        server = await trio.to_thread.run_sync(lambda: start_server(**settings))
        _, key = await store.companies.rotate_key(company.id)
        body = json.dumps({"url": receiver.url}).encode()
        head = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": str(len(body))}
        head |= {"Authorization": f"Bearer {key.reveal()}", "Connection": "close"}
        made = await request(server.port, "POST", "/api/v1/webhooks", head, body)
        assert made.status == 201, made.body
        crowd = Crowd(server, visits)
        for part in (1, 2):
            await killed_in_the_middle(server, crowd, part * visits // 3)
        await crowd.come_and_go(visits)
        await settled(store)
        await check(store, receiver.got, made.json["secret"])


LEFT = """
    SELECT 1 FROM sessions WHERE disconnected_at IS NULL
    UNION ALL SELECT 1 FROM deliveries WHERE state = 'waiting'
    UNION ALL SELECT 1 FROM webhooks AS w JOIN companies AS c ON c.id = w.company_id WHERE w.last_seq < c.last_seq
"""


async def settled(store: Store) -> None:
    """Until nobody is in a room, and everything was sent."""
    with trio.fail_after(120):
        while await store.database.read(LEFT):  # noqa: ASYNC110 -- another process writes it
            await trio.sleep(0.1)


async def check(store: Store, got: list[Message], secret: str) -> None:
    events = {str(row["id"]): row for row in await store.database.read("SELECT * FROM events")}
    first: dict[str, Message] = {}
    for message in got:
        assert message.signed_by(secret)
        before = first.setdefault(message.said["id"], message)
        assert before.body == message.body, "what is sent again is the same, byte for byte"
    assert first.keys() == events.keys(), "all was told, and nothing else"
    sessions = {str(row["id"]) for row in await store.database.read("SELECT id FROM sessions")}
    assert len(sessions) > len(got) // 10
    stays = Counter((message.said["type"], message.said["data"].get("session_id")) for message in first.values())
    for session_id in sessions:
        assert stays["participant.joined", session_id] == stays["participant.left", session_id] == 1
    assert {session_id for _, session_id in stays} - {None} == sessions
    reasons = {message.said["data"].get("reason") for message in first.values()}
    assert "server_lost" in reasons, "it was killed while somebody was there"
    check_rooms([message.said for message in first.values()])


def check_rooms(told: list[dict[str, Any]]) -> None:
    """In each room: in the order in which it was recorded, and calls and stays begin and end in turn."""
    seqs: defaultdict[str, list[int]] = defaultdict(list)
    present: defaultdict[str, set[str]] = defaultdict(set)
    calls: set[str] = set()
    for one in told:
        room, data = one["room_id"], one["data"]
        seqs[room].append(one["seq"])
        match one["type"]:
            case "room.started":
                assert room not in calls
                calls.add(room)
            case "participant.joined":
                assert room in calls
                present[room].add(data["session_id"])
            case "participant.left":
                present[room].remove(data["session_id"])
            case "room.ended":
                assert not present[room]
                calls.remove(room)
    assert not calls
    assert all(numbers == sorted(numbers) for numbers in seqs.values())
