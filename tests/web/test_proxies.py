from __future__ import annotations

from ipaddress import ip_network

import pytest
from support.serving import LAST, UPGRADE, local, serving

from sfu.settings.config import Config
from sfu.web import proxies
from sfu.web.proxies import Proxies

TRUSTED = Proxies((ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("173.245.48.0/20")))
PROXY, CLIENT, CLIENT6 = "10.0.0.1", "203.0.113.7", "2001:db8::7"
WHO = LAST.replace(b"/health", b"/who")
AT_HOME = (ip_network("127.0.0.0/8"),)


def fields(*lines: str) -> list[tuple[bytes, bytes]]:
    """The headers in lines such as `Name: value`, as h11 gives them."""
    pairs = [line.split(":", 1) for line in lines]
    return [(name.strip().lower().encode(), value.strip().encode()) for name, value in pairs]


WRITTEN = {
    "nginx": (CLIENT, "X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https"),
    "nginx, after a forged entry": (CLIENT, "X-Forwarded-For: 192.0.2.66, 203.0.113.7", "X-Forwarded-Proto: https"),
    "Caddy": (CLIENT6, "X-Forwarded-For: 2001:db8::7", "X-Forwarded-Host: rooms.example", "X-Forwarded-Proto: https"),
    "Traefik, WebSocket": (
        CLIENT,
        "X-Forwarded-For: 203.0.113.7",
        "X-Forwarded-Host: rooms.example",
        "X-Forwarded-Port: 443",
        "X-Forwarded-Proto: wss",
        "X-Forwarded-Server: traefik-0",
        "X-Real-Ip: 203.0.113.7",
    ),
    "HAProxy, forwardfor": (CLIENT, "x-forwarded-proto: https", "x-forwarded-for: 203.0.113.7"),
    "HAProxy, forwardfor after a forged line": (
        CLIENT,
        "X-Forwarded-For: 192.0.2.66",
        "X-Forwarded-Proto: https",
        "x-forwarded-for: 203.0.113.7",
    ),
    "HAProxy, dual stack": (CLIENT, "x-forwarded-for: ::ffff:203.0.113.7", "x-forwarded-proto: https"),
    "HAProxy, forwarded": (CLIENT, "forwarded: proto=https;for=203.0.113.7"),
    "HAProxy, forwarded with ports": (CLIENT6, 'forwarded: proto=https;by="10.0.0.1:443";for="[2001:db8::7]:4711"'),
    "OpenShift": (
        CLIENT,
        "X-Forwarded-For: 203.0.113.7",
        "X-Forwarded-Proto: https",
        "Forwarded: for=203.0.113.7;host=rooms.example:443;proto=https",
    ),
    "OpenShift, Forwarded alone": (CLIENT, "Forwarded: for=203.0.113.7;host=rooms.example:443;proto=https"),
    "Azure Application Gateway": (
        CLIENT,
        "X-Forwarded-For: 203.0.113.7:4711",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Port: 443",
        "X-Original-Host: rooms.example",
    ),
    "Azure, IPv6": (CLIENT6, "X-Forwarded-For: [2001:db8::7]:4711", "X-Forwarded-Proto: https"),
    "Azure, behind another": (CLIENT, "X-Forwarded-For: 203.0.113.7:4711, 10.1.2.3:60123", "X-Forwarded-Proto: https"),
    "AWS": (CLIENT, "X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https", "X-Forwarded-Port: 443"),
    "AWS, client ports": (CLIENT, "X-Forwarded-For: 203.0.113.7:8080", "X-Forwarded-Proto: https"),
    "AWS, client ports, IPv6": (CLIENT6, "X-Forwarded-For: [2001:DB8::7]:12345", "X-Forwarded-Proto: https"),
    "AWS API Gateway": (CLIENT, "Forwarded: by=10.0.0.9;for=203.0.113.7;host=rooms.example;proto=https"),
    "Cloudflare": (
        CLIENT,
        "CF-Connecting-IP: 203.0.113.7",
        "X-Forwarded-For: 203.0.113.7",
        "X-Forwarded-Proto: https",
        'CF-Visitor: {"scheme":"https"}',
        "CDN-Loop: cloudflare; loops=1",
    ),
    "Cloudflare, then nginx over http": (
        CLIENT,
        "X-Forwarded-For: 203.0.113.7, 173.245.48.9",
        "X-Forwarded-Proto: https, http",
    ),
    "several in RFC 7239": (
        CLIENT,
        "Forwarded: for=192.0.2.66;proto=http, For=203.0.113.7;Proto=HTTPS",
        "Forwarded: for=10.0.0.2;proto=http",
    ),
    "RFC 7239, obfuscated port": (CLIENT, 'Forwarded: for="203.0.113.7:_x9";proto=https'),
}
"""By proxy, the client and the header lines it writes for it. The scheme is always https."""


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN.keys())
def test_the_client_as_proxies_write_it(written: tuple[str, ...]) -> None:
    client, *lines = written
    assert TRUSTED.client(PROXY, False, fields(*lines)) == (client, True)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.7", ["203.0.113.9"], "198.51.100.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["192.0.2.66, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9", "10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3,,10.0.0.2,"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.9 ,\t10.0.0.2:80"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["nonsense, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["fe80::1%any text"], "fe80::1"),
        ("10.0.0.1", ["203.0.113.9:"], "10.0.0.1"),
        ("10.0.0.1", ["[203.0.113.9"], "10.0.0.1"),
        ("fd00::1", ["2001:DB8:0::7"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("2001:db8::1", ["203.0.113.9"], "2001:db8::1"),
    ],
)
def test_x_forwarded_for_is_followed_as_far_as_its_authors_are_proxies(
    peer: str, forwarded: list[str], client: str
) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    assert TRUSTED.client(peer, False, headers) == (client, False)


