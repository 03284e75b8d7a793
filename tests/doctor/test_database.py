"""The doctor's check of the database: SQLite in its usual states and faults, and PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.doctors import doctor
from support.process import Server

from sfu.settings.config import Config
from sfu.store.data import open_data

if TYPE_CHECKING:
    from support.postgres import Postgres

pytest_plugins = ["support.postgres"]


@pytest.fixture
async def made(tmp_path: Path) -> Path:
    """The data folder of a server that ran once."""
    async with open_data(Config(data_dir=tmp_path)) as store:
        await store.companies.ensure_default()
    return tmp_path


async def test_a_database_that_is_fit(made: Path) -> None:
    status, text, _ = await doctor("database", data_dir=str(made))
    assert (status, text.rpartition(" ")[0].rpartition(" ")[0]) == ("ok", f"{made}/sfu.db, writable, answers in")


async def test_no_database_is_made(tmp_path: Path) -> None:
    found = await doctor("database", data_dir=str(tmp_path))
    assert found[:2] == ("skipped", f"There is no database at {tmp_path}/sfu.db yet.")
    assert os.listdir(tmp_path) == []


async def test_a_database_of_a_newer_release(made: Path) -> None:
    with sqlite3.connect(made / "sfu.db") as newer:
        newer.execute("INSERT INTO schema_steps VALUES (99, 'the future', '2030-01-01')")
    newer.close()
    status, text, fix = await doctor("database", data_dir=str(made))
    assert (status, text.partition(",")[0]) == ("failed", "The database has schema step 99 'the future'")
    assert fix.startswith("Start the release that added it")


async def test_a_file_that_is_no_database(made: Path) -> None:
    (made / "sfu.db").write_bytes(b"something else, and longer than the head of a database" * 20)
    status, text, _ = await doctor("database", data_dir=str(made))
    assert (status, "file is not a database" in text) == ("failed", True)


@pytest.fixture
def sealed(made: Path) -> Iterator[Path]:
    """The same folder, mounted so that nobody can write to it."""
    command = ["mount", "--bind", "-o", "ro", str(made), str(made)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this test needs the right to mount")
    yield made
    subprocess.run(["umount", "-l", str(made)], check=True)


async def test_a_read_only_database(sealed: Path) -> None:
    status, text, fix = await doctor("database", data_dir=str(sealed))
    assert status == "failed"
    assert "Read-only file system" in text
    assert "its rights" in fix


async def test_a_database_whose_key_is_lost(made: Path) -> None:
    (made / "server.key").unlink()
    status, text, _ = await doctor("database", data_dir=str(made))
    assert (status, text) == ("failed", f"There is no server key at {made}/server.key.")


async def test_postgresql_that_answers_and_that_is_away(
    start_server: Callable[..., Server], postgres: Postgres
) -> None:
    server = start_server(database_url=postgres.emptied())
    status, text, _ = await doctor("database", env=server.env)
    assert status in ("ok", "note")
    assert text.startswith("postgresql://sfu@127.0.0.1")
    away = await doctor("database", env=server.env, database_url="postgresql://sfu@127.0.0.1:1/postgres")
    assert away[0] == "failed"
    assert "cannot be used" in away[1]
