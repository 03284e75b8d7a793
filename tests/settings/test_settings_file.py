"""The settings file: systemd's syntax, and which commands read it with what precedence."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from support.process import ROOT, START_S, Server, environment, run, sfu

from sfu.errors import ConfigError
from sfu.settings import settings_file
from sfu.settings.config import Config
from sfu.settings.settings_file import parse, read
from sfu.store.data import open_data

VALUES = [
    ("A=b", "b"),
    ("A = b", "b"),
    ("  A=\tb c \t", "b c"),
    ("A=", ""),
    ("A=b # c", "b # c"),
    ("A=b\r\nB=c\r\n", "b"),
    ("A=1\nA=2", "2"),
    ("A='b\" c\\d'", 'b" c\\d'),
    ("A='b\nc'", "b\nc"),
    ('A="b\' c"', "b' c"),
    ('A="b\nc"', "b\nc"),
    (r'A="b\"\\\`\$\n"', r'b"\`$\n'),
    ('A="b\\\nc"', "bc"),
    ("A='b' \"c\" d", "bcd"),
    ("A=b'c'", "b'c'"),
    ("A=b\\\nc", "bc"),
    (r"A=\b\\c\ ", r"b\c "),
    ("A='b", "b"),
    ('A="b\\', "b"),
    ("A=b \\", "b "),
    ("A=postgresql://u:p=1#2;3@h/n?ssl=require", "postgresql://u:p=1#2;3@h/n?ssl=require"),
    ("A=$HOME", "$HOME"),
]
"""Files and the value of A in them. systemd 252 reads each in this way."""


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_a_value_is_read_as_systemd_reads_it(text: str, value: str) -> None:
    values, ignored = parse(text)
    assert (values["A"], ignored) == (value, [])


@pytest.mark.parametrize("text", ["", "\n\n", "# A=b", "; A=b", "  # A=b\n\t;A=b\n"])
def test_comments_and_empty_lines_are_skipped(text: str) -> None:
    assert parse(text) == ({}, [])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("export A=b", "`export` is not supported"),
        ("export A", "`export` is not supported"),
        ("exports A=b", "it is not NAME=value"),
        ("1A=b", "it is not NAME=value"),
        ("=b=c", "it is not NAME=value"),
        ("=", "it is not NAME=value"),
        ("\ufeffA=b", "it is not NAME=value"),
        ("\u00a0=b", "it is not NAME=value"),
        ("A b", "it is not NAME=value"),
    ],
)
def test_a_line_that_systemd_ignores_is_ignored_with_a_warning(line: str, reason: str) -> None:
    assert parse(f"# first\n{line}\nB=c\n") == ({"B": "c"}, [(2, reason)])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('# first\nSFU_SERVER_NAME="one\nSFU_DATA_DIR="/var/lib/sfu"\n', 2),
        ("SFU_LOG_LEVEL='info\nSFU_DATA_DIR=/var/lib/sfu\nSFU_PORT='99'\n", 1),
        ('A=1\n\nTITLE="one\nSFU_DATA_DIR=/var/lib/sfu', 3),
        ('SFU_SERVER_NAME=on"e\nA="b\\\n\nSFU_PORT=1"', 2),
        ('SFU_SERVER_NAME="one"\nA="b\nc"\nSFU_PORT=1', None),
        ('SFU_SERVER_NAME="on\\\ne"\nSFU_PORT=1', None),
        ('SFU_SERVER_NAME="one', None),
    ],
)
def test_a_quote_that_takes_the_next_setting_with_it_is_an_error(tmp_path: Path, text: str, line: int | None) -> None:
    """systemd does take it, and the setting would be lost in silence."""
    file = tmp_path / "sfu.env"
    file.write_text(text)
    if line is None:
        read(file)
    else:
        with pytest.raises(ConfigError, match=f"{file}, line {line}: the quote is not closed"):
            read(file)


def test_a_setting_of_two_lines_is_refused_without_its_value() -> None:
    """What systemd hands over after it read such a file."""
    with pytest.raises(ConfigError, match=r"SFU_DATABASE_URL has more than one line") as refused:
        Config.from_env({"SFU_DATABASE_URL": "postgresql://u:secret@h/n\nSFU_PORT=1"})
    assert "secret" not in str(refused.value)


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of this machine may enter; pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="sfu-open-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def make(data_dir: Path) -> None:
    async with open_data(Config(data_dir=data_dir)) as store:
        await store.companies.ensure_default()


def settings(folder: Path, **values: object) -> Path:
    file = folder / "sfu.env"
    file.write_text("".join(f'SFU_{name.upper()}="{value}"\n' for name, value in values.items()))
    return file


@pytest.mark.parametrize(
    "place", [("{}", "company", "list"), ("company", "{}", "list"), ("company", "list", "{}")], ids=lambda p: p[0]
)
def test_a_command_uses_the_database_of_the_file_and_names_both(tmp_path: Path, place: tuple[str, ...]) -> None:
    trio.run(make, tmp_path / "data")
    file = settings(tmp_path, data_dir=tmp_path / "data")
    done = sfu(*(word.format(f"--env-file={file}") for word in place))
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"sfu: database {tmp_path / 'data' / 'sfu.db'}, settings from {file}\n"


def test_the_environment_takes_precedence_even_if_empty(tmp_path: Path) -> None:
    for name in ("a", "b"):
        trio.run(make, tmp_path / name)
    file = settings(tmp_path, data_dir=tmp_path / "a", database_url=f"sqlite:///{tmp_path}/a/sfu.db")
    env = environment(data_dir=str(tmp_path / "b"), database_url="")
    done = sfu("company", "list", "--env-file", str(file), env=env)
    assert done.stderr.startswith(f"sfu: database {tmp_path / 'b' / 'sfu.db'}, "), done.stderr


@pytest.mark.parametrize("line", ["SFU_DATADIR={}", "sfu_data_dir={}", "export SFU_DATA_DIR={}", "SFU_DATA_DIR {}"])
def test_a_mistyped_line_of_a_named_file_leads_to_no_other_database(tmp_path: Path, line: str) -> None:
    for name in ("meant", "other"):
        trio.run(make, tmp_path / name)
    file = tmp_path / "sfu.env"
    file.write_text(f"SFU_LOG_LEVEL=warning\n{line.format(tmp_path / 'meant')}\n")
    done = sfu("company", "list", "--env-file", str(file), env=environment(data_dir=str(tmp_path / "other")))
    assert done.returncode == 2, done.stderr
    assert str(file) in done.stderr
    assert "Correct the line" in done.stderr


def test_other_variables_of_the_file_count_as_well(tmp_path: Path) -> None:
    """Those that asyncpg reads, and the folder of a user's data."""
    trio.run(make, tmp_path / "sfu")
    file = tmp_path / "sfu.env"
    file.write_text(f"STATE_DIRECTORY={tmp_path}/sfu:{tmp_path}/other\n")
    env = environment()
    del env["STATE_DIRECTORY"]
    done = sfu("company", "list", "--env-file", str(file), env=env)
    assert done.stderr.startswith(f"sfu: database {tmp_path / 'sfu' / 'sfu.db'}, "), done.stderr


