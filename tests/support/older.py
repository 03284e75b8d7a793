"""Takes a database back to the schema of an older release, with its rows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sfu.store.copies import known_steps
from sfu.store.database import Database
from sfu.store.migrations import Step
from sfu.store.shape import Table, shape
from sfu.store.statements import Statements

INDEX = re.compile(r"CREATE (?:UNIQUE )?INDEX (\w+)")
DROP = re.compile(r"DROP INDEX (\w+)")


async def take_back(database: Database, last: int) -> None:
    """Leaves the tables and columns that the first `last` steps make, but for NOT NULL and the values of what went."""
    steps = known_steps()
    then, now = ({table.name: table for table in shape(some)} for some in (steps[:last], steps))
    later = [name for step in steps[last:] for sql in step.statements for name in INDEX.findall(sql)]

    async def work(statements: Statements) -> None:
        for index in later:
            await statements.script(f"DROP INDEX IF EXISTS {index}")
        for name in reversed(now):
            if name not in then:
                await statements.script(f"DROP TABLE {name}")
        for name, table in then.items():
            for column in columns(now[name]) - columns(table):
                await statements.script(f"ALTER TABLE {name} DROP COLUMN {column[0]}")
            for column in columns(table) - columns(now[name]):
                empty = "DEFAULT ''" if column[1] == "TEXT" else ""
                await statements.script(f"ALTER TABLE {name} ADD COLUMN {' '.join(column)} {empty}")
        for sql in dropped_since(steps, last):
            await statements.script(sql)
        await statements.script(f"DELETE FROM schema_steps WHERE step > {last}")

    await database.transaction(work)


def dropped_since(steps: Sequence[Step], last: int) -> list[str]:
    """What makes the indexes that there were after the first `last` steps, and that a later step drops."""
    made = {name: sql for step in steps[:last] for sql in step.statements for name in INDEX.findall(sql)}
    gone = {name for step in steps[last:] for sql in step.statements for name in DROP.findall(sql)}
    return [sql for name, sql in made.items() if name in gone]


def columns(table: Table) -> set[tuple[str, str]]:
    return {(column.name, column.kind) for column in table.columns}
