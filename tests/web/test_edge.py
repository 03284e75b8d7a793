from __future__ import annotations

import contextlib
import datetime
import ipaddress
import logging
import os
import socket
import ssl
import time
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from support.serving import (
    BIG_BYTES,
    CLOSE,
    FRAME,
    GET,
    LAST,
    PATIENCE_S,
    UPGRADE,
    Server,
    local,
    read_all,
    read_until,
    serving,
    statuses,
    until,
)
from trio_websocket import open_websocket_url

from sfu.errors import ConfigError
from sfu.process.metrics import Counters
from sfu.settings.config import Config
from sfu.web import edge
from sfu.web.streams import FRAMES, PACE_BURST_BYTES, PACE_BYTES_PER_S, PACE_READ_BYTES, PacedStream, TcpStream

ECHO = bytes((0x81, 2)) + b"hi"
SLOW = GET.replace(b"/health", b"/slow")


# --- HTTP -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "answers"),
    [
        ((LAST,), 1),
        ((GET, LAST), 2),
        ((GET + GET + LAST,), 3),
        ((GET[:30], GET[30:] + LAST[:10], LAST[10:]), 2),
        (tuple(bytes((byte,)) for byte in LAST), 1),
        ((LAST.replace(b"HTTP/1.1", b"HTTP/1.0"),), 1),
        ((b"GET /health HTTP/1.0\r\n\r\n",), 1),
        ((LAST.replace(b"HTTP/1.1", b"HTTP/1.2"),), 1),
        ((GET.replace(b" /", b" http://x/"), LAST), 2),
    ],
    ids=["one", "keep-alive", "pipelined", "split", "byte by byte", "1.0 with close", "1.0", "1.2", "absolute target"],
)
async def test_answers(parts: tuple[bytes, ...], answers: int) -> None:
    async with serving() as server:
        assert statuses(await server.talk(*parts)) == [503] * answers
        assert server.counters.get("sfu_http_requests_total", status="503") == answers


IGNORABLE = [
    b"Upgrade: h2c",
    b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    b"Upgrade: h2c\r\nHTTP2-Settings: !",
    b"Upgrade: TLS/1.0, h2c, websocket",
    b"Upgrade: ,",
    b"X-Forwarded-User: Zo\xc3\xab",
    b"CF-IPCity: S\xe3o Paulo",
    b"Cookie: =;;a=\xff",
    b"Authorization: \xff",
    b"Accept: ;;,*/*;q=x",
    b"Accept-Encoding: identity;q=0, *;q=7",
    b"Accept-Language: \xff, de_DE@euro;q=",
    b"Content-Type: nonsense; charset=none",
    b"Content-Length: 0",
    b"Date: never",
    b"Expect: the best",
    b"Forwarded: ;;,=",
    b"HTTP2-Settings: !",
    b"If-Modified-Since: yesterday",
    b"If-None-Match: no quotes",
    b"If-Range: never\r\nRange: bites=5-2",
    b"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive",
    b"Max-Forwards: many",
    b"Origin: null\r\nReferer: ::::",
    b"Range: bytes=5-2",
    b"TE: trailers, deflate;q=0.5\r\nTrailer: Expires",
    b"Via: 1.1 a, 2 b (c)",
    b"X-Empty:",
    b"X-Forwarded-For: unknown\r\nX-Forwarded-Proto: gopher",
]


