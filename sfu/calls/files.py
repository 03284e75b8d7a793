"""Shared files on disk: one folder, random names, a bounded total size."""

from __future__ import annotations

import os
import re
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import trio

from sfu.calls.transfers import longest_s
from sfu.refusals import FilesFull, FileTooLarge
from sfu.store.records import canonical_id
from sfu.tenancy.names import spelled

NAME_CHARACTERS = 120
TYPE_CHARACTERS = 100
OCTETS = "application/octet-stream"
YOUNG_S = 600.0
"""A file younger than this may still be uploading, before its row is written."""
BATCH = 500

Read = Callable[[], Awaitable[bytes]]
"""Returns the next piece of a file; empty at the end."""

_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+\Z")


def clean_file_name(text: str) -> str:
    """A file name that is valid on any system: no path, no control characters, at most 120 characters."""
    base = re.split(r"[/\\]", text[:4096])[-1]
    name = re.sub(r'[<>:"|?*]', "_", spelled(base)).strip(". ")
    stem, dot, suffix = name.rpartition(".")
    if stem and len(name) > NAME_CHARACTERS and len(suffix) < 16:
        return stem[: NAME_CHARACTERS - len(suffix) - 1] + dot + suffix
    return name[:NAME_CHARACTERS] or "file"


def clean_type(text: str) -> str:
    """The media type without parameters (RFC 9110 section 8.3.1); OCTETS if it is invalid."""
    found = text.partition(";")[0].strip().lower()
    return found if len(found) <= TYPE_CHARACTERS and _TYPE.match(found) else OCTETS


class Folder:
    """The folder of shared files, with at most `limit_bytes` in total. Only one server may use it."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._used_bytes = 0  # complete files, and what uploads have written so far

    async def open(self) -> None:
        """Creates the folder if it does not exist, deletes incomplete files, and adds up the sizes of the others."""

        def look() -> int:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for half in self._path.glob("*.part"):
                half.unlink(missing_ok=True)
            return sum(entry.stat().st_size for entry in os.scandir(self._path) if entry.is_file())

        self._used_bytes = await trio.to_thread.run_sync(look)

    def path(self, file_id: str) -> Path | None:
        """The path of a file; None if it does not exist. Accepts any text."""
        known = canonical_id(file_id)
        path = self._path / (known or "")
        return path if known and path.is_file() else None

    async def receive(self, read: Read, limit_bytes: int, idle_s: float) -> tuple[str, int]:
        """Writes an incoming file to disk; returns its unguessable id and its size.

        Raises FileTooLarge, FilesFull, OSError, or trio.TooSlowError if nothing arrives for `idle_s` or the whole is
        too slow. Then nothing of the file remains.
        """
        file_id, size = str(uuid.UUID(bytes=secrets.token_bytes(16), version=4)), 0
        began_s = trio.current_time()
        half = self._path / f"{file_id}.part"
        try:
            async with await trio.open_file(half, "xb", opener=_private) as file:
                while True:
                    with trio.fail_at(min(trio.current_time() + idle_s, began_s + longest_s(size))):
                        piece = await read()
                    if not piece:
                        break
                    self._claim(len(piece), limit_bytes - size)
                    size += len(piece)
                    await file.write(piece)
            half.replace(self._path / file_id)
        except BaseException:
            self._used_bytes -= size
            half.unlink(missing_ok=True)
            raise
        return file_id, size

    def _claim(self, n_bytes: int, left_bytes: int) -> None:
        if n_bytes > left_bytes:
            raise FileTooLarge
        if self._used_bytes + n_bytes > self._limit_bytes:
            raise FilesFull("The server has no space for more files.")
        self._used_bytes += n_bytes

    async def remove(self, file_id: str) -> None:
        path = self.path(file_id)
        if path is not None:
            self._used_bytes -= await trio.to_thread.run_sync(_delete, path)

    async def sweep(self, known: Callable[[Sequence[str]], Awaitable[set[str]]]) -> int:
        """Deletes the files that `known` does not return; returns how many. `known` gets up to BATCH sorted ids.

        Also notices what other programs deleted, as `sfu forget` does.
        """
        old, before_bytes = time.time() - YOUNG_S, self._used_bytes
        names, there_bytes = await trio.to_thread.run_sync(_look, self._path, old)
        self._used_bytes += there_bytes - before_bytes
        count = 0
        for start in range(0, len(names), BATCH):
            batch = [name for name in names[start : start + BATCH] if canonical_id(name) == name]
            if not batch:
                continue
            for name in sorted(set(batch) - await known(batch)):
                await self.remove(name)
                count += 1
        return count


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _look(folder: Path, before: float) -> tuple[list[str], int]:
    """The names of files older than that, and the size of all files together."""
    names, size = [], 0
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):
            stat = entry.stat()
            size += stat.st_size
            if stat.st_mtime < before:
                names.append(entry.name)
    return sorted(names), size


def _delete(path: Path) -> int:
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size
