"""Statements, transactions, the schema, and what happens when the database does not answer.

Everything public is called from trio and runs on the portal's asyncio loop, where no statement is ever cut short but by
its own deadline.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from sfu.portal import Portal, PortalStopped, open_portal
from sfu.refusals import BadValue, DatabaseUnavailable
from sfu.store import migrations
from sfu.store.engines import OPEN_ERRORS, Connection, Engine, engine_of

T = TypeVar("T")
Row = Mapping[str, Any]

CALL_S = 5.0
"""Longest statement or transaction; what takes longer says so where it is called."""

OPEN_S = 10.0
MIGRATE_S = 600.0
CLOSE_S = 5.0

log = logging.getLogger(__name__)


class Statements:
    """SQL on one connection; on the asyncio side, so only inside `Database.transaction`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def all(self, sql: str, /, **values: Any) -> list[Row]:
        """The rows of a SELECT or a RETURNING."""
        rows = [row._mapping for row in await self._connection.fetch_all(sql, bound(values))]
        names = tuple(rows[0].keys()) if rows else ()
        return [dict(zip(names, row, strict=True)) for row in rows]  # both engines' rows iterate over their values

    async def one(self, sql: str, /, **values: Any) -> Row | None:
        rows = await self.all(sql, **values)
        return rows[0] if rows else None

    async def run(self, sql: str, /, **values: Any) -> None:
        await self._connection.execute(sql, bound(values))

    async def run_many(self, sql: str, values: Sequence[Mapping[str, Any]]) -> None:
        await self._connection.execute_many(sql, [bound(item) for item in values])

    async def script(self, sql: str, /) -> None:
        """One statement of the schema, past the search for `:names`."""
        await self._connection.raw_connection.execute(sql)


class Database:
    """What the store's parts run their SQL with.

    Raises DatabaseUnavailable when the database is away or too slow, and BadValue for text no database takes.
    """

    def __init__(self, portal: Portal, engine: Engine) -> None:
        self._portal = portal
        self._engine = engine
        self.available = True
        """Whether the last call reached the database."""

    async def read(self, sql: str, /, timeout_s: float = CALL_S, **values: Any) -> list[Row]:
        """The rows of one SELECT."""

        async def work() -> list[Row]:
            async with self._engine.connection(write=False) as connection:
                return await Statements(connection).all(sql, **values)

        return await self._finish(work, timeout_s)

    async def read_one(self, sql: str, /, **values: Any) -> Row | None:
        rows = await self.read(sql, **values)
        return rows[0] if rows else None

    async def write(self, sql: str, /, **values: Any) -> list[Row]:
        """One statement that ends in RETURNING: its rows, one for each row it made, changed or deleted."""

        async def work() -> list[Row]:
            async with self._engine.connection(write=True) as connection:
                return await Statements(connection).all(sql, **values)

        return await self._finish(work, CALL_S)

    async def write_one(self, sql: str, /, **values: Any) -> Row | None:
        rows = await self.write(sql, **values)
        return rows[0] if rows else None

    async def run(self, sql: str, /, **values: Any) -> None:
        """One statement that writes and gives nothing back."""

        async def work() -> None:
            async with self._engine.connection(write=True) as connection:
                await Statements(connection).run(sql, **values)

        await self._finish(work, CALL_S)

    async def transaction(self, work: Callable[[Statements], Awaitable[T]], timeout_s: float = CALL_S) -> T:
        """All of `work` or nothing of it. It runs on the asyncio side: it may await its Statements and nothing else."""

        async def whole() -> T:
            async with self._engine.connection(write=True) as connection:
                await connection.execute(self._engine.begin)
                result = await work(Statements(connection))
                await connection.execute("COMMIT")
                return result

        return await self._finish(whole, timeout_s)

    def stamp(self) -> object:
        """As long as it is the same, and not None, nothing has been written, by whichever process. Asks no database."""
        return self._engine.stamp() if self.available else None

    async def migrate(self, schema: str) -> None:
        """Brings the schema up to its last step, whoever else starts meanwhile."""
        steps = migrations.parse(schema)

        async def work(statements: Statements) -> None:
            if self._engine.lock_schema:
                await statements.script(self._engine.lock_schema)
            await statements.script(CREATE_SCHEMA_STEPS)
            applied = [(row["step"], row["title"]) for row in await statements.all(SCHEMA_STEPS)]
            for step in migrations.pending(steps, applied):
                for statement in step.statements:
                    await statements.script(statement)
                await statements.run(ADD_SCHEMA_STEP, step=step.number, title=step.title, applied_at=datetime.now(UTC))
                log.info("schema_step=%d title=%r", step.number, step.title)

        await self.transaction(work, MIGRATE_S)

    async def _finish(self, work: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        try:
            result = await self._portal.finish(work, timeout_s=timeout_s)
        except (TimeoutError, PortalStopped) as error:
            raise self._away(error) from error
        except Exception as error:
            if not self._engine.is_away(error):
                raise
            raise self._away(error) from error
        if not self.available:
            self.available = True
            log.warning("database=back")
        return result

    def _away(self, error: Exception) -> DatabaseUnavailable:
        if self.available:
            self.available = False
            log.warning("database=away reason=%r", f"{type(error).__name__}: {error}")
        return DatabaseUnavailable()


CREATE_SCHEMA_STEPS = """
    CREATE TABLE IF NOT EXISTS schema_steps (
        step INTEGER PRIMARY KEY, title TEXT NOT NULL, applied_at TIMESTAMPTZ NOT NULL
    )
"""
SCHEMA_STEPS = "SELECT step, title FROM schema_steps ORDER BY step"
ADD_SCHEMA_STEP = "INSERT INTO schema_steps (step, title, applied_at) VALUES (:step, :title, :applied_at)"


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """The database at `url`, its schema brought up to date; created if it is a SQLite file that does not exist.

    Raises ConfigError for a URL that cannot be used or a schema that is too new, DatabaseUnavailable when it is away.
    """
    engine = engine_of(url)
    async with open_portal() as portal:
        database = Database(portal, engine)
        try:
            await portal.finish(engine.open, timeout_s=OPEN_S)
        except OPEN_ERRORS as error:
            raise DatabaseUnavailable(f"The database cannot be opened: {type(error).__name__}: {error}") from error
        try:
            await database.migrate(migrations.schema_file().read_text("utf-8"))
            yield database
        finally:
            try:
                await portal.finish(engine.close, timeout_s=CLOSE_S)
            except TimeoutError:
                log.warning("database=not_closed reason=timeout")


def bound(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as both engines take them. Raises BadValue for text with what PostgreSQL cannot hold."""
    bound = dict(values)
    for name, value in values.items():
        if isinstance(value, datetime):
            bound[name] = value.astimezone(UTC)  # SQLAlchemy drops the zone for SQLite
        elif isinstance(value, str) and _UNSTORABLE.search(value):
            raise BadValue(f"{name}: must be text without NUL and half characters.")
    return bound


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
