"""Joins, leaves, heartbeats and what a killed server leaves behind, on both engines."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from sfu.errors import RoomFull
from sfu.process.metrics import Counters
from sfu.refusals import (
    BadValue,
    CompanyDisabled,
    DatabaseUnavailable,
    RoomElsewhere,
    TokenRequired,
    TokenRevoked,
    TokenUnknown,
    TokenUsed,
)
from sfu.store import Store, open_store
from sfu.store.records import Company, RoomSettings, Session, SessionDrops, SessionQuality
from sfu.store.servers import LOOK_S, LOOKS
from sfu.store.sessions import STRANGER_LOOKS
from sfu.tenancy import tokens
from sfu.tenancy.keys import ServerKey

pytest_plugins = ["support.storing"]


async def stored(store: Store, session: Session) -> Session:
    sessions = (await store.history.room_sessions(session.company_id, session.room_id)).items
    return next(found for found in sessions if found.id == session.id)


async def until(condition: Any) -> None:
    """Waits for what a task in the background is to bring about."""
    with trio.fail_after(10):
        while not await condition():  # noqa: ASYNC110 -- what is waited for has no event of its own
            await trio.sleep(0.01)


# --- joins -----------------------------------------------------------------------------------------------------------


async def test_a_join_opens_a_session(store: Store, company: Company, clock: Any, issue: Any) -> None:
    grant, token = await issue(company)
    metadata = {"agent": "Firefox"}
    session = await store.sessions.admit(grant, token, peer_address="2001:db8::1", metadata=metadata)
    assert session == Session(
        id=session.id,
        company_id=company.id,
        room_id="team",
        user_name="alice",
        token_id=grant.id,
        server="sfu",
        peer_address="2001:db8::1",
        connected_at=clock.now,
        last_seen_at=clock.now,
        disconnected_at=None,
        leave_reason=None,
        duration_s=None,
        concurrency=1,
        metadata=metadata,
        quality=SessionQuality(),
    )
    assert await store.history.participants(company.id, "team") == (session,)
    used = await store.tokens.get(company.id, grant.id)
    assert used is not None
    assert used.used_at == clock.now


async def test_a_room_nobody_made_is_made_by_its_first_join(
    database_url: str, server_key: ServerKey, clock: Any
) -> None:
    async with open_store(database_url, server_key, clock=clock, max_participants=3) as store:
        company = await store.companies.ensure_default()
        await store.sessions.admit_anonymous(company.id, "team", "alice")
        clock.advance(1)
        await store.sessions.admit_anonymous(company.id, "team", "bob")
        room = await store.rooms.get(company.id, "team")
        assert room is not None
        assert (room.name, room.access, room.max_participants, room.participants) == ("", "open", 3, 2)
        assert (room.version, room.last_join_at) == (1, clock.now)
        assert room.created_at == room.updated_at == clock.now - timedelta(seconds=1)


@pytest.mark.parametrize("stores", [1, 2])
async def test_as_many_get_in_as_there_are_places(
    store: Store, company: Company, database_url: str, server_key: ServerKey, stores: int
) -> None:
    """Also when they come through two servers at once."""
    await store.rooms.create(company.id, "team", RoomSettings(max_participants=10))
    admitted: list[int] = []
    refused: list[str] = []

    async def join(through: Store, number: int) -> None:
        try:
            session = await through.sessions.admit_anonymous(company.id, "team", f"user-{number}")
            admitted.append(session.concurrency)
        except RoomFull:
            refused.append("full")

    async with open_store(database_url, server_key) as second, trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(join, [store, second][number % stores], number)
    assert sorted(admitted) == list(range(1, 11))
    assert len(refused) == 30
    assert len(await store.history.participants(company.id, "team")) == 10


async def test_a_token_for_one_use_lets_one_in(store: Store, company: Company, issue: Any) -> None:
    grant, token = await issue(company, single_use=True)
    outcomes: list[str] = []

    async def join() -> None:
        try:
            await store.sessions.admit(grant, token)
            outcomes.append("in")
        except TokenUsed:
            outcomes.append("used")

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(join)
    assert sorted(outcomes) == ["in"] + 9 * ["used"]


async def test_a_token_for_many_uses_keeps_its_first(store: Store, company: Company, clock: Any, issue: Any) -> None:
    grant, token = await issue(company)
    first = clock.now
    for _ in range(2):
        await store.sessions.admit(grant, token)
        clock.advance(1)
    found = await store.tokens.get(company.id, grant.id)
    assert found is not None
    assert found.used_at == first


async def test_a_refused_join_leaves_the_token_unused(store: Store, company: Company, issue: Any) -> None:
    await store.rooms.create(company.id, "team", RoomSettings(max_participants=1))
    first = await store.sessions.admit_anonymous(company.id, "team", "bob")
    grant, token = await issue(company, single_use=True)
    with pytest.raises(RoomFull):
        await store.sessions.admit(grant, token)
    store.sessions.close(first, "left")
    await store.sessions.admit(grant, token)


async def test_a_place_is_free_as_soon_as_somebody_left(store: Store, company: Company) -> None:
    await store.rooms.create(company.id, "team", RoomSettings(max_participants=1))
    for _ in range(5):
        session = await store.sessions.admit_anonymous(company.id, "team", "alice")
        store.sessions.close(session, "left")  # no more than queued


async def test_a_withdrawn_or_foreign_token_lets_nobody_in(
    store: Store, company: Company, clock: Any, issue: Any
) -> None:
    grant, token = await issue(company)
    with pytest.raises(TokenUnknown):
        await store.sessions.admit(grant, token + "x")
    await store.tokens.revoke(company.id, grant.id)
    with pytest.raises(TokenRevoked):
        await store.sessions.admit(grant, token)
    unrecorded = tokens.grant(company_id=company.id, room_id="team", user_name="eve", duration_s=60, now=clock.now)
    with pytest.raises(TokenUnknown):
        await store.sessions.admit(unrecorded, "e.v.e")
    assert await store.rooms.get(company.id, "team") is None  # nor is the room made


async def test_a_room_of_tokens_takes_nobody_without(store: Store, company: Company, issue: Any) -> None:
    await store.rooms.create(company.id, "team", RoomSettings(access="token"))
    with pytest.raises(TokenRequired):
        await store.sessions.admit_anonymous(company.id, "team", "eve")
    await store.sessions.admit(*await issue(company))


async def test_a_disabled_company_takes_nobody(store: Store, company: Company, issue: Any) -> None:
    grant, token = await issue(company)
    await store.companies.set_active(company.id, False)
    with pytest.raises(CompanyDisabled):
        await store.sessions.admit(grant, token)
    with pytest.raises(CompanyDisabled):
        await store.sessions.admit_anonymous(company.id, "team", "eve")


async def test_cancelled_joins_leave_no_connection_and_no_lock_behind(store: Store, company: Company) -> None:
    chance = random.Random(7)
    await store.rooms.create(company.id, "team", RoomSettings())  # on a busy machine not one of them gets so far
    admitted: list[Session] = []

    async def join(patience: float) -> None:
        with trio.move_on_after(patience):
            session = await store.sessions.admit_anonymous(company.id, "team", "alice")
            admitted.append(session)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(join, chance.random() / 20)
    present = await store.history.participants(company.id, "team")
    assert {session.id for session in present} == {session.id for session in admitted}
    await store.rooms.update(company.id, "team", {"name": "still here"})


# --- leaves ----------------------------------------------------------------------------------------------------------


async def test_a_leave_is_written_with_its_time_and_reason(store: Store, company: Company, clock: Any) -> None:
    session = await store.sessions.admit_anonymous(company.id, "team", "alice", metadata={"a": 1})
    clock.advance(90.5)
    store.sessions.close(session, "left", {"path": "udp"})
    clock.advance(60)
    assert store.sessions.unwritten == 1
    await store.sessions.flush()
    assert store.sessions.unwritten == 0
    closed = await stored(store, session)
    assert closed.disconnected_at == closed.last_seen_at == session.connected_at + timedelta(seconds=90.5)
    assert (closed.leave_reason, closed.metadata) == ("left", {"path": "udp"})
    assert closed.duration_s == pytest.approx(90.5, abs=1e-3)


async def test_a_leave_is_written_with_how_the_call_went(store: Store, company: Company) -> None:
    good, bad, none = [await store.sessions.admit_anonymous(company.id, "team", name) for name in ("a", "b", "c")]
    quality = SessionQuality(4.25, 3.5, 0.01, 0.002, 3.5, 4.5, 41.5, 1 << 40, 1 << 41)
    assert good.quality == SessionQuality()
    store.sessions.close(good, "left", quality=quality)
    store.sessions.close(bad, "left", quality=SessionQuality(score_mean=2.75, score_min=1.0, loss_up=0.3))
    store.sessions.close(none, "left")
    await store.sessions.flush()
    assert (await stored(store, good)).quality == quality
    assert (await stored(store, bad)).quality == SessionQuality(score_mean=2.75, score_min=1.0, loss_up=0.3)
    assert (await stored(store, none)).quality == SessionQuality()
    today = good.connected_at.date()
    (day,) = (await store.history.room_days(company.id, today, today)).items
    assert (day.avg_score, day.min_score) == (3.5, 1.0)


async def test_the_first_leave_counts(store: Store, company: Company, clock: Any) -> None:
    session = await store.sessions.admit_anonymous(company.id, "team", "alice", metadata={"a": 1})
    store.sessions.close(session, "ice_timeout")
    clock.advance(5)
    store.sessions.close(session, "left", {"b": 2})
    await store.sessions.flush()
    closed = await stored(store, session)
    assert (closed.leave_reason, closed.duration_s, closed.metadata) == ("ice_timeout", 0, {"a": 1})


async def test_a_leave_completes_what_others_closed(
    store: Store, company: Company, database_url: str, server_key: ServerKey, clock: Any
) -> None:
    """Only the server that has the session knows how it went, whoever closes it first."""
    quality, drops = SessionQuality(score_mean=4.0, bytes_up=7), SessionDrops(2, 1, "unresponsive")
    deleted = await store.sessions.admit_anonymous(company.id, "team", "alice")
    lost = await store.sessions.admit_anonymous(company.id, "other", "bob")
    await store.rooms.delete(company.id, "team")
    async with open_store(database_url, server_key, server="b", clock=clock) as second:
        clock.advance(1000)
        assert await second.sessions.close_stale() == 1
    for session, reason in ((deleted, "page_gone"), (lost, "left")):
        store.sessions.close(session, reason, {"a": 1}, quality, drops)
    await store.sessions.flush()
    for session, reason in ((deleted, "room_deleted"), (lost, "left")):
        closed = await stored(store, session)
        assert (closed.leave_reason, closed.quality, closed.drops) == (reason, quality, drops)
        assert (closed.duration_s, closed.metadata) == (1000, {"a": 1})


async def test_a_clock_set_back_makes_no_negative_duration(store: Store, company: Company, clock: Any) -> None:
    session = await store.sessions.admit_anonymous(company.id, "team", "alice")
    clock.advance(-3600)
    store.sessions.close(session, "left")
    await store.sessions.flush()
    assert (await stored(store, session)).duration_s == 0


async def test_a_leave_that_cannot_be_written_is_refused_at_once(store: Store, company: Company) -> None:
    session = await store.sessions.admit_anonymous(company.id, "team", "alice")
    for reason, metadata in (("left", {"a": "\0"}), ("\0", None), ("\ud800", {})):
        with pytest.raises(BadValue):
            store.sessions.close(session, reason, metadata)
    assert store.sessions.unwritten == 0


async def test_many_leaves_are_written_together(store: Store, company: Company) -> None:
    sessions = [await store.sessions.admit_anonymous(company.id, f"room-{n % 9}", f"user-{n}") for n in range(40)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfu.store.later.BATCH", 7)
        for session in sessions:
            store.sessions.close(session, "left")
        await store.sessions.flush()
    assert store.sessions.unwritten == 0
    assert {room.participants for room in (await store.rooms.list(company.id)).items} == {0}


async def test_the_store_writes_the_last_leaves_when_it_closes(database_url: str, server_key: ServerKey) -> None:
    async with open_store(database_url, server_key) as store:
        company = await store.companies.ensure_default()
        session = await store.sessions.admit_anonymous(company.id, "team", "alice")
        store.sessions.close(session, "server_stopping")
    async with open_store(database_url, server_key) as store:
        assert (await stored(store, session)).leave_reason == "server_stopping"


async def test_leaves_and_heartbeats_are_written_in_the_background(store: Store, company: Company, clock: Any) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run, 0.05, Counters())
        staying = await store.sessions.admit_anonymous(company.id, "team", "alice")
        leaving = await store.sessions.admit_anonymous(company.id, "team", "bob")
        clock.advance(30)
        store.sessions.close(leaving, "left")

        async def written() -> bool:
            return (await stored(store, leaving)).disconnected_at == clock.now

        async def seen() -> bool:
            return (await stored(store, staying)).last_seen_at == clock.now

        await until(written)
        await until(seen)
        nursery.cancel_scope.cancel()


# --- ends that nobody wrote ------------------------------------------------------------------------------------------


async def test_a_server_closes_what_its_last_run_left_open(
    store: Store, company: Company, database_url: str, server_key: ServerKey, clock: Any
) -> None:
    await store.sessions.close_stale()
    mine = await store.sessions.admit_anonymous(company.id, "team", "alice")
    async with open_store(database_url, server_key, server="elsewhere", clock=clock) as second:
        assert await second.sessions.close_stale() == 0
        theirs = await second.sessions.admit_anonymous(company.id, "elsewhere", "bob")
        clock.advance(100)
        await second.sessions.touch()
        await store.sessions.touch()
        clock.advance(250)
        await second.sessions.touch()
        assert await store.sessions.close_stale() == 1
        closed = await stored(store, mine)
        assert (closed.leave_reason, closed.duration_s) == ("server_lost", 100)
        assert closed.disconnected_at == closed.last_seen_at == mine.connected_at + timedelta(seconds=100)
        assert (await stored(store, theirs)).disconnected_at is None

        clock.advance(301)  # a server nobody starts again does not keep its people for ever
        assert await store.sessions.close_stale() == 1
        assert (await stored(store, theirs)).duration_s == 350


ROOT = Path(__file__).resolve().parents[2]
SERVER = """
import sys, trio
from sfu.process.metrics import Counters
from sfu.tenancy.keys import ServerKey
from sfu.store import open_store

