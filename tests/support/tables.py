"""Databases with the tables of the schema and no row in them. To apply all its steps takes longer than most tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from sfu.store import open_store
from sfu.tenancy.keys import ServerKey

T = TypeVar("T")

_folder = tempfile.TemporaryDirectory(prefix="sfu-tables-", ignore_cleanup_errors=True)


def elsewhere(function: Callable[..., T], *args: Any) -> T:
    """The result of a call in another thread: Playwright has an event loop in this one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(function, *args).result()


def make_tables(url: str) -> None:
    """Applies all steps of the schema, as the first start of a server does."""
    elsewhere(trio.run, _open, url)


def sqlite(folder: Path) -> str:
    """The URL of such a database in a folder, unless there is one already."""
    file = folder / "sfu.db"
    if not file.exists():
        shutil.copy(_sqlite_file(), file)
    return f"sqlite:///{file}"


def database(request: pytest.FixtureRequest) -> str:
    """The URL of a database, of the engine that is the parameter, with the tables of the schema and no row in them."""
    if request.param == "sqlite":
        return sqlite(request.getfixturevalue("tmp_path"))
    url: str = request.getfixturevalue("postgres").ready()
    return url


@cache
def _sqlite_file() -> Path:
    file = Path(_folder.name) / "sfu.db"
    make_tables(f"sqlite:///{file}")
    return file


async def _open(url: str) -> None:
    async with open_store(url, ServerKey(bytes(32))):
        pass
