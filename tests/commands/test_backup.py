"""`sfu backup` and `sfu restore` as an operator runs them: beside a server, on another machine, and when they fail."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.filled import FILE, FILE_ID, contents, fill, share
from support.older import take_back
from support.process import ROOT, Server, environment, sfu
from support.rest_client import request
from support.variants import variants
from support.waiting import eventually

from sfu.settings.config import Config
from sfu.store import copies
from sfu.store.data import database_url, open_data, server_key
from sfu.store.shape import shape

if TYPE_CHECKING:
    from support.postgres import Postgres

pytest_plugins = ["support.storing"]

PASSPHRASE = "correct horse"
ENV = {"backup_passphrase": PASSPHRASE}


async def make(config: Config) -> None:
    async with open_data(config) as store:
        await fill(store)
    share(config.data_dir / "files")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of a server that has rows in every table and a shared file, and with its backup."""
    folder = tmp_path_factory.mktemp("original")
    made, file = Config(data_dir=folder / "data"), folder / "b.tar"
    trio.run(make, made)
    done = sfu("backup", str(file), env=env(made))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{file}: 2 companies, 8 audit entries, 1 tier, 2 rooms, 1 token, ")
    assert "1 shared files (0.0 MB)" in done.stdout
    return folder


@pytest.fixture
def config(original: Path, tmp_path: Path) -> Config:
    """The settings of a server with a copy of these data."""
    shutil.copytree(original / "data", tmp_path / "data")
    return Config(data_dir=tmp_path / "data")


def env(config: Config, **more: str) -> dict[str, str]:
    url = {"database_url": config.database_url} if config.database_url else {}
    return environment(data_dir=str(config.data_dir), **ENV | url | more)


def all_of(config: Config) -> tuple[dict[str, list[list[Any]]], list[str], bytes]:
    """Without what a restore adds."""
    files, rows = sorted(os.listdir(config.data_dir / "files")), trio.run(contents, database_url(config))
    rows["audit_entries"] = [row for row in rows["audit_entries"] if "backup.restored" not in row]
    return rows, files, server_key(config).raw.reveal()


@pytest.fixture
def backup(original: Path, config: Config, tmp_path: Path) -> Path:
    """A copy of their backup: each costs the passphrase's work."""
    return Path(shutil.copy2(original / "b.tar", tmp_path / "b.tar"))


def test_a_backup_has_everything_and_only_its_owner_reads_it(original: Path) -> None:
    backup = original / "b.tar"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert set(os.listdir(backup.parent)) == {"data", "b.tar"}
    with tarfile.open(backup) as tar:
        names = tar.getnames()
        file = tar.extractfile(f"files/{FILE_ID}")
        assert file is not None
        assert file.read() == FILE
    tables = {name.split("-")[1].split(".")[0] for name in names if name.startswith("tables/")}
    assert tables == {table.name for table in shape(copies.known_steps())}


def test_a_file_that_exists_is_overwritten_with_force_only(backup: Path, config: Config) -> None:
    before = backup.read_bytes()
    refused = sfu("backup", str(backup), env=env(config))
    assert refused.returncode == 2
    assert f"sfu: The file {backup} exists. Name another one, or overwrite it with --force." in refused.stderr
    assert backup.read_bytes() == before
    done = sfu("backup", "--force", "--quiet", str(backup), env=env(config))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert backup.read_bytes() != before


@pytest.mark.parametrize(
    ("options", "settings", "words"),
    [
        (["b.tar"], {"backup_passphrase": ""}, "there is no terminal to ask for one: use --passphrase-file, or set"),
        (["/proc/b.tar"], {}, "The backup /proc/b.tar cannot be written: "),
        *variants(
            (["b.tar"], {"backup_passphrase": "short"}, "The passphrase is too short: use at least 8 characters."),
            (["b.tar", "--passphrase-file", "none"], {}, "The passphrase file none cannot be read"),
            (["/tmp"], {}, "/tmp is a folder. Name a file in it."),
        ),
    ],
)
def test_what_cannot_be_backed_up_is_said(
    options: list[str], settings: dict[str, str], words: str, config: Config
) -> None:
    done = sfu("backup", *options, env=env(config, **settings))
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (ROOT / "b.tar").exists()


def test_a_disk_that_is_too_small_leaves_no_half_backup(config: Config, tmp_path: Path) -> None:
    (config.data_dir / "files" / FILE_ID).write_bytes(bytes(300_000))
    command = f"ulimit -f 200; exec {sys.executable} -m sfu backup {tmp_path}/b.tar"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=env(config), capture_output=True, text=True)
    assert done.returncode == 2
    assert f"sfu: The backup {tmp_path}/b.tar cannot be written: File too large." in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["data"]


# --- restore ---------------------------------------------------------------------------------------------------------


