"""Probes in each phase of the server, and who may read the metrics."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import trio
from support.control import CHILD
from support.process import Server as Process
from support.process import environment, free_port, sfu
from support.rest_client import request
from support.serving import UPGRADE, Server, local, serving

TOKEN = "0123456789abcdef0123456789abcdef"
PROBES = ("/livez", "/readyz", "/health")


async def probes(server: Server) -> dict[str, tuple[int, str]]:
    """The status and the word of each probe."""
    found = {}
    for path in PROBES:
        reply = await server.fetch("GET", path)
        found[path] = (reply.status, json.loads(reply.body)["status"])
    return found


async def test_probes_in_each_phase(tmp_path: Path) -> None:
    async with serving() as server:
        server.life.started()
        assert await probes(server) == {
            "/livez": (200, "ok"),
            "/readyz": (503, "starting"),
            "/health": (503, "starting"),
        }
    async with serving(worker=(sys.executable, CHILD, "ready", str(tmp_path / "starts"))) as server:
        server.life.started()
        assert await probes(server) == dict.fromkeys(PROBES, (200, "ok"))
        server.life.drain(60)
        draining = {"/livez": (200, "ok"), "/readyz": (503, "draining"), "/health": (200, "draining")}
        assert await probes(server) == draining
        reply = await server.fetch("GET", "/metrics")
        assert b"\nsfu_draining 1\n" in reply.body
        server.life.stop()
        assert (await probes(server))["/readyz"] == (503, "stopping")


# --- who may read the metrics -----------------------------------------------------------------------------------------


async def status(server: Server, *headers: tuple[str, str]) -> tuple[int, str]:
    """The status of /metrics, and the code of a refusal."""
    reply = await server.fetch("GET", "/metrics", *headers)
    refused = reply.status >= 400
    if reply.status == 401:
        assert reply.headers["www-authenticate"] == 'Bearer realm="sfu"'
    return reply.status, json.loads(reply.body)["code"] if refused else ""


async def test_metrics_are_for_this_machine() -> None:
    async with serving(local(trusted_proxies=(ip_network("127.0.0.8"),))) as server:
        assert await status(server) == (200, "")
        assert await status(server, ("Accept", "application/json")) == (200, "")
        through = ("X-Forwarded-For", "127.0.0.1")
        assert await status(server, through) == (403, "metrics_closed"), "a proxy may pass on anybody's request"
        for name, value in (("Forwarded", "for=127.0.0.1"), ("X-Real-IP", "192.0.2.7"), ("Via", "1.1 proxy")):
            assert await status(server, (name, value)) == (403, "metrics_closed")
        assert await status(server, through, ("Accept", "application/json")) == (403, "metrics_closed")
        head = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\nConnection: close\r\n\r\n"
        assert b" 403 " in (await server.talk(head, source="127.0.0.8")).partition(b"\r\n")[0]


async def test_metrics_with_a_token_are_for_whoever_has_it() -> None:
    through = ("X-Forwarded-For", "192.0.2.7")
    async with serving(local(metrics_token=TOKEN)) as server:
        assert await status(server, through, ("Authorization", f"Bearer {TOKEN}")) == (200, "")
        assert await status(server, ("Authorization", f"bearer {TOKEN}")) == (200, "")
        wrong = ("", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer")
        for given in wrong:
            headers = [("Authorization", given)] if given else []
            assert await status(server, *headers) == (401, "metrics_token")


async def test_metrics_on_an_address_of_their_own(start_server: Callable[..., Process]) -> None:
    port = free_port()
    server = start_server(metrics=f"localhost:{port}")
    headers = {"Host": "x", "Connection": "close", "X-Forwarded-For": "192.0.2.7"}
    reply = await request(port, "GET", "/metrics", headers)
    assert (reply.status, b"\nsfu_ready 1\n" in reply.body) == (200, True)
    stranger, unknown = [await request(server.port, "GET", path, headers) for path in ("/metrics", "/metricz")]
    assert (stranger.status, stranger.body) == (404, unknown.body), "nobody else learns that there are any"
    here = await request(server.port, "GET", "/metrics", {"Host": "x", "Connection": "close"})
    assert (here.status, json.loads(here.body)["code"]) == (404, "metrics_elsewhere")
    assert f"http://127.0.0.1:{port}/metrics" in json.loads(here.body)["detail"]
    for path in ("/", "/ws", "/health", "/api/v1/rooms", "/main.js"):
        assert (await request(port, "GET", path, headers)).status == 404, path
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(UPGRADE)
        assert await stream.receive_some() == b"", "nobody joins here"
    assert server.stop() == 0


def test_a_taken_port_for_metrics_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = environment(host="127.0.0.1", port=str(free_port()), metrics=f"127.0.0.1:{port}")
        done = sfu("serve", env=env)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"sfu: SFU_METRICS: TCP port {port} is in use.")
