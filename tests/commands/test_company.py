"""`sfu company …` and what a server does with its data, as processes: first start, crash, and settings."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from support.process import ROOT, Server, environment, sfu
from support.rest_client import Reply, request
from support.variants import variants
from support.waiting import eventually

from sfu.errors import ConfigError
from sfu.settings.config import Config
from sfu.store.data import described, open_data, server_key

UPGRADE = (
    b"GET /ws?room=team&username=alice HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
KEY = re.compile(r"pk_[A-Za-z0-9_-]{43}\n")


async def make(config: Config) -> None:
    """Makes the database and the server key, as the first start of a server does."""
    async with open_data(config) as store:
        await store.companies.ensure_default()


@pytest.fixture
def company(tmp_path: Path) -> Callable[..., Any]:
    """Runs `sfu company …` on a database of the test's own."""
    trio.run(make, Config(data_dir=tmp_path / "data"))
    env = environment(data_dir=str(tmp_path / "data"))

    def run(*arguments: str) -> Any:
        return sfu("company", *arguments, env=env)

    return run


def test_a_key_is_printed_once_and_alone(company: Callable[..., Any], tmp_path: Path) -> None:
    made = company("create", "Acme & Söhne", "--tier", "pro")
    assert made.returncode == 0
    assert KEY.fullmatch(made.stdout)
    listed = company("list").stdout
    assert re.search(
        rf"^Acme & Söhne +{made.stdout[:11]}… +pro +active +\d{{4}}-\d\d-\d\d +[0-9a-f-]{{36}}$", listed, re.M
    )
    assert re.search(r"^default +pk_", listed, re.M)
    assert made.stdout.strip() not in listed
    rotated = company("rotate-key", "Acme & Söhne")
    assert KEY.fullmatch(rotated.stdout)
    assert rotated.stdout != made.stdout
    for name in ("sfu.db", "server.key"):
        assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o600
    for path in (tmp_path / "data").iterdir():
        assert made.stdout.strip().encode() not in path.read_bytes()


def test_a_company_is_disabled_and_enabled(company: Callable[..., Any]) -> None:
    company("create", "Acme")
    for commands, state in ((["disable"], "disabled"), (["enable", "rotate-secret"], "active")):
        for command in commands:
            assert company(command, "Acme").returncode == 0
        assert re.search(rf"^Acme .* {state} ", company("list").stdout, re.M)


def test_a_secret_of_the_companys_own_is_read_from_standard_input(company: Callable[..., Any], tmp_path: Path) -> None:
    company("create", "Acme")
    env = environment(data_dir=str(tmp_path / "data"))
    secret = "a secret of forty bytes, which Acme chose"

    def set_secret(text: str) -> Any:
        command = [sys.executable, "-m", "sfu", "company", "set-secret", "Acme"]
        return subprocess.run(command, input=text, env=env, cwd=ROOT, capture_output=True, text=True, check=False)

    done = set_secret(f"{secret}\n")
    assert (done.returncode, "are accepted now" in done.stdout) == (0, True), done.stderr
    assert all(secret.encode() not in path.read_bytes() for path in (tmp_path / "data").iterdir())
    short = set_secret("short\n")
    assert (short.returncode, "at least 32 bytes" in short.stderr) == (2, True)
    assert "no longer accepted" in set_secret("\n").stdout


def test_a_company_gets_another_tier(company: Callable[..., Any]) -> None:
    company("create", "Acme")
    assert company("set-tier", "Acme", "enterprise").stdout == "Acme has the tier enterprise.\n"
    assert re.search(r"^Acme .* enterprise +active ", company("list").stdout, re.M)
    assert company("set-tier", "Acme", "gold").returncode == 2


