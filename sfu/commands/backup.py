"""`sfu backup`: writes database, shared files and the sealed server key into one file, also while the server runs."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import trio

from sfu import __version__
from sfu.commands import terminal
from sfu.errors import ConfigError
from sfu.settings.config import Config

if TYPE_CHECKING:
    from sfu.store.archive import Writer
    from sfu.store.copies import Contents
    from sfu.store.database import Database
    from sfu.tenancy.keys import Secret, ServerKey

NAME, HELP = "backup", "write the database, shared files and the server key into a file"
DESCRIPTION = (
    "Writes the database, the shared files and the server key into one file, also while the server runs. A passphrase "
    "seals the server key. `sfu restore` reads the file."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the file and the options of `sfu backup`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="where to write the backup")
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    parser.add_argument("--quiet", action="store_true", help="print errors only, for cron")
    terminal.add_passphrase(parser)


async def run(config: Config, options: argparse.Namespace) -> None:
    """Writes the backup. Raises ConfigError or DatabaseUnavailable; then there is no new file."""
    from sfu.store.data import FILES, check_made, database_url, described, server_key
    from sfu.store.database import connect

    if not options.quiet:
        print(f"sfu: database {described(config)}", file=sys.stderr)
    check_made(config)
    file = options.file.absolute()
    _check_new(file, force=options.force)
    passphrase = terminal.passphrase(config, options, new=True)
    key = server_key(config)
    async with terminal.interruptible("there is no new backup."), connect(database_url(config)) as database:
        with _draft(file, force=options.force) as out:
            writer, contents, ids = await _tables(database, out, key, passphrase)
            missing = await _files(writer, config.data_dir / FILES, ids)
            await trio.to_thread.run_sync(writer.finish)
    if not options.quiet:
        print(_summary(file, writer, contents, missing))


async def _tables(
    database: Database, out: IO[bytes], key: ServerKey, passphrase: Secret[str]
) -> tuple[Writer, Contents, list[tuple[str, int]]]:
    """Writes the tables as of one moment. Returns also the ids and sizes of shared files."""
    from sfu.store import archive, copies
    from sfu.store.statements import Statements

    async def work(statements: Statements) -> tuple[Writer, Contents, list[tuple[str, int]]]:
        found = await copies.contents(statements, database.bulk)
        if not found.steps:
            raise ConfigError("The database is empty. `sfu serve` makes its tables at the first start.")
        columns = {table.name: [column.name for column in table.columns] for table in found.tables}
        schema = [(step.number, step.title) for step in found.steps]
        made_at = datetime.now(UTC).isoformat(timespec="seconds")
        writer = archive.Writer(out, archive.Manifest(__version__, made_at, schema, columns), key.raw, passphrase)
        progress = terminal.Progress("Tables", sum(found.rows.values()))
        ids = []
        async for table, rows in copies.read(statements, database.bulk, found.tables):
            writer.rows(table, rows)
            progress(len(rows))
            if table == "files":
                at = columns[table].index("id"), columns[table].index("size")
                ids += [(str(row[at[0]]), int(row[at[1]])) for row in rows]
        progress.end()
        return writer, found, ids

    return await database.snapshot(work)


async def _files(writer: Writer, folder: Path, ids: list[tuple[str, int]]) -> int:
    """Adds the shared files that are on this machine. Returns how many are not."""
    progress = terminal.Progress("Files", sum(size for _, size in ids))
    missing = 0
    for file_id, _ in ids:
        try:
            there = await trio.to_thread.run_sync(partial(writer.file, file_id, folder / file_id, progress))
        except OSError as error:
            raise ConfigError(f"The shared file {folder / file_id} cannot be read: {error.strerror}.") from None
        missing += not there
    if ids:
        progress.end()
    return missing


def _summary(file: Path, writer: Writer, contents: Contents, missing: int) -> str:
    counts = writer.counts
    shared = f"{counts.files:,} shared files ({terminal.megabytes(counts.file_bytes)})"
    lines = [f"{file}: {terminal.counted(contents.rows)}; {shared}; {terminal.megabytes(file.stat().st_size)} in all."]
    if missing:
        lines.append(f"{missing:,} shared files are not here: they expired meanwhile, or are another server's.")
    return "\n".join(lines)


def _check_new(file: Path, *, force: bool) -> None:
    if file.is_dir():
        raise ConfigError(f"{file} is a folder. Name a file in it.")
    if file.exists() and not force:
        raise ConfigError(f"The file {file} exists. Name another one, or overwrite it with --force.")


class _Out:
    """A file to write to, whose errors name it."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            raise _unwritable(self._path, error) from None


@contextmanager
def _draft(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """A file beside `path`, for its owner only, that takes the name once it is complete. Nothing remains otherwise."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from None
    file = open(descriptor, "wb")  # noqa: SIM115 -- closing it writes what is left, which may fail again
    try:
        yield cast("IO[bytes]", _Out(file, path))
        _check_new(path, force=force)
        try:
            file.flush()
            os.fsync(descriptor)
            draft.replace(path)
        except OSError as error:
            raise _unwritable(path, error) from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        with suppress(OSError):
            file.close()


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"The backup {path} cannot be written: {error.strerror}.")