@pytest.mark.parametrize("target", [b"/health", b"/"])
async def test_headers_that_may_be_ignored_are(target: bytes) -> None:
    """Whatever a proxy, a Java client (h2c) or a browser adds to a request (RFC 9110 sections 5.1, 5.5 and 7.8)."""
    request = LAST.replace(b"/health", target).replace(b"close", b"close, Upgrade, HTTP2-Settings")
    async with serving(local(trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"),))) as server:
        expected = statuses(await server.talk(request))
        for lines in IGNORABLE:
            assert statuses(await server.talk(request.replace(b"Host", lines + b"\r\nHost"))) == expected, lines


@pytest.mark.parametrize("base_path", ["", "/meet", "/a/b"])
@pytest.mark.parametrize("origin", [b"", b"http://x", b"HTTPS://rooms.example:8080"])
async def test_a_target_is_found_in_each_form(base_path: str, origin: bytes) -> None:
    """Origin and absolute form (RFC 9112 section 3.2), with the base path and without, for requests and upgrades."""
    async with serving(local(base_path=base_path)) as server:
        for path in {b"", base_path.encode()}:
            assert statuses(await server.talk(LAST.replace(b" /", b" " + origin + path + b"/"))) == [503]
            async with await server.connect() as stream:
                await stream.send_all(UPGRADE.replace(b" /ws", b" " + origin + path + b"/ws"))
                assert statuses(await read_until(stream, b"\r\n\r\n")) == [101]
                await stream.send_all(FRAME)
                await read_until(stream, ECHO)
                await stream.send_all(CLOSE)
                await read_all(stream)
        page = LAST.replace(b" /health", b" " + (origin or b"/"))
        assert statuses(await server.talk(page)) == [200]
        for target in (b"*", b"x", b"ftp://x/", b"meet/health"):
            assert statuses(await server.talk(LAST.replace(b"/health", target))) == [400], target
        if base_path:
            missing = LAST.replace(b" /", b" " + base_path.encode() + b"x/")
            assert statuses(await server.talk(missing)) == [404]


async def test_the_body_of_a_request_in_parts() -> None:
    async with serving() as server:
        head = b"POST /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        assert (await server.talk(head + b"Content-Length: 6\r\n\r\nabc", b"def")).endswith(b"\r\n\r\n6")
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        assert (await server.talk(chunked + b"4\r\nabcd\r\n", b"3\r\nefg\r\n", b"0\r\n\r\n")).endswith(b"\r\n\r\n7")
        expecting = await server.talk(head + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n", b"abc")
        assert statuses(expecting) == [100, 200]


async def test_a_client_that_ended_its_half_gets_its_answer() -> None:
    """As of `printf 'GET …' | nc -N`: the end comes with the request, or while it runs."""
    async with serving() as server:
        early = cast(trio.SocketStream, await server.connect())
        late = cast(trio.SocketStream, await server.connect())
        async with early, late:
            await early.send_all(GET)
            await early.send_eof()
            assert statuses(await read_all(early)) == [503]
            await late.send_all(SLOW)
            await server.waiting.wait()
            await late.send_eof()
            await trio.testing.wait_all_tasks_blocked(0.01)
            server.gate.set()
            assert statuses(await read_all(late)) == [200]


async def test_head_has_no_body() -> None:
    async with serving() as server:
        answer = await server.talk(LAST.replace(b"GET", b"HEAD"))
        assert statuses(answer) == [503]
        assert answer.endswith(b"\r\n\r\n")
        refused = await server.talk(LAST.replace(b"GET", b"HEAD").replace(b"Host: x", b"Host: x y"))
        assert statuses(refused) == [400]
        assert refused.endswith(b"\r\n\r\n")


# --- WebSocket --------------------------------------------------------------------------------------------------------


async def converse(stream: trio.abc.Stream) -> None:
    """One message there and back, and a clean end, on a connection whose upgrade is about to be answered."""
    switched = await read_until(stream, b"\r\n\r\n")
    assert statuses(switched)[-1] == 101
    await say(stream)


async def say(stream: trio.abc.Stream) -> None:
    await stream.send_all(FRAME)
    await read_until(stream, ECHO)
    await stream.send_all(CLOSE)
    await read_all(stream)


@pytest.mark.parametrize("limits", [True, False])
@pytest.mark.parametrize(
    "parts",
    [
        (UPGRADE,),
        (UPGRADE[:60], UPGRADE[60:]),
        tuple(bytes((byte,)) for byte in UPGRADE),
        (UPGRADE.replace(b"Upgrade: websocket", b"Upgrade: foo/2\r\nUPGRADE: WebSocket"),),
        (UPGRADE.replace(b"Upgrade: websocket", b"Upgrade: h2c, websocket"),),
        (UPGRADE.replace(b"Host", b"Sec-WebSocket-Protocol: \xbe\r\nX-User: Zo\xc3\xab\r\nHost"),),
    ],
    ids=["whole", "split", "byte by byte", "upgrade as a list", "beside h2c", "not ASCII"],
)
async def test_upgrade_as_the_first_request(parts: tuple[bytes, ...], limits: bool) -> None:
    async with serving(local(limits=limits)) as server, await server.connect() as stream:
        for part in parts:
            await stream.send_all(part)
        await converse(stream)


async def test_upgrade_on_a_connection_that_was_used() -> None:
    async with serving() as server, await server.connect() as stream:
        for _ in range(2):
            await stream.send_all(GET)
            assert statuses(await read_until(stream, b"}\n")) == [503]
        await stream.send_all(UPGRADE)
        await converse(stream)


@pytest.mark.parametrize("first", [GET, SLOW], ids=["quick", "slow"])
async def test_upgrade_pipelined_after_a_request(first: bytes) -> None:
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(first + UPGRADE)
        if first is SLOW:
            await server.waiting.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not server.upgraded
            server.gate.set()
        assert statuses(await read_until(stream, b"}\n" if first is GET else b"slow")) == [503 if first is GET else 200]
        await converse(stream)
        assert len(server.upgraded) == 1


async def test_a_long_lived_websocket_outlives_the_deadlines_of_http() -> None:
    async with serving(local(keep_alive_s=0.5, head_s=0.5)) as server, await server.connect() as stream:
        await stream.send_all(UPGRADE)
        await read_until(stream, b"\r\n\r\n")
        with trio.move_on_after(0.8) as quiet:
            await stream.receive_some(1)
        assert quiet.cancelled_caught
        await say(stream)


async def test_a_websocket_client() -> None:
    async with serving() as server:
        url = f"ws://127.0.0.1:{server.port}/ws?room=r&username=%C3%A4"
        async with open_websocket_url(url, subprotocols=["sfu.v1"]) as ws:
            await ws.send_message("x" * 50_000)
            assert await ws.get_message() == "x" * 50_000
        (upgraded,) = server.upgraded
        assert upgraded.target == "/ws?room=r&username=%C3%A4"
        assert upgraded.client == "127.0.0.1"
        assert upgraded.host == f"127.0.0.1:{server.port}"
        assert upgraded.secure is False
        assert (b"sec-websocket-protocol", b"sfu.v1") in upgraded.headers


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (UPGRADE.replace(b"/ws", b"/"), 200),
        (UPGRADE.replace(b"/ws", b"/other"), 404),
        (UPGRADE.replace(b"/ws", b"/ws/"), 404),
        (UPGRADE.replace(b"/ws", b"/ws%3Froom=r"), 404),
        (UPGRADE.replace(b"GET", b"POST"), 405),
        (UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"), 426),
        (UPGRADE.replace(b"Upgrade: websocket\r\n", b""), 426),
        (UPGRADE.replace(b"keep-alive, Upgrade", b"close"), 426),
        (UPGRADE.replace(b"Host", b"Content-Length: 3\r\nHost") + b"abc", 400),
        (UPGRADE.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost") + b"0\r\n\r\n", 400),
    ],
)
async def test_what_is_no_upgrade_is_http(request_bytes: bytes, status: int) -> None:
    async with serving() as server:
        assert statuses(await server.talk(request_bytes.replace(b"keep-alive,", b"close,"))) == [status]
        assert not server.upgraded
        assert await server.alive()


# --- what strangers send ----------------------------------------------------------------------------------------------

H2_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
FATAL = {
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + H2_SETTINGS, [505]),
    "HTTP/3": (LAST.replace(b"HTTP/1.1", b"HTTP/3.0"), [505]),
    "host not ASCII": (LAST.replace(b"Host: x", b"Host: \xb6"), [400]),
    "host of spaces": (LAST.replace(b"Host: x", b"Host: a b"), [400]),
    "host of dots": (LAST.replace(b"Host: x", b"Host: a..b"), [400]),
    "host too long": (LAST.replace(b"Host: x", b"Host: " + b"x" * 64), [400]),
    "host missing": (LAST.replace(b"Host: x\r\n", b""), [400]),
    "host empty": (LAST.replace(b"Host: x", b"Host:"), [503]),
    "two hosts": (LAST.replace(b"Host: x", b"Host: x\r\nHost: y"), [400]),
    "target without slash": (LAST.replace(b" /health", b" ?a=b"), [400]),
    "target *": (LAST.replace(b"GET /health", b"OPTIONS *"), [400]),
    "target with a bad escape": (LAST.replace(b"/health", b"/%ff%0"), [404]),
    "target outside": (LAST.replace(b"/health", b"/../sfu/server.py"), [404]),
    "target outside, escaped": (LAST.replace(b"/health", b"/%2e%2e/sfu/server.py"), [404]),
    "target of two slashes": (LAST.replace(b"/health", b"//health"), [503]),
    "connect": (LAST.replace(b"GET /health", b"CONNECT x:443"), [400]),
    "unknown method": (LAST.replace(b"GET", b"BREW"), [405]),
    "TLS": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", [400]),
    "nothing but ends of lines": (b"\r\n" * 100, [400]),
    "NUL": (b"GET / HTTP/1.1\r\nHost: x\r\nX: \0\r\n\r\n", [400]),
    "20 KiB head": (LAST.replace(b"Host", b"X-Y: " + b"y" * 20_000 + b"\r\nHost"), [431]),
    "20 KiB target": (LAST.replace(b"/health", b"/" + b"y" * 20_000), [431]),
    "head without end": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Y: z\r\n" * 3000, [431]),
    "length of 5,000 digits": (LAST.replace(b"Host", b"Content-Length: " + b"9" * 5000 + b"\r\nHost"), [400]),
    "length below 0": (LAST.replace(b"Host", b"Content-Length: -1\r\nHost"), [400]),
    "two lengths": (LAST.replace(b"Host", b"Content-Length: 1\r\nContent-Length: 2\r\nHost"), [400]),
    "length and chunks": (
        b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + LAST,
        [400],
    ),
    "bare LF": (LAST.replace(b"\r\n", b"\n"), [400]),
    "bare LF in one line": (LAST.replace(b"Host: x\r\n", b"Host: x\nX: y\r\n"), [400]),
    "bare LF at the end": (LAST[:-2] + b"\n", [400]),
    "bare LF in an upgrade": (UPGRADE.replace(b"\r\nUpgrade", b"\nUpgrade"), [400]),
    "folded line": (LAST.replace(b"Host: x", b"X-Y: z\r\n z\r\nHost: x"), [400]),
    "folded host": (LAST.replace(b"Host: x", b"Host:\r\n\tx"), [400]),
    "folded trailer": (
        b"POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Y: z\r\n z\r\n\r\n",
        [400],
    ),
    "bare LF in trailers": (
        b"POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Y: z\n\r\n",
        [400],
    ),
    "chunks in 1.0": (
        b"POST /length HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + LAST,
        [400],
    ),
    "unknown coding": (LAST.replace(b"Host", b"Transfer-Encoding: gzip\r\nHost"), [501]),
    "bad chunk": (
        b"POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        [400],
    ),
    "body too long": (LAST.replace(b"Host", b"Content-Length: 65537\r\nHost") + b"x" * 65537, [413]),
    "unread body too long": (LAST.replace(b"Host", b"Content-Length: 9999999\r\nHost") + b"x" * 999_999, [413]),
    "chunks too long": (
        b"POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"3000\r\n%s\r\n" % bytes(0x3000) * 6,
        [413],
    ),
    "body where none is read": (
        LAST.replace(b"GET", b"POST").replace(b"Host", b"Content-Length: 60000\r\nHost"),
        [405],
    ),
    "upgrade without key": (UPGRADE.replace(b"Sec-WebSocket-Key", b"X-Key"), [400]),
}


@pytest.mark.parametrize(("data", "expected"), FATAL.values(), ids=FATAL.keys())
async def test_bad_input_ends_its_own_connection_only(
    data: bytes, expected: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as server, await server.connect() as bystander:
        await bystander.send_all(GET)
        await read_until(bystander, b"}\n")
        assert statuses(await server.talk(data)) == expected
        assert await server.alive()
        await bystander.send_all(LAST)
        assert statuses(await read_all(bystander)) == [503]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_refusals_are_problems_with_a_code_and_counted() -> None:
    async with serving() as server:
        answer = await server.talk(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Y: z\r\n" * 3000)
        head, body = answer.split(b"\r\n\r\n")
        assert b"content-type: application/problem+json" in head.lower()
        assert b"content-security-policy: default-src 'none'" in head.lower()
        assert b"connection: close" in head.lower()
        assert b'"code": "head_too_large"' in body
        assert server.counters.get("sfu_refused_total", code="head_too_large") == 1
        assert server.counters.get("sfu_http_requests_total", status="431") == 1


async def test_a_refused_upload_is_not_reset() -> None:
    """Linux lets a client read its answer after a reset, other systems do not; and none can go on sending."""
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(FATAL["unread body too long"][0])
        answer = bytearray()
        with trio.fail_after(PATIENCE_S):
            while more := await stream.receive_some(65536):
                answer += more
        assert statuses(bytes(answer)) == [413]


WORDS = [
    GET,
    LAST,
    UPGRADE,
    FRAME,
    CLOSE,
    SLOW[:-2],
    b"Upgrade: h2c\r\n",
    b"Connection: close\r\n",
    b"Content-Length: 7\r\n",
]
WORDS += [
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"PRI * HTTP/2.0",
    b"\r\n",
    b"\r\n\r\n",
    b"\xb6",
    b"0",
]


async def send_and_end(server: Server, data: bytes) -> None:
    async with cast(trio.SocketStream, await server.connect()) as stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(data)
            await stream.send_eof()
        await read_all(stream)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS) | st.binary(max_size=6), max_size=6).map(b"".join), max_size=6))