def test_files_that_only_the_server_reads_do_not_matter(tmp_path: Path) -> None:
    trio.run(make, tmp_path)
    file = settings(tmp_path, data_dir=tmp_path, tls_cert="/run/gone.pem", tls_key="/run/gone.pem")
    assert sfu("company", "list", "--env-file", str(file)).returncode == 0
    refused = sfu("serve", "--env-file", str(file))
    assert (refused.returncode, "SFU_TLS_CERT='/run/gone.pem' is not accepted" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"SFU_PORT=\xff", "cannot be used"),
        (b"SFU_PORT=1\0", "cannot be used"),
        (b"SFU_PORT=0", "SFU_PORT='0' is not accepted"),
    ],
)
@pytest.mark.parametrize("command", [("company", "list"), ("serve",)], ids=lambda c: c[0])
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, command: tuple[str, ...], content: bytes | None, words: str
) -> None:
    file = tmp_path / "sfu.env"
    if content is not None:
        file.write_bytes(content)
    done = sfu(*command, "--env-file", str(file))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert words in done.stderr
    assert str(file) in done.stderr or "SFU_PORT" in done.stderr


def test_a_server_reads_only_a_file_that_it_is_given(tmp_path: Path) -> None:
    server = Server("--env-file", str(settings(tmp_path, server_name="of the file", data_dir=tmp_path / "data")))
    del server.env["SFU_DATA_DIR"]
    try:
        server.start()
        assert (tmp_path / "data" / "sfu.db").exists()
    finally:
        server.close()


DEFAULT = """
import sys
from pathlib import Path
from sfu import __main__
from sfu.settings import settings_file
settings_file.DEFAULT = Path(sys.argv[1])
sys.exit(__main__.main(sys.argv[2:]))
"""
"""Runs a command on a machine whose service has another settings file."""


