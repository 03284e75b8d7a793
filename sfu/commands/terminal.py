"""What commands show to people and ask them: progress, questions, passphrases, and how Ctrl-C ends them."""

from __future__ import annotations

import argparse
import getpass
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from sfu.errors import ConfigError
from sfu.settings.config import Config
from sfu.tenancy.keys import Secret

LEAST_CHARACTERS = 8
REDRAW_S = 0.2
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Progress:
    """How far long work is: one line on standard error that is rewritten. Nothing is printed if that is no terminal."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._shown_s = 0.0
        self._terminal = sys.stderr.isatty()

    def __call__(self, more: int) -> None:
        """Counts that much more."""
        self._done += more
        if self._terminal and time.monotonic() > self._shown_s + REDRAW_S:
            self._shown_s = time.monotonic()
            self._draw(min(self._done, self._total))

    def end(self) -> None:
        """Everything is done, whatever the total was."""
        if self._terminal:
            self._draw(self._total)
            print(file=sys.stderr)

    def _draw(self, done: int) -> None:
        percent = 100 * done // self._total if self._total else 100
        print(f"\r{self._what}: {percent:3} %", end="", file=sys.stderr, flush=True)


def add_passphrase(parser: argparse.ArgumentParser) -> None:
    """Adds the option that names the file of a passphrase."""
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="read the passphrase from the first line of a file (default: SFU_BACKUP_PASSPHRASE, else ask)",
    )


def passphrase(config: Config, options: argparse.Namespace, *, new: bool) -> Secret[str]:
    """The passphrase from a file, the settings or the terminal. A `new` one is asked twice, and not too short.

    Raises ConfigError.
    """
    if options.passphrase_file:
        text = _first_line(options.passphrase_file)
    elif config.backup_passphrase:
        text = config.backup_passphrase
    elif sys.stdin.isatty():
        text = getpass.getpass("Passphrase of the backup: ")
        if new and getpass.getpass("The same again: ") != text:
            raise ConfigError("The two passphrases differ.")
    else:
        raise ConfigError(
            "A passphrase seals the server key in a backup, and there is no terminal to ask for one: use "
            "--passphrase-file, or set SFU_BACKUP_PASSPHRASE."
        )
    if not text:
        raise ConfigError("The passphrase is empty.")
    if new and len(text) < LEAST_CHARACTERS:
        raise ConfigError(f"The passphrase is too short: use at least {LEAST_CHARACTERS} characters.")
    return Secret(text)


def _first_line(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as lines:
            return lines.readline().rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"The passphrase file {file} cannot be read: {error}.") from None


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Adds the option that answers the question of `confirm`."""
    parser.add_argument("--yes", action="store_true", help="do not ask")


async def confirm(question: str, options: argparse.Namespace) -> None:
    """Asks, unless --yes says so already. Raises ConfigError if the answer is not yes."""
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("There is no terminal to ask whether to do this. If it is right, add --yes.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    if answer.strip().lower() not in ("y", "yes"):
        raise ConfigError("Nothing was changed.")


@dataclass(slots=True)
class Ending:
    """What an interruption leaves, for people. The block of `interruptible` changes it when that changes."""

    said: str


@asynccontextmanager
async def interruptible(said: str) -> AsyncIterator[Ending]:
    """Ctrl-C and signals that end a process cancel the block, so that it can tidy up. Then raises ConfigError."""
    caught, ending = False, Ending(said)
    with trio.open_signal_receiver(*STOPPING) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal caught
                await anext(signals)
                caught = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            yield ending
            nursery.cancel_scope.cancel()
    if caught:
        print(file=sys.stderr)
        raise ConfigError(f"Interrupted: {ending.said}")


def counted(rows: dict[str, int]) -> str:
    """Rows by table, for people: `1 company, 12 rooms`."""
    return ", ".join(f"{count:,} {_noun(table, count)}" for table, count in rows.items() if count) or "nothing"


def _noun(table: str, count: int) -> str:
    plural = table.replace("_", " ")
    if count != 1:
        return plural
    return plural[:-3] + "y" if plural.endswith("ies") else plural.removesuffix("s")


def megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"