async def test_no_bytes_are_fatal(conversations: list[bytes]) -> None:
    async with serving(local(head_s=0.5, keep_alive_s=0.1, send_s=0.5)) as server:
        server.gate.set()
        async with trio.open_nursery() as nursery:
            for data in conversations:
                nursery.start_soon(send_and_end, server, data)
        assert await server.alive()


async def test_a_bug_in_the_application_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as server:
        answer = await server.talk(LAST.replace(b"/health", b"/bug"))
        assert statuses(answer) == [500]
        assert b'"code": "internal"' in answer
        assert await server.alive()
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


async def test_a_bug_in_signaling_ends_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(connection: edge.Upgraded) -> None:
        raise RuntimeError("a bug")

    async with serving(signaling=broken, bugs=1) as server:
        assert await server.talk(UPGRADE) == b""
        assert await server.alive()
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "a bug" in record.getMessage()


# --- deadlines --------------------------------------------------------------------------------------------------------


async def timed(server: Server, *parts: bytes) -> tuple[list[int], float]:
    began = time.monotonic()
    answer = await server.talk(*parts)
    return statuses(answer), time.monotonic() - began


async def test_a_head_has_a_deadline() -> None:
    async with serving(local(head_s=0.5)) as server:
        silent, silent_s = await timed(server)
        partial, partial_s = await timed(server, GET[:-1])
        later, later_s = await timed(server, GET, GET[:-1])
        pipelined, _ = await timed(server, GET + GET[:-1])
        trickled, trickled_s = await timed(server, *(bytes((byte,)) for byte in b"GET /" + b"x" * 1000))
        assert (silent, partial, later, pipelined, trickled) == ([], [408], [503, 408], [503, 408], [408])
        assert all(0.49 <= s < 4 for s in (silent_s, partial_s, later_s, trickled_s))
        assert server.failures("head_timeout") == 5


