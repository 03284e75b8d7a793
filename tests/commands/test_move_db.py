"""`sfu move-db` as an operator runs it, and the server on the new database."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from support.filled import contents, fill
from support.process import Server, environment, sfu

from sfu.settings.config import Config
from sfu.store.data import database_url, open_data

if TYPE_CHECKING:
    from support.postgres import Postgres

pytest_plugins = ["support.storing"]


async def make(config: Config) -> None:
    async with open_data(config) as store:
        await fill(store)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config(data_dir=tmp_path / "data")
    trio.run(make, made)
    return made


def env(config: Config) -> dict[str, str]:
    url = {"database_url": config.database_url} if config.database_url else {}
    return environment(data_dir=str(config.data_dir), **url)


def test_a_server_goes_to_postgresql_and_back(
    config: Config, tmp_path: Path, postgres: Postgres, start_server: Callable[..., Server]
) -> None:
    url, before = postgres.emptied(), trio.run(contents, database_url(config))
    done = sfu("move-db", url, env=env(config))
    assert done.returncode == 0, done.stderr
    assert "counted there: 2 companies, 8 audit entries, 1 tier, 2 rooms, 1 token, " in done.stdout
    assert f"  SFU_DATABASE_URL={url}\n" in done.stdout
    assert trio.run(contents, url) == before == trio.run(contents, database_url(config)), "the former one is as it was"
    again = sfu("move-db", url, env=env(config))
    assert again.returncode == 2
    assert "is not empty: 2 companies, " in again.stderr
    server = start_server(data_dir=str(config.data_dir), database_url=url)
    back = f"sqlite:///{tmp_path}/elsewhere/sfu.db"
    refused = sfu("move-db", back, env=server.env)
    assert refused.returncode == 2
    assert "sfu: A server or another command uses this database" in refused.stderr
    assert not (tmp_path / "elsewhere" / "sfu.db").exists()
    assert server.stop() == 0
    done = sfu("move-db", back, env=server.env)
    assert done.returncode == 0, done.stderr
    assert f"  SFU_SERVER_KEY_FILE={config.data_dir / 'server.key'}\n" in done.stdout
    settings = dict(re.findall(r"^  SFU_(\w+)=(.*)$", done.stdout, re.M))
    server.env |= {f"SFU_{name}": value for name, value in settings.items()}
    server.start()
    listed = sfu("company", "list", env=server.env)
    assert [line.split("  ")[0] for line in listed.stdout.splitlines()] == ["NAME", "Acme & Söhne", "default"]
    assert "needs" not in listed.stdout, "the key fits"


@pytest.mark.parametrize(
    ("url", "words", "status"),
    [
        ("sqlite:///{data}/sfu.db", "is the database that the server uses already.", 2),
        ("mysql://x:secretpassword@y/z", "The URL must be sqlite:", 2),
        ("postgresql://x:secretpassword@127.0.0.1:1/z", "cannot be opened", 3),
    ],
)
def test_what_is_no_place_to_move_to_is_refused(url: str, words: str, status: int, config: Config) -> None:
    done = sfu("move-db", url.format(data=config.data_dir), env=env(config))
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert "SFU_DATABASE_URL" not in done.stderr
    assert "secretpassword" not in done.stderr


def test_the_password_is_not_repeated(config: Config) -> None:
    from sfu.commands.move_db import _told
    from sfu.store.copies import Contents

    target = replace(config, database_url="postgresql://sfu:secret@db/rooms?ssl=require")
    said = _told(config, target, Contents((), (), {}))
    assert "  SFU_DATABASE_URL=postgresql://sfu:PASSWORD@db/rooms?ssl=require\n" in said
    assert "secret@" not in said
