"""The server behind real proxies, each with its file in `deploy`."""

from __future__ import annotations

import ssl
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from support.control import running
from support.proxies import PROXIES, SITES, Site, proxy
from support.rest_client import request
from support.serving import CLOSE, FRAME, LAST, UPGRADE, local, read_all, read_until, serving, statuses
from support.variants import variants

from sfu.settings.config import Config
from sfu.web.tls import self_signed_context

AT_HOME = (ip_network("127.0.0.1"),)
ALICE = "127.0.0.2"
NINE_MB = bytes(range(256)) * 36_864
QUICK = ("nginx", "caddy", "haproxy", "caddy-below")
CLIENT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CLIENT.check_hostname, CLIENT.verify_mode = False, ssl.CERT_NONE


def quick(*names: str) -> list[Any]:
    """Some of these sites stand for the others."""
    return [*(name for name in names if name in QUICK), *variants(*(name for name in names if name not in QUICK))]


@pytest.mark.parametrize("name", quick(*SITES))
async def test_a_proxy_as_documented_passes_on_who_asks(name: str, tmp_path: Path) -> None:
    path = SITES[name].path.encode()
    async with serving(_config(name)) as server, proxy(name, server.port, tmp_path) as port:
        server.port, server.client_tls = port, CLIENT
        who = LAST.replace(b"/health", path + b"/who").replace(b"Host: x", b"Host: 127.0.0.1:%d" % port)
        assert f'"client":"{ALICE}","scheme":"https"'.encode() in await server.talk(who, source=ALICE)
        forged = who.replace(b"Host", b"X-Forwarded-For: 192.0.2.66\r\nForwarded: for=192.0.2.66\r\nHost")
        assert f'"client":"{ALICE}"'.encode() in await server.talk(forged, source=ALICE)
        async with await server.connect(ALICE) as stream:
            upgrade = UPGRADE.replace(b"/ws", path + b"/ws")
            await stream.send_all(upgrade.replace(b"rooms.example:8080", b"127.0.0.1:%d" % port))
            assert statuses(await read_until(stream, b"\r\n\r\n")) == [101]
            await stream.send_all(FRAME)
            await read_until(stream, b"hi")
            await stream.send_all(CLOSE)
            await read_all(stream)
        (upgraded,) = server.upgraded
        assert (upgraded.client, upgraded.secure, upgraded.host) == (ALICE, True, f"127.0.0.1:{port}")


@pytest.mark.parametrize("name", quick(*(name for name, site in SITES.items() if not site.path)))
async def test_a_proxy_as_documented_passes_on_large_files(name: str, tmp_path: Path) -> None:
    path = SITES[name].path
    config = _config(name)
    async with (
        running(tmp_path, config) as server,
        proxy(name, server.port, tmp_path) as port,
        server.joined() as alice,
    ):
        asked = {"Host": f"127.0.0.1:{port}", "Connection": "close"}
        fields = {"Content-Length": str(len(NINE_MB)), "Authorization": f"Bearer {alice.welcome['session']}"}
        sent = await request(port, "POST", path + "/files", asked | fields, NINE_MB, tls=CLIENT)
        assert (sent.status, sent.json["size"]) == (201, len(NINE_MB))
        fetched = await request(port, "GET", path + sent.json["url"], asked, tls=CLIENT)
        assert (fetched.status, fetched.body) == (200, NINE_MB)


@pytest.mark.parametrize("name", quick(*(name for name, site in SITES.items() if site.path)))
async def test_a_path_without_its_slash_leads_to_the_page(name: str, tmp_path: Path) -> None:
    path, asked = SITES[name].path, {"Connection": "close"}
    async with serving(_config(name)) as server, proxy(name, server.port, tmp_path) as port:
        asked["Host"] = f"127.0.0.1:{port}"
        reply = await request(port, "GET", f"{path}?room=team", asked, tls=CLIENT)
    assert reply.status in (301, 302, 308)
    assert reply.headers["location"].removeprefix(f"https://127.0.0.1:{port}") == f"{path}/?room=team"


@pytest.mark.parametrize("version", ["send-proxy-v2", *variants("send-proxy")])
async def test_a_proxy_in_tcp_mode_passes_on_who_asks(version: str, tmp_path: Path) -> None:
    site = Site(PROXIES["haproxy-tcp"], edits={"send-proxy-v2": version})
    tls = self_signed_context(["localhost"]), CLIENT
    async with (
        serving(local(trusted_proxies=AT_HOME), tls=tls) as server,
        proxy("haproxy-tcp", server.port, tmp_path, site) as port,
    ):
        server.port = port
        who = LAST.replace(b"/health", b"/who")
        assert f'"client":"{ALICE}","scheme":"https"'.encode() in await server.talk(who, source=ALICE)


def _config(name: str) -> Config:
    """Settings for the server behind that proxy."""
    return local(trusted_proxies=AT_HOME, base_path=SITES[name].path if SITES[name].kept else "")
