"""A real PostgreSQL, from Debian's package, as a user that is not root, on a free port, gone with the tests."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg
import pytest

from support.tables import database, elsewhere, make_tables

START_S = 30.0


EMPTY = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
SHAPE = """
    SELECT md5(string_agg(part, ' ' ORDER BY part)) FROM (
        SELECT concat_ws(' ', relname, relkind, relacl, relhastriggers, attname, atttypid, attnotnull)
            FROM pg_class LEFT JOIN pg_attribute ON attrelid = pg_class.oid
            WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT conname::text FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    ) AS parts (part)"""
"""Another value once a test has changed the tables or who may use them."""
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_steps'"


class Postgres:
    """One server in one directory. It can be stopped and started again, on the same port with the same data."""

    def __init__(self, programs: Path, directory: Path, port: int, user: str | None) -> None:
        self._programs = programs
        self._directory = directory
        self._port = port
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://sfu@127.0.0.1:{port}/postgres"
        self._shape: str | None = None  # of the tables as the schema makes them

    def emptied(self) -> str:
        """The URL of a database without a table in it; the same for each test, because making one takes long."""
        self.execute(EMPTY)
        return self.url

    def ready(self) -> str:
        """The same, with the tables of the schema and no row in them; they are made anew only if a test changed them,
        since that takes ten times as long."""
        if not elsewhere(asyncio.run, self._clear()):
            make_tables(self.url)
            self._shape = elsewhere(asyncio.run, self._look())
        return self.url

    def execute(self, statements: str) -> None:
        """As its superuser, on a connection of its own."""
        elsewhere(asyncio.run, self._run(statements))

    def start(self) -> None:
        command = [
            self._programs / "postgres",
            "-D",
            self._directory,
            "-p",
            str(self._port),
            "-k",
            "",
            "-h",
            "127.0.0.1",
        ]
        for setting in (
            "fsync=off",  # what was written survives the server's death, if not the machine's
            "full_page_writes=off",
            "autovacuum=off",
            "wal_level=minimal",
            "max_wal_senders=0",
            "max_connections=60",
        ):
            command += ["-c", setting]
        with open(self._directory.parent / "log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, user=self._user, cwd=self._directory)
        deadline = time.monotonic() + START_S
        while True:
            try:
                self.execute("SELECT 1")
            except (OSError, asyncpg.PostgresError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail((self._directory.parent / "log").read_text(errors="replace"))
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """At once, as when the machine is switched off: connections break, nothing is said."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(START_S)
        self._process = None

    async def _run(self, statement: str) -> None:
        async with self._connected() as connection:
            await connection.execute(statement)

    async def _look(self) -> str:
        async with self._connected() as connection:
            return await _shape(connection)

    async def _clear(self) -> bool:
        """Deletes all rows, or else all tables if they are not those of the schema; returns whether they are."""
        async with self._connected() as connection:
            as_made = self._shape is not None and await _shape(connection) == self._shape
            if as_made:
                tables = [row["tablename"] for row in await connection.fetch(TABLES)]
                deletes = [f"DELETE FROM {table}" for table in tables]  # quicker than TRUNCATE, which makes new files
                await connection.execute("; ".join(["SET session_replication_role = replica", *deletes]))
            else:
                await connection.execute(EMPTY)
            return as_made

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.url, timeout=5)
        try:
            yield connection
        finally:
            await connection.close()


async def _shape(connection: asyncpg.Connection) -> str:
    """The tables as they are, and the steps that they are said to have had."""
    tables = await connection.fetchval(SHAPE)
    known = await connection.fetchval("SELECT to_regclass('schema_steps')")
    steps = await connection.fetchval("SELECT string_agg(title, ',' ORDER BY step) FROM schema_steps") if known else ""
    return f"{tables} {steps}"


@contextmanager
def running() -> Iterator[Postgres]:
    """A started server. Skips where there is none and none may be installed."""
    programs = _programs()
    user = None if os.getuid() else _unprivileged()
    home = Path(tempfile.mkdtemp(prefix="sfu-postgres-"))
    try:
        if user is not None:
            shutil.chown(home, user)
        data = home / "data"
        initdb = [programs / "initdb", "-D", data, "-U", "sfu", "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust", "-N"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, user=user, cwd=home)
        server = Postgres(programs, data, _free_port(), user)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home)


def _programs() -> Path:
    """Where Debian keeps initdb and postgres: not in PATH, and one directory a version."""
    found = _installed()
    if found is None and os.getuid() == 0 and shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "-qq", "update"], ["apt-get", "-qq", "install", "-y", "postgresql"]):
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env=environment)
        found = _installed()
    if found is None:
        pytest.skip("these tests need PostgreSQL; on Debian and Ubuntu: sudo apt install postgresql")
    return found


def _installed() -> Path | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda path: float(path.parent.name))
    in_path = shutil.which("initdb")
    return versions[-1] if versions else Path(in_path).resolve().parent if in_path else None


def _unprivileged() -> str:
    """PostgreSQL refuses to run as root."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for each process of tests, started by the first test that asks for it."""
    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A database of each engine, with the tables of the schema and no row in them."""
    return database(request)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that does not exist yet (SQLite) or is empty (PostgreSQL)."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sfu.db"
    server: Postgres = request.getfixturevalue("postgres")
    return server.emptied()
