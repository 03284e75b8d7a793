"""Media connections on the port of HTTP and TLS: told apart by their first frame, and passed on with it."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import trio
import trio.testing
from aioice import stun
from support.media_client import check
from support.serving import GET, LAST, Server, local, read_all, read_until, send_parts, serving, statuses
from support.waiting import until
from support.worker_child import ADDRESS_BYTES, PID_BYTES

from sfu.stun import mark
from sfu.web import edge
from sfu.web.media import MOST
from sfu.web.tls import self_signed_context

CHILD = str(Path(__file__).parents[1] / "support" / "worker_child.py")
HOG = "127.66.0.1"
BEHIND = b"\0\3abc"
"""A frame after the first one."""


def frame(message: bytes) -> bytes:
    return len(message).to_bytes(2) + message


@cache
def message(index: int = 0, name: str = "nobody") -> bytes:
    """A check for a peer of this worker, always the same."""
    return bytes(check(mark(index) + name, "x" * 24))


FIRST = frame(message())
PARTS: dict[str, Callable[[bytes], tuple[bytes, ...]]] = {
    "whole": lambda data: (data,),
    "split": lambda data: (data[:1], data[1:15], data[15:]),
    "byte by byte": lambda data: tuple(bytes((byte,)) for byte in data),
}


@pytest.fixture
def worker(tmp_path: Path) -> tuple[str, ...]:
    return sys.executable, CHILD, "ready", str(tmp_path / "starts")


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    return self_signed_context(["localhost"]), client


async def connected(server: Server, source: str = "127.0.0.1") -> trio.SocketStream:
    """Without TLS, whatever the server's port has."""
    return await trio.open_tcp_stream("127.0.0.1", server.port, local_address=source)


async def passed_on(stream: trio.SocketStream, message: bytes) -> int:
    """The process of the worker that got the connection with this message and all that follows."""
    got = await read_until(stream, message)
    await stream.send_all(b"more")
    assert await read_until(stream, b"more") == b"more"
    return int(got[:PID_BYTES])


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("split", PARTS.values(), ids=PARTS)
async def test_a_check_and_what_follows_reach_the_worker(
    worker: tuple[str, ...], split: Callable[[bytes], tuple[bytes, ...]], secure: bool
) -> None:
    async with serving(local(workers=1), worker=worker, tls=contexts() if secure else None) as server:
        async with await connected(server) as stream:
            await send_parts(stream, split(FIRST))
            await passed_on(stream, message())
        async with await connected(server) as stream:
            await stream.send_all(FIRST + BEHIND)
            assert (await read_until(stream, BEHIND))[PID_BYTES + ADDRESS_BYTES :] == message() + BEHIND
        assert statuses(await server.talk(GET, LAST)) == [200] * 2


async def test_each_worker_gets_its_own(worker: tuple[str, ...]) -> None:
    async with serving(local(workers=3), worker=worker) as server:
        pids = []
        for index in (2, 0, 1):
            async with await connected(server) as stream:
                await stream.send_all(frame(message(index)))
                pids.append(await passed_on(stream, message(index)))
        assert [str(pid) for pid in pids] == [server.workers.advertised[index] for index in (2, 0, 1)]


NO_CHECKS = {
    "nothing": b"",
    "an empty frame": b"\0\0",
    "too long": (MOST + 1).to_bytes(2) + bytes(MOST + 1),
    "zeros": frame(bytes(100)),
    "the longest, of zeros": frame(bytes(MOST)),
    "a part of a check": frame(message()[:19]),
    "another cookie": frame(message()[:4] + bytes(4) + message()[8:]),
    "no USERNAME": frame(bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST))),
    "a response": frame(bytes(stun.Message(stun.Method.BINDING, stun.Class.RESPONSE))),
    "an indication": frame(b"\0\x11" + message()[2:]),
    "media": frame(b"\x80" + bytes(99)),
    "DTLS": frame(b"\x16\xfe\xfd" + bytes(99)),
    "without a frame": message(),
    "TURN's ChannelData": b"\x40\x00" + frame(message()),
}


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_whatever_else_comes_is_closed(worker: tuple[str, ...], secure: bool) -> None:
    async with serving(local(workers=1), worker=worker, tls=contexts() if secure else None) as server:
        for what, data in NO_CHECKS.items():
            async with await connected(server) as stream:
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(data)
                    await stream.send_eof()
                answer = await read_all(stream)
            assert not answer or statuses(answer) == [400] or answer[:1] == b"\x15", what  # a TLS alert
        assert statuses(await server.talk(LAST)) == [200]