async def test_each_head_has_its_own_deadline() -> None:
    async with serving(local(head_s=3)) as server, await server.connect() as stream:
        await stream.send_all(GET[:-1])
        await trio.sleep(1.6)
        await stream.send_all(GET[-1:] + LAST[:-1])
        await read_until(stream, b"}\n")
        await trio.sleep(1.6)
        await stream.send_all(LAST[-1:])
        assert statuses(await read_all(stream)) == [503]


async def test_an_idle_connection_is_closed() -> None:
    async with serving(local(keep_alive_s=0.5)) as server:
        for requests in (1, 2):
            answers, took_s = await timed(server, *[GET] * requests)
            assert answers == [503] * requests
            assert took_s >= 0.49


async def test_a_running_request_is_not_idle() -> None:
    async with serving(local(keep_alive_s=0.5, head_s=0.5)) as server, await server.connect() as stream:
        await stream.send_all(SLOW)
        with trio.move_on_after(0.8):
            await stream.receive_some(1)
        server.gate.set()
        assert statuses(await read_all(stream)) == [200]


async def test_a_body_has_a_deadline() -> None:
    async with serving(local(send_s=0.2)) as server:
        head = b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n"
        answer = await server.talk(head + b"abc")
        assert statuses(answer) == [408]
        assert b'"code": "request_timeout"' in answer


