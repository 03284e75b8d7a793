"""All contents of a database: read as of one moment, and put in the place of another database's contents.

The schema of either is that of some step of schema.sql, so what an older release left is copied as well. Every function
runs inside `Database.snapshot`, `replace` or `copy`, on the asyncio side.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sfu.errors import ConfigError
from sfu.store.bulk import Bulk, Row, pages
from sfu.store.migrations import Step, applied_steps, apply, parse, pending, schema_file
from sfu.store.renaming import SCRIPTS
from sfu.store.shape import Table, shape
from sfu.store.statements import Statements

STEPS_TABLE = "schema_steps"
Page = tuple[str, Sequence[Row]]
"""The name of a table, and some of its rows."""
Progress = Callable[[int], None]
"""Is told how many more rows are done."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a database contains: its schema steps, its tables in the order in which they are filled, rows by table."""

    steps: tuple[Step, ...]
    tables: tuple[Table, ...]
    rows: dict[str, int]


def known_steps() -> tuple[Step, ...]:
    """The schema steps of this release."""
    return parse(schema_file().read_text("utf-8"))


def steps_of(applied: Sequence[tuple[int, str]]) -> tuple[Step, ...]:
    """The schema steps with these numbers and titles. Raises ConfigError for one that this release does not know."""
    known = known_steps()
    return known[: len(known) - len(pending(known, applied))]


async def contents(statements: Statements, bulk: Bulk) -> Contents:
    """What the database contains. Raises ConfigError if a newer release made its schema."""
    if STEPS_TABLE not in await bulk.tables(statements.raw):
        return Contents((), (), {})
    steps = steps_of(await applied_steps(statements))
    tables = shape(steps)
    return Contents(steps, tables, {table.name: await bulk.count(statements.raw, table) for table in tables})


async def read(statements: Statements, bulk: Bulk, tables: Sequence[Table]) -> AsyncIterator[Page]:
    """All rows of these tables."""
    for table in tables:
        async for rows in pages(bulk, statements.raw, table):
            yield table.name, rows


async def clear(statements: Statements, bulk: Bulk, aside: str = "") -> str:
    """Removes our tables, and no others. `aside` names a place to move them to; returns what is there, if anything."""
    known, there = known_steps(), await bulk.tables(statements.raw)
    ever = {table.name: None for count in range(len(known), 0, -1) for table in reversed(shape(known[:count]))}
    ours = [name for name in (*ever, STEPS_TABLE) if name in there]
    if not ours:
        return ""
    if aside:
        return await bulk.set_aside(statements.raw, ours, aside)
    await bulk.drop(statements.raw, ours)
    return ""


async def fill(
    statements: Statements, bulk: Bulk, steps: Sequence[Step], rows: AsyncIterator[Page], progress: Progress
) -> dict[str, int]:
    """Makes the tables of these steps in a database without tables of ours, fills them, and applies the later steps.

    Returns the rows by table, as the database counts them before the later steps. Raises ConfigError if it has other
    rows than it was given.
    """
    await apply(statements, steps, {})
    tables = {table.name: table for table in shape(steps)}
    given = dict.fromkeys(tables, 0)
    async for name, page in rows:
        await bulk.insert(statements.raw, tables[name], page)
        given[name] += len(page)
        progress(len(page))
    counted = {name: await bulk.count(statements.raw, table) for name, table in tables.items()}
    if counted != given:
        raise ConfigError(f"The database does not have the rows that were written: {counted} instead of {given}.")
    await apply(statements, known_steps(), SCRIPTS)
    return counted


def copy_file(database: Path, target: Path) -> None:
    """Copies a SQLite database into a new file, for its owner only. Raises OSError or sqlite3.Error."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM INTO ?", [str(target)])  # which accepts an empty file
