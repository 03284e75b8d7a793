"""Statements, transactions and the schema, and error handling while the database is unavailable.

Everything public is called from trio and runs on the portal's asyncio loop. Only its own deadline can interrupt a
statement there. Only reads of SQLite that take less than the way there run here, in the caller's thread (quick.py).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, Literal, TypeVar

import anyio
import trio

from sfu.errors import ConfigError
from sfu.refusals import DatabaseUnavailable
from sfu.store import migrations
from sfu.store.bulk import Bulk
from sfu.store.drivers import Driver
from sfu.store.engines import OPEN_ERRORS, Engine, engine_of
from sfu.store.migrations import NO_SCRIPTS
from sfu.store.portal import Portal, PortalStopped, open_portal
from sfu.store.remedies import remedy
from sfu.store.statements import Row, Statements, Work, bound

T = TypeVar("T")

CALL_S = 5.0
"""Default timeout of a statement or transaction. Callers pass a longer one where necessary."""

TRIES = 4
"""Most attempts at a transaction that conflicts with others."""

REFUSED_S = 60.0
"""How long a refused statement counts in `Database.state`. Statements of users' actions recur more often than that."""

CONNECT = "(connecting)"
"""What the log says instead of a statement while there is no connection."""

MESSAGES: Mapping[str, str] = {
    "refused": "The database refuses this at the moment. The server's log says why.",
    "full": "The database cannot store this: its disk is full.",
}
"""What DatabaseUnavailable says for faults of a database that answers."""

OPEN_S = 10.0
MIGRATE_S = 600.0
CLOSE_S = 5.0

log = logging.getLogger(__name__)


