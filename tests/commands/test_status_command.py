"""`sfu status`, against a running server."""

from __future__ import annotations

import json
import os
import re
import ssl
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from support.process import Server, environment, sfu
from support.wire import joined

from sfu import __version__
from sfu.commands.output import shown_duration
from sfu.web.tls import self_signed


async def test_it_says_what_runs(start_server: Callable[..., Server], tmp_path: Path) -> None:
    files = {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
    for file, content in zip(files.values(), self_signed(["meet.example.org"]), strict=True):
        file.write_bytes(content)
    told = {"server_name": "alpha", "public_ip": "127.0.0.1,192.0.2.7"}
    server = start_server(workers="2", **told, **{name: str(file) for name, file in files.items()})
    async with joined(server.url, "alice", ssl._create_unverified_context()):
        done = sfu("status", env=server.env)
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines[0] == f"sfu {__version__}, alpha, process {server.pid}: ready"
        text = done.stdout
        assert re.search(r"^  Since +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, (\d+ min )?\d+ s ago$", text, re.M)
        assert re.search(rf"^  Database +ok, {re.escape(server.data.name)}/sfu\.db$", text, re.M)
        assert re.search(r"^  Calls +1 room, 1 participant$", text, re.M)
        assert re.search(rf"^  Media +127\.0\.0\.1, 192\.0\.2\.7; UDP {server.port} and TCP {server.port}$", text, re.M)
        assert re.search(r"^  Certificate +until .* UTC, 39[56] d \d+ h left$", text, re.M)
        assert re.search(r"^WORKER +STATE +LOAD +ROOMS +PARTICIPANTS$", text, re.M)
        here = [line.split()[-2:] for line in lines[-2:]]
        assert sorted(here) == [["0", "0"], ["1", "1"]]
        status = json.loads(sfu("status", "--json", env=server.env).stdout)
        assert (status["version"], status["process"], status["state"]) == (__version__, server.pid, "ready")
        assert sorted(worker["participants"] for worker in status["workers"]) == [0, 1]
    assert server.stop() == 0
    assert "control" not in server.output


def test_only_the_servers_user_may_ask(server: Server) -> None:
    path = Path(server.data.name) / "control.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_uid == os.geteuid()
    server.stop()
    assert not path.exists()


@pytest.mark.parametrize("killed", [False, True])
def test_without_a_server_it_says_where_it_looked(server: Server, killed: bool) -> None:
    (server.kill if killed else server.stop)()
    done = sfu("status", env=server.env)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"sfu: No server runs here: nothing listens at {server.data.name}/control.sock. " in done.stderr
    server.start()
    assert sfu("status", env=server.env).returncode == 0


def test_it_makes_nothing(tmp_path: Path) -> None:
    done = sfu("status", env=environment(data_dir=str(tmp_path / "none")))
    assert done.returncode == 2
    assert "sfu: No server runs here" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_two_servers_in_one_folder_both_run(server: Server, start_server: Callable[..., Server]) -> None:
    other = start_server(data_dir=server.data.name)
    assert "level=WARNING logger=sfu.control control_off" in other.output
    assert "Give each server its own SFU_DATA_DIR" in other.output
    assert f"process {server.pid}: ready" in sfu("status", env=other.env).stdout


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (7260, "2 h 1 min"), (86405, "1 d"), (-5, "0 s")],
)
def test_a_duration_has_its_two_largest_units(seconds: float, shown: str) -> None:
    assert shown_duration(seconds) == shown
