from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, get_args

import anyio
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from sfu import bridge

COMMANDS: list[bridge.Command] = [
    bridge.Configure(8080, ("127.0.0.1", "::1"), ("203.0.113.7",), 8, 16, 15.0, 15.0, 10.0, True),
    bridge.Listen(("10.0.0.5", "::1"), ("203.0.113.7", "10.0.0.5")),
    bridge.AskMapping(("10.0.0.5",), (("192.0.2.3", 3478),)),
    bridge.Join("p1", "room", True, True, False),
    bridge.Answer("p1", "v=0\r\n"),
    bridge.Publish("p1", "screen", "video"),
    bridge.Unpublish("p1", "screen"),
    bridge.Mute("p1", "camera", True),
    bridge.View("p1", (bridge.Shown("p2", "camera", 360, 640),)),
    bridge.Sizes("p1", "camera", (bridge.LayerSize("q", 320, 180, 150_000),)),
    bridge.RestartIce("p1"),
    bridge.LogLevel("debug"),
    bridge.Permit("p1", True, False),
    bridge.Spotlight("p1", True),
    bridge.Hold("p1", True),
    bridge.Leave("p1"),
]
EVENTS: list[bridge.Event] = [
    bridge.Ready(8080, ("127.0.0.1",), ("203.0.113.7",)),
    bridge.Fatal("Cannot listen."),
    bridge.Mapping("10.0.0.5", "192.0.2.3", "203.0.113.7", 8080),
    bridge.Offer("p1", "v=0\r\n", {"0": "microphone"}, {"2": bridge.Origin("p2", "camera")}),
    bridge.Candidate("p1", "candidate:1 1 udp 1 192.0.2.1 9 typ host", "0"),
    bridge.Connected("p1", "192.0.2.1"),
    bridge.Lost("p1", True),
    bridge.Unreached("p1", True, ("192.0.2.1", "2001:db8::1"), 8080),
    bridge.Track("p1", "camera", "video"),
    bridge.TrackEnded("p1", "camera"),
    bridge.Paused("p1", "p2", "camera", "not_speaking"),
    bridge.Layers("p1", "camera", ("q", "h")),
    bridge.Speakers("room", "p1", ("p2", "p1")),
    bridge.Speakers("room", None, ()),
    bridge.Refused("p1", "bad_answer", "The answer …"),
    bridge.Failed("p1", "ice_timeout", "No path."),
    bridge.Gone("p1"),
    bridge.Quality(
        "p", 4.1, bridge.Direction(0.1, 2.5, None, 9000), None, bridge.Cause("delay", "p", 300.0, "ms"), 5, 6
    ),
    bridge.Stats({"cpu_seconds": 0.25}, {"peers": 2.0}),
]


async def pair() -> tuple[bridge.Channel, bridge.Channel]:
    """The control plane's end and the worker's."""
    ours, theirs = socket.socketpair()
    return await bridge.Channel.open(ours, bridge.EVENTS), await bridge.Channel.open(theirs, bridge.COMMANDS)


async def raw() -> tuple[socket.socket, bridge.Channel]:
    """A bare socket, and a worker's end that reads what is written to it."""
    ours, theirs = socket.socketpair()
    return ours, await bridge.Channel.open(theirs, bridge.COMMANDS)


async def collect(channel: bridge.Channel, limit: int = sys.maxsize) -> list[Any]:
    """The next `limit` messages, or all until the other end closes."""
    found: list[Any] = []
    async with contextlib.aclosing(channel.receive()) as received:
        async for message in received:
            found.append(message)
            if len(found) == limit:
                break
    return found


async def exchange() -> None:
    """Every message crosses unchanged and in order, both ways."""
    control, worker = await pair()
    for command in COMMANDS:
        await control.send(command)
    for event in EVENTS:
        await worker.send(event)
    assert await collect(worker, len(COMMANDS)) == COMMANDS
    assert await collect(control, len(EVENTS)) == EVENTS
    await control.aclose()
    assert await collect(worker) == []
    await worker.aclose()


def test_samples_are_complete() -> None:
    assert {type(c).__name__ for c in COMMANDS} == {cls.__name__ for cls in get_args(bridge.Command)}
    assert {type(e).__name__ for e in EVENTS} == {cls.__name__ for cls in get_args(bridge.Event)}


async def test_exchange_on_trio() -> None:
    with trio.fail_after(10):
        await exchange()


def test_exchange_on_asyncio() -> None:
    asyncio.run(asyncio.wait_for(exchange(), 10))


