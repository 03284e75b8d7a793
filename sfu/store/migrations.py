"""Numbered schema migrations, applied in order. Independent of the database engine."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sfu.errors import ConfigError

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