async def main(url, company):
    async with open_store(url, ServerKey(bytes(range(32)))) as store, trio.open_nursery() as nursery:
        await nursery.start(store.run, 0.02, Counters())
        session = await store.sessions.admit_anonymous(company, "team", "alice")
        print(session.id, flush=True)

trio.run(main, *sys.argv[1:])
"""


async def test_a_killed_servers_sessions_end_when_they_were_last_seen(
    store: Store, company: Company, database_url: str, clock: Any
) -> None:
    command = [sys.executable, "-c", SERVER, database_url, company.id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:  # noqa: ASYNC220
        assert server.stdout is not None
        session_id = (await trio.to_thread.run_sync(server.stdout.readline)).strip()

        async def seen_again() -> bool:
            (present,) = await store.history.participants(company.id, "team")
            return present.id == session_id and present.last_seen_at > present.connected_at

        await until(seen_again)
        server.send_signal(signal.SIGKILL)
        await trio.to_thread.run_sync(server.wait)
    (left,) = await store.history.participants(company.id, "team")
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run, 60, Counters())
        closed = await stored(store, left)
        nursery.cancel_scope.cancel()
    assert closed.disconnected_at == left.last_seen_at
    assert closed.leave_reason == "server_lost"
    assert closed.duration_s == pytest.approx((left.last_seen_at - left.connected_at).total_seconds(), abs=1e-3)


async def test_who_has_to_go_is_found_whoever_revoked(
    store: Store, company: Company, other: Company, database_url: str, server_key: ServerKey, issue: Any
) -> None:
    grant, token = await issue(company)
    session = await store.sessions.admit(grant, token)
    staying = await store.sessions.admit_anonymous(company.id, "team", "bob")
    guest = await store.sessions.admit_anonymous(other.id, "team", "carol")
    ids = [session.id, staying.id, guest.id]
    assert await store.sessions.ended(ids) == {}
    async with open_store(database_url, server_key, server="cli") as command:
        await command.tokens.revoke(company.id, grant.id)
        assert await store.sessions.ended(ids) == {session.id: "token_revoked"}
        await command.companies.set_active(other.id, False)
        assert await store.sessions.ended(ids) == {session.id: "token_revoked", guest.id: "company_disabled"}
        await command.rooms.delete(company.id, "team")
    ended = {session.id: "room_deleted", staying.id: "room_deleted", guest.id: "company_disabled"}
    assert await store.sessions.ended(ids) == ended


# --- several servers -------------------------------------------------------------------------------------------------


@pytest.fixture
async def second(store: Store, database_url: str, server_key: ServerKey, clock: Any) -> AsyncIterator[Store]:
    """The store of another server, `b`, on the same database."""
    async with open_store(database_url, server_key, server="b", clock=clock) as opened:
        yield opened


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_only_server_on_a_file_closes_what_any_other_left_open(
    database_url: str, server_key: ServerKey, clock: Any
) -> None:
    """A container has another name after each restart."""

    def opening(name: str) -> AbstractAsyncContextManager[Store]:
        return open_store(database_url, server_key, server=name, clock=clock)

    async with opening("a") as a:
        company = await a.companies.ensure_default()
        lost = await a.sessions.admit_anonymous(company.id, "team", "alice")
    async with opening("b") as b:
        assert await b.sessions.close_stale() == 1
        assert (await stored(b, lost)).leave_reason == "server_lost"
        here = await b.sessions.admit_anonymous(company.id, "team", "bob")
        async with opening("c") as c:
            assert await c.sessions.close_stale() == 0  # since b runs
            assert (await stored(c, here)).disconnected_at is None
    async with opening("d") as d:
        assert await d.sessions.close_stale() == 1


async def test_two_servers_make_no_two_calls_of_one_room(
    store: Store, second: Store, company: Company, clock: Any, issue: Any
) -> None:
    first = await store.sessions.admit_anonymous(company.id, "team", "alice")
    grant, token = await issue(company, single_use=True)
    with pytest.raises(RoomElsewhere, match="'sfu'"):
        await second.sessions.admit(grant, token)
    assert await second.sessions.elsewhere(company.id, "team") == "sfu"
    await second.sessions.admit_anonymous(company.id, "other", "bob")
    store.sessions.close(first, "left")
    await store.sessions.flush()
    assert await second.sessions.elsewhere(company.id, "team") is None
    await second.sessions.admit(grant, token)  # it was not used up


async def test_a_call_is_elsewhere_only_while_its_server_records_it(
    store: Store, second: Store, company: Company, clock: Any
) -> None:
    await store.sessions.admit_anonymous(company.id, "team", "alice")
    clock.advance(25)
    await store.sessions.touch()
    clock.advance(25)
    with pytest.raises(RoomElsewhere):
        await second.sessions.admit_anonymous(company.id, "team", "bob")
    clock.advance(10)
    await second.sessions.admit_anonymous(company.id, "team", "bob")


async def test_of_two_servers_that_start_a_call_at_once_one_does(store: Store, second: Store, company: Company) -> None:
    admitted: list[str] = []

    async def join(server: Store, room_id: str) -> None:
        with suppress(RoomElsewhere):
            admitted.append((await server.sessions.admit_anonymous(company.id, room_id, "alice")).room_id)

    rooms = [f"room-{number}" for number in range(15)]
    async with trio.open_nursery() as nursery:
        for room_id in rooms:
            nursery.start_soon(join, store, room_id)
            nursery.start_soon(join, second, room_id)
    assert sorted(admitted) == sorted(rooms)


async def test_whoever_lives_closes_the_sessions_of_a_dead_server(
    store: Store, second: Store, company: Company, clock: Any
) -> None:
    await store.rooms.create(company.id, "full", RoomSettings(max_participants=1))
    lost = await store.sessions.admit_anonymous(company.id, "full", "alice")
    seen_at = clock.now
    for _ in range(LOOKS):  # it is not long enough yet
        clock.advance(LOOK_S)
        await second.servers.look()
    with pytest.raises(RoomFull):
        await second.sessions.admit_anonymous(company.id, "full", "bob")
    await second.servers.look()
    closed = await stored(store, lost)
    assert (closed.leave_reason, closed.disconnected_at) == ("server_lost", seen_at)
    await second.sessions.admit_anonymous(company.id, "full", "bob")


async def test_a_server_that_lives_keeps_its_sessions(
    store: Store, second: Store, company: Company, clock: Any
) -> None:
    """Even if its clock is wrong: what counts is that the time it writes changes."""
    session = await store.sessions.admit_anonymous(company.id, "team", "alice")
    clock.advance(-7200)
    for _ in range(3 * LOOKS):
        clock.advance(1)
        await store.sessions.touch()
        await second.servers.look()
    assert (await stored(store, session)).disconnected_at is None


async def test_looks_that_failed_say_nothing_about_others(
    store: Store, second: Store, company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nobody reaches the database, nobody can record anything there."""
    session = await store.sessions.admit_anonymous(company.id, "team", "alice")
    for _ in range(LOOKS):
        await second.servers.look()
    with monkeypatch.context() as broken:
        broken.setattr(type(second.servers), "SEEN", "SELECT * FROM away WHERE server = :server")
        with pytest.raises(DatabaseUnavailable):
            await second.servers.look()
    for _ in range(LOOKS):
        await second.servers.look()
    assert (await stored(store, session)).disconnected_at is None