async def test_an_upgrade_that_goes_nowhere_is_signalings_to_end() -> None:
    """trio-websocket answers 400 and then waits for a handshake for ever."""
    async with serving() as server:
        before = trio.lowlevel.current_statistics().tasks_living
        assert statuses(await server.talk(UPGRADE.replace(b"Sec-WebSocket-Key", b"X-Key"))) == [400]
        await until(lambda: trio.lowlevel.current_statistics().tasks_living == before)


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    async with serving(local(send_s=0.2)) as server, await server.connect() as stream:
        await stream.send_all(GET.replace(b"/health", b"/big"))
        await server.count("sfu_connection_failures_total", 1, kind="slow")
        assert len(await read_all(stream)) < BIG_BYTES
        assert await server.alive()


async def test_a_request_behind_an_answer_nobody_takes_ends_with_it() -> None:
    """hypercorn's reader waits for the answer to be finished, which it never is."""
    async with serving(local(send_s=0.2)) as server:
        before = trio.lowlevel.current_statistics().tasks_living
        async with await server.connect() as stream:
            await stream.send_all(GET.replace(b"/health", b"/big") + GET)
            await server.count("sfu_connection_failures_total", 1, kind="slow")
            await until(lambda: trio.lowlevel.current_statistics().tasks_living == before)


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"", GET[:20], GET, GET + GET[:20], UPGRADE], ids=["silent", "part", "used", "used, part", "ws"]
)
async def test_nothing_stays_of_a_client_that_goes(data: bytes) -> None:
    async with serving() as server:
        before = trio.lowlevel.current_statistics().tasks_living
        files = len(os.listdir("/proc/self/fd"))
        streams = [await server.connect() for _ in range(20)]
        for stream in streams:
            await stream.send_all(data)
            if GET in data or UPGRADE in data:
                await stream.receive_some(65536)
        for number, stream in enumerate(streams):
            if number % 2:  # half of them say goodbye by a reset
                linger = socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
                cast(trio.SocketStream, stream).setsockopt(socket.SOL_SOCKET, *linger)
            await stream.aclose()
        await until(lambda: trio.lowlevel.current_statistics().tasks_living == before)
        assert len(os.listdir("/proc/self/fd")) == files


