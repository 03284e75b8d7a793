"""`sfu coturn-config`: its output, and how coturn acts on it. tests/e2e/test_turn_relay.py has a call."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from support import debian
from support.process import environment, free_port, sfu
from support.turn import coturn

from sfu.commands.coturn_config import turnserver_conf
from sfu.errors import ConfigError
from sfu.network.turn import credentials
from sfu.settings.config import Config

SECRET = "north-by-northwest"
EXAMPLE = "turn:turn.example.org:443,turns:turn.example.org:443"


def conf(urls: str, **settings: object) -> list[str]:
    config = Config(turn_urls=tuple(urls.split(",")), turn_secret=SECRET, **settings)  # type: ignore[arg-type]
    return turnserver_conf(config).splitlines()


@pytest.mark.parametrize(
    ("urls", "lines"),
    [
        ("turn:a.example", {"listening-port=3478", "no-tls"}),
        ("turn:a.example:443?transport=tcp,turn:a.example:443", {"listening-port=443", "no-tls"}),
        ("turns:a.example:443", {"listening-port=443", "cert=/etc/coturn/fullchain.pem"}),
        (EXAMPLE, {"listening-port=443", "pkey=/etc/coturn/privkey.pem"}),
        ("turn:a.example,turns:a.example:443", {"listening-port=3478", "tls-listening-port=443"}),
    ],
)
def test_coturn_listens_on_the_ports_of_the_urls(urls: str, lines: set[str]) -> None:
    printed = conf(urls)
    assert lines <= set(printed)
    assert sum("listening-port=" in line for line in printed) == sum("listening-port=" in line for line in lines)
    assert ("no-tls" in printed) == ("turns:" not in urls)


def test_two_ports_of_a_scheme_are_more_than_coturn_has() -> None:
    with pytest.raises(ConfigError, match="has turn: URLs with the ports 3478 and 443"):
        conf("turn:a.example,turn:a.example:443?transport=tcp")


def test_nothing_but_this_server_is_relayed_to() -> None:
    printed = conf(EXAMPLE, public_ip=("203.0.113.9", "2001:db8::1", "127.0.0.1"))
    allowed = [line for line in printed if line.startswith("allowed-peer-ip=")]
    assert allowed == ["allowed-peer-ip=203.0.113.9", "allowed-peer-ip=2001:db8::1"]
    assert "denied-peer-ip=0.0.0.0-255.255.255.255" in printed
    assert "allowed-peer-ip=127.0.0.1" in conf(EXAMPLE, host="127.0.0.1")
    assert any(line.startswith("allowed-peer-ip=") for line in conf(EXAMPLE))


def test_coturn_accepts_the_credentials_and_relays_to_nobody_else(tmp_path: Path) -> None:
    port = free_port()
    env = environment(turn_urls=f"turn:127.0.0.1:{port}", turn_secret=SECRET, host="127.0.0.1")
    with coturn(env, port, tmp_path):
        username, password = credentials(SECRET, "dT1Q9xLrW0aF", int(time.time()))
        options = ["-t", "-n", "1", "-m", "1", "-c", "-e", "127.0.0.2", "-p", str(port), "-u", username, "-w", password]
        client = [debian.program("turnutils_uclient"), *options, "127.0.0.1"]
        tried = subprocess.run(client, env=debian.environment(), capture_output=True, text=True, timeout=60)
    assert "error 403 (Forbidden IP)" in tried.stdout + tried.stderr


def test_the_command_prints_the_file_and_nothing_else() -> None:
    done = sfu("coturn-config", env=environment(turn_urls=EXAMPLE, turn_secret=SECRET, public_ip="203.0.113.9"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == conf(EXAMPLE, public_ip=("203.0.113.9",))
    assert f"static-auth-secret={SECRET}" in done.stdout.splitlines()
    assert "realm=turn.example.org" in done.stdout.splitlines()


def test_without_the_settings_it_names_them() -> None:
    done = sfu("coturn-config", env=environment())
    assert (done.returncode, done.stdout) == (2, "")
    assert "SFU_TURN_URLS and SFU_TURN_SECRET are not set" in done.stderr


def test_no_help_shows_the_secret() -> None:
    for arguments in (("--help",), ("serve", "--help"), ("coturn-config", "--help")):
        assert SECRET not in sfu(*arguments, env=environment(turn_urls=EXAMPLE, turn_secret=SECRET)).stdout
