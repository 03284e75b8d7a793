"""`sfu move-db`: copies everything from the database of the server into an empty one, of either engine."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from sfu.commands import terminal
from sfu.errors import ConfigError
from sfu.settings.config import Config

if TYPE_CHECKING:
    from sfu.store.copies import Contents
    from sfu.store.database import Database
    from sfu.store.statements import Statements

NAME, HELP = "move-db", "copy everything into an empty database, SQLite or PostgreSQL"
DESCRIPTION = (
    "Copies everything from the server's database into an empty one, SQLite or PostgreSQL, and says which setting to "
    "change. Stop the server first. The server's database stays as it is."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the URL of the new database."""
    parser.add_argument(
        "url",
        metavar="URL",
        help="the new database: sqlite:////absolute/file.db or postgresql://user:password@host/name",
    )


async def run(config: Config, options: argparse.Namespace) -> None:
    """Copies the database. Raises ConfigError or DatabaseUnavailable; then the new database is as it was."""
    from sfu.store.data import check_made, data_owner, database_url, described, new_database, sqlite_file
    from sfu.store.database import connect

    print(f"sfu: database {described(config)}", file=sys.stderr)
    check_made(config)
    target = _target(config, options.url)
    file, owner = sqlite_file(target), data_owner(target)
    async with terminal.interruptible("nothing was moved.") as ending:
        with new_database(file) as fresh:

            def committed() -> None:
                fresh.pop_all()
                ending.said = f"but everything was copied to {described(target)}."

            async with (
                connect(database_url(config), alone=True) as source,
                connect(target.database_url, alone=True, beside=source, named="The URL names it.") as new,
            ):
                work = partial(_copy, source, new, described(target))
                moved = await source.copy(new, work, committed)
            if file and owner:
                os.chown(file, *owner)
                os.chown(f"{file}-server", *owner)
    print(_told(config, target, moved))


def _target(config: Config, url: str) -> Config:
    """The settings with the new database. Raises ConfigError if it is the same one, or if the URL is none."""
    from sfu.store.data import described, sqlite_file

    target = replace(config, database_url=url)
    try:
        new, old = sqlite_file(target), sqlite_file(config)
    except ConfigError as error:
        raise ConfigError(str(error).replace("SFU_DATABASE_URL", "The URL")) from None
    if new:
        target = replace(config, database_url=f"sqlite:///{new}")
    same = new.resolve() == old.resolve() if new and old else described(target) == described(config)
    if same:
        raise ConfigError(f"{described(target)} is the database that the server uses already.")
    return target


async def _copy(source: Database, new: Database, name: str, old: Statements, empty: Statements) -> Contents:
    """In a transaction of each database."""
    from sfu.store import copies

    there = await copies.contents(empty, new.bulk)
    if any(there.rows.values()):
        raise ConfigError(
            f"The database {name} is not empty: {terminal.counted(there.rows)}. Name an empty one: nothing there is "
            "overwritten or mixed."
        )
    found = await copies.contents(old, source.bulk)
    if not found.steps:
        raise ConfigError("The database of the server is empty. There is nothing to move.")
    await copies.clear(empty, new.bulk)
    progress = terminal.Progress("Tables", sum(found.rows.values()))
    rows = copies.read(old, source.bulk, found.tables)
    written = await copies.fill(empty, new.bulk, found.steps, rows, progress)
    progress.end()
    if written != found.rows:
        raise ConfigError(f"The new database has other rows than the old one: {written} instead of {found.rows}.")
    return found


def _told(config: Config, target: Config, moved: Contents) -> str:
    from sfu.store.data import described, key_file
    from sfu.store.urls import parse_url

    lines = [
        f"Moved to {described(target)}, and counted there: {terminal.counted(moved.rows)}.",
        "Change this setting before you start the server, for example in /etc/sfu.env:",
        f"  SFU_DATABASE_URL={_shown(parse_url(target.database_url).obscure_password)}",
    ]
    if not config.server_key and key_file(target) != key_file(config):
        lines.append(f"  SFU_SERVER_KEY_FILE={key_file(config)}")
    lines.append(f"The former database, {described(config)}, is as it was. Delete it once the server works.")
    return "\n".join(lines)


def _shown(url: str) -> str:
    return url.replace("********", "PASSWORD")