async def test_stop_lets_running_requests_finish() -> None:
    async with serving() as server, await server.connect() as idle, await server.connect() as busy:
        await idle.send_all(GET)
        await read_until(idle, b"}\n")
        await busy.send_all(SLOW + GET)  # the second request comes too late
        await server.waiting.wait()
        server.stop.set()
        assert await read_all(idle) == b""
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", server.port)
        assert not server.ended.is_set()
        server.gate.set()
        assert statuses(await read_all(busy)) == [200]
        with trio.fail_after(PATIENCE_S):
            await server.ended.wait()


@pytest.mark.parametrize(
    "data",
    [SLOW, GET.replace(b"/health", b"/big"), UPGRADE, GET[:20]],
    ids=["stuck", "not reading", "ws", "part of a head"],
)
async def test_stop_waits_no_longer_than_the_grace(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "GRACE_S", 0.2)
    async with serving() as server, await server.connect() as stream:
        await stream.send_all(data)
        await trio.testing.wait_all_tasks_blocked(0.05)
        began = time.monotonic()
        server.stop.set()
        with trio.fail_after(PATIENCE_S):
            await server.ended.wait()
        assert time.monotonic() - began < 4


async def test_stop_cancels_signaling_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(connection: edge.Upgraded) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(edge, "GRACE_S", 0.1)
    async with serving(signaling=stuck) as server, await server.connect() as stream:
        await stream.send_all(UPGRADE)
        await trio.testing.wait_all_tasks_blocked(0.05)


async def test_cancelling_the_server_closes_everything() -> None:
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            server: Server

            async def run(*, task_status: trio.TaskStatus[Server]) -> None:
                async with serving() as started:
                    task_status.started(started)
                    await trio.sleep_forever()

            server = await nursery.start(run)
            async with await server.connect() as stream:
                await stream.send_all(GET.replace(b"/health", b"/big"))
                await stream.receive_some(1)
                nursery.cancel_scope.cancel()


# --- how many ---------------------------------------------------------------------------------------------------------

HOG = "127.0.0.2"


async def busy(server: Server, source: str = HOG, request: bytes = UPGRADE) -> trio.abc.Stream:
    """A WebSocket from there, which has the first line of its answer."""
    stream = await server.connect(source)
    await stream.send_all(request)
    await read_until(stream, b"\r\n\r\n")
    return stream


async def idle(server: Server, source: str) -> trio.abc.Stream:
    """A connection from there that had its answer and may have another."""
    stream = await server.connect(source)
    await stream.send_all(GET)
    await read_until(stream, b"}\n")
    return stream


async def test_a_full_server_says_so_and_has_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "CONNECTIONS", 2)
    async with serving() as server:
        async with await busy(server, "127.0.0.2"), await busy(server, "127.0.0.3"):
            refused = await server.talk(GET)
            assert statuses(refused) == [503]
            assert b'"code": "server_full"' in refused
            assert b"\r\nRetry-After: 10\r\n" in refused
            assert server.failures("full") == server.counters.get("sfu_refused_total", code="server_full") == 1
        await until(lambda: trio.lowlevel.current_statistics().io_statistics.tasks_waiting_read <= 2)
        assert await server.alive()


async def test_one_address_does_not_keep_another_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With whatever it holds: WebSockets, heads that never end, requests that never come, bodies that do not."""
    monkeypatch.setattr(edge, "CONNECTIONS", 16)
    held = (UPGRADE, b"", GET[:20], GET, b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            for request in held:
                stream = await stack.enter_async_context(await server.connect(HOG))
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(request)
        await server.count("sfu_connections_total", 20)
        async with await busy(server, "127.0.0.1") as alice:
            assert await server.alive()
            await say(alice)
        refused = server.counters.get("sfu_refused_total", code="too_many_connections")
        assert refused + server.failures("gave_way") == 16
        assert server.counters.get("sfu_refused_total", code="server_full") == 0


async def test_who_waits_gives_way_and_who_speaks_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "CONNECTIONS", 4)
    async with serving() as server, await busy(server, "127.0.0.1") as alice, contextlib.AsyncExitStack() as stack:
        waiting = await stack.enter_async_context(await idle(server, "127.0.0.2"))
        mute = await stack.enter_async_context(await server.connect("127.0.0.3"))
        await server.count("sfu_connections_total", 3)
        slow = await stack.enter_async_context(await server.connect("127.0.0.4"))
        await slow.send_all(GET[:20])
        await server.count("sfu_connections_total", 4)
        for source, gone in (("127.0.0.5", mute), ("127.0.0.6", slow), ("127.0.0.7", waiting)):
            await stack.enter_async_context(await busy(server, source))
            assert await read_all(gone) == b""
        assert server.failures("gave_way") == 3
        assert b"server_full" in await server.talk(GET, source="127.0.0.8")
        await say(alice)


async def test_an_address_that_has_its_share_still_gets_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own idle connections give way, as those of a house behind one address do when one more opens the page."""
    monkeypatch.setattr(edge, "CONNECTIONS", 8)
    async with serving() as server, await idle(server, HOG) as first, await idle(server, HOG):
        assert statuses(await server.talk(LAST, source=HOG)) == [503]  # no worker runs here
        assert server.failures("full") == 0
        assert server.failures("gave_way") == 1
        assert await read_all(first) == b""


