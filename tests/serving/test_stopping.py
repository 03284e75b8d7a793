"""What signals do to a server with people in it: a drain, its end, a second signal, and a restart."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import closing
from functools import partial
from http.client import HTTPConnection
from typing import Any

import psutil
import pytest
import trio
from support.process import Server, workers
from support.variants import variants
from support.wire import DEADLINE_S, Wire, joined, refused
from trio_websocket import ConnectionClosed

LONG_S = "600"
"""A drain that only what a test does can end."""


async def drained(server: Server, wire: Wire) -> Any:
    """Makes the server drain; returns what whoever is in a call is told."""
    server.send(signal.SIGTERM)
    return await wire.expect("draining")


async def bye(wire: Wire) -> tuple[str, int]:
    """The code of the server's goodbye, and of the close frame after it."""
    code = ""
    with trio.fail_after(DEADLINE_S):
        try:
            while True:
                frame = json.loads(await wire.ws.get_message())
                code = frame["data"]["code"] if frame["event"] == "bye" else code
        except ConnectionClosed:
            assert wire.ws.closed is not None
            return code, wire.ws.closed.code


def refusal(server: Server, path: str, **headers: str) -> tuple[dict[str, Any], str | None]:
    """The body and the Retry-After of a refusal, which has status 503."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    with closing(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        assert answer.status == 503
        return json.loads(answer.read()), answer.headers["Retry-After"]


HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def test_a_drain_lets_calls_go_on_and_begins_none(start_server: Callable[..., Server]) -> None:
    server = start_server(drain_s=LONG_S, answer_s="600")
    async with joined(server.url, "alice") as alice:
        assert 0 < (await drained(server, alice))["in_s"] <= int(LONG_S)
        await alice.talks("still here")
        async with joined(server.url, "bob") as bob:
            assert "draining" in bob.passed, "whoever comes is told as well"
            await bob.talks("and so am I")
            goodbye = await refused(server.url, "carol", room="another")
            assert (goodbye["code"], goodbye["rejoin"]) == ("server_draining", True)
            assert goodbye["retry_after_s"] > 0
            health = await trio.to_thread.run_sync(server.get, "/health")
            assert (health["status"], health["peers"]) == ("draining", 2)
            body, _ = await trio.to_thread.run_sync(refusal, server, "/readyz")
            assert body["status"] == "draining"
            assert (await trio.to_thread.run_sync(server.get, "/livez"))["status"] == "ok"
            info = await trio.to_thread.run_sync(server.get, "/room-info?room=another&username=carol")
            assert (info["open"], info["refused"]) == (False, "server_draining")
            assert (await trio.to_thread.run_sync(server.get, "/room-info?room=team&username=carol"))["open"]
    assert await trio.to_thread.run_sync(server.ended) == 0, "it ends with the last call, not when the time is over"
    lines = server.output
    assert "draining signal=SIGTERM peers=1 seconds=600" in lines
    assert "level=ERROR" not in lines


async def test_who_is_refused_learns_when_to_come_back(start_server: Callable[..., Server]) -> None:
    server = start_server(drain_s=LONG_S, answer_s="600")
    async with joined(server.url, "alice") as alice:
        await drained(server, alice)
        body, again = await trio.to_thread.run_sync(partial(refusal, server, "/ws?room=another", **HANDSHAKE))
        assert (body["code"], body["status"]) == ("server_draining", 503)
        assert again is not None
        assert f"Try again in {again} s." in body["detail"]
        server.send(signal.SIGINT)
        assert await bye(alice) == ("server_stopping", 1001)


async def test_a_drain_ends_when_its_time_is_over(start_server: Callable[..., Server]) -> None:
    server = start_server(drain_s="0.5")
    async with joined(server.url, "alice") as alice:
        assert (await drained(server, alice))["in_s"] == 1
        assert await bye(alice) == ("server_stopping", 1001)
    assert server.ended() == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, *variants(signal.SIGINT)])
async def test_a_second_signal_ends_a_drain_and_people_are_told(
    start_server: Callable[..., Server], second: signal.Signals
) -> None:
    server = start_server(drain_s=LONG_S, answer_s="600")
    children = workers(server.pid)
    async with joined(server.url, "alice") as alice:
        await drained(server, alice)
        server.send(second)
        assert await bye(alice) == ("server_stopping", 1001)
    assert await trio.to_thread.run_sync(server.ended) == 0
    assert psutil.wait_procs(children, timeout=DEADLINE_S)[1] == []


async def test_the_keyboard_stops_without_a_drain(start_server: Callable[..., Server]) -> None:
    server = start_server(drain_s=LONG_S, answer_s="600")
    async with joined(server.url, "alice") as alice:
        server.send(signal.SIGINT)
        assert await bye(alice) == ("server_stopping", 1001)
    assert server.ended() == 0
    assert "draining" not in server.output


def test_without_anybody_there_is_nothing_to_wait_for(start_server: Callable[..., Server]) -> None:
    server = start_server(drain_s=LONG_S, answer_s="600")
    assert server.stop() == 0
    assert "draining" not in server.output


async def test_everybody_can_come_back_after_a_restart(start_server: Callable[..., Server]) -> None:
    server = start_server(drain_s="0.2")
    async with joined(server.url, "alice") as alice:
        await drained(server, alice)
        assert await bye(alice) == ("server_stopping", 1001)
    assert server.ended() == 0
    server.start()
    async with joined(server.url, "alice") as alice:
        await alice.talks("here again")
