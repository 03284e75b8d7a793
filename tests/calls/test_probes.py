"""Connection tests: who may begin one, how much they may do, and that nothing of them stays."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from support.process import Server
from support.waiting import until
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from sfu.calls import probes
from sfu.calls.probes import LegView, Probes, Result, cause, probe_secret
from sfu.operator.control import ask
from sfu.process.metrics import Counters
from sfu.settings.config import Config
from sfu.workers.workers import Workers

SECONDS = 20.0


@asynccontextmanager
async def device(server: Server, secret: str) -> AsyncIterator[WebSocketConnection]:
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    try:
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                names = ["sfu.v1", f"probe.{secret}"]
                yield await wrap_client_stream(nursery, stream, f"127.0.0.1:{server.port}", "/ws", subprotocols=names)
                nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)  # trio-websocket leaves it open where the server closes first


async def event(ws: WebSocketConnection, name: str) -> Any:
    while True:
        frame = json.loads(await ws.get_message())
        if frame["event"] == name:
            return frame["data"]
        assert frame["event"] != "bye", frame


async def bye(ws: WebSocketConnection) -> str:
    """The code with which the server says goodbye."""
    code = ""
    try:
        while True:
            frame = json.loads(await ws.get_message())
            if frame["event"] == "bye":
                code = frame["data"]["code"]
    except ConnectionClosed:
        return code


@pytest.fixture
def config(server: Server) -> Config:
    return Config.from_env(server.env)


async def test_a_device_learns_the_addresses_and_a_stranger_nothing(server: Server, config: Config) -> None:
    secret = (await ask(config, "probe_open"))["secret"]
    async with device(server, secret) as ws:
        known = await event(ws, "probe")
        assert known["udp"] == known["tcp"] == [f"127.0.0.1:{server.port}"]
        assert known["iceServers"] == []
        await ws.send_message(json.dumps({"event": "join", "data": {"leg": "udp", "publish": True}}))
        assert "a=candidate" in (await event(ws, "offer"))["sdp"]
    for other in ("x" * 32, secret[:-1]):
        async with device(server, other) as ws:
            assert await bye(ws) == "probe_gone"
    await ask(config, "probe_close", secret=secret)
    async with device(server, secret) as ws:
        assert await bye(ws) == "probe_gone"
    assert "joined" not in server.output


BAD = (
    "",
    "{",
    "[]",
    '{"event": "join"}',
    '{"event": "chat", "data": {"text": "hi"}}',
    '{"event": "join", "data": {"leg": "sctp", "publish": true}}',
    '{"event": "result", "data": {"leg": "udp", "ok": true, "stage": "ice", "ms": -1}}',
)


async def test_a_message_that_is_none_ends_the_device_only(server: Server, config: Config) -> None:
    secret = (await ask(config, "probe_open"))["secret"]
    for frame in BAD:
        async with device(server, secret) as ws:
            await event(ws, "probe")
            await ws.send_message(frame)
            assert await bye(ws) == "bad_message", frame
    async with device(server, secret) as ws:
        await event(ws, "probe")
    assert "level=ERROR" not in server.output


async def test_an_invitation_ends_with_its_command(server: Server, config: Config) -> None:
    told: list[Any] = []
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            await ask(config, "probe_devices", told=told.append)

        nursery.start_soon(listen)
        await until(lambda: told)
        secret = told[0]["secret"]
        async with device(server, secret) as ws:
            await event(ws, "probe")
            await until(lambda: any(one.get("devices") for one in told))
            nursery.cancel_scope.cancel()
    async with device(server, secret) as ws:
        assert await bye(ws) == "probe_gone"


async def test_everything_is_bounded(start_server: Callable[..., Server]) -> None:
    server = start_server(messages_burst="500")
    config = Config.from_env(server.env)
    secrets = [(await ask(config, "probe_open"))["secret"] for _ in range(probes.INVITATIONS + 1)]
    async with device(server, secrets[0]) as ws:
        assert await bye(ws) == "probe_gone", "each further one ends the oldest"
    async with trio.open_nursery() as nursery:
        opened: list[WebSocketConnection] = []

        async def come() -> None:
            async with device(server, secrets[-1]) as ws:
                await event(ws, "probe")
                opened.append(ws)
                await trio.sleep_forever()

        for _ in range(probes.DEVICES):
            nursery.start_soon(come)
        await until(lambda: len(opened) == probes.DEVICES)
        async with device(server, secrets[-1]) as ws:
            assert await bye(ws) == "server_full"
        nursery.cancel_scope.cancel()
    async with device(server, secrets[-2]) as ws:
        await event(ws, "probe")
        for _ in range(probes.JOINS + 1):
            await ws.send_message(json.dumps({"event": "join", "data": {"leg": "udp", "publish": True}}))
        assert await bye(ws) == "rate_limited"


async def test_an_invitation_expires(autojump_clock: trio.testing.MockClock) -> None:
    config = Config()
    made = Probes(config, Workers(config, Counters()))
    invitation = made.invite()
    assert made.find(invitation.secret) is invitation
    await trio.sleep(probes.LIFE_S + 1)
    assert made.find(invitation.secret) is None


def test_the_secret_is_found_among_subprotocols() -> None:
    assert probe_secret(["sfu.v1", "probe.abc"]) == "abc"
    assert probe_secret(["sfu.v1", "token.abc"]) is None


@pytest.mark.parametrize(
    ("result", "view", "client", "hosts", "found"),
    [
        (Result("udp", True, "media", 90), LegView(), "192.0.2.1", ["10.0.0.1"], "ok"),
        (Result("udp", False, "ice", 90), LegView("silent"), "198.51.100.1", ["10.0.0.1"], "address"),
        (Result("udp", False, "ice", 90), LegView("silent"), "198.51.100.1", ["203.0.113.1"], "closed"),
        (Result("udp", False, "ice", 90), LegView("silent"), "10.0.0.9", ["10.0.0.1"], "closed"),
        (Result("tcp", False, "ice", 90), LegView("partial"), "10.0.0.9", ["10.0.0.1"], "one_way"),
        (Result("tcp", False, "media", 90), LegView("connected"), "10.0.0.9", ["10.0.0.1"], "no_media"),
        (Result("relay", False, "gather", 90), LegView("silent"), "10.0.0.9", ["10.0.0.1"], "relay_unreachable"),
        (Result("relay", False, "ice", 90), LegView("silent"), "10.0.0.9", ["10.0.0.1"], "relay_blocked"),
    ],
)
def test_the_verdict_is_of_both_ends(result: Result, view: LegView, client: str, hosts: list[str], found: str) -> None:
    assert cause(result, view, client, hosts) == found
