"""What is told of stays and calls: every fact once, in the order in which it happened, on both engines."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from typing import Any

import pytest
import trio

from sfu.errors import RoomFull
from sfu.refusals import DatabaseUnavailable
from sfu.store import Store, open_store
from sfu.store.persons import Person, Persons
from sfu.store.records import Company, RoomSettings
from sfu.store.servers import LOOKS
from sfu.tenancy.keys import ServerKey

pytest_plugins = ["support.storing"]

EVENTS = """
    SELECT seq, type, room_id, user_name, session_id, data, at FROM events WHERE company_id = :company_id ORDER BY seq
"""


async def told(store: Store, company: Company) -> list[tuple[str, str]]:
    """Types, and whom they are about, in order."""
    return [(row["type"], row["user_name"]) for row in await rows(store, company)]


async def rows(store: Store, company: Company) -> list[dict[str, Any]]:
    found = await store.database.read(EVENTS, company_id=company.id)
    assert [row["seq"] for row in found] == list(range(1, len(found) + 1))
    return [{**row, "data": json.loads(row["data"])} for row in found]


async def test_a_call_begins_with_the_first_and_ends_with_the_last(
    store: Store, company: Company, clock: Any, issue: Any
) -> None:
    grant, token = await issue(company)
    alice = await store.sessions.admit(grant, token)
    bob = await store.sessions.admit_anonymous(company.id, "team", "bob")
    clock.advance(90)
    store.sessions.close(alice, "left")
    await store.sessions.flush()
    clock.advance(10)
    store.sessions.close(bob, "page_gone")
    clock.advance(1000)  # it is written later, and happened before
    await store.sessions.flush()
    found = await rows(store, company)
    assert [(row["type"], row["user_name"]) for row in found] == [
        ("room.started", ""),
        ("participant.joined", "alice"),
        ("participant.joined", "bob"),
        ("participant.left", "alice"),
        ("participant.left", "bob"),
        ("room.ended", ""),
    ]
    assert {row["room_id"] for row in found} == {"team"}
    assert found[1]["data"] == {
        "session_id": alice.id, "user_name": "alice", "user_id": None, "token_id": grant.id, "returned": False
    }  # fmt: skip
    assert found[4]["data"] == {
        "session_id": bob.id, "user_name": "bob", "user_id": None, "token_id": None, "reason": "page_gone",
        "duration_s": 100,
    }  # fmt: skip
    assert found[5]["data"] == {"reason": "page_gone"}
    assert str(found[5]["at"])[:19] == str(found[4]["at"])[:19] == "2025-10-21 17:23:07"


async def test_a_stay_that_never_began_gives_its_token_back_and_is_told(
    store: Store, company: Company, issue: Any
) -> None:
    grant, token = await issue(company, single_use=True)
    for _ in range(2):
        store.sessions.close(await store.sessions.admit(grant, token), "ice_timeout", began=False)
        await store.sessions.flush()
    once = ["room.started", "participant.joined", "participant.left", "room.ended"]
    assert [kind for kind, _ in await told(store, company)] == 2 * once


async def test_a_refused_join_and_a_second_leave_are_not_told(store: Store, company: Company) -> None:
    await store.rooms.create(company.id, "team", RoomSettings(max_participants=1))
    before = await told(store, company)
    alice = await store.sessions.admit_anonymous(company.id, "team", "alice")
    with pytest.raises(RoomFull):
        await store.sessions.admit_anonymous(company.id, "team", "bob")
    for reason in ("ice_timeout", "left"):
        store.sessions.close(alice, reason)
        await store.sessions.flush()
    assert Counter(await told(store, company)) - Counter(before) == Counter(
        [("room.started", ""), ("participant.joined", "alice"), ("participant.left", "alice"), ("room.ended", "")]
    )


async def test_a_deleted_room_ends_its_call(store: Store, company: Company) -> None:
    alice, _ = [await store.sessions.admit_anonymous(company.id, "team", name) for name in ("alice", "bob")]
    await store.rooms.delete(company.id, "team")
    store.sessions.close(alice, "room_deleted")
    await store.sessions.flush()
    found = [row for row in await rows(store, company) if row["type"] in ("participant.left", "room.ended")]
    assert [(row["type"], row["data"]["reason"]) for row in found] == [
        ("participant.left", "room_deleted"), ("participant.left", "room_deleted"), ("room.ended", "room_deleted")
    ]  # fmt: skip


async def test_who_comes_back_joins_again(store: Store, company: Company) -> None:
    alice = await store.sessions.admit_anonymous(company.id, "team", "alice")
    store.sessions.close(alice, "page_gone")
    found = await store.returns.find(alice.id)
    assert found is not None
    await store.returns.reopen(found[0], peer_address="")
    kinds = [kind for kind, _ in await told(store, company)]
    once = ["room.started", "participant.joined"]
    assert kinds == [*once, "participant.left", "room.ended", *once]
    assert (await rows(store, company))[-1]["data"]["returned"] is True


async def test_who_moves_to_another_server_has_not_left(
    store: Store, company: Company, database_url: str, server_key: ServerKey, clock: Any
) -> None:
    alice = await store.sessions.admit_anonymous(company.id, "team", "alice")
    clock.advance(60)  # the first server is gone, and nobody has noticed
    async with open_store(database_url, server_key, server="b", clock=clock) as second:
        found = await second.returns.find(alice.id)
        assert found is not None
        await second.returns.reopen(found[0], peer_address="")
        assert await told(store, company) == [("room.started", ""), ("participant.joined", "alice")]


async def test_a_start_tells_what_a_killed_server_could_not(
    store: Store, company: Company, other: Company, database_url: str, server_key: ServerKey, clock: Any
) -> None:
    for owner, room_id, name in ((company, "a", "alice"), (company, "b", "bob"), (other, "a", "carol")):
        await store.sessions.admit_anonymous(owner.id, room_id, name)
    async with open_store(database_url, server_key, clock=clock) as again:
        assert await again.sessions.close_stale() == 3
        assert await again.sessions.close_stale() == 0
    ended = [row for row in await rows(store, company) if row["type"] == "participant.left"]
    assert [(row["user_name"], row["data"]["reason"]) for row in ended] == [
        ("alice", "server_lost"), ("bob", "server_lost")
    ]  # fmt: skip
    assert [kind for kind, _ in await told(store, other)] == [
        "room.started", "participant.joined", "participant.left", "room.ended"
    ]  # fmt: skip


async def test_a_server_taken_for_dead_opens_its_sessions_again(
    store: Store, company: Company, database_url: str, server_key: ServerKey, clock: Any
) -> None:
    alice = await store.sessions.admit_anonymous(company.id, "team", "alice")
    async with open_store(database_url, server_key, server="b", clock=clock) as second:
        for _ in range(LOOKS + 1):
            await second.servers.look()
    assert await store.sessions.ended({alice.id}) == {}
    assert [kind for kind, _ in await told(store, company)] == [
        "room.started", "participant.joined", "participant.left", "room.ended", "room.started", "participant.joined"
    ]  # fmt: skip


@pytest.mark.parametrize("others", [0, 1])
async def test_the_end_of_a_call_is_told_of_somebody_erased(store: Store, company: Company, others: int) -> None:
    """`sfu forget` erases also a stay that lasts, and its server then ends it."""
    alice = await store.sessions.admit_anonymous(company.id, "team", "alice")
    rest = [await store.sessions.admit_anonymous(company.id, "team", "bob") for _ in range(others)]
    persons = Persons(store.database)
    await persons.erase(await persons.find(Person(company.id, "alice")))
    for session in (*rest, alice, alice):
        store.sessions.close(session, "removed")
        await store.sessions.flush()
    found = await store.database.read("SELECT type, user_name FROM events ORDER BY seq")
    assert [row["type"] for row in found] == [
        "room.started", *others * ["participant.joined", "participant.left"], "room.ended"
    ]  # fmt: skip


@pytest.mark.parametrize("stores", [1, 2])
async def test_calls_begin_and_end_once_however_many_come_and_go_at_once(
    store: Store, company: Company, database_url: str, server_key: ServerKey, stores: int
) -> None:
    """Also where two servers write at once: in each room, calls and stays alternate."""
    chance = random.Random(stores)

    async def visit(through: Store, room_id: str, name: str) -> None:
        for _ in range(3):
            session = await through.sessions.admit_anonymous(company.id, room_id, name)
            await trio.sleep(chance.random() / 50)
            through.sessions.close(session, "left")
            await through.sessions.flush()

    async with open_store(database_url, server_key) as second, trio.open_nursery() as nursery:
        for number in range(24):
            through = [store, second][number % stores]
            nursery.start_soon(visit, through, f"room-{number % 3}", f"user-{number}")
    found = await rows(store, company)
    assert Counter(row["type"] for row in found)["participant.left"] == 72
    check_order([(row["room_id"], row["type"], str(row["session_id"])) for row in found])


def check_order(found: list[tuple[str, str, str]]) -> None:
    """Each call begins with a person and ends without one; nobody leaves who did not join."""
    present: defaultdict[str, set[str]] = defaultdict(set)
    calls: set[str] = set()
    for room_id, kind, session_id in found:
        match kind:
            case "room.started":
                assert room_id not in calls
                assert not present[room_id]
                calls.add(room_id)
            case "participant.joined":
                assert room_id in calls
                assert session_id not in present[room_id]
                present[room_id].add(session_id)
            case "participant.left":
                present[room_id].remove(session_id)
            case "room.ended":
                assert not present[room_id]
                calls.remove(room_id)
    assert not calls


async def test_what_cannot_be_told_does_not_happen(store: Store, company: Company) -> None:
    await store.database.run("ALTER TABLE events RENAME TO gone")
    try:
        with pytest.raises(DatabaseUnavailable):
            await store.sessions.admit_anonymous(company.id, "team", "alice")
    finally:
        await store.database.run("ALTER TABLE gone RENAME TO events")
    assert await store.history.participants(company.id, "team") == ()
    await store.sessions.admit_anonymous(company.id, "team", "alice")
    assert await told(store, company) == [("room.started", ""), ("participant.joined", "alice")]