def test_every_change_is_one_line_of_the_audit(company: Callable[..., Any], tmp_path: Path) -> None:
    for command in ("create", "rotate-key", "rotate-secret", "disable", "enable", "list"):
        done = company(command, *(["Acme & Söhne"] * (command != "list")))
        said = [line.partition("logger=sfu.audit ")[2] for line in done.stderr.splitlines() if "sfu.audit" in line]
        about = r"company='Acme & Söhne' id=[0-9a-f-]{36} by='\w+'"
        assert len(said) == (command != "list"), done.stderr
        assert all(re.match(rf"company_{command.replace('-', '_')} {about}", line) for line in said), said
        assert not KEY.search(done.stderr)
    env = environment(data_dir=str(tmp_path / "data"))
    found = json.loads(sfu("audit", "--json", "--company", "Acme & Söhne", env=env).stdout)
    assert {(entry["by_kind"], bool(entry["by_name"])) for entry in found} == {("command", True)}
    assert sorted(entry["action"] for entry in found) == [
        "company.changed", "company.changed", "company.created", "company.secret_rotated", "key.created", "key.revoked",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "default"), "A company 'default' already exists."),
        (("create", " \n"), "The company's name is empty"),
        (("rotate-key", "Nobody"), "There is no company 'Nobody'."),
        (("create", "bad\udcff"), "company create: error: argument name: it is not UTF-8"),
        (("disable", "default\udcff"), "company disable: error: argument name: it is not UTF-8"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(
    company: Callable[..., Any], arguments: tuple[str, ...], words: str
) -> None:
    done = company(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(rf"^sfu:? {re.escape(words)}", done.stderr, re.M)
    assert "Traceback" not in done.stderr


def test_a_database_that_is_away_is_told_apart_from_settings_that_are_wrong(tmp_path: Path) -> None:
    url = "postgresql://x:secretpassword@127.0.0.1:1/z"
    done = sfu("company", "list", env=environment(data_dir=str(tmp_path), database_url=url, server_key="ab" * 32))
    assert done.returncode == 3, "a service manager may try again"
    assert "sfu: The database cannot be opened: " in done.stderr
    assert "secretpassword" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"database_url": "mysql://x:secretpassword@y/z"}, "SFU_DATABASE_URL must be"),
        ({"server_key": "secretpassword"}, "The server key must be 32 bytes"),
        ({"data_dir": "relative"}, "SFU_DATA_DIR='relative' is not accepted"),
    ],
)
def test_settings_that_cannot_be_used(settings: dict[str, str], words: str, tmp_path: Path) -> None:
    trio.run(make, Config(data_dir=tmp_path))
    done = sfu("company", "list", env=environment(**{"data_dir": str(tmp_path)} | settings))
    assert done.returncode == 2
    assert f"sfu: {words}" in done.stderr
    assert "secretpassword" not in done.stderr


def test_another_server_key_is_refused(company: Callable[..., Any], tmp_path: Path) -> None:
    company("create", "Acme")
    (tmp_path / "data" / "server.key").unlink()
    server_key(Config(data_dir=tmp_path / "data"))
    done = company("create", "Other")
    assert (done.returncode, done.stdout) == (2, "")
    assert "The server key does not fit this database" in done.stderr
    assert "SFU_SERVER_KEY" in done.stderr
    for name in ("Acme", "default"):
        listed = company("list")
        assert listed.returncode == 0
        assert re.search(rf"^{name} .* active, needs rotate-secret", listed.stdout, re.M)
        assert f"`sfu company rotate-secret {name}`" in company("create", "Other").stderr
        assert company("rotate-secret", name).returncode == 0
    assert "needs" not in company("list").stdout
    assert company("create", "Other").returncode == 0


@pytest.mark.parametrize("command", ["list", "create", *variants("rotate-key", "rotate-secret", "disable", "enable")])
def test_a_command_makes_no_database(command: str, tmp_path: Path) -> None:
    file = tmp_path / "none" / "sfu.db"
    for settings in ({"data_dir": str(file.parent)}, {"database_url": f"sqlite:///{file}"}):
        names = () if command == "list" else ("default",)
        done = sfu("company", command, *names, env=environment(**settings))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines()[-1].startswith(f"sfu: There is no database at {file}. `sfu serve` makes it")
    assert list(tmp_path.iterdir()) == []


def test_a_command_names_the_place_that_a_relative_url_means() -> None:
    done = sfu("company", "list", env=environment(database_url="sqlite:///none/sfu.db"))
    assert done.returncode == 2
    assert f"There is no database at {ROOT / 'none' / 'sfu.db'}. " in done.stderr
    assert "with an absolute path" in done.stderr
    assert not (ROOT / "none").exists()


def test_a_command_makes_no_server_key(company: Callable[..., Any], tmp_path: Path) -> None:
    key = tmp_path / "data" / "server.key"
    key.unlink()
    done = company("create", "Acme")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"sfu: There is no server key at {key}. " in done.stderr
    assert not key.exists()


def test_a_command_makes_no_tables(tmp_path: Path) -> None:
    (tmp_path / "sfu.db").touch()
    done = sfu("company", "create", "Acme", env=environment(data_dir=str(tmp_path), server_key="00" * 32))
    assert (done.returncode, done.stdout) == (2, "")
    assert "sfu: The database is empty. `sfu serve` makes its tables at the first start." in done.stderr


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////var/lib/x.db", "/var/lib/x.db"),
        ("sqlite:///x.db?timeout=1", str(Path("x.db").absolute())),
        ("postgresql://sfu:secret@db.example:5433/rooms?ssl=require", "postgresql://sfu@db.example:5433/rooms"),
        ("postgres://sfu:se%40cr%2Fet@[::1]/rooms?password=secret", "postgres://sfu@::1/rooms"),
        ("postgresql:///rooms?host=/run/postgresql", "postgresql:///run/postgresql/rooms"),
        ("postgresql://sfu:1/secret@db/rooms", "of SFU_DATABASE_URL"),
        ("postgresql://sfu:sec@ret@db/rooms", "postgresql://sfu@db/rooms"),
    ],
)
def test_a_database_is_described_without_password(url: str, shown: str) -> None:
    assert described(Config(database_url=url)) == shown


