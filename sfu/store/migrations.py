"""Numbered schema migrations, applied in order. Independent of the database engine."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from sfu.errors import ConfigError
from sfu.store.statements import Statements, Work

NO_SCRIPTS: Mapping[str, Work[None]] = MappingProxyType({})

CREATE_SCHEMA_STEPS = """
    CREATE TABLE IF NOT EXISTS schema_steps (
        step INTEGER PRIMARY KEY, title TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL
    )
"""
SCHEMA_STEPS = "SELECT step, title FROM schema_steps ORDER BY step"
ADD_SCHEMA_STEP = "INSERT INTO schema_steps (step, title, applied_at) VALUES (:step, :title, :applied_at)"

_STEP = re.compile(r"^-- step ([0-9]+): (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Step:
    """One schema migration. Its `statements` run in order, in the transaction that records the step."""

    number: int
    title: str
    statements: tuple[str, ...]


def schema_file() -> Path:
    """The path of schema.sql: inside the package if installed from a wheel, else beside it."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "schema.sql"
    return inside if inside.exists() else package.parent / "schema.sql"


def parse(text: str) -> tuple[Step, ...]:
    """The steps of a schema. Text before the first step is ignored. Raises ValueError if the schema is malformed."""
    _, *parts = _STEP.split(text)
    steps = tuple(
        Step(int(number), title.strip(), _statements(body))
        for number, title, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    )
    if not steps or [step.number for step in steps] != list(range(1, len(steps) + 1)):
        raise ValueError("the steps of a schema must be numbered 1, 2, 3 and so on")
    return steps


def pending(steps: Sequence[Step], applied: Sequence[tuple[int, str]]) -> Sequence[Step]:
    """The steps that a database still needs. `applied` are its steps so far, (number, title) in order.

    Raises ConfigError if it has a step that this release does not know.
    """
    for number, title in applied:
        if number > len(steps) or steps[number - 1].title != title:
            raise ConfigError(
                f"The database has schema step {number} '{title}', which this release does not know; its last step is "
                f"{len(steps)} '{steps[-1].title}'. Start the release that added it, or restore an older backup."
            )
    return steps[len(applied) :]


async def applied_steps(statements: Statements) -> list[tuple[int, str]]:
    """The schema steps that the database has had, (number, title) in order. It must have the table of steps."""
    return [(row["step"], row["title"]) for row in await statements.all(SCHEMA_STEPS)]


async def apply(
    statements: Statements, steps: Sequence[Step], scripts: Mapping[str, Work[None]], *, create: bool = True
) -> Sequence[Step]:
    """Applies the steps that the database has not had, and returns them; see Database.migrate."""
    await statements.script(CREATE_SCHEMA_STEPS)
    applied = await applied_steps(statements)
    if not applied and not create:
        raise ConfigError("The database is empty. `sfu serve` makes its tables at the first start.")
    missing = pending(steps, applied)
    if missing and not create:
        raise ConfigError(
            f"The database has the schema of an older release: it had step {applied[-1][0]} of {len(steps)}. "
            "Start `sfu serve` of this release once, which upgrades it, or use the release that runs now."
        )
    for step in missing:
        for statement in step.statements:
            await statements.script(statement)
        if step.title in scripts:
            await scripts[step.title](statements)
        await statements.run(ADD_SCHEMA_STEP, step=step.number, title=step.title, applied_at=datetime.now(UTC))
    return missing


def _statements(body: str) -> tuple[str, ...]:
    """Splits SQL into statements. SQLite's own scanner tells which semicolons end a statement."""
    found, current = [], ""
    for line in body.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            found.append(current.strip())
            current = ""
    if any(not line.strip().startswith("--") for line in current.splitlines() if line.strip()):
        raise ValueError(f"a statement of a schema is not terminated: {current.strip()[:60]!r}")
    return tuple(found)
