"""Whole tables, in pages: read from one database and written to another, whatever the two engines are.

A row is a tuple of the values of Table.columns as SQLite stores them: text for UUIDs, times (UTC) and JSON, 0 and 1 for
booleans. PostgreSQL converts them itself, in SQL. `raw` is `Statements.raw`, the connection of the engine's library.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from sfu.store.shape import Table

PAGE = 500
"""Rows of a page: some 300 KB, and with the longest texts that the server accepts 32 MB."""

Row = tuple[Any, ...]


class Bulk(Protocol):
    """What the engines do differently."""

    async def tables(self, raw: Any) -> set[str]:
        """The names of all tables that are there, ours or not."""

    async def count(self, raw: Any, table: Table) -> int: ...

    async def page(self, raw: Any, table: Table, after: Row | None) -> list[Row]:
        """Up to PAGE rows in the order of the key, those behind the key `after`."""

    async def insert(self, raw: Any, table: Table, rows: Sequence[Row]) -> None: ...

    async def set_aside(self, raw: Any, tables: Sequence[str], name: str) -> str:
        """Moves tables, with their indexes, to a place of this name within the transaction, and says what is there.

        Empty if the engine has no such place; then they are dropped, and a copy must have been made before.
        """

    async def drop(self, raw: Any, tables: Sequence[str]) -> None:
        """Drops tables, those that refer to others first."""


async def pages(bulk: Bulk, raw: Any, table: Table) -> AsyncIterator[list[Row]]:
    """All rows of a table."""
    key = [index for column in table.key for index, known in enumerate(table.columns) if known.name == column]
    after: Row | None = None
    while rows := await bulk.page(raw, table, after):
        yield rows
        after = tuple(rows[-1][index] for index in key)


class SQLiteBulk:
    """SQLite. `raw` is an aiosqlite.Connection."""

    async def tables(self, raw: Any) -> set[str]:
        return {row[0] for row in await raw.execute_fetchall("SELECT name FROM sqlite_master WHERE type = 'table'")}

    async def count(self, raw: Any, table: Table) -> int:
        ((count,),) = await raw.execute_fetchall(f"SELECT count(*) FROM {table.name}")
        return int(count)

    async def page(self, raw: Any, table: Table, after: Row | None) -> list[Row]:
        key = ", ".join(table.key)
        where = f"WHERE ({key}) > ({', '.join('?' * len(table.key))})" if after else ""
        sql = f"SELECT {_names(table)} FROM {table.name} {where} ORDER BY {key} LIMIT {PAGE}"
        return [tuple(row) for row in await raw.execute_fetchall(sql, after or ())]

    async def insert(self, raw: Any, table: Table, rows: Sequence[Row]) -> None:
        places = ", ".join("?" * len(table.columns))
        await raw.executemany(f"INSERT INTO {table.name} ({_names(table)}) VALUES ({places})", rows)

    async def set_aside(self, raw: Any, tables: Sequence[str], name: str) -> str:
        await self.drop(raw, tables)
        return ""

    async def drop(self, raw: Any, tables: Sequence[str]) -> None:
        for table in tables:
            await raw.execute(f"DROP TABLE {table}")


_READ = {
    "UUID": "{}::text",
    "TIMESTAMPTZ": "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')",
    "DATE": "{}::text",
    "BOOLEAN": "{}::int",
    "JSONB": "{}::text",
}
"""A column in the form of a row's value; types without an entry have that form."""
_WRITE = {
    "UUID": "{}::text::uuid",
    "TIMESTAMPTZ": "({}::text || '+00')::timestamptz",
    "DATE": "{}::text::date",
    "BOOLEAN": "{}::int::boolean",
    "JSONB": "{}::text::jsonb",
}


class PostgreSQLBulk:
    """PostgreSQL. `raw` is an asyncpg.Connection."""

    async def tables(self, raw: Any) -> set[str]:
        sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
        return {row[0] for row in await raw.fetch(sql)}

    async def count(self, raw: Any, table: Table) -> int:
        return int(await raw.fetchval(f"SELECT count(*) FROM {table.name}"))

    async def page(self, raw: Any, table: Table, after: Row | None) -> list[Row]:
        return [tuple(row) for row in await raw.fetch(self.page_sql(table, first=after is None), *(after or ()))]

    def page_sql(self, table: Table, *, first: bool) -> str:
        """The SELECT of a page. The key is qualified: `id` alone would be the text of it that is selected here."""
        kinds = {column.name: column.kind for column in table.columns}
        values = ", ".join(_read(column.name, column.kind) for column in table.columns)
        key = ", ".join(f"{table.name}.{column}" for column in table.key)
        start = ", ".join(_write(number, kinds[column]) for number, column in enumerate(table.key, 1))
        where = "" if first else f"WHERE ({key}) > ({start})"
        return f"SELECT {values} FROM {table.name} {where} ORDER BY {key} LIMIT {PAGE}"

    async def insert(self, raw: Any, table: Table, rows: Sequence[Row]) -> None:
        values = ", ".join(_write(number, column.kind) for number, column in enumerate(table.columns, 1))
        await raw.executemany(f"INSERT INTO {table.name} ({_names(table)}) VALUES ({values})", rows)

    async def set_aside(self, raw: Any, tables: Sequence[str], name: str) -> str:
        await raw.execute(f'CREATE SCHEMA "{name}"')
        for table in tables:
            await raw.execute(f'ALTER TABLE {table} SET SCHEMA "{name}"')
        return f'schema "{name}"'

    async def drop(self, raw: Any, tables: Sequence[str]) -> None:
        await raw.execute(f"DROP TABLE {', '.join(tables)}")


def _read(name: str, kind: str) -> str:
    return _READ.get(kind, "{}").format(name)


def _write(number: int, kind: str) -> str:
    return _WRITE.get(kind, "{}").format(f"${number}")


def _names(table: Table) -> str:
    return ", ".join(column.name for column in table.columns)