async def test_trio_at_one_end_asyncio_at_the_other() -> None:
    ours, theirs = socket.socketpair()

    async def worker() -> list[Any]:
        channel = await bridge.Channel.open(theirs, bridge.COMMANDS)
        await channel.send(EVENTS[0])
        received = await collect(channel)
        await channel.aclose()
        return received

    found: list[Any] = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def in_thread() -> None:
                found.extend(await trio.to_thread.run_sync(lambda: asyncio.run(worker())))

            nursery.start_soon(in_thread)
            channel = await bridge.Channel.open(ours, bridge.EVENTS)
            assert await collect(channel, 1) == [EVENTS[0]]
            await channel.send(COMMANDS[2])
            await channel.aclose()
    assert found == [COMMANDS[2]]


async def test_what_is_more_to_come_is_written_together() -> None:
    sock, worker = await raw()
    sock.setblocking(False)
    for event in EVENTS[:-1]:
        await worker.send(event, more=True)
    with pytest.raises(BlockingIOError):
        sock.recv(1)
    await worker.send(EVENTS[-1])
    control = await bridge.Channel.open(sock, bridge.EVENTS)
    assert await collect(control, len(EVENTS)) == EVENTS
    await control.aclose()
    await worker.aclose()


async def test_what_waits_to_be_written_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "WRITE_BYTES", 60)
    sock, worker = await raw()
    sock.setblocking(False)
    for _ in range(3):
        await worker.send(EVENTS[1], more=True)
    assert sock.recv(1000).count(b"\n") == 3
    sock.close()
    await worker.aclose()


async def test_pieces_and_heaps() -> None:
    """Line ends, not reads, part messages."""
    sock, worker = await raw()
    sock.sendall(b'["Leave","a"]\n["Leave","')
    assert await collect(worker, 1) == [bridge.Leave("a")]
    sock.sendall(b'b"]\n["Leave","c"]\n')
    assert await collect(worker, 2) == [bridge.Leave("b"), bridge.Leave("c")]
    sock.close()
    await worker.aclose()


async def test_half_a_message_at_the_end_is_dropped() -> None:
    sock, worker = await raw()
    sock.sendall(b'["Leave","a"]\n["Leave","b')
    sock.close()
    assert await collect(worker) == [bridge.Leave("a")]
    await worker.aclose()


async def test_receive_ends_when_its_own_end_closes() -> None:
    sock, worker = await raw()
    await worker.aclose()
    with trio.fail_after(10):
        assert await collect(worker) == []
    sock.close()


@pytest.mark.parametrize("line", [b"nonsense\n", b'["Fatal","x"]\n', b'["Leave"]\n'])
async def test_what_is_no_message_is_a_bug_and_raises(line: bytes) -> None:
    sock, worker = await raw()
    sock.sendall(line)
    with pytest.raises((ValueError, KeyError)):
        await collect(worker)
    sock.close()
    await worker.aclose()


async def test_a_line_without_end_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "LINE_BYTES", 1000)
    sock, worker = await raw()
    sock.sendall(b"x" * 2000)
    with pytest.raises(anyio.DelimiterNotFound):
        await collect(worker)
    sock.close()
    await worker.aclose()


async def test_sending_to_a_closed_end_raises() -> None:
    sock, worker = await raw()
    sock.close()
    with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):
        await worker.send(EVENTS[0])
    await worker.aclose()


def test_one_message_is_one_line_whatever_is_in_it() -> None:
    """Line ends, quotes: the text of a peer cannot forge a second message."""

    async def echo(text: str) -> None:
        control, worker = await pair()
        await control.send(bridge.Answer(text, text))
        await control.send(bridge.Leave("end"))
        assert await collect(worker, 2) == [bridge.Answer(text, text), bridge.Leave("end")]
        await control.aclose()
        await worker.aclose()

    @given(st.text(max_size=50))
    def check(text: str) -> None:
        asyncio.run(echo(text))

    check()


def test_large_messages_cross_whole() -> None:
    """An offer of a room of 100 is about 150 kB: more than a socket buffer holds at once."""

    async def cross(send: Callable[[bridge.Channel], Awaitable[None]]) -> Any:
        control, worker = await pair()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send(worker))
            received = await collect(control, 1)
        await control.aclose()
        await worker.aclose()
        return received

    large = bridge.Offer("p1", "a=mid:0\r\n" * 200_000, {}, {})
    assert asyncio.run(asyncio.wait_for(cross(lambda worker: worker.send(large)), 10)) == [large]
