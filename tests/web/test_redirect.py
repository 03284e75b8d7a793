"""Plain http where the server speaks https: what is redirected where, and when browsers are told to insist on https."""

from __future__ import annotations

import re
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from support.authority import certificate
from support.process import ROOT, free_port, run
from support.serving import GET, UPGRADE, Server, local, read_all, serving, statuses

from sfu.errors import ConfigError
from sfu.web import edge
from sfu.web.challenges import PATH, Challenges
from sfu.web.tls import Tls, self_signed

DOMAINS = ("meet.example.org", "rooms.example.org")
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"


def signed(folder: Path, *, by_itself: bool = False) -> Tls:
    """A certificate of an authority, or one that signed itself."""
    now = datetime.now(UTC)
    key, cert = certificate(["localhost"], now - timedelta(days=1), now + timedelta(days=1))
    if by_itself:
        cert, key = self_signed(["localhost"])
    (folder / "cert.pem").write_bytes(cert)
    (folder / "key.pem").write_bytes(key)
    return Tls.of_files(folder / "cert.pem", folder / "key.pem")


async def plainly(server: Server, request: bytes, port: int = 0) -> bytes:
    """All that comes to a request over plain http."""
    async with await trio.open_tcp_stream("127.0.0.1", port or server.port) as stream:
        await stream.send_all(request)
        return await read_all(stream)


def request(host: str, target: str = "/", method: str = "GET", *lines: str) -> bytes:
    head = [f"{method} {target} HTTP/1.1", *([f"Host: {host}"] if host else []), "Connection: close", *lines]
    return "\r\n".join([*head, "", ""]).encode()


def location(answer: bytes) -> str:
    (found,) = [line for line in answer.split(b"\r\n") if line.lower().startswith(b"location: ")]
    return found.partition(b" ")[2].decode()


@pytest.mark.parametrize(
    ("host", "target", "leads_to"),
    [
        ("meet.example.org:8443", "/?room=a%20b", "https://meet.example.org:8443/?room=a%20b"),
        ("meet.example.org", "/", "https://meet.example.org/"),
        ("meet.example.org:443", "/favicon.svg", "https://meet.example.org/favicon.svg"),
        ("192.0.2.1:8080", "//elsewhere.example", "https://192.0.2.1:8080//elsewhere.example"),
        ("[2001:db8::1]:8080", "/", "https://[2001:db8::1]:8080/"),
        ("[2001:db8::1]", "/", "https://[2001:db8::1]/"),
        ("x", "http://meet.example.org/a", "https://x/a"),
    ],
)
async def test_http_on_the_port_of_https_is_redirected(tmp_path: Path, host: str, target: str, leads_to: str) -> None:
    async with serving(local(port=free_port()), certificate=signed(tmp_path)) as server:
        for method in ("GET", "HEAD", "POST"):
            answer = await plainly(server, request(host, target, method))
            assert (statuses(answer), location(answer)) == ([308], leads_to)
            assert b"strict-transport-security" not in answer.lower(), "over http it says nothing (RFC 6797)"
        assert server.failures("tls") == 0


async def test_a_redirect_leads_to_a_name_of_the_certificate(tmp_path: Path) -> None:
    """Also for whoever came by address, where no certificate would fit; and below a path of another site."""
    config = local(port=free_port(), tls_domain=DOMAINS, base_path="/meet")
    async with serving(config, certificate=signed(tmp_path)) as server:
        for host, name in (("192.0.2.1", DOMAINS[0]), ("ROOMS.example.org", "ROOMS.example.org")):
            assert location(await plainly(server, request(host, "/meet/x?y"))) == f"https://{name}/meet/x?y"


async def test_what_cannot_be_redirected_is_refused(tmp_path: Path) -> None:
    async with serving(local(port=free_port()), certificate=signed(tmp_path)) as server:
        no_host = b"GET / HTTP/1.0\r\n\r\n"
        for wrong in (no_host, request("a b"), b"SSH-2.0-OpenSSH_9.2\r\n\r\n", GET.replace(b"/health", b"*")):
            assert statuses(await plainly(server, wrong)) == [400]
        assert statuses(await plainly(server, UPGRADE.replace(b"keep-alive", b"close"))) == [308], (
            "a WebSocket is for https only"
        )
        assert server.upgraded == []


