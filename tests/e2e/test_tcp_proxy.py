"""A call whose every byte passes a proxy in TCP mode: pages, signalling, and media of browsers without UDP."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from people import Person, in_call
from playwright.sync_api import Browser
from support.process import Server, free_port
from support.proxies import PROXIES, Site, running

from sfu.web.tls import self_signed

pytestmark = pytest.mark.soak

PROXY = "127.0.0.9"


def test_media_over_tcp_passes_haproxy_and_keeps_the_clients_address(
    person: Callable[..., Person], policed: Browser, tmp_path: Path
) -> None:
    certificate = tmp_path / "server.pem", tmp_path / "server.key"
    for file, content in zip(certificate, self_signed(["127.0.0.1"]), strict=True):
        file.write_bytes(content)
    files = {"tls_cert": str(certificate[0]), "tls_key": str(certificate[1])}
    port = free_port()
    server = Server(trusted_proxies=PROXY, tcp_port=str(port), workers="2", **files)
    site = Site(PROXIES["haproxy-tcp"], edits={"send-proxy-v2": f"send-proxy-v2 source {PROXY}"})
    try:
        server.start()
        with running("haproxy-tcp", server.port, tmp_path, site, port):
            people = [person(server, name, on=policed).join("through", port=port) for name in ("alice", "bob")]
            in_call(*people)
            assert re.findall(r" joined .*client=(\S+)", server.output) == ["127.0.0.1"] * 2
            assert re.findall(r" connected .*transport=tcp address=(\S+)", server.output) == ["127.0.0.1"] * 2
    finally:
        print(server.output)
        server.close()