class Database:
    """Runs the SQL of the store.

    Raises DatabaseUnavailable if the database is away, too slow or refuses a statement, and BadValue for text that a
    database cannot hold. Only errors in the values themselves are raised as the engine's own exceptions.
    """

    def __init__(self, portal: Portal, engine: Engine) -> None:
        self._portal = portal
        self._engine = engine
        self._away: set[bool] = set()  # the `write` flags of calls that do not get through at the moment
        self._refused: dict[str, float] = {}  # refused statements that have not worked since, with the last time

    @property
    def bulk(self) -> Bulk:
        """How whole tables are read and written."""
        return self._engine.bulk

    @property
    def available(self) -> bool:
        """Whether the last read and the last write got through to the database."""
        return not self._away

    @property
    def state(self) -> Literal["ok", "refused", "away"]:
        """For monitoring: `away` if the database cannot be reached, `refused` if it recently refused a statement."""
        if self._away:
            return "away"
        now_s = trio.current_time()
        return "refused" if any(now_s - at_s < REFUSED_S for at_s in self._refused.values()) else "ok"

    async def read(self, sql: str, /, timeout_s: float = CALL_S, **values: Any) -> list[Row]:
        """Runs a SELECT and returns its rows."""
        quick = partial(self._engine.read_quickly, sql, bound(values))
        return await self._finish(lambda statements: statements.all(sql, **values), timeout_s, write=False, quick=quick)

    async def read_one(self, sql: str, /, **values: Any) -> Row | None:
        rows = await self.read(sql, **values)
        return rows[0] if rows else None

    async def write(self, sql: str, /, **values: Any) -> list[Row]:
        """Runs a statement with RETURNING and returns its rows: one per row inserted, updated or deleted."""
        return await self._finish(lambda statements: statements.all(sql, **values), CALL_S)

    async def write_one(self, sql: str, /, **values: Any) -> Row | None:
        rows = await self.write(sql, **values)
        return rows[0] if rows else None

    async def run(self, sql: str, /, **values: Any) -> None:
        """Runs a statement that writes and returns no rows."""
        await self._finish(lambda statements: statements.run(sql, **values), CALL_S)

    async def transaction(self, work: Work[T], timeout_s: float = CALL_S) -> T:
        """Runs `work` as one transaction. It is rerun, up to TRIES times in all, if it conflicts with another one.

        `work` runs on the asyncio side and may await only its Statements.
        """
        return await self._finish(work, timeout_s, whole=True)

    async def probe(self) -> None:
        """Begins a transaction and writes nothing, so that `state` is true even while nobody needs the database."""

        async def work(_statements: Statements) -> None:
            pass

        await self.transaction(work)

    def stop(self, within_s: float) -> None:
        """From now on, no call waits for the database longer than `within_s`."""
        self._portal.stop(within_s)

    def claim(self) -> bool:
        """Registers this process as a server of the database. Whether it is certainly the only one that runs."""
        return self._engine.claim()

    def stamp(self) -> object:
        """While this is unchanged and not None, no process has written anything. Needs no query."""
        return self._engine.stamp() if self.available else None

    async def migrate(
        self, schema: str, scripts: Mapping[str, Work[None]] = NO_SCRIPTS, *, create: bool = True
    ) -> None:
        """Applies the pending steps of the schema. Safe if several servers start at once.

        `scripts` has what SQL cannot say of a step, by its title; it follows the step's statements.
        Without `create`, raises ConfigError if the database needs a step, and leaves it as it is.
        """
        steps = migrations.parse(schema)

        async def work(statements: Statements) -> None:
            await self.lock_schema(statements)
            for step in await migrations.apply(statements, steps, scripts, create=create):
                log.info("schema_step=%d title=%r", step.number, step.title)

        try:
            await self.transaction(work, MIGRATE_S)
        except DatabaseUnavailable as error:
            raise DatabaseUnavailable(f"The schema cannot be migrated: {_words(error.__cause__)}") from error

    async def lock_schema(self, statements: Statements) -> None:
        """Makes other starting servers wait until the end of this transaction, which may take any time."""
        if self._engine.lock_schema:
            await statements.script(self._engine.lock_schema)

    async def snapshot(self, work: Work[T]) -> T:
        """Runs `work`, which only reads, in a transaction of any length that sees the database at one moment.

        Others can write meanwhile, unless this database was opened alone. Cancelling the caller ends it.
        """
        return await self._whole(lambda: self._once(work, self._engine.begin_snapshot))

    async def replace(self, work: Work[T], committed: Callable[[], object]) -> T:
        """Runs `work` as one transaction of any length, whose effects nobody sees before its end.

        Cancelling the caller ends it, without any effect unless `committed` was called: that says that the effects
        stay, and is called on the asyncio side.
        """
        return await self._whole(lambda: self._replaced(work, committed))

    async def copy(
        self,
        target: Database,
        work: Callable[[Statements, Statements], Awaitable[T]],
        committed: Callable[[], object],
    ) -> T:
        """Runs `work` in a `snapshot` of this database and in a `replace` of another one, on the same portal."""

        async def into(source: Statements) -> T:
            return await target._replaced(lambda statements: work(source, statements), committed)

        return await self._whole(lambda: self._once(into, self._engine.begin_snapshot))

    async def _replaced(self, work: Work[T], committed: Callable[[], object]) -> T:
        async def locked(statements: Statements) -> T:
            await self.lock_schema(statements)
            return await work(statements)

        return await self._once(locked, self._engine.begin, committed)

    async def _once(self, work: Work[T], begin: str, committed: Callable[[], object] = lambda: None) -> T:
        async with self._engine.connection(write=begin == self._engine.begin) as connection:
            statements = Statements(connection.raw_connection, self._engine.driver, [])
            await statements.script(begin)
            result = await work(statements)
            with anyio.CancelScope(shield=True):  # cancelled half-way, nobody would know whether it happened
                await statements.script("COMMIT")
            committed()
            return result

    async def _whole(self, once: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._portal.call(once)
        except ConfigError:
            raise
        except OPEN_ERRORS as error:
            raise DatabaseUnavailable(f"The database fails: {_words(error)}.") from error

    async def _finish(
        self,
        work: Work[T],
        timeout_s: float,
        *,
        write: bool = True,
        whole: bool = False,
        quick: Callable[[], T | None] | None = None,
    ) -> T:
        """Runs `work` on a connection; if `whole`, as one transaction. Not if `quick`, tried before, returns more than
        None."""
        said = [CONNECT]

        async def together(raw: Any, driver: Driver) -> T:
            statements = Statements(raw, driver, said, self._engine.lock_rows if whole else "")
            if whole:
                await statements.script(self._engine.begin)
            result = await work(statements)
            if whole:
                await statements.script("COMMIT")
            return result

        async def once() -> T:
            said[:] = [CONNECT]
            async with self._engine.connection(write=write) as connection:
                return await self._engine.driver.together(connection.raw_connection, together)

        for left in reversed(range(TRIES)):
            try:
                found = None if quick is None else quick()
                if found is not None:
                    await trio.lowlevel.checkpoint()
                    self._worked((), write=write)
                    return found
                result = await self._portal.finish(once, timeout_s=timeout_s)
            except Exception as error:
                fault = "away" if isinstance(error, PortalStopped) else self._engine.fault(error)
                if fault == "ours":
                    raise
                if fault != "clash" or not left:
                    reason = _words(error) if str(error) else f"{_words(error)}: no answer within {timeout_s:g} s"
                    self._failed(reason, remedy(error), _culprit(said), away=fault == "away", write=write)
                    raise DatabaseUnavailable(MESSAGES.get(fault, "")) from error
            else:
                self._worked(said, write=write)
                return result
        raise AssertionError("unreachable")

    def _failed(self, reason: str, hint: str, sql: str, *, away: bool, write: bool) -> None:
        """Records a failure, and logs it once until it works again."""
        if away and self.available:
            log.warning("database=away reason=%r hint=%r sql=%r", reason, hint, _start(sql))
        if away:
            self._away.add(write)
        else:
            if sql not in self._refused:
                log.warning("statement=refused reason=%r hint=%r sql=%r", reason, hint, _start(sql))
            self._refused[sql] = trio.current_time()

    def _worked(self, said: Sequence[str], *, write: bool) -> None:
        if self._away:
            self._away -= {write, False}  # a successful write shows that reads work as well
            if self.available:
                log.info("database=back")
        for sql in self._refused.keys() & said if self._refused else ():
            del self._refused[sql]
            log.info("statement=works sql=%r", _start(sql))


def _words(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _culprit(said: Sequence[str]) -> str:
    """The statement that failed. A COMMIT fails because of what it commits."""
    return said[-2] if said[-1] == "COMMIT" else said[-1]


def _start(sql: str) -> str:
    """The start of a statement, to recognize it in the log. It contains no values."""
    return " ".join(sql.split())[:80]


@asynccontextmanager
async def open_database(
    url: str, scripts: Mapping[str, Work[None]] = NO_SCRIPTS, *, create: bool = True
) -> AsyncIterator[Database]:
    """The database at `url`, with its schema migrated (`scripts`: see Database.migrate). A SQLite file is created if it
    does not exist.

    Raises ConfigError for an invalid URL, a schema that is too new or, without `create`, too old, and
    DatabaseUnavailable if the database is away.
    """
    async with connect(url) as database:
        await database.migrate(migrations.schema_file().read_text("utf-8"), scripts, create=create)
        yield database


@asynccontextmanager
async def connect(
    url: str, *, alone: bool = False, beside: Database | None = None, named: str = "SFU_DATABASE_URL names it."
) -> AsyncIterator[Database]:
    """The database at `url` as it is, whatever its schema. `alone`: see engine_of. `beside`: whose portal it shares.
    `named` is what an error says of where the URL comes from.

    Raises as open_database does.
    """
    engine = engine_of(url, alone=alone)
    async with open_portal() if beside is None else nullcontext(beside._portal) as portal:
        database = Database(portal, engine)
        try:
            await portal.finish(engine.open, timeout_s=OPEN_S)
        except ConfigError:
            raise
        except OPEN_ERRORS as error:
            words = f"no answer within {OPEN_S:.0f} s" if isinstance(error, TimeoutError) else str(error)
            said = f"The database cannot be opened: {words.removesuffix('.')}."
            raise DatabaseUnavailable(" ".join(filter(None, (said, remedy(error), named)))) from error
        try:
            yield database
        finally:
            with trio.CancelScope(shield=True):
                try:
                    await portal.finish(engine.close, timeout_s=CLOSE_S)
                except TimeoutError:
                    log.warning("database=not_closed reason=timeout")