async def test_a_server_taken_for_dead_has_its_sessions_back(
    store: Store, second: Store, company: Company, clock: Any
) -> None:
    """After a pause of its machine, for example: its call goes on."""
    session = await store.sessions.admit_anonymous(company.id, "team", "alice")
    for _ in range(LOOKS + 1):
        await second.servers.look()
    assert (await stored(store, session)).leave_reason == "server_lost"
    clock.advance(90)
    assert await store.sessions.ended([session.id]) == {}
    back = await stored(store, session)
    assert (back.disconnected_at, back.leave_reason, back.duration_s, back.last_seen_at) == (
        None,
        None,
        None,
        clock.now,
    )
    store.sessions.close(session, "left")
    await store.sessions.flush()
    assert (await stored(store, session)).duration_s == 90


async def test_two_servers_with_one_name_are_warned_of(
    store: Store, company: Company, database_url: str, server_key: ServerKey, caplog: pytest.LogCaptureFixture
) -> None:
    """As containers with the same settings have it: each would take the other's calls for its own."""
    async with open_store(database_url, server_key) as namesake:
        mine = await store.sessions.admit_anonymous(company.id, "team", "alice")
        theirs = await namesake.sessions.admit_anonymous(company.id, "team", "bob")
        await store.sessions.ended([mine.id])  # bob may be on his way in
        await store.sessions.ended([mine.id, theirs.id])
        for _ in range(STRANGER_LOOKS):
            assert "state=shared" not in caplog.text
            assert await store.sessions.ended([mine.id]) == {}
        await store.sessions.ended([mine.id])
        assert caplog.text.count("state=shared") == 1
