"""The database goes away and comes back: nothing hangs, nothing is lost."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import trio

from sfu.process.metrics import Counters
from sfu.refusals import DatabaseUnavailable
from sfu.store import Store, open_store
from sfu.store.records import Company, RoomSettings
from sfu.tenancy.keys import ServerKey

if TYPE_CHECKING:
    from support.away import Away

pytest_plugins = ["support.storing"]

ENDLESS = {
    "sqlite": "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS i FROM n",
    "postgresql": "SELECT pg_sleep(3600)",
}


@pytest.fixture
async def patient(away: Away, database_url: str, server_key: ServerKey, clock: Any) -> AsyncIterator[Store]:
    """A store opened after `away` made it impatient."""
    async with open_store(database_url, server_key, clock=clock, max_leaves=3) as store:
        await store.companies.ensure_default()
        yield store


async def test_writes_fail_soon_and_work_again(patient: Store, away: Away, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    company = await patient.companies.ensure_default()
    with away(), trio.fail_after(20):
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable) as refused:
                await patient.rooms.create(company.id, "team", RoomSettings())
            with pytest.raises(DatabaseUnavailable):
                await patient.sessions.admit_anonymous(company.id, "team", "alice")
        assert not patient.database.available
    assert (refused.value.code, refused.value.status, refused.value.retry_after_s) == ("database_unavailable", 503, 5)
    assert "sqlite" not in str(refused.value).lower()
    await patient.rooms.create(company.id, "team", RoomSettings())
    await patient.sessions.admit_anonymous(company.id, "team", "alice")
    assert patient.database.available
    said = [record.getMessage() for record in caplog.records if record.name == "sfu.store.database"]
    assert [line.split()[0] for line in said] == ["database=away", "database=back"]  # once, however many fail
    assert re.search(r" reason=['\"].+['\"] sql='.+'$", said[0])


async def test_a_full_disk_is_said_once_until_there_is_room(
    tmp_path: Path, server_key: ServerKey, caplog: pytest.LogCaptureFixture
) -> None:
    """What needs no room, as the probe, still works on a full disk: it is not taken for the end of the trouble."""
    caplog.set_level("INFO", "sfu.store.database")
    async with open_store(f"sqlite:///{tmp_path}/sfu.db", server_key) as store:
        company = await store.companies.ensure_default()
        caplog.clear()
        await store.database.run("PRAGMA max_page_count = 1")  # it grows no more
        for number in range(200):
            with suppress(DatabaseUnavailable):
                await store.rooms.create(company.id, f"room-{number}", RoomSettings(description="x" * 2000))
        for number in range(3):
            with pytest.raises(DatabaseUnavailable, match="its disk is full"):
                await store.rooms.create(company.id, f"more-{number}", RoomSettings(description="x" * 2000))
            await store.database.probe()
            assert store.database.state == "refused"
        await store.database.run("PRAGMA max_page_count = 1000000")
        await store.rooms.create(company.id, "team", RoomSettings(description="x" * 2000))
        assert store.database.state == "ok"
    assert [line.split()[0] for line in caplog.messages] == ["statement=refused", "statement=works"]


async def test_leaves_wait_for_the_database(patient: Store, away: Away, clock: Any) -> None:
    company = await patient.companies.ensure_default()
    async with trio.open_nursery() as nursery:
        await nursery.start(patient.run, 0.1, Counters())
        session = await patient.sessions.admit_anonymous(company.id, "team", "alice")
        with away():
            with pytest.raises(DatabaseUnavailable):  # so that it is away for certain
                await patient.companies.create("Acme")
            clock.advance(60)
            patient.sessions.close(session, "left")
            with pytest.raises(DatabaseUnavailable):
                await patient.sessions.flush()
            clock.advance(600)
            assert patient.sessions.unwritten == 1
        with trio.fail_after(20):
            while patient.sessions.unwritten:  # noqa: ASYNC110 -- nothing tells when it has been written
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    (closed,) = (await patient.history.room_sessions(company.id, "team")).items
    assert closed.disconnected_at == session.connected_at + timedelta(seconds=60)
    assert closed.leave_reason == "left"


async def test_the_queue_is_bounded(patient: Store, away: Away, caplog: pytest.LogCaptureFixture) -> None:
    company = await patient.companies.ensure_default()
    sessions = [await patient.sessions.admit_anonymous(company.id, "team", f"user-{n}") for n in range(4)]
    with away():
        for session in sessions:
            patient.sessions.close(session, "left")
        assert patient.sessions.unwritten == 3
    await patient.sessions.flush()
    assert await patient.history.participants(company.id, "team") == (sessions[3],)
    assert f"session={sessions[3].id} leave=dropped" in caplog.text


async def test_closing_the_store_does_not_wait_for_ever(
    away: Away, database_url: str, server_key: ServerKey, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(20):
        async with open_store(database_url, server_key) as store:
            company = await store.companies.ensure_default()
            session = await store.sessions.admit_anonymous(company.id, "team", "alice")
            gone = away()
            gone.__enter__()
            store.sessions.close(session, "left")
    gone.__exit__(None, None, None)
    assert "leaves_lost=1" in caplog.text


async def test_a_store_cannot_be_opened_on_a_database_that_is_away(
    away: Away, patient: Store, database_url: str, server_key: ServerKey
) -> None:
    with away(), trio.fail_after(20), pytest.raises(DatabaseUnavailable):
        async with open_store(database_url, server_key):
            pass


async def recovered(store: Store) -> tuple[Company, ...]:
    """What the database says once it says something again; what was stopped may take its connection a moment."""
    with trio.fail_after(30):
        while True:
            try:
                return await store.companies.list()
            except DatabaseUnavailable:
                await trio.sleep(0.05)


async def test_a_statement_that_takes_too_long_is_stopped(patient: Store, database_url: str) -> None:
    """And costs nothing later: the same connections serve the next calls."""
    for _ in range(15):  # more than there are connections
        with pytest.raises(DatabaseUnavailable):
            await patient.database.read(ENDLESS[urlsplit(database_url).scheme], 0.05)
    assert len(await recovered(patient)) == 1


async def test_a_transaction_that_takes_too_long_is_undone(patient: Store, database_url: str) -> None:
    company = await patient.companies.ensure_default()

    async def work(statements: Any) -> None:
        await statements.run("UPDATE companies SET name = 'half' WHERE is_default")
        await statements.all(ENDLESS[urlsplit(database_url).scheme])

    for _ in range(12):
        with pytest.raises(DatabaseUnavailable):
            await patient.database.transaction(work, 0.05)
    assert await recovered(patient) == (company,)
    await patient.rooms.create(company.id, "team", RoomSettings())


async def test_one_statement_that_is_refused_is_no_outage(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable) as raised:
            await store.database.read("SELECT nonsense")
    assert "nonsense" in str(raised.value.__cause__)
    assert store.database.available
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("statement=refused ")
    assert "nonsense" in said


async def test_what_is_no_database_is_told_at_once(tmp_path: Path, server_key: ServerKey) -> None:
    path = tmp_path / "sfu.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(DatabaseUnavailable, match="not a database"):
        async with open_store(f"sqlite:///{path}", server_key):
            pass
    with pytest.raises(DatabaseUnavailable, match="cannot be opened"):
        async with open_store(f"sqlite:///{path}/sfu.db", server_key):
            pass


async def test_a_database_that_is_slow_at_the_start_is_waited_for(
    server_key: ServerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfu.store.engines.BUSY_S", 0.2)
    monkeypatch.setattr("sfu.store.database.OPEN_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        url = f"postgresql://sfu@127.0.0.1:{silent.getsockname()[1]}/sfu"
        with pytest.raises(DatabaseUnavailable, match="opened: no answer within 1 s"):
            async with open_store(url, server_key):
                pass
        silent.settimeout(0)
        tries = 0
        with suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                tries += 1
    assert tries > 1