@pytest.mark.parametrize(
    "url", ["postgresql://sfu:se/cret@db/x", "postgresql://sfu:1?secret@db/x", "sqlite://", "mysql://h/x", "http://["]
)
def test_what_is_no_url_of_a_database_is_not_described(url: str) -> None:
    with pytest.raises(ConfigError, match="SFU_DATABASE_URL") as refused:
        described(Config(database_url=url))
    assert "cret" not in str(refused.value)


# --- the server ------------------------------------------------------------------------------------------------------


def rest(server: Server, key: str, method: str, path: str) -> Reply:
    headers = {"Host": "localhost", "Connection": "close", "Authorization": f"Bearer {key}"}
    return trio.run(request, server.port, method, "/api/v1" + path, headers)


def test_the_first_start_tells_how_to_get_a_key(server: Server) -> None:
    assert "sfu company rotate-key default" in server.output
    key = sfu("company", "rotate-key", "default", env=server.env).stdout.strip()
    assert rest(server, key, "GET", "/rooms").json == {"items": [], "next": None}
    server.stop()
    before = server.output
    server.start()
    assert "sfu company rotate-key" not in server.output.removeprefix(before)


def test_a_lost_server_key_is_said_and_not_replaced(server: Server) -> None:
    server.stop()
    key = Path(server.env["SFU_DATA_DIR"]) / "server.key"
    key.unlink()
    refused = sfu("serve", env=server.env)
    assert refused.returncode == 2
    assert f"sfu: There is no server key at {key}, " in refused.stderr
    assert not key.exists()
    (command,) = re.findall(r"`(\(.*?\))`", refused.stderr)
    subprocess.run(["sh", "-c", command], check=True)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    refused = sfu("serve", env=server.env)
    assert refused.returncode == 2
    (command,) = re.findall(r"`sfu (company rotate-secret .*?)`", refused.stderr)
    assert sfu(*command.split(), env=server.env).returncode == 0
    server.start()


def test_after_a_crash_sessions_end_when_they_were_last_seen(server: Server) -> None:
    key = sfu("company", "rotate-key", "default", env=server.env).stdout.strip()

    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(UPGRADE)
        assert client.recv(12) == b"HTTP/1.1 101"
        room = rest(server, key, "GET", "/rooms/team").json
        assert [one["user_name"] for one in room["participants"]] == ["alice"]
        server.kill()
    server.start()
    (session,) = rest(server, key, "GET", "/rooms/team/sessions").json["items"]
    assert session["leave_reason"] == "server_lost"
    assert session["disconnected_at"] == session["last_seen_at"]
    assert rest(server, key, "GET", "/rooms/team").json["participants"] == []


def test_a_second_start_by_mistake_leaves_the_first_alone(server: Server) -> None:
    key = sfu("company", "rotate-key", "default", env=server.env).stdout.strip()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(UPGRADE)
        assert client.recv(12) == b"HTTP/1.1 101"
        second = sfu("serve", env=server.env)
        assert second.returncode == 2
        assert "in use" in second.stderr
        assert rest(server, key, "GET", "/rooms/team").json["participant_count"] == 1


def test_the_database_is_where_it_is_said_to_be_and_metrics_tell_of_it(server: Server) -> None:
    async def metrics() -> str:
        headers = {"Host": "localhost", "Connection": "close", "Accept": "text/plain"}
        return (await request(server.port, "GET", "/metrics", headers)).body.decode()

    assert "\nsfu_database_up 1\n" in eventually(lambda: trio.run(metrics), "metrics")
    assert server.get("/health")["database"] == "ok"
    assert {"sfu.db", "server.key"} <= set(os.listdir(server.data.name))


def test_a_company_has_one_name_in_any_spelling(company: Callable[..., Any]) -> None:
    assert company("create", "  Cafe\u0301   Zoë/.. ").returncode == 0
    assert "exists" in company("create", "Café Zoë/..").stderr
    assert KEY.fullmatch(company("rotate-key", "Café  Zoë/..").stdout)
    assert company("create", "\u200b").returncode != 0
