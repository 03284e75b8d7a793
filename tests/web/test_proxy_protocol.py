"""The PROXY protocol on the port of HTTP, TLS and media: who may send it, and what it changes."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from support.media_client import check
from support.serving import CLOSE, FRAME, GET, LAST, UPGRADE, local, read_all, read_until, serving, statuses
from support.worker_child import PID_BYTES

from sfu.settings.config import Config
from sfu.stun import mark
from sfu.web import edge
from sfu.web.proxy_protocol import BINARY, BINARY_BYTES, TEXT
from sfu.web.tls import self_signed_context

PROXY, STRANGER = "127.0.0.1", "127.0.0.66"
CLIENT, CLIENT6 = "203.0.113.7", "2001:db8::7"
WHO = LAST.replace(b"/health", b"/who")
TLS_USED = b"\x20" + struct.pack("!HBI", 5, 1, 0)


def behind(**values: Any) -> Config:
    return local(trusted_proxies=(ip_network(PROXY),), **values)


def text(source: str, target: str = "198.51.100.1", port: int = 4711) -> bytes:
    return f"PROXY TCP{6 if ':' in source else 4} {source} {target} {port} 443\r\n".encode()


def binary(source: str, fields: bytes = b"", version: int = 0x21) -> bytes:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    packed = socket.inet_pton(family, source)
    block = packed + bytes(len(packed)) + struct.pack("!HH", 4711, 443) + fields
    return BINARY + struct.pack("!BBH", version, 0x21 if ":" in source else 0x11, len(block)) + block


HEADERS = {
    "version 1": (text(CLIENT), CLIENT),
    "version 1, IPv6": (text(CLIENT6, "2001:db8::1"), CLIENT6),
    "version 1, unknown": (b"PROXY UNKNOWN\r\n", PROXY),
    "version 1, unknown with more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", PROXY),
    "version 2": (binary(CLIENT), CLIENT),
    "version 2, IPv6": (binary(CLIENT6), CLIENT6),
    "version 2, IPv4 in IPv6": (binary(f"::ffff:{CLIENT}"), CLIENT),
    "version 2, more fields": (binary(CLIENT, b"\x04\x00\x03abc" * 99), CLIENT),
    "version 2, the longest": (binary(CLIENT, bytes(BINARY_BYTES - 12)), CLIENT),
    "version 2, a check of the proxy's own": (binary(CLIENT, version=0x20), PROXY),
    "version 2, a Unix socket": (BINARY + b"\x21\x31" + struct.pack("!H", 216) + bytes(216), PROXY),
    "version 2, no address": (BINARY + b"\x21\x00\x00\x00", PROXY),
}


@pytest.mark.parametrize("split", [len, lambda _: 1], ids=["whole", "byte by byte"])
async def test_a_trusted_proxy_names_its_client(split: Callable[[bytes], int]) -> None:
    async with serving(behind()) as server:
        for what, (header, address) in HEADERS.items():
            if len(header) > 500 and split(header) == 1:
                continue
            parts = [header[at : at + split(header)] for at in range(0, len(header), split(header))]
            answer = await server.talk(*parts, WHO)
            assert f'"client":"{address}","scheme":"http"'.encode() in answer, what
            assert f'"client":"{address}"'.encode() in await server.talk(header + WHO), what


async def test_a_header_may_say_that_the_client_uses_tls() -> None:
    async with serving(behind()) as server:
        assert b'"scheme":"https"' in await server.talk(binary(CLIENT, b"\x04\x00\x00" + TLS_USED) + WHO)
        unused = TLS_USED.replace(b"\1", b"\0")
        for fields in (unused, TLS_USED[:3], b"\x20\xff\xff\1", b"\x20"):
            assert b'"scheme":"http"' in await server.talk(binary(CLIENT, fields) + WHO)


async def test_all_requests_of_a_connection_and_its_websocket_are_the_clients() -> None:
    async with serving(behind()) as server:
        answers = await server.talk(binary(CLIENT), WHO.replace(b"Connection: close\r\n", b""), WHO)
        assert answers.count(f'"client":"{CLIENT}"'.encode()) == 2
        async with await server.connect() as stream:
            await stream.send_all(binary(CLIENT6) + UPGRADE)
            assert statuses(await read_until(stream, b"\r\n\r\n")) == [101]
            await stream.send_all(FRAME)
            await read_until(stream, b"hi")
            await stream.send_all(CLOSE)
            await read_all(stream)
        assert [one.client for one in server.upgraded] == [CLIENT6]


async def test_behind_another_proxy_the_header_names_that_one() -> None:
    config = local(trusted_proxies=(ip_network(PROXY), ip_network("10.0.0.0/8")))
    forwarded = WHO.replace(b"Host", b"X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\nHost")
    async with serving(config) as server:
        assert b'"client":"192.0.2.9","scheme":"https"' in await server.talk(binary("10.1.2.3") + forwarded)
        assert f'"client":"{CLIENT}","scheme":"http"'.encode() in await server.talk(binary(CLIENT) + forwarded)


async def test_tls_follows_the_header() -> None:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    async with serving(behind(), tls=(self_signed_context(["localhost"]), client)) as server:
        for header in (text(CLIENT), binary(CLIENT)):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await stream.send_all(header)
            secure = trio.SSLStream(stream, client, server_hostname="localhost", https_compatible=True)
            async with secure:
                await secure.send_all(WHO)
                assert f'"client":"{CLIENT}","scheme":"https"'.encode() in await read_all(secure)
        assert statuses(await server.talk(LAST)) == [503]  # without a header as well: no worker runs here


async def test_a_stranger_is_refused_and_the_log_names_the_setting(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(behind()) as server:
        for header in (text(CLIENT), binary(CLIENT)) * 2:
            assert await server.talk(header + WHO, source=STRANGER) == b""
        await server.count("sfu_connection_failures_total", 4, kind="proxy_header")
        assert statuses(await server.talk(WHO, source=STRANGER)) == [200]
    (line,) = [record.getMessage() for record in caplog.records if record.name == "sfu.proxies"]
    assert f"proxy_header_refused address={STRANGER}" in line
    assert "SFU_TRUSTED_PROXIES" in line


NO_HEADERS = {
    "no port": b"PROXY TCP4 203.0.113.7 198.51.100.1\r\n",
    "another protocol": b"PROXY UDP4 203.0.113.7 198.51.100.1 1 2\r\n",
    "no address": b"PROXY TCP4 rooms.example 198.51.100.1 1 2\r\n",
    "a zone": b"PROXY TCP6 fe80::1%x 2001:db8::1 1 2\r\n",
    "a port too high": text(CLIENT, port=65536),
    "a port that is none": b"PROXY TCP4 203.0.113.7 198.51.100.1 \xb2 2\r\n",
    "too long": TEXT + b"x" * 200,
    "an early end": TEXT + b"TCP4",
    "version 3": binary(CLIENT, version=0x31),
    "another command": binary(CLIENT, version=0x22),
    "too long, version 2": BINARY + b"\x21\x11\xff\xff" + bytes(5000),
    "too short for its addresses": BINARY + b"\x21\x11\x00\x02ab",
    "an early end, version 2": binary(CLIENT)[:-1],
}


async def test_what_is_no_header_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(behind()) as server:
        for what, data in NO_HEADERS.items():
            async with await server.connect() as stream:
                assert isinstance(stream, trio.SocketStream)
                await stream.send_all(data)
                await stream.send_eof()
                assert await read_all(stream) == b"", what
        await server.count("sfu_connection_failures_total", len(NO_HEADERS), kind="proxy_header")
    assert len([record for record in caplog.records if "proxy_header_malformed" in record.getMessage()]) == 1


@pytest.mark.parametrize("begun", [b"P", b"PROX", b"\r", BINARY[:11]])
async def test_what_only_begins_like_a_header_is_a_request(begun: bytes) -> None:
    async with serving(behind()) as server, await server.connect() as stream:
        assert isinstance(stream, trio.SocketStream)
        await stream.send_all(begun)
        await stream.send_eof()
        assert statuses(await read_all(stream)) in ([], [400])
        assert server.failures("proxy_header") == 0
        assert statuses(await server.talk(WHO.replace(b"GET", b"PUT"))) == [405]
        assert statuses(await server.talk(b"\r\n" + WHO)) == [400]


@pytest.mark.parametrize("header", [text(CLIENT), binary(CLIENT)], ids=["1", "2"])
async def test_a_header_has_a_deadline(header: bytes) -> None:
    async with serving(behind(head_s=0.2)) as server, await server.connect() as stream:
        await stream.send_all(header[:-1])
        assert await read_all(stream) == b""
        assert server.failures("proxy_header") == 1


async def test_an_unfinished_header_does_not_delay_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "GRACE_S", 3600)
    async with serving(behind(head_s=3600)) as server, await server.connect() as stream:
        await stream.send_all(binary(CLIENT)[:-1])
        await trio.testing.wait_all_tasks_blocked(0.05)
        server.stop.set()
        assert await read_all(stream) == b""
        assert server.failures("proxy_header") == 0


async def test_each_client_has_its_share_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "CONNECTIONS", 8)
    async with serving(behind()) as server:
        streams = []
        for address in (CLIENT, CLIENT, CLIENT6):
            streams.append(await server.connect())
            await streams[-1].send_all(binary(address) + UPGRADE)
            await read_until(streams[-1], b"\r\n\r\n")
        assert b"too_many_connections" in await server.talk(binary(CLIENT) + GET)
        assert server.failures("full") == 1
        for stream in streams:
            await stream.aclose()


async def test_each_client_has_its_rate_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "ARRIVALS_PER_S", 0)
    async with serving(behind()) as server:
        assert await server.talk(binary(CLIENT) + LAST) == b""
        assert server.failures("flood") == 1
        assert statuses(await server.talk(binary(CLIENT, version=0x20) + LAST)) == [503]


@pytest.mark.parametrize("header", [text(CLIENT), binary(CLIENT)], ids=["1", "2"])
async def test_media_reaches_its_worker_with_the_clients_address(header: bytes, tmp_path: Path) -> None:
    child = str(Path(__file__).parents[1] / "support" / "worker_child.py")
    ping = bytes(check(mark(0) + "nobody", "x" * 24))
    command = sys.executable, child, "ready", str(tmp_path / "starts")
    async with serving(behind(workers=1), worker=command) as server, await server.connect() as stream:
        await stream.send_all(header + len(ping).to_bytes(2) + ping)
        got = await read_until(stream, ping)
        assert got[PID_BYTES:].split()[:2] == [CLIENT.encode(), b"4711"]