async def test_a_proxys_clients_have_shares_and_it_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "CONNECTIONS", 16)
    config = local(trusted_proxies=(ipaddress.ip_network(HOG),))

    def of(client: str, request: bytes = UPGRADE) -> bytes:
        return request.replace(b"\r\nHost", f"\r\nX-Forwarded-For: {client}\r\nHost".encode())

    async with serving(config) as server, contextlib.AsyncExitStack() as stack:
        for client in ("203.0.113.7", "203.0.113.8"):
            for _ in range(4):
                await stack.enter_async_context(await busy(server, HOG, of(client)))
        for request in (UPGRADE, GET):
            refused = await server.talk(of("203.0.113.7", request), source=HOG)
            assert statuses(refused) == [503]
            assert b'"code": "too_many_connections"' in refused
        answered = await server.talk(of("203.0.113.9", LAST), source=HOG)
        assert b"too_many_connections" not in answered
        assert server.counters.get("sfu_refused_total", code="too_many_connections") == 2


async def test_over_tls_who_is_refused_is_closed(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "CONNECTIONS", 1)
    async with serving(tls=tls) as server, await busy(server):
        stream = await server.connect()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(GET)
        await trio.aclose_forcefully(stream)
        assert server.counters.get("sfu_refused_total", code="server_full") == 1