async def test_a_port_of_its_own_answers_challenges_and_redirects_the_rest(tmp_path: Path) -> None:
    port, challenges = free_port(), Challenges()
    plain = await edge.listen_plain(local(redirect_port=port))
    challenges.publish(TOKEN, f"{TOKEN}.thumbprint")
    async with serving(
        local(port=free_port()), certificate=signed(tmp_path), challenges=challenges, plain=plain
    ) as server:
        answer = await plainly(server, request("meet.example.org", PATH + TOKEN), port)
        assert (statuses(answer), answer.partition(b"\r\n\r\n")[2]) == ([200], f"{TOKEN}.thumbprint".encode())
        for other in ("x", "", f"{TOKEN}/"):
            assert statuses(await plainly(server, request("meet.example.org", PATH + other), port)) == [404]
        for host in ("meet.example.org", f"meet.example.org:{port}"):
            answer = await plainly(server, request(host, "/?room=x"), port)
            assert location(answer) == f"https://meet.example.org:{server.port}/?room=x"
        challenges.clear()
        assert statuses(await plainly(server, request("x", PATH + TOKEN), port)) == [404]


@pytest.mark.parametrize(
    ("host", "by_itself", "days", "told"),
    [
        ("meet.example.org", False, 180, "max-age=15552000"),
        ("meet.example.org:8443", False, 1, "max-age=86400"),
        ("meet.example.org", False, 0, "max-age=0"),  # so that browsers forget it
        ("meet.example.org", True, 180, None),
        ("localhost:8080", False, 180, None),
        ("rooms.localhost", False, 180, None),
        ("192.0.2.1", False, 180, None),
        ("[2001:db8::1]:443", False, 180, None),
        ("[::ffff:192.0.2.1]", False, 180, None),
    ],
)
async def test_browsers_are_told_to_insist_on_https_where_it_is_for_good(
    tmp_path: Path, host: str, by_itself: bool, days: int, told: str | None
) -> None:
    config = local(hsts_days=days)
    async with serving(config, certificate=signed(tmp_path, by_itself=by_itself)) as server:
        for target, status in (("/", 200), ("/none", 404)):
            answer = await server.talk(request(host, target))
            found = re.findall(rb"strict-transport-security: (.*)\r\n", answer)
            assert (statuses(answer), found) == ([status], [told.encode()] if told else [])


async def test_a_port_that_cannot_be_had_is_named(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    """Its default is nice to have, and said; a port that somebody chose must be there."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(ConfigError, match=f"SFU_REDIRECT_PORT: TCP port {port} is in use"):
            await edge.listen_plain(local(port=443, tls_domain=DOMAINS, redirect_port=port))
        monkeypatch.setattr("sfu.settings.config.HTTP_PORT", port)
        assert await edge.listen_plain(local(port=443, tls_domain=DOMAINS)) == []
    (record,) = caplog.records
    assert f"redirect_port_closed port={port}" in record.getMessage()
    assert "in use" in record.getMessage()
    assert await edge.listen_plain(local(port=443)) == []


STRANGER = """
import os, trio
from sfu.settings.config import Config
from sfu.errors import ConfigError
from sfu.web import edge

async def main():
    try:
        await edge.listen_plain(Config(host="127.0.0.1", port=8443, redirect_port=80))
    except ConfigError as error:
        print(error)

if os.getuid() == 0:
    os.setuid(65534)
trio.run(main)
"""


def test_a_user_without_the_right_to_a_low_port_is_led_to_it() -> None:
    said = run("-c", STRANGER).stdout
    assert "SFU_REDIRECT_PORT: this user may not listen on TCP port 80." in said
    assert "Ports below 1024" in said
    assert "### Ports below 1024\n" in (ROOT / "docs" / "operating.md").read_text()
