"""Questions to STUN servers, from the media port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aioice import stun
from support.media_client import LOOPBACKS, run, until
from support.ports import Port, opened
from support.stun_server import StunServer

from sfu.media.transport import mapping


@pytest.fixture(params=LOOPBACKS)
def server(request: pytest.FixtureRequest) -> Iterator[StunServer]:
    with StunServer(request.param) as running:
        yield running


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "FIRST_S", 0.01)


async def answer(port: Port, server: tuple[str, int]) -> tuple[str, int]:
    found: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
    (endpoint,) = port.endpoints.values()
    port.questions.ask(endpoint, server, lambda *mapped: found.set_result(mapped))
    return await asyncio.wait_for(found, 20)


def test_the_server_sees_the_media_port(server: StunServer) -> None:
    async def test() -> None:
        async with opened(server.address[0]) as port:
            assert await answer(port, server.address) == (server.address[0], port.port)
            assert port.counters == {}

    run(test)


@pytest.mark.usefixtures("hasty")
def test_a_lost_question_is_sent_again(server: StunServer) -> None:
    server.drops = 3

    async def test() -> None:
        async with opened(server.address[0]) as port:
            assert await answer(port, server.address) == (server.address[0], port.port)
            assert len(server.questions) == 4
            assert len(set(server.questions)) == 1  # one transaction (RFC 8489 section 6.2.1)

    run(test)


@pytest.mark.usefixtures("hasty")
def test_a_silent_server_is_asked_seven_times(server: StunServer) -> None:
    server.drops = 99

    async def test() -> None:
        async with opened(server.address[0]) as port:
            assert await answer(port, server.address) == ("", 0)
            assert len(server.questions) == mapping.TRIES

    run(test)


def test_only_the_server_that_was_asked_can_answer() -> None:
    """Not even somebody who saw the question."""

    async def test() -> None:
        with StunServer("127.0.0.1") as server:
            server.drops = 1
            async with opened() as port:
                asked = asyncio.ensure_future(answer(port, server.address))
                await until(lambda: server.questions, "the question is there")
                forged = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, server.questions[0])
                forged.attributes["XOR-MAPPED-ADDRESS"] = ("192.0.2.66", 66)
                port.sender().send(bytes(forged))
                await port.counted("gate_stun_malformed", 1)
                assert not asked.done()
                assert await asked == ("127.0.0.1", port.port)  # by the repeated question

    run(test)