def test_a_backup_is_restored_into_an_empty_machine(backup: Path, config: Config, tmp_path: Path) -> None:
    there, user = replace(config, data_dir=tmp_path / "new" / "sfu"), os.geteuid() or 65534
    there.data_dir.mkdir(parents=True)
    os.chown(there.data_dir, user, -1)  # root restores for the server's user
    done = sfu("restore", str(backup), env=env(there))
    assert done.returncode == 0, done.stderr
    assert all_of(there) == all_of(config)
    said = json.loads(sfu("audit", "--json", "--action", "backup", env=env(there)).stdout)
    assert [(one["action"], one["by_kind"], one["company_id"]) for one in said] == [
        ("backup.restored", "command", None)
    ]
    assert (there.data_dir / "files" / FILE_ID).read_bytes() == FILE
    assert sorted(os.listdir(there.data_dir)) == ["files", "server.key", "sfu.db", "sfu.db-server"]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in there.data_dir.iterdir()}
    assert modes == {"files": 0o700, "server.key": 0o600, "sfu.db": 0o600, "sfu.db-server": 0o600}
    assert {path.stat().st_uid for path in there.data_dir.rglob("*")} == {user}
    assert "former data" not in done.stdout


def test_a_restore_says_what_it_replaces_and_keeps_it(backup: Path, tmp_path: Path) -> None:
    there = Config(data_dir=tmp_path / "other")
    trio.run(make, there)
    (there.data_dir / "files" / "0f4a8f1e-0000-4000-8000-000000000001").write_bytes(b"another")
    before = all_of(there)
    refused = sfu("restore", str(backup), env=env(there))
    assert refused.returncode == 2
    assert "There is no terminal to ask whether to do this. If it is right, add --yes." in refused.stderr
    assert (
        f"  the database {there.data_dir / 'sfu.db'}: 2 companies, 8 audit entries, 1 tier, 2 rooms, 1 token, "
        in refused.stderr
    )
    assert f"  2 shared files in {there.data_dir / 'files'}\n" in refused.stderr
    assert f"  the server key {there.data_dir / 'server.key'}\n" in refused.stderr
    assert all_of(there) == before
    assert set(os.listdir(there.data_dir)) == {"files", "server.key", "sfu.db", "sfu.db-server"}
    done = sfu("restore", "--yes", str(backup), env=env(there))
    assert done.returncode == 0, done.stderr
    assert all_of(there) == all_of(Config(data_dir=tmp_path / "data")) != before
    kept = [Path(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("  rm ")]
    assert [path.name.split(".before-restore-")[0] for path in kept] == ["sfu.db", "files", "server.key"]
    database, files, key = kept
    old = Config(data_dir=tmp_path / "none", database_url=f"sqlite:///{database}", server_key_file=key)
    assert (trio.run(contents, database_url(old)), sorted(os.listdir(files)), server_key(old).raw.reveal()) == before


@pytest.mark.soak
def test_a_restore_asks_on_a_terminal(backup: Path, config: Config) -> None:
    before = all_of(config)
    for answer, status in (b"n\n", 2), (b"y\n", 0):
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "sfu", "restore", str(backup)]
        process = subprocess.Popen(command, env=env(config), cwd=ROOT, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        said = b""
        while b"Continue? [y/N]" not in said:
            said += os.read(master, 4096)
        os.write(master, answer)
        assert process.wait(60) == status
        os.close(master)
        assert b"Checking the backup: 100 %" in said
    assert all_of(config) == before


def running_postgres(request: pytest.FixtureRequest) -> str:
    server: Postgres = request.getfixturevalue("postgres")
    return server.emptied()


def test_a_backup_goes_from_one_engine_to_the_other(
    backup: Path, config: Config, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = running_postgres(request)
    there = replace(config, data_dir=tmp_path / "pg", database_url=url)
    assert sfu("restore", str(backup), env=env(there)).returncode == 0
    assert all_of(there) == all_of(config)
    again = sfu("restore", "--yes", str(backup), env=env(there))
    assert again.returncode == 0, again.stderr
    (schema,) = [line.split('"')[1] for line in again.stdout.splitlines() if "DROP SCHEMA" in line]
    server: Postgres = request.getfixturevalue("postgres")
    server.execute(f'SELECT id FROM "{schema}".sessions')
    second = tmp_path / "pg.tar"
    assert sfu("backup", str(second), env=env(there)).returncode == 0
    back = replace(config, data_dir=tmp_path / "back")
    assert sfu("restore", str(second), env=env(back)).returncode == 0
    assert all_of(back) == all_of(config)
    server.execute(f'DROP SCHEMA "{schema}" CASCADE')


def test_an_older_backup_is_upgraded_and_a_newer_one_refused(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def older() -> None:
        async with open_data(config) as store:
            await take_back(store.database, 11)

    trio.run(older)
    old, there = tmp_path / "old.tar", replace(config, data_dir=tmp_path / "new")
    assert sfu("backup", str(old), env=env(config)).returncode == 0
    assert sfu("restore", str(old), env=env(there)).returncode == 0

    async def drops() -> list[Any]:
        async with open_data(there, create=False) as store:
            return [row["drops"] for row in await store.database.read("SELECT drops FROM sessions")]

    assert trio.run(drops) == [0, 0]
    known = copies.known_steps()
    with monkeypatch.context() as patch:
        patch.setattr(copies, "known_steps", lambda: known[:11])
        from sfu.commands import restore
        from sfu.store.archive import Archive

        newer = tmp_path / "newer.tar"
        assert sfu("backup", str(newer), env=env(there)).returncode == 0
        with newer.open("rb") as file, pytest.raises(Exception, match="schema step 12 'lost connections', which this"):
            restore._steps(Archive(file, "newer.tar"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"server_key_file": "{file}/server.key"}, "The backup cannot be restored: "),
        *variants(
            ({"backup_passphrase": "wrong horse"}, "This is not the passphrase of the backup"),
            ({"server_key": "00" * 32}, "SFU_SERVER_KEY has another key than the backup. Remove the setting"),
            ({"data_dir": "{file}/data"}, "cannot be opened"),
        ),
    ],
)
def test_a_restore_that_fails_changes_nothing(
    settings: dict[str, str], words: str, backup: Path, config: Config, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    before = all_of(config)
    named = {name: value.format(file=tmp_path / "file") for name, value in settings.items()}
    done = sfu(
        "restore",
        "--yes",
        str(backup),
        env=env(config) | environment(**ENV | {"data_dir": str(config.data_dir)} | named),
    )
    assert (done.returncode, done.stdout) == (3 if words == "cannot be opened" else 2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert all_of(config) == before
    assert set(os.listdir(config.data_dir)) <= {"files", "server.key", "sfu.db", "sfu.db-server"}


def test_a_damaged_backup_is_refused_before_anything(backup: Path, tmp_path: Path) -> None:
    data = backup.read_bytes()
    (tmp_path / "cut.tar").write_bytes(data[: len(data) // 2])
    there = Config(data_dir=tmp_path / "new")
    for file in (tmp_path / "cut.tar", Path(__file__), tmp_path / "none.tar", tmp_path):
        done = sfu("restore", "--yes", str(file), env=env(there))
        assert (done.returncode, done.stdout) == (2, "")
        assert str(file) in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    assert not there.data_dir.exists()


# --- beside a server -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", *variants("postgresql")])
def url(request: pytest.FixtureRequest) -> str:
    """Empty for SQLite in the data folder."""
    return "" if request.param == "sqlite" else running_postgres(request)


@pytest.fixture
def server(config: Config, url: str, start_server: Callable[..., Server]) -> Server:
    return start_server(**ENV | ({"database_url": url} if url else {}))


def test_a_server_is_backed_up_while_it_runs_and_restored_while_it_does_not(server: Server, tmp_path: Path) -> None:
    key, file = server.company("Acme"), tmp_path / "b.tar"
    assert sfu("backup", str(file), env=server.env).returncode == 0
    server.company("Made after the backup")
    refused = sfu("restore", "--yes", str(file), env=server.env)
    assert refused.returncode == 2
    assert "sfu: A server or another command uses this database and would not notice" in refused.stderr
    assert server.stop() == 0
    done = sfu("restore", "--yes", str(file), env=server.env)
    assert done.returncode == 0, done.stderr
    server.start()
    names = [line.split()[0] for line in sfu("company", "list", env=server.env).stdout.splitlines()]
    assert names == ["NAME", "Acme", "default"]
    headers = {"Host": "localhost", "Connection": "close", "Authorization": f"Bearer {key}"}
    assert trio.run(request, server.port, "GET", "/api/v1/rooms", headers).status == 200


@pytest.mark.soak
def test_a_file_is_downloaded_after_a_restore(
    backup: Path, config: Config, tmp_path: Path, start_server: Callable[..., Server]
) -> None:
    there = replace(config, data_dir=tmp_path / "new")
    assert sfu("restore", str(backup), env=env(there)).returncode == 0
    server = start_server(data_dir=str(there.data_dir))
    headers = {"Host": "localhost", "Connection": "close"}
    answer = trio.run(request, server.port, "GET", f"/files/{FILE_ID}", headers)
    assert (answer.status, answer.body) == (200, FILE)


def test_ctrl_c_leaves_nothing(config: Config, tmp_path: Path) -> None:
    """Interrupted where it waits for the answer of a person."""
    there = Config(data_dir=tmp_path / "other")
    trio.run(make, there)
    file, before = tmp_path / "b.tar", all_of(there)
    assert sfu("backup", str(file), env=env(config)).returncode == 0
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "sfu", "restore", str(file)]
    process = subprocess.Popen(command, env=env(there), cwd=ROOT, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    while b"Continue? [y/N]" not in said:
        said += os.read(master, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 2
    eventually(lambda: b"Interrupted: nothing was changed." in os.read(master, 4096), "it says so")
    os.close(master)
    assert all_of(there) == before