def test_the_services_file_is_the_default_outside_the_service(tmp_path: Path) -> None:
    trio.run(make, tmp_path / "services")
    file = settings(tmp_path, data_dir=tmp_path / "services")
    outside = environment()
    del outside["STATE_DIRECTORY"]
    done = run("-c", DEFAULT, str(file), "company", "list", env=outside)
    assert done.stderr == f"sfu: database {tmp_path / 'services' / 'sfu.db'}, settings from {file}\n"
    inside = outside | {"STATE_DIRECTORY": str(tmp_path / "services")}
    done = run("-c", DEFAULT, str(file), "company", "list", env=inside)
    assert done.stderr == f"sfu: database {tmp_path / 'services' / 'sfu.db'}\n"
    trio.run(make, tmp_path / "own")
    own = outside | {"SFU_DATA_DIR": str(tmp_path / "own")}
    done = run("-c", DEFAULT, str(file), "company", "list", "--env-file", "/dev/null", env=own)
    assert done.stderr == f"sfu: database {tmp_path / 'own' / 'sfu.db'}, settings from /dev/null\n"


def test_a_server_beside_a_service_names_commands_that_leave_the_service_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setattr(settings_file, "DEFAULT", tmp_path / "sfu.env")
    assert settings_file.option(None) == ""
    settings(tmp_path)
    assert settings_file.option(None) == " --env-file /dev/null"
    assert settings_file.option(tmp_path / "my.env") == f" --env-file {tmp_path / 'my.env'}"
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    assert settings_file.option(None) == ""


def test_a_default_file_that_is_not_there_is_not_missed(tmp_path: Path) -> None:
    trio.run(make, tmp_path)
    env = environment(data_dir=str(tmp_path))
    del env["STATE_DIRECTORY"]
    done = run("-c", DEFAULT, str(tmp_path / "none.env"), "company", "list", env=env)
    assert done.stderr == f"sfu: database {tmp_path / 'sfu.db'}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_told_who_may(open_folder: Path) -> None:
    data = open_folder / "data"
    trio.run(make, data)
    file = settings(open_folder, data_dir=data)

    def refusal(*options: str) -> str:
        command = [sys.executable, "-m", "sfu", "company", *options]
        env = environment(data_dir=str(data)) | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd="/", env=env, capture_output=True, text=True, timeout=START_S, user=65534, group=65534
        )
        assert (done.returncode, done.stdout) == (2, "")
        return done.stderr.splitlines()[-1]

    assert f"This user has no access to the database {data / 'sfu.db'}. Run the command as root" in refusal("list")
    data.chmod(0o777)
    (data / "sfu.db").chmod(0o666)
    assert f"The database {data / 'sfu.db'} belongs to another user, root. Run the command as" in refusal("list")
    file.chmod(0o600)
    words = f"The settings file {file} cannot be read by this user. Run the command as root, for example with sudo"
    assert words in refusal("list", "--env-file", str(file))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write what belongs to another user")
def test_what_root_leaves_belongs_to_the_user_of_the_server(tmp_path: Path) -> None:
    trio.run(make, tmp_path)
    for path in (tmp_path, *tmp_path.iterdir()):
        os.chown(path, 65534, 65534)

    def owners() -> set[tuple[str, int]]:
        return {(path.name, path.stat().st_uid) for path in tmp_path.iterdir()}

    async def before_the_end() -> set[tuple[str, int]]:
        async with open_data(Config(data_dir=tmp_path), create=False) as store:
            await store.companies.create("Acme")
            return owners()

    assert trio.run(before_the_end) == {(name, 65534) for name in ("server.key", "sfu.db", "sfu.db-shm", "sfu.db-wal")}


def test_a_service_finds_its_settings_again_in_the_file_that_systemd_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings_file, "DEFAULT", file := tmp_path / "sfu.env")
    env = {"SFU_HOLD_S": "7", "SFU_PORT": "80", "PATH": "/bin"}
    service = env | {"STATE_DIRECTORY": "/var/lib/sfu"}
    assert settings_file.source(None, service) == (None, service), "there is no file"
    file.write_text("SFU_HOLD_S=7\nSFU_PORT=8080\nSFU_LOBBY_S=5\n")
    rest = {name: value for name, value in service.items() if name != "SFU_HOLD_S"}
    assert settings_file.source(None, service) == (file, rest), "the port is from elsewhere, such as the unit"
    assert settings_file.source(None, env) == (None, env), "a server that is started by hand takes nothing from there"
    named = tmp_path / "other.env"
    assert settings_file.source(named, service) == (named, service)
    file.write_text("SFU_HOLD_S='7\nSFU_PORT=8080\n")
    assert settings_file.source(None, service) == (file, service), "it is wrong, as the next reading says"
