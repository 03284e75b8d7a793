"""Settings: what is read, what is refused and in which words, and that the document lists just what there is."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.errors import ConfigError
from sfu.settings import config
from sfu.settings.config import Config, settings, unknown

ROOT = Path(__file__).parents[2]

ACCEPTED = [
    ("HOST", "*", "*"),
    ("HOST", "localhost", "127.0.0.1"),
    ("HOST", "0.0.0.0", "0.0.0.0"),
    ("HOST", "[::1]", "::1"),
    ("HOST", " 192.0.2.7 ", "192.0.2.7"),
    ("PORT", "1", 1),
    ("PORT", "65535", 65535),
    ("TCP_PORT", "0", 0),
    ("TCP_PORT", "80", 80),
    ("TCP_PORT", "1024", 1024),
    ("PUBLIC_IP", "203.0.113.9", ("203.0.113.9",)),
    ("PUBLIC_IP", "203.0.113.9, 2001:DB8::1,203.0.113.9,", ("203.0.113.9", "2001:db8::1")),
    ("STUN", "stun.example.org", ("stun.example.org", 3478)),
    ("STUN", "192.0.2.3:19302", ("192.0.2.3", 19302)),
    ("STUN", "[2001:DB8::1]:3478", ("2001:db8::1", 3478)),
    ("ALLOWED_ORIGINS", "https://Example.org", ("https://example.org",)),
    (
        "ALLOWED_ORIGINS",
        "https://a.example:443/, http://b.example:8080",
        ("https://a.example", "http://b.example:8080"),
    ),
    ("ALLOWED_ORIGINS", "http://[2001:db8::1]:81", ("http://[2001:db8::1]:81",)),
    ("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8", (ip_network("127.0.0.1/32"), ip_network("10.0.0.0/8"))),
    ("BASE_PATH", "/", ""),
    ("BASE_PATH", "/meet/", "/meet"),
    ("BASE_PATH", "/a/b_c.d~e-f", "/a/b_c.d~e-f"),
    ("ACME_DIRECTORY", "https://ca.example:9000/acme/directory", "https://ca.example:9000/acme/directory"),
    ("ACME_MAIL", "admin@example.org", "admin@example.org"),
    ("REDIRECT_PORT", "0", 0),
    ("WORKERS", "3", 3),
    ("LIMITS", "ON", True),
    ("MAX_PEERS", "7", 7),
    ("MESSAGES_PER_S", "5", 5),
    ("HEAD_S", "0.5", 0.5),
    ("DRAIN_S", "0", 0.0),
    ("METRICS", "127.0.0.1:9090", ("127.0.0.1", 9090)),
    ("METRICS", "[::1]:9090", ("::1", 9090)),
    ("METRICS", "*:9090", ("*", 9090)),
    ("METRICS_TOKEN", "0123456789abcdef", "0123456789abcdef"),
    ("JOIN_S", "30", 30.0),
    ("LOG_LEVEL", "DEBUG", "debug"),
]

REFUSED = [
    ("HOST", "example.org", "address"),
    ("HOST", "127.0.0.1:80", "address"),
    ("TLS_DOMAIN", "*.example.org", "domains such as meet.example.org"),
    ("TLS_DOMAIN", "192.0.2.1", "domains such as meet.example.org"),
    ("TLS_DOMAIN", "localhost", "domains such as meet.example.org"),
    ("TLS_DOMAIN", "bücher.example", "xn-- form"),
    ("ACME_DIRECTORY", "http://ca.example/directory", "https://"),
    ("ACME_MAIL", "a@example.org,b@example.org", "one mail address"),
    ("HOLD_S", "0.1", "a number from 1 to 3600"),
    ("PONG_S", "2.9", "a number from 3 to 3600"),
    ("PORT", "0", "1 to 65535"),
    ("TCP_PORT", "81", "0 or 80 or 443 or a whole number from 1024 to 65535"),
    ("TCP_PORT", "1023", "1024 to 65535"),
    ("TCP_PORT", "65536", "1024 to 65535"),
    ("PORT", "65536", "1 to 65535"),
    ("PORT", "80.5", "1 to 65535"),
    ("PORT", "-1", "1 to 65535"),
    ("PORT", "٨٠", "1 to 65535"),
    ("PORT", "8080x", "1 to 65535"),
    *(("BASE_PATH", text, "a path such as /meet") for text in ("meet", "/a//b", "/../a", "/a b", "/a?b", "/é", "//a")),
    ("PUBLIC_IP", "meet.example.org", "'meet.example.org' is not one"),
    ("PUBLIC_IP", "203.0.113.9:8080", "'203.0.113.9:8080' is not one"),
    ("PUBLIC_IP", "0.0.0.0", "nobody can send to"),
    ("PUBLIC_IP", "224.0.0.1", "nobody can send to"),
    ("PUBLIC_IP", "fe80::1%eth0", "nobody can send to"),
    *(("STUN", text, "stun.example.org:3478") for text in ("stun:a.example", "a.example:0", "a:65536", "a b", "::1")),
    ("STUN", "[::g]", "a name or address"),
    ("ALLOWED_ORIGINS", "example.org", "'example.org' is not one"),
    ("ALLOWED_ORIGINS", "*", "'*' is not one"),
    ("ALLOWED_ORIGINS", "https://example.org/page", "is not one"),
    ("ALLOWED_ORIGINS", "https://user@example.org", "is not one"),
    ("ALLOWED_ORIGINS", "https://example.org:99999", "is not one"),
    ("ALLOWED_ORIGINS", "wss://example.org", "is not one"),
    ("TRUSTED_PROXIES", "10.0.0.1/8", "'10.0.0.1/8' is not one"),
    ("TRUSTED_PROXIES", "*", "'*' is not one"),
    ("TLS_CERT", "/nonexistent.pem", "existing file"),
    *(("METRICS", text, "such as 127.0.0.1:9090") for text in ("9090", "127.0.0.1", "127.0.0.1:0", "example.org:9090")),
    ("TURN_URLS", "turn:a.example,trun:b.example", "'trun:b.example' is not one"),
    *(("TURN_URLS", f"turn:{rest}", "is not one") for rest in ("", "//a", "a b", "a/b", "a?transport=tls", "u:p@a")),
    *(("TURN_URLS", f"turn:a.example:{port}", "has a port that browsers refuse") for port in (0, 25, 444, 65536)),
    ("TURN_URLS", "turn:[2001:db8]", "'turn:[2001:db8]' has no valid address"),
    ("TURN_URLS", "turns:a.example?transport=udp", "is not for browsers"),
    ("TURN_URLS", "stun:a.example", "'stun:a.example' is of no use"),
    ("WORKERS", "0", "1 to 256"),
    ("LIMITS", "no", "on or off"),
    ("MAX_TRACKS", "1", "2 to 64"),
    ("ANSWER_S", "nan", "0.1 to 3600"),
    ("ANSWER_S", "inf", "0.1 to 3600"),
    ("ANSWER_S", "1e3", "0.1 to 3600"),
    ("ANSWER_S", "0", "0.1 to 3600"),
    ("LOG_LEVEL", "loud", "debug or info or warning or error"),
]


def test_defaults_need_no_environment() -> None:
    assert Config.from_env({}) == Config()
    assert (Config().host, Config().port, Config().limits) == ("*", 8080, True)


@pytest.mark.parametrize(("name", "text", "value"), ACCEPTED)
def test_accepted(name: str, text: str, value: Any) -> None:
    config = Config.from_env({f"SFU_{name}": text})
    assert getattr(config, name.lower()) == value
    assert config == Config(**{name.lower(): value})


@pytest.mark.parametrize(("name", "text", "reason"), REFUSED)
def test_refused_with_name_value_and_what_is_accepted(name: str, text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Config.from_env({f"SFU_{name}": text})
    assert str(refusal.value).startswith(f"SFU_{name}={text!r} is not accepted: it must be ")
    assert reason in str(refusal.value)


@pytest.mark.parametrize("metrics", ["*:8080", "10.0.0.1:8080", "127.0.0.1:8080"])
def test_metrics_have_a_port_of_their_own(metrics: str) -> None:
    with pytest.raises(ConfigError, match="SFU_METRICS has the address and port of the pages, 8080"):
        Config.from_env({"SFU_METRICS": metrics} | ({} if metrics[0] != "*" else {"SFU_HOST": "10.0.0.1"}))
    Config.from_env({"SFU_METRICS": "127.0.0.1:8080", "SFU_HOST": "10.0.0.1"})
    Config.from_env({"SFU_METRICS": "*:8081"})


@pytest.mark.parametrize("text", ["short", "0123456789 abcdef", "0123456789abcdef,x", "é" * 20])
def test_a_token_that_is_refused_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="SFU_METRICS_TOKEN is not accepted: it must be 16 to 255") as refusal:
        Config.from_env({"SFU_METRICS_TOKEN": text})
    assert text not in str(refusal.value)


@given(st.sampled_from([setting.variable for setting in settings()]), st.text())
def test_no_text_raises_anything_else(variable: str, text: str) -> None:
    with suppress(ConfigError):
        Config.from_env({variable: text})


def test_empty_counts_as_unset() -> None:
    assert Config.from_env({"SFU_PORT": "", "SFU_PUBLIC_IP": "  "}) == Config()


def test_tls_needs_both_files(tmp_path: Path) -> None:
    file = tmp_path / "some.pem"
    file.touch()
    for given_, missing in (("SFU_TLS_CERT", "SFU_TLS_KEY"), ("SFU_TLS_KEY", "SFU_TLS_CERT")):
        with pytest.raises(ConfigError, match=f"^{given_} is set but {missing} is not"):
            Config.from_env({given_: str(file)})
    assert Config.from_env({"SFU_TLS_CERT": str(file), "SFU_TLS_KEY": str(file)}).tls_key == file


@pytest.mark.parametrize(
    ("given", "port", "plain"),
    [
        ({}, 443, 80),
        ({"SFU_PORT": "8443"}, 8443, 80),
        ({"SFU_PORT": "80"}, 80, 0),
        ({"SFU_REDIRECT_PORT": "0"}, 443, 0),
        ({"SFU_REDIRECT_PORT": "8080"}, 443, 8080),
    ],
)
def test_a_domain_takes_the_ports_of_the_web_unless_told_otherwise(
    given: dict[str, str], port: int, plain: int
) -> None:
    found = Config.from_env({"SFU_TLS_DOMAIN": "Meet.example.org, xn--bcher-kva.example."} | given)
    assert found.tls_domain == ("meet.example.org", "xn--bcher-kva.example")
    assert (found.port, found.plain_port) == (port, plain)
    assert (Config.from_env({}).port, Config.from_env({}).plain_port) == (8080, 0)


def test_a_domain_and_a_certificate_exclude_each_other() -> None:
    files = {"SFU_TLS_CERT": __file__, "SFU_TLS_KEY": __file__}
    with pytest.raises(ConfigError, match="SFU_TLS_DOMAIN and SFU_TLS_CERT exclude each other"):
        Config.from_env({"SFU_TLS_DOMAIN": "meet.example.org"} | files)


def test_turn_needs_urls_and_the_secret() -> None:
    urls, secret = {"SFU_TURN_URLS": "turn:turn.example.org, TURN:turn.example.org:443,"}, {"SFU_TURN_SECRET": "0" * 16}
    with pytest.raises(ConfigError, match=r"^SFU_TURN_URLS is set but SFU_TURN_SECRET is not"):
        Config.from_env(urls)
    with pytest.raises(ConfigError, match=r"^SFU_TURN_SECRET is set but SFU_TURN_URLS is not"):
        Config.from_env(secret)
    config = Config.from_env({**urls, **secret})
    assert config.turn_urls == ("turn:turn.example.org", "turn:turn.example.org:443")
    assert config.turn_secret == "0" * 16
    assert "0" * 16 not in repr(config)


@pytest.mark.parametrize("secret", ["too-short", "with blanks inside it", "no#comment-please", "x" * 256, "ä" * 20])
def test_a_secret_that_is_not_accepted_is_not_shown(secret: str) -> None:
    with pytest.raises(ConfigError, match=r"^SFU_TURN_SECRET is not accepted: it must be 16 to 255") as refusal:
        Config.from_env({"SFU_TURN_URLS": "turn:turn.example.org", "SFU_TURN_SECRET": secret})
    assert secret not in str(refusal.value)


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "::", "192.0.2.1"])
def test_limits_stay_on_where_others_can_connect(host: str) -> None:
    with pytest.raises(ConfigError, match="SFU_LIMITS=off is not accepted while SFU_HOST is"):
        Config.from_env({"SFU_LIMITS": "off", "SFU_HOST": host})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_limits_may_be_off_on_loopback(host: str) -> None:
    assert Config.from_env({"SFU_LIMITS": "off", "SFU_HOST": host}).limits is False


def test_workers_have_one_port_or_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "SHARED_UDP", True)
    assert [*Config.from_env({"SFU_PORT": "65534", "SFU_WORKERS": "3"}).udp_ports] == [65534]
    monkeypatch.setattr(config, "SHARED_UDP", False)
    assert [*Config.from_env({"SFU_PORT": "65534", "SFU_WORKERS": "2"}).udp_ports] == [65534, 65535]
    with pytest.raises(ConfigError, match="SFU_PORT=65534 is not accepted with 3 workers"):
        Config.from_env({"SFU_PORT": "65534", "SFU_WORKERS": "3"})


def test_unknown_settings_are_named_with_the_nearest() -> None:
    assert unknown({"SFU_PORT": "1", "PATH": "/bin"}) == []
    assert unknown({"SFU_PROT": "1", "SFU_QQQQQQQQQ": "x"}) == [
        "SFU_PROT is not a setting and is ignored. Did you mean SFU_PORT?",
        "SFU_QQQQQQQQQ is not a setting and is ignored.",
    ]


def test_the_document_lists_every_setting() -> None:
    """The table of docs/operating.md, row for row; a row that is not as in config.py shows how it should be."""
    rows = re.findall(r"^\| `SFU_.*$", (ROOT / "docs" / "operating.md").read_text(), re.MULTILINE)
    expected = []
    for setting in settings():
        default = f"{setting.default} {setting.unit}".strip()
        expected.append(f"| `{setting.variable}` | {default} | {setting.help} |")
    assert rows == expected


@pytest.mark.parametrize(("port", "offered"), [(80, 80), (81, 0), (443, 443), (1023, 0), (1024, 1024)])
def test_media_over_tcp_is_offered_where_browsers_send_it(port: int, offered: int) -> None:
    assert Config.from_env({"SFU_PORT": str(port)}).public_tcp_port == offered


@pytest.mark.parametrize(("given", "port"), [({}, 9000), ({"SFU_TCP_PORT": "443"}, 443), ({"SFU_TCP_PORT": "0"}, 0)])
def test_media_over_tcp_has_the_port_of_the_page_unless_told_otherwise(given: dict[str, str], port: int) -> None:
    assert Config.from_env({"SFU_PORT": "9000"} | given).public_tcp_port == port
