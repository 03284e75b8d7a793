"""Events reach webhooks: signed, in order, those that were asked for, and again on request. On both engines."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
import trio
from support.receivers import Message, Receiver, Reply
from support.visits import CALL, attempts, log, visit
from support.waiting import until

from sfu.store import Store
from sfu.store.records import Company
from sfu.webhooks.dispatcher import AT_ONCE, WAITS_S

pytest_plugins = ["support.storing"]


async def test_a_call_is_told_in_order_and_signed(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, clock: Any
) -> None:
    await visit(store, company, name="before")
    webhook, secret = await store.webhooks.create(company.id, receiver.url)
    async with dispatching() as counters:
        session = await visit(store, company)
        await until(lambda: len(receiver.got) == 4)
        await until(lambda: counters.get("sfu_webhook_deliveries_total", result="delivered") == 4)
    assert receiver.facts() == CALL
    assert all(message.signed_by(secret.reveal()) for message in receiver.got)
    told = receiver.got[2]
    assert told.headers["content-type"] == "application/json"
    assert told.headers["webhook-timestamp"] == str(int(clock.now.timestamp()))
    assert told.headers["webhook-id"] == told.said["id"]
    assert told.path == "/hook"
    assert told.said == {
        "id": told.said["id"],
        "type": "participant.left",
        "timestamp": "2025-10-21T17:21:27.123Z",
        "seq": 7,
        "company_id": company.id,
        "room_id": "team",
        "data": {
            "session_id": session.id, "user_name": "alice", "user_id": None, "token_id": None, "reason": "left",
            "duration_s": 0.0,
        },
    }  # fmt: skip
    assert {state for _, state, _ in await log(store, company, webhook.id)} == {"delivered"}


async def test_a_webhook_gets_what_it_asked_for(
    store: Store, company: Company, other: Company, receiver: Receiver, dispatching: Any
) -> None:
    await store.webhooks.create(company.id, f"{receiver.url}/a", events=["participant.*", "room.ended"])
    await store.webhooks.create(company.id, f"{receiver.url}/b", rooms=["other"])
    await visit(store, other)
    await visit(store, company)
    await visit(store, company, "other", "bob")
    async with dispatching():
        await until(lambda: len(receiver.got) == 10)
    got = [(message.path[-1], message.said["room_id"], message.said["type"]) for message in receiver.got]
    assert [kind for path, _, kind in got if path == "b"] == [kind for kind, _ in CALL]
    for room in ("team", "other"):
        assert [kind for path, where, kind in got if path == "a" and where == room] == [kind for kind, _ in CALL[1:]]


async def test_a_room_waits_for_its_first_and_others_go_on(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, clock: Any
) -> None:
    receiver.answer = lambda message: 500 if message.said["room_id"] == "team" else 204
    webhook, _ = await store.webhooks.create(company.id, receiver.url)
    await visit(store, company)
    async with dispatching() as counters:
        await visit(store, company, "other", "bob")
        await until(lambda: len(receiver.got) == 5)
        await until(lambda: counters.get("sfu_webhook_deliveries_total", result="retry") == 1)
        assert [fact for fact in receiver.facts() if fact[0] == "room.started"] == 2 * [("room.started", "")]
        clock.advance(WAITS_S[0] - 1)
        await visit(store, company, "third", "carol")
        await until(lambda: len(receiver.got) == 9)
        receiver.answer, before = lambda message: 204, len(receiver.got)
        clock.advance(2)
        await until(lambda: attempts(counters) == before + 4)
    assert receiver.facts()[before:] == CALL
    first = [message for message in receiver.got if message.said["seq"] == 1]
    assert len(first) == 2
    assert first[0].body == first[1].body
    assert first[0].headers["webhook-id"] == first[1].headers["webhook-id"]
    assert (await log(store, company, webhook.id))[0] == ("room.started", "delivered", 2)
    assert (await store.webhooks.get(company.id, webhook.id)).failing_since is None


async def test_a_rotated_secret_signs_beside_the_new_one_for_a_while(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, clock: Any
) -> None:
    webhook, old = await store.webhooks.create(company.id, receiver.url, events=["room.started"])
    _, new = await store.webhooks.rotate(company.id, webhook.id, 3600)
    async with dispatching():
        await visit(store, company)
        await until(lambda: len(receiver.got) == 1)
        clock.advance(3601)
        await visit(store, company)
        await until(lambda: len(receiver.got) == 2)
    during, after = receiver.got
    assert (during.signed_by(old.reveal()), during.signed_by(new.reveal())) == (True, True)
    assert (after.signed_by(old.reveal()), after.signed_by(new.reveal())) == (False, True)


@pytest.mark.parametrize("by", ["number", "time"])
async def test_a_replay_sends_again_from_there(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, clock: Any, by: str
) -> None:
    webhook, _ = await store.webhooks.create(company.id, receiver.url)
    async with dispatching() as counters:
        await visit(store, company)
        clock.advance(60)
        since: int | datetime = 5 if by == "number" else clock.now
        await visit(store, company, name="bob")
        await until(lambda: attempts(counters) == 8)
        assert await store.webhooks.replay(company.id, webhook.id, since) == (5, 8)
        await until(lambda: attempts(counters) == 12)
        assert await store.webhooks.replay(company.id, webhook.id, 9) == (9, 8)
        await visit(store, company, name="carol")
        await until(lambda: len(receiver.got) == 16)
    assert [message.said["seq"] for message in receiver.got] == [*range(1, 9), *range(5, 9), *range(9, 13)]
    assert {message.headers["webhook-id"] for message in receiver.got[4:8]} == {
        message.headers["webhook-id"] for message in receiver.got[8:12]
    }


async def test_a_replay_does_not_add_what_already_waits(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, clock: Any
) -> None:
    receiver.answer = lambda message: 500
    webhook, _ = await store.webhooks.create(company.id, receiver.url)
    await visit(store, company)
    async with dispatching() as counters:
        await until(lambda: attempts(counters) == 1)
        await store.webhooks.replay(company.id, webhook.id, 1)
        await store.deliveries.spread(webhook.id)
        receiver.answer = lambda message: 204
        clock.advance(WAITS_S[0])
        await until(lambda: len(receiver.got) == 5)
    assert len(await log(store, company, webhook.id)) == 4


async def test_no_more_than_a_few_at_once(store: Store, company: Company, receiver: Receiver, dispatching: Any) -> None:
    release = trio.Event()

    def slow(message: Message) -> Reply:
        return Reply(0) if not release.is_set() else Reply(204)

    receiver.answer = slow
    await store.webhooks.create(company.id, receiver.url, events=["room.started"])
    for number in range(3 * AT_ONCE):
        await visit(store, company, f"room-{number}")
    async with dispatching():
        await until(lambda: receiver.most_at_once == AT_ONCE)
        await trio.sleep(0.1)  # as long as one more could take
    assert (receiver.most_at_once, len(receiver.got)) == (AT_ONCE, AT_ONCE)


async def test_receivers_that_hang_leave_place_for_others(
    store: Store, company: Company, other: Company, receiver: Receiver, dispatching: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("sfu.webhooks.dispatcher.COMPANY_AT_ONCE", 10)
    receiver.answer = lambda message: Reply(0) if message.said["company_id"] == company.id else Reply(204)
    for _ in range(3):
        await store.webhooks.create(company.id, receiver.url, events=["room.started"])
    for number in range(AT_ONCE):
        await visit(store, company, f"room-{number}")
    async with dispatching():
        await until(lambda: receiver.most_at_once == 10)
        await store.webhooks.create(other.id, receiver.url)
        await visit(store, other)
        await until(lambda: sum(message.said["company_id"] == other.id for message in receiver.got) == 4)
    assert receiver.most_at_once == 11


async def test_one_that_fails_is_tried_once_at_a_time(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, clock: Any
) -> None:
    receiver.answer = lambda message: 500
    await store.webhooks.create(company.id, receiver.url, events=["room.started"])
    await visit(store, company, "first")
    async with dispatching() as counters:
        await until(lambda: attempts(counters) == 1)
        receiver.answer, receiver.most_at_once = lambda message: Reply(0), 0
        for number in range(AT_ONCE):
            await visit(store, company, f"room-{number}")
        await until(lambda: len(receiver.got) == 2)
        await trio.sleep(0.1)  # as long as one more could take
    assert receiver.most_at_once == 1


async def test_what_waits_is_measured(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, clock: Any
) -> None:
    webhook, _ = await store.webhooks.create(company.id, receiver.url)
    await visit(store, company)
    await store.deliveries.spread(webhook.id)
    clock.advance(90)
    await store.sending.measure()
    assert (store.sending.backlog.waiting, store.sending.backlog.oldest_s) == (4, 90)
    async with dispatching() as counters:
        await until(lambda: attempts(counters) == 4)
    await store.sending.measure()
    assert store.sending.backlog.waiting == 0


async def test_private_addresses_are_refused(
    store: Store, company: Company, receiver: Receiver, dispatching: Any
) -> None:
    webhook, _ = await store.webhooks.create(company.id, receiver.url, events=["room.started"])
    await visit(store, company)
    async with dispatching(allow_private=False) as counters:
        await until(lambda: attempts(counters) == 1)
    (line,) = (await store.deliveries.list(webhook)).items
    assert (line.state, line.error) == ("waiting", "address_refused: 127.0.0.1 has no public address")
    assert receiver.connections == 0