@pytest.mark.parametrize("request_of_each", [b"", GET[:20], UPGRADE])
async def test_a_flood_from_one_address_is_closed_at_once(
    request_of_each: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before anything is made of it, so that whoever comes after it is answered next."""
    monkeypatch.setattr(edge, "ARRIVALS_PER_S", 4)
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        for _ in range(100):
            stream = await stack.enter_async_context(await server.connect(HOG))
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(request_of_each)
        async with await busy(server, "127.0.0.1") as alice:
            await say(alice)
        await server.count("sfu_connections_total", 101)
        assert server.failures("flood") == server.counters.get("sfu_refused_total", code="too_many_connections") >= 80
        assert [line for line in caplog.messages if "connections_flood" in line] == [f"connections_flood address={HOG}"]


async def test_without_limits_one_address_may_have_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "CONNECTIONS", 2)
    async with serving(local(limits=False)) as server, await busy(server), await busy(server):
        assert b"server_full" in await server.talk(GET, source=HOG)


# --- listening --------------------------------------------------------------------------------------------------------


async def close(listeners: list[trio.SocketListener]) -> None:
    for listener in listeners:
        await listener.aclose()


async def test_a_port_in_use_is_named() -> None:
    async with serving() as server:
        with pytest.raises(ConfigError, match=rf"SFU_PORT: TCP port {server.port} is in use"):
            await edge.listen(local(port=server.port))


async def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(ConfigError, match=r"SFU_HOST: .*192\.0\.2\.1"):
        await edge.listen(local(host="192.0.2.1"))
    with pytest.raises(ConfigError, match=r"SFU_HOST: no-such\.invalid"):
        await edge.listen(local(host="no-such.invalid"))


async def test_every_interface_is_both_families_on_one_port() -> None:
    listeners = await edge.listen(Config(host="*", port=0))
    try:
        families = {listener.socket.family for listener in listeners}
        assert socket.AF_INET in families
        assert (socket.AF_INET6 in families) == _has_ipv6()
        assert len({listener.socket.getsockname()[1] for listener in listeners}) == 1
    finally:
        await close(listeners)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::", 0))
    except OSError:
        return False
    return True


async def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    real = trio.open_tcp_listeners

    async def ipv4_only(port: int, *, host: str) -> list[trio.SocketListener]:
        if ":" in host:
            raise OSError(99, "Cannot assign requested address")
        return await real(port, host=host)

    monkeypatch.setattr(trio, "open_tcp_listeners", ipv4_only)
    listeners = await edge.listen(Config(host="*", port=0))
    assert [listener.socket.family for listener in listeners] == [socket.AF_INET]
    await close(listeners)
    with pytest.raises(ConfigError, match="Cannot assign requested address"):
        await edge.listen(Config(host="::1", port=0))


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_pem: Path = tmp_path_factory.mktemp("tls") / "cert.pem"
    key_pem = cert_pem.with_name("key.pem")
    cert_pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    traditional = serialization.PrivateFormat.TraditionalOpenSSL
    key_pem.write_bytes(key.private_bytes(serialization.Encoding.PEM, traditional, serialization.NoEncryption()))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(cert_pem, key_pem)
    server.set_alpn_protocols(["http/1.1"])
    client = ssl.create_default_context(cafile=str(cert_pem))
    client.set_alpn_protocols(["h2", "http/1.1"])
    return server, client


async def test_http_over_tls(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with serving(tls=tls) as server:
        assert statuses(await server.talk(GET + GET, LAST)) == [503] * 3
        answer = await server.talk(LAST.replace(b"/health", b"/who"))
        assert b'"scheme":"https"' in answer
        assert statuses(await server.talk(FATAL["unread body too long"][0])) == [413]


async def test_websocket_over_tls(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with serving(tls=tls) as server:
        async with open_websocket_url(f"wss://localhost:{server.port}/ws", ssl_context=tls[1]) as ws:
            await ws.send_message("x" * 50_000)
            assert await ws.get_message() == "x" * 50_000
        (upgraded,) = server.upgraded
        assert upgraded.secure


async def test_stop_over_tls_closes_websockets_nobody_ended(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "GRACE_S", 0.1)
    async with serving(tls=tls) as server, await server.connect() as stream:
        await stream.send_all(UPGRADE)
        await read_until(stream, b"\r\n\r\n")
        assert cast(trio.SSLStream[trio.SocketStream], stream).selected_alpn_protocol() == "http/1.1"
        server.stop.set()
        await read_all(stream)


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01", b"\x16" + GET], ids=["silent", "part of a hello", "no hello"])
async def test_a_bad_tls_handshake_ends_itself(data: bytes, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with serving(local(head_s=0.5), tls=tls) as server:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(data)
            await read_all(stream)
        assert server.failures("tls") == 1
        assert await server.alive()


# --- the stream -------------------------------------------------------------------------------------------------------


async def pull(stream: PacedStream, n_bytes: int) -> float:
    """Seconds it takes to read so much."""
    began = trio.current_time()
    while n_bytes > 0:
        n_bytes -= len(await stream.receive_some(4096))
    return trio.current_time() - began


async def test_reading_is_paced_and_credited(autojump_clock: trio.testing.MockClock) -> None:
    client, inner = trio.testing.memory_stream_pair()
    stream = PacedStream(cast(TcpStream, inner), Config(), Counters(), head=b"head\r\n\r\n", paced=True)
    await client.send_all(b"\x82\x7f" + (1_000_000).to_bytes(8, "big") + bytes(1_000_000))  # a single frame
    assert await stream.receive_some(2) == b"he"
    assert await stream.receive_some() == b"ad\r\n\r\n"
    assert await pull(stream, PACE_BURST_BYTES) == 0
    assert await pull(stream, 10 * PACE_BYTES_PER_S) == pytest.approx(10, abs=0.5)
    stream.credit(300_000)
    assert await pull(stream, 300_000) == pytest.approx(0, abs=0.5)
    assert await pull(stream, 2 * PACE_BYTES_PER_S) == pytest.approx(2, abs=0.5)
    await trio.sleep(3600)
    assert await pull(stream, PACE_BURST_BYTES) == 0
    assert await pull(stream, PACE_BYTES_PER_S) == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("replayed", [False, True])
async def test_short_frames_are_paced_by_their_number(autojump_clock: trio.testing.MockClock, replayed: bool) -> None:
    """trio-websocket answers each ping; one client's would take a core's quarter if only their bytes counted."""
    pings, config = b"\x89\x80\0\0\0\0" * 2000, Config()
    client, inner = trio.testing.memory_stream_pair()
    head = b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n" + pings * replayed
    stream = PacedStream(cast(TcpStream, inner), config, Counters(), head=head, paced=True)
    await client.send_all(pings)
    took_s = await pull(stream, len(head) + len(pings))
    frames, per_s = 2000 * (1 + replayed), FRAMES * config.messages_per_s
    read_at_once = PACE_BURST_BYTES // (PACE_BYTES_PER_S // per_s) + 2 * PACE_READ_BYTES // 6
    assert took_s > (frames - read_at_once) / per_s


async def test_without_limits_reading_is_not_paced(autojump_clock: trio.testing.MockClock) -> None:
    client, inner = trio.testing.memory_stream_pair()
    stream = PacedStream(cast(TcpStream, inner), Config(), Counters())
    await client.send_all(bytes(1_000_000))
    assert await pull(stream, 1_000_000) == 0


async def test_a_write_has_a_deadline() -> None:
    counters = Counters()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, await trio.testing.open_stream_to_socket_listener(listener), await listener.accept() as inner:
        stream = PacedStream(inner, local(send_s=0.1), counters)
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(bytes(BIG_BYTES))
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"more")
        assert counters.get("sfu_connection_failures_total", kind="slow") == 1