async def test_a_check_for_no_worker_is_closed(worker: tuple[str, ...]) -> None:
    names = ["", "a", mark(0)[0], mark(1) + "nobody", "??nobody", "x" * 999]
    async with serving(local(workers=1), worker=worker) as server:
        for name in names:
            async with await connected(server) as stream:
                await stream.send_all(frame(bytes(check(name, "x" * 24))))
                assert await read_all(stream) == b""
        assert server.failures("media_unknown") == len(names)


async def test_a_check_while_no_worker_runs_is_closed() -> None:
    async with serving() as server, await connected(server) as stream:
        await stream.send_all(FIRST)
        assert await read_all(stream) == b""
        assert server.failures("media_unknown") == 1


@pytest.mark.parametrize("n", [1, 2, len(FIRST) - 1])
async def test_a_check_has_a_deadline(worker: tuple[str, ...], n: int) -> None:
    async with serving(local(workers=1, head_s=0.2), worker=worker) as server, await connected(server) as stream:
        await stream.send_all(FIRST[:n])
        assert await read_all(stream) == b""
        assert server.failures("media_head") == 1


@pytest.mark.parametrize("n", [0, 1, len(FIRST) - 1])
async def test_who_has_not_finished_a_check_does_not_delay_the_end(
    n: int, worker: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "GRACE_S", 3600)
    async with serving(local(workers=1, head_s=3600), worker=worker) as server, await connected(server) as stream:
        await stream.send_all(FIRST[:n])
        await trio.testing.wait_all_tasks_blocked(0.05)
        server.stop.set()
        assert await read_all(stream) == b""


async def test_a_part_of_a_check_gives_way(worker: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """One address has its share of connections, whatever they begin with, and these do not keep others out."""
    monkeypatch.setattr(edge, "CONNECTIONS", 8)
    async with serving(local(workers=1), worker=worker) as server:
        first, second = [await connected(server, HOG) for _ in range(2)]
        for stream in (first, second):
            await stream.send_all(FIRST[:-1])
        await server.count("sfu_connections_total", 2)
        async with await connected(server, HOG) as third:
            await third.send_all(FIRST)
            await passed_on(third, message())
            assert await read_all(first) == b""
            await second.send_all(FIRST[-1:])
            await passed_on(second, message())
        assert server.failures("gave_way") == 1
        await first.aclose()
        await second.aclose()


async def test_a_connection_that_was_passed_on_takes_no_slot(
    worker: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "CONNECTIONS", 4)
    async with serving(local(workers=1), worker=worker) as server:
        streams = []
        for _ in range(8):
            streams.append(await connected(server))
            await streams[-1].send_all(FIRST)
            await passed_on(streams[-1], message())
        assert server.failures("full") == server.failures("gave_way") == 0
        assert statuses(await server.talk(LAST)) == [200]
        for stream in streams:
            await stream.aclose()


async def test_a_worker_that_does_not_take_them(worker: tuple[str, ...]) -> None:
    """What waits for it is bounded. Then connections are closed, and taken again once it reads."""
    async with serving(local(workers=1, limits=False), worker=worker) as server, contextlib.AsyncExitStack() as stack:
        pid = int(server.workers.advertised[0])
        os.kill(pid, signal.SIGSTOP)
        try:
            while not server.failures("media_unknown"):
                stream = await stack.enter_async_context(await connected(server))
                await stream.send_all(FIRST)
                await trio.testing.wait_all_tasks_blocked()
            assert await read_all(stream) == b""
        finally:
            os.kill(pid, signal.SIGCONT)
        taken = None
        while taken is None:  # what waits for it comes first
            stream = await stack.enter_async_context(await connected(server))
            await stream.send_all(FIRST)
            with contextlib.suppress(AssertionError):
                taken = await passed_on(stream, message())
        assert taken == pid


async def test_many_at_once_reach_the_worker(worker: tuple[str, ...]) -> None:
    """Thirty people open a link together, in a house that blocks UDP."""
    async with serving(local(workers=1), worker=worker) as server, trio.open_nursery() as nursery:
        done = []

        async def one(name: str) -> None:
            async with await connected(server) as stream:
                await stream.send_all(frame(message(name=name)))
                done.append(await passed_on(stream, message(name=name)))

        for k in range(30):
            nursery.start_soon(one, f"peer{k}")
        await until(lambda: len(done) == 30)
