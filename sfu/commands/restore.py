"""`sfu restore`: puts a backup in the place of the database, the shared files and the server key."""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING

import trio

from sfu.commands import terminal
from sfu.errors import ConfigError
from sfu.operator.audit import commander
from sfu.settings.config import Config

if TYPE_CHECKING:
    from sfu.store.archive import Archive, Counts
    from sfu.store.copies import Contents, Page
    from sfu.store.database import Database
    from sfu.store.migrations import Step
    from sfu.store.statements import Statements
    from sfu.tenancy.keys import ServerKey

NAME, HELP = "restore", "put a backup in the place of the database, shared files and the server key"
DESCRIPTION = (
    "Puts a backup of `sfu backup` in the place of the database, the shared files and the server key. Stop the server "
    "first. What was there is kept beside, and the backup is checked before anything is changed."
)
PIECE_BYTES = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the file and the options of `sfu restore`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the backup")
    terminal.add_yes(parser)
    terminal.add_passphrase(parser)


async def run(config: Config, options: argparse.Namespace) -> None:
    """Restores the backup. Raises ConfigError or DatabaseUnavailable; then everything is as it was."""
    from sfu.store.data import described

    print(f"sfu: database {described(config)}", file=sys.stderr)
    try:
        file = options.file.open("rb")
    except OSError as error:
        raise ConfigError(f"The backup {options.file} cannot be read: {error.strerror}.") from None
    with file:
        await _restore(config, options, file)


async def _restore(config: Config, options: argparse.Namespace, file: IO[bytes]) -> None:
    from sfu.store.archive import Archive
    from sfu.store.data import database_url, new_database
    from sfu.store.database import connect
    from sfu.tenancy.keys import ServerKey

    archive = Archive(file, str(options.file))
    steps = _steps(archive)
    key = ServerKey(archive.unseal(terminal.passphrase(config, options, new=False)).reveal())
    async with terminal.interruptible("nothing was changed.") as ending:
        progress = terminal.Progress("Checking the backup", archive.size())
        counts = await trio.to_thread.run_sync(archive.check, progress)
        progress.end()
        places = _Places(config, key)
        with new_database(places.database) as fresh:
            async with connect(database_url(config), alone=True) as database:
                before = await database.snapshot(lambda statements: _contents(statements, database))
                print(_described(archive, counts), file=sys.stderr)
                if replaced := places.replaced(before):
                    print("\n".join(["This replaces", *replaced]), file=sys.stderr)
                    await terminal.confirm("Continue?", options)

                def committed() -> None:
                    fresh.pop_all()
                    ending.said = "but everything was restored."

                restoring = _Restoring(places, archive, counts, steps, key)
                kept = await restoring.run(database, before, committed)
    print(_told(options.file, counts, kept))


def _steps(archive: Archive) -> tuple[Step, ...]:
    """The schema steps of the database that was backed up. Raises ConfigError for a newer release's."""
    from sfu.store import copies
    from sfu.store.shape import shape

    manifest, known = archive.manifest, copies.known_steps()
    for number, title in manifest.schema:
        if not 0 < number <= len(known) or known[number - 1].title != title:
            raise ConfigError(
                f"The backup has schema step {number} '{title}', which this release does not know: sfu {manifest.sfu} "
                "made it. Restore it with that release or a newer one."
            )
    steps = known[: len(manifest.schema)]
    if manifest.columns != {table.name: [column.name for column in table.columns] for table in shape(steps)}:
        raise ConfigError("The backup has other tables than its schema. It cannot be restored.")
    return steps


async def _contents(statements: Statements, database: Database) -> Contents:
    from sfu.store import copies

    return await copies.contents(statements, database.bulk)


class _Places:
    """Where the server keeps its data, and names for what was there."""

    def __init__(self, config: Config, key: ServerKey) -> None:
        from sfu.store.data import FILES, check_owner, data_owner, described, key_file, server_key, sqlite_file

        self.described, self.database = described(config), sqlite_file(config)
        self.files, self.key_file = config.data_dir / FILES, key_file(config)
        if self.database and self.database.exists():
            check_owner(config)
        self.owner = data_owner(config)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self.suffix, self.schema = f".before-restore-{stamp}", f"sfu_before_restore_{stamp}"
        self.new_key = False
        if config.server_key:
            if server_key(config) != key:
                raise ConfigError(
                    "SFU_SERVER_KEY has another key than the backup. Remove the setting: the key of the backup is then "
                    f"written to {self.key_file}, where the server looks for it."
                )
        elif not self.key_file.exists() or server_key(config) != key:
            self.new_key = True

    def replaced(self, before: Contents) -> list[str]:
        """What a restore replaces, a line each."""
        lines = []
        if before.steps:
            lines.append(f"  the database {self.described}: {terminal.counted(before.rows)}")
        if self.files.is_dir() and (count := len(os.listdir(self.files))):
            lines.append(f"  {count:,} shared files in {self.files}")
        if self.new_key and self.key_file.exists():
            lines.append(f"  the server key {self.key_file}")
        return lines

    def aside(self, path: Path) -> Path:
        return path.with_name(path.name + self.suffix)

    def draft(self, path: Path) -> Path:
        return path.with_name(f".{path.name}.restoring")


