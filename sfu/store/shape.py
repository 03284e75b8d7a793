"""The tables that the schema makes at any of its steps. SQLite builds them in memory: schema.sql is the only list."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from sfu.store.migrations import Step


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `kind` is its type as schema.sql spells it, such as `TIMESTAMPTZ`."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table. `key` are the columns of its primary key."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]


def shape(steps: Sequence[Step]) -> tuple[Table, ...]:
    """The tables that these steps make, in an order in which rows can be inserted: no table refers to a later one."""
    with closing(sqlite3.connect(":memory:")) as scratch:
        for step in steps:
            for statement in step.statements:
                scratch.execute(statement)
        names = [row[0] for row in scratch.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        refers = {name: {row[2] for row in scratch.execute(f"PRAGMA foreign_key_list({name})")} for name in names}
        return tuple(_table(scratch, name) for name in _ordered(refers))


def _table(scratch: sqlite3.Connection, name: str) -> Table:
    rows = scratch.execute(f"PRAGMA table_info({name})").fetchall()
    key = sorted((row[5], row[1]) for row in rows if row[5])
    return Table(name, tuple(Column(row[1], row[2]) for row in rows), tuple(column for _, column in key))


def _ordered(refers: dict[str, set[str]]) -> list[str]:
    ordered: list[str] = []
    while left := [name for name in refers if name not in ordered]:
        ready = [name for name in left if refers[name] - {name} <= set(ordered)]
        if not ready:
            raise ValueError(f"tables of a schema refer to each other in a circle: {', '.join(left)}")
        ordered += ready
    return ordered