@pytest.mark.parametrize(
    "forged",
    [
        "Forwarded: for=192.0.2.66, {}",
        'Forwarded: for="192.0.2.66, {}',
        "Forwarded: for=192.0.2.66;, {}",
        'Forwarded: for=192.0.2.66;x="\\, {}',
        "Forwarded: for=192.0.2.66\nForwarded: {}",
    ],
)
def test_a_client_cannot_hide_behind_what_it_forwards(forged: str) -> None:
    real = 'for="[2001:db8::7]:4711";proto=https'
    assert TRUSTED.client(PROXY, False, fields(*forged.format(real).splitlines())) == (CLIENT6, True)
    added = "X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https"
    passed_on = fields("Forwarded: for=192.0.2.66;proto=http", *added)
    assert TRUSTED.client(PROXY, False, passed_on) == (CLIENT, True)


@pytest.mark.parametrize(
    ("scheme", "secure"),
    [("https", True), ("HTTPS", True), ("wss", True), ("http", False), ("ws", False), ("", None), ("on", None)],
)
@pytest.mark.parametrize("connection", [True, False])
def test_the_scheme_a_proxy_names(scheme: str, secure: bool | None, connection: bool) -> None:
    said = [(b"x-forwarded-for", b"203.0.113.7"), (b"x-forwarded-proto", scheme.encode())]
    assert TRUSTED.client(PROXY, connection, said)[1] is (connection if secure is None else secure)


async def test_a_trusted_proxy_speaks_for_its_clients(caplog: pytest.LogCaptureFixture) -> None:
    forwarded = b"X-Forwarded-For: 192.0.2.1, 203.0.113.9:4711\r\nX-Forwarded-Proto: wss\r\nHost"
    async with serving(local(trusted_proxies=AT_HOME)) as server:
        answer = await server.talk(WHO.replace(b"Host", forwarded))
        assert b'"client":"203.0.113.9","scheme":"https"' in answer
        await server.talk(UPGRADE.replace(b"Host", forwarded).replace(b"Sec-WebSocket-Key", b"X-Key"))
        (upgraded,) = server.upgraded
        assert (upgraded.client, upgraded.secure, upgraded.host) == ("203.0.113.9", True, "rooms.example:8080")
    assert not caplog.messages


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https", "Forwarded: for=203.0.113.9;proto=https"]
)
async def test_a_proxy_nobody_named_is_told_to_the_operator_once(header: str, caplog: pytest.LogCaptureFixture) -> None:
    request = WHO.replace(b"Host", header.encode() + b"\r\nHost")
    async with serving(local(trusted_proxies=(ip_network("10.0.0.0/8"),))) as server:
        for source in ("127.0.0.1", "127.0.0.2") * 3:
            answer = await server.talk(request, source=source)
            assert f'"client":"{source}","scheme":"http"'.encode() in answer
    assert [line.split()[:2] for line in caplog.messages] == [
        ["forwarding_headers_ignored", "address=127.0.0.1"],
        ["forwarding_headers_ignored", "address=127.0.0.2"],
    ]
    assert all("SFU_TRUSTED_PROXIES" in line for line in caplog.messages)


def test_strangers_cannot_fill_the_log_with_proxies(caplog: pytest.LogCaptureFixture) -> None:
    strict = Proxies(())
    for number in range(200):
        strict.client(f"2001:db8:0:{number:x}::1", False, [(b"x-forwarded-for", b"203.0.113.9")])
    assert len(caplog.messages) == proxies.WARNED


@pytest.mark.parametrize(
    ("networks", "said"),
    [
        ("", 0),
        ("10.0.0.0/8, ::1", 0),
        ("0.0.0.0/0", 1),
        ("10.0.0.1, ::/0", 1),
        ("0.0.0.0/1, 128.0.0.0/1", 1),
        ("0.0.0.0/0, ::/0", 1),
    ],
)
def test_trust_in_everybody_is_warned_of(networks: str, said: int, caplog: pytest.LogCaptureFixture) -> None:
    Proxies(Config.from_env({"SFU_TRUSTED_PROXIES": networks}).trusted_proxies)
    assert [line.split()[0] for line in caplog.messages] == ["proxies=everybody"] * said
