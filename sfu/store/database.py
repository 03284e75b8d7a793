"""Statements, transactions and the schema, and what happens while the database is unavailable.

Everything public is called from trio and runs on the portal's asyncio loop, where no statement is ever cut short but by
its own deadline.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import trio

from sfu.refusals import BadValue, DatabaseUnavailable
from sfu.store import migrations
from sfu.store.engines import OPEN_ERRORS, Connection, Engine, engine_of
from sfu.store.portal import Portal, PortalStopped, open_portal

T = TypeVar("T")
Row = Mapping[str, Any]

CALL_S = 5.0
"""Longest statement or transaction; what takes longer says so where it is called."""

TRIES = 4
"""Of what another transaction gets in the way of."""

REFUSED_S = 60.0
"""How long a refused statement tells of the database: what people do comes again sooner."""

OPEN_S = 10.0
MIGRATE_S = 600.0
CLOSE_S = 5.0

log = logging.getLogger(__name__)


class Statements:
    """SQL on one connection; on the asyncio side, so only inside `Database.transaction`."""

    def __init__(self, connection: Connection, said: list[str], lock_rows: str = "") -> None:
        """`said` is told each statement before it runs."""
        self._connection = connection
        self._said = said
        self._lock_rows = lock_rows

    async def all(self, sql: str, /, **values: Any) -> list[Row]:
        """The rows of a SELECT or a RETURNING."""
        self._said.append(sql)
        rows = [row._mapping for row in await self._connection.fetch_all(sql, bound(values))]
        names = tuple(rows[0].keys()) if rows else ()
        return [dict(zip(names, row, strict=True)) for row in rows]  # both engines' rows iterate over their values

    async def one(self, sql: str, /, **values: Any) -> Row | None:
        rows = await self.all(sql, **values)
        return rows[0] if rows else None

    async def lock(self, sql: str, /, **values: Any) -> None:
        """Locks the rows of a SELECT in its order, which keeps two that change some of the same from waiting for each
        other."""
        if self._lock_rows:
            await self.all(sql + self._lock_rows, **values)

    async def run(self, sql: str, /, **values: Any) -> None:
        self._said.append(sql)
        await self._connection.execute(sql, bound(values))

    async def run_many(self, sql: str, values: Sequence[Mapping[str, Any]]) -> None:
        self._said.append(sql)
        await self._connection.execute_many(sql, [bound(item) for item in values])

    async def script(self, sql: str, /) -> None:
        """One statement of the schema, past the search for `:names`."""
        self._said.append(sql)
        await self._connection.raw_connection.execute(sql)


Work = Callable[[Statements], Awaitable[T]]


class Database:
    """What the store's parts run their SQL with.

    Raises DatabaseUnavailable when the database is away, too slow or refuses a statement, and BadValue for text no
    database takes. Only what is wrong with the values themselves is raised as the engine's own error.
    """

    def __init__(self, portal: Portal, engine: Engine) -> None:
        self._portal = portal
        self._engine = engine
        self._away: set[bool] = set()  # whether what did not get through was to write
        self._refused: dict[str, float] = {}  # statements that were and have not worked since, with when last

    @property
    def available(self) -> bool:
        """Whether the last calls, that which reads and that which writes, got through to the database."""
        return not self._away

    @property
    def state(self) -> Literal["ok", "refused", "away"]:
        """For whoever watches: whether statements get through, lately some were refused, or none do."""
        if self._away:
            return "away"
        now_s = trio.current_time()
        return "refused" if any(now_s - at_s < REFUSED_S for at_s in self._refused.values()) else "ok"

    async def read(self, sql: str, /, timeout_s: float = CALL_S, **values: Any) -> list[Row]:
        """The rows of one SELECT."""
        return await self._finish(lambda statements: statements.all(sql, **values), timeout_s, write=False)

    async def read_one(self, sql: str, /, **values: Any) -> Row | None:
        rows = await self.read(sql, **values)
        return rows[0] if rows else None

    async def write(self, sql: str, /, **values: Any) -> list[Row]:
        """One statement that ends in RETURNING: its rows, one for each row it made, changed or deleted."""
        return await self._finish(lambda statements: statements.all(sql, **values), CALL_S)

    async def write_one(self, sql: str, /, **values: Any) -> Row | None:
        rows = await self.write(sql, **values)
        return rows[0] if rows else None

    async def run(self, sql: str, /, **values: Any) -> None:
        """One statement that writes and gives nothing back."""
        await self._finish(lambda statements: statements.run(sql, **values), CALL_S)

    async def transaction(self, work: Work[T], timeout_s: float = CALL_S) -> T:
        """All of `work` or nothing of it. It runs on the asyncio side, where it may await its Statements and nothing
        else, and once more when another transaction got in its way."""
        return await self._finish(work, timeout_s, whole=True)

    def stop(self, within_s: float) -> None:
        """Nobody waits for the database any longer than that."""
        self._portal.stop(within_s)

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

        try:
            await self.transaction(work, MIGRATE_S)
        except DatabaseUnavailable as error:
            raise DatabaseUnavailable(f"The schema cannot be applied: {_words(error.__cause__)}") from error

    async def _finish(self, work: Work[T], timeout_s: float, *, write: bool = True, whole: bool = False) -> T:
        """Runs `work` on a connection, as one transaction if it is to be `whole`."""
        said: list[str] = []

        async def once() -> T:
            said.clear()
            async with self._engine.connection(write=write) as connection:
                if whole:
                    await connection.execute(self._engine.begin)
                result = await work(Statements(connection, said, self._engine.lock_rows if whole else ""))
                if whole:
                    await connection.execute("COMMIT")
                return result

        for left in reversed(range(TRIES)):
            try:
                result = await self._portal.finish(once, timeout_s=timeout_s)
            except Exception as error:
                fault = "away" if isinstance(error, PortalStopped) else self._engine.fault(error)
                if fault == "ours":
                    raise
                if fault != "clash" or not left:
                    self._failed(error, said, away=fault == "away", write=write)
                    raise DatabaseUnavailable from error
            else:
                self._worked(said, write=write)
                return result
        raise AssertionError("unreachable")

    def _failed(self, error: Exception, said: Sequence[str], *, away: bool, write: bool) -> None:
        """Says so once, until it works again."""
        sql = said[-1] if said else ""
        if away and self.available:
            log.warning("database=away reason=%r sql=%r", _words(error), _start(sql))
        if away:
            self._away.add(write)
        else:
            if sql not in self._refused:
                log.warning("statement=refused reason=%r sql=%r", _words(error), _start(sql))
            self._refused[sql] = trio.current_time()

    def _worked(self, said: Sequence[str], *, write: bool) -> None:
        if self._away:
            self._away -= {write, False}  # what writes reads as well
            if self.available:
                log.info("database=back")
        for sql in self._refused.keys() & said if self._refused else ():
            del self._refused[sql]
            log.info("statement=works sql=%r", _start(sql))


def _words(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _start(sql: str) -> str:
    """Enough of a statement to know it by. It holds no values."""
    return " ".join(sql.split())[:80]


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
            raise DatabaseUnavailable(f"The database cannot be opened: {_words(error)}") from error
        try:
            await database.migrate(migrations.schema_file().read_text("utf-8"))
            yield database
        finally:
            with trio.CancelScope(shield=True):
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