class _Restoring:
    """One restore. Until its last step everything is beside what is there; if it fails, everything is as before."""

    def __init__(
        self, places: _Places, archive: Archive, counts: Counts, steps: tuple[Step, ...], key: ServerKey
    ) -> None:
        self._places, self._archive, self._counts, self._steps, self._key = places, archive, counts, steps, key
        self._kept: list[str] = []

    async def run(self, database: Database, before: Contents, committed: Callable[[], None]) -> list[str]:
        """Restores, and calls `committed` when that cannot fail any more.

        Returns what is kept of the former data, with the command that deletes it, a line each.
        """
        with ExitStack() as undo:
            try:
                await trio.to_thread.run_sync(self._prepare, before, undo)
            except (OSError, sqlite3.Error) as error:
                raise ConfigError(f"The backup cannot be restored: {error}. Nothing was changed.") from None

            def keep() -> None:
                undo.pop_all()
                committed()

            await database.replace(lambda statements: self._replace(statements, database, before, undo), keep)
        return self._kept

    def _prepare(self, before: Contents, undo: ExitStack) -> None:
        """Writes everything that is not in the database beside its place, and copies a SQLite database."""
        from sfu.store.copies import copy_file

        places = self._places
        if before.steps and places.database:
            aside = places.aside(places.database)
            undo.callback(aside.unlink, missing_ok=True)
            copy_file(places.database, aside)
            self._kept.append(f"rm {aside}")
            self._own(aside)
        self._write_files(places.draft(places.files), undo)
        if places.new_key:
            draft = places.draft(places.key_file)
            draft.unlink(missing_ok=True)
            undo.callback(draft.unlink, missing_ok=True)
            self._key.write(draft)
            self._own(draft)
        os.sync()

    def _write_files(self, folder: Path, undo: ExitStack) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)  # of a restore that was killed
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        self._own(folder.parent, folder)
        progress = terminal.Progress("Files", self._counts.file_bytes)
        for file_id, _, content in self._archive.files():
            path = folder / file_id
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                while piece := content.read(PIECE_BYTES):
                    file.write(piece)
                    progress(len(piece))
            self._own(path)
        if self._counts.files:
            progress.end()

    async def _replace(self, statements: Statements, database: Database, before: Contents, undo: ExitStack) -> None:
        """In the transaction: the tables, and as its last step the files. Then it is committed, or all is undone."""
        from sfu.store import audit, copies
        from sfu.store.audit import Change

        aside = self._places.schema if before.steps and not self._places.database else ""
        if await copies.clear(statements, database.bulk, aside):
            self._kept.append(f"psql {self._places.described} -c 'DROP SCHEMA \"{aside}\" CASCADE'")
        progress = terminal.Progress("Tables", sum(self._counts.rows.values()))
        await copies.fill(statements, database.bulk, self._steps, self._pages(), progress)
        if any(step.title == audit.STEP for step in self._steps):  # not in a backup of an older release
            about = {"made_at": self._archive.manifest.made_at, "sfu": self._archive.manifest.sfu}
            change = Change("backup.restored", None, "backup", after=about)
            await audit.record(statements, datetime.now(UTC), commander(), change)
        progress.end()
        try:
            self._swap(self._places.files, undo)
            if self._places.new_key:
                self._swap(self._places.key_file, undo)
        except OSError as error:
            raise ConfigError(f"The backup cannot be restored: {error}. Nothing was changed.") from None
        if file := self._places.database:
            self._own(file, file.with_name(f"{file.name}-server"))

    async def _pages(self) -> AsyncIterator[Page]:
        for table, rows in self._archive.rows():
            yield table, [tuple(row) for row in rows]

    def _swap(self, path: Path, undo: ExitStack) -> None:
        """Puts the draft in the place of `path`, which is kept aside unless it is an empty folder."""
        aside = self._places.aside(path)
        if path.is_dir() and not os.listdir(path):
            path.rmdir()
        elif path.exists():
            path.rename(aside)
            undo.callback(aside.rename, path)
            self._kept.append(f"rm -r {aside}")
        self._places.draft(path).rename(path)
        undo.callback(_remove, path)

    def _own(self, *paths: Path) -> None:
        """Gives what root made to the server's user."""
        if self._places.owner:
            for path in paths:
                os.chown(path, *self._places.owner)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _described(archive: Archive, counts: Counts) -> str:
    made = datetime.fromisoformat(archive.manifest.made_at).strftime("%Y-%m-%d %H:%M UTC")
    shared = f"{counts.files:,} shared files ({terminal.megabytes(counts.file_bytes)})"
    return (
        f"The backup is whole. sfu {archive.manifest.sfu} made it on {made}: {terminal.counted(counts.rows)}; {shared}."
    )


def _told(file: Path, counts: Counts, kept: list[str]) -> str:
    lines = [f"Restored {file}: {terminal.counted(counts.rows)}; {counts.files:,} shared files."]
    if kept:
        lines += ["The former data are kept. Once the server works, delete them:", *(f"  {line}" for line in kept)]
    return "\n".join([*lines, "Start the server now, for example with `sudo systemctl start sfu`."])
