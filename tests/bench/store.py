"""How fast the store is, on SQLite and on PostgreSQL: `python tests/bench/store.py [--sessions 1000000]`.

Each line is one operation called again and again by one task, then by twenty at once. A year of sessions is filled in
first, past the store; the analytics query then reads all of it.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import trio

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from support.postgres import running  # noqa: E402 -- found on the path set above

from sfu.store import Store, open_store  # noqa: E402
from sfu.store.records import Company, RoomSettings  # noqa: E402
from sfu.tenancy import tokens  # noqa: E402
from sfu.tenancy.keys import ServerKey  # noqa: E402

AT_ONCE = 20
ROOMS = 10_000
FIRST, LAST = date(2024, 1, 1), date(2024, 12, 31)
COLUMNS = (
    "id", "company_id", "room_id", "user_name", "server", "connected_at", "last_seen_at", "disconnected_at",
    "leave_reason", "day", "duration_s", "concurrency",
)  # fmt: skip


def year(company_id: str, sessions: int) -> Iterator[tuple[Any, ...]]:
    """Sessions of 200 rooms and 5,000 people, all through 2024, in the order they began."""
    chance = random.Random(1)
    start, step = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=366) / sessions
    for number in range(sessions):
        began = start + number * step
        length = chance.expovariate(1 / 1500)
        ended = began + timedelta(seconds=length)
        yield (
            uuid.UUID(int=number), uuid.UUID(company_id), f"room-{chance.randrange(200):05}",
            f"user-{chance.randrange(5000)}", "bench", began, ended, ended, "left", began.date(), length,
            chance.randrange(1, 9),
        )  # fmt: skip


def fill_sqlite(path: str, company_id: str, sessions: int) -> None:
    def text(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.replace(tzinfo=None).isoformat(" ", "microseconds")
        return str(value) if isinstance(value, (uuid.UUID, date)) else value

    insert = f"INSERT INTO sessions ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.executemany(insert, (tuple(map(text, row)) for row in year(company_id, sessions)))
        connection.commit()


async def fill_postgresql(url: str, company_id: str, sessions: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.copy_records_to_table("sessions", records=year(company_id, sessions), columns=COLUMNS)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def measure(name: str, call: Callable[[], Awaitable[object]], times: int) -> None:
    """Prints the latency of one caller and the rate of many."""
    alone = []
    for _ in range(times):
        began = time.perf_counter()
        await call()
        alone.append((time.perf_counter() - began) * 1000)
    rate = ""
    if times >= 100:

        async def some() -> None:
            for _ in range(times // AT_ONCE):
                await call()

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(some)
        rate = f"{times / (time.perf_counter() - began):8,.0f}/s"
    p99 = statistics.quantiles(alone, n=100)[98] if times >= 100 else max(alone)
    print(f"  {name:48} p50 {statistics.median(alone):9.2f} ms   p99 {p99:9.2f} ms   {rate}", flush=True)


async def bench(store: Store, company: Company, times: int, *, analyze: bool) -> None:
    secret, numbers = store.companies.secret(company).reveal(), count()
    _, key = await store.companies.rotate_key(company.id)
    for number in range(ROOMS):
        await store.rooms.create(company.id, f"room-{number:05}", RoomSettings(max_participants=10**6))

    async def issue() -> tuple[tokens.Grant, str]:
        grant = tokens.grant(
            company_id=company.id,
            room_id=f"room-{next(numbers) % ROOMS:05}",
            user_name="alice",
            duration_s=3600,
            now=datetime.now(UTC),
        )
        token = tokens.encode(grant, secret)
        await store.tokens.add(grant, token)
        return grant, token

    made = [await issue() for _ in range(2 * times)]
    if analyze:
        await store.database.run("ANALYZE")  # as a PostgreSQL that runs for a while has done by itself

    async def join() -> None:
        await store.sessions.admit(*made.pop())

    async def list_rooms() -> None:
        after = await store.rooms.list(company.id, cursor=None, limit=100)
        assert len(after.items) == 100

    async def days(first: date, last: date, limit: int) -> None:
        assert (await store.history.room_days(company.id, first, last, limit=limit)).items

    await measure("API key looked up", partial(store.keys.find, key.reveal()), times)
    await measure("token issued", issue, times)
    await measure("join admitted (token used, session written)", join, times)
    await measure("first 100 of 10,000 rooms, with participants", list_rooms, times // 5)
    await measure("analytics of the year, all 73,200 rows at once", partial(days, FIRST, LAST, 10**6), 5)
    await measure("analytics of the year, a page of 1,000 rows", partial(days, FIRST, LAST, 1000), 20)
    await measure(
        "analytics of a month, all 6,000 rows at once", partial(days, date(2024, 6, 1), date(2024, 6, 30), 10**6), 5
    )


async def run(url: str, sessions: int, times: int) -> None:
    async with open_store(url, ServerKey(bytes(32))) as store:
        company = await store.companies.ensure_default()
        began = time.perf_counter()
        if url.startswith("sqlite"):
            await trio.to_thread.run_sync(fill_sqlite, url.removeprefix("sqlite:///"), company.id, sessions)
        else:
            await store.database._portal.call(fill_postgresql, url, company.id, sessions)
        print(f"{url.split(':')[0]}: {sessions:,} sessions filled in within {time.perf_counter() - began:.0f} s")
        await bench(store, company, times, analyze=not url.startswith("sqlite"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=1000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        trio.run(run, f"sqlite:///{directory}/sfu.db", chosen.sessions, chosen.times)
    with running() as server:
        trio.run(run, server.emptied(), chosen.sessions, chosen.times)


if __name__ == "__main__":
    main()
