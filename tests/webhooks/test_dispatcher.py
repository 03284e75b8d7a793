"""Events reach webhooks: signed, in order, again after failures, and not twice from two servers. On both engines."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any

import pytest
import trio
from support.receivers import Message, Receiver, Reply
from support.waiting import until

from sfu.store import Store, open_store
from sfu.store.records import Company, Session
from sfu.store.sending import LEASE_S, PAUSE_S
from sfu.tenancy.keys import ServerKey
from sfu.webhooks import sender
from sfu.webhooks.dispatcher import AT_ONCE, WAITS_S

pytest_plugins = ["support.storing"]

CALL = [("room.started", ""), ("participant.joined", "alice"), ("participant.left", "alice"), ("room.ended", "")]


async def visit(store: Store, company: Company, room_id: str = "team", name: str = "alice") -> Session:
    session = await store.sessions.admit_anonymous(company.id, room_id, name)
    store.sessions.close(session, "left")
    await store.sessions.flush()
    return session


async def log(store: Store, company: Company, webhook_id: str) -> list[tuple[str, str, int]]:
    """Type, state and attempts of each delivery, in the order of the events."""
    webhook = await store.webhooks.get(company.id, webhook_id)
    page = await store.deliveries.list(webhook)
    return [(one.type, one.state, one.attempts) for one in sorted(page.items, key=lambda one: one.seq)]


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
        await until(lambda: _attempts(counters) == before + 4)
    assert receiver.facts()[before:] == CALL
    first = [message for message in receiver.got if message.said["seq"] == 1]
    assert len(first) == 2
    assert first[0].body == first[1].body
    assert first[0].headers["webhook-id"] == first[1].headers["webhook-id"]
    assert (await log(store, company, webhook.id))[0] == ("room.started", "delivered", 2)
    assert (await store.webhooks.get(company.id, webhook.id)).failing_since is None


async def test_waits_grow_and_a_webhook_that_fails_for_days_is_paused(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, clock: Any
) -> None:
    receiver.answer = lambda message: 503
    webhook, _ = await store.webhooks.create(company.id, receiver.url, events=["room.started"])
    await visit(store, company)
    began, waits = clock.now, []
    async with dispatching() as counters:
        for attempt in range(1, 100):
            await until(lambda attempt=attempt: _attempts(counters) == attempt)  # type: ignore[misc]
            (line,) = (await store.deliveries.list(webhook)).items
            assert (line.state, line.status, line.error) == ("waiting", 503, "status 503")
            if counters.get("sfu_webhook_deliveries_total", result="paused"):
                break
            assert line.next_at is not None
            waits.append((line.next_at - clock.now).total_seconds())
            clock.now = line.next_at
        assert [round(wait) for wait in waits[:11]] == [*WAITS_S, WAITS_S[-1]]
        assert clock.now - began >= timedelta(seconds=PAUSE_S)
        paused = await store.webhooks.get(company.id, webhook.id)
        assert (paused.paused_at, paused.paused_why) == (clock.now, "failing")
        feed = await store.events.after(company.id, 0, 100, kind="webhook.paused")
        assert [one["data"] for one in feed.items] == [{"webhook_id": webhook.id, "reason": "failing"}]
        clock.advance(10 * 86_400)
        await visit(store, company, "later")
        tried = len(receiver.got)
        receiver.answer = lambda message: 200
        resumed = await store.webhooks.resume(company.id, webhook.id)
        assert (resumed.paused_at, resumed.paused_why, resumed.failing_since) == (None, None, None)
        await until(lambda: len(receiver.got) == tried + 2)
    assert {message.said["room_id"] for message in receiver.got[tried:]} == {"team", "later"}


def _attempts(counters: Any) -> float:
    results = ("delivered", "retry", "failed", "paused")
    return sum(counters.get("sfu_webhook_deliveries_total", result=result) for result in results)


async def test_one_that_never_gets_through_holds_its_room_up_for_days_and_not_for_ever(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, clock: Any
) -> None:
    receiver.answer = lambda message: 400 if message.said["seq"] == 1 else 200
    webhook, _ = await store.webhooks.create(company.id, receiver.url)
    await visit(store, company)
    async with dispatching() as counters:
        await until(lambda: _attempts(counters) == 1)
        await visit(store, company, "other")  # gets through, so the webhook is not what fails
        await until(lambda: _attempts(counters) == 5)
        clock.advance(PAUSE_S + 1)
        await until(lambda: _attempts(counters) == 9)
    assert (await log(store, company, webhook.id))[0][:2] == ("room.started", "failed")
    assert [one[1] for one in await log(store, company, webhook.id)][1:4] == 3 * ["delivered"]


async def test_a_receiver_that_is_gone_is_left_alone_at_once(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, clock: Any
) -> None:
    receiver.answer = lambda message: 410
    webhook, _ = await store.webhooks.create(company.id, receiver.url, events=["room.started"])
    await visit(store, company)
    async with dispatching() as counters:
        await until(lambda: counters.get("sfu_webhook_deliveries_total", result="paused") == 1)
        clock.advance(86_400)
        test = await store.deliveries.test(webhook)  # a test is sent all the same
        await until(lambda: len(receiver.got) == 2)
        await until(lambda: counters.get("sfu_webhook_deliveries_total", result="failed") == 1)
    assert receiver.got[1].said["type"] == "webhook.test"
    assert receiver.got[1].said["id"] == test.event_id
    assert (await store.webhooks.get(company.id, webhook.id)).paused_why == "gone"
    assert await log(store, company, webhook.id) == [("webhook.test", "failed", 1), ("room.started", "waiting", 1)]


@pytest.mark.parametrize("reply", ["hangs", "redirects", "never_ends", "large", "closed"])
async def test_a_receiver_that_misbehaves(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, monkeypatch: pytest.MonkeyPatch, reply: str
) -> None:
    monkeypatch.setattr(sender, "ATTEMPT_S", 1.0)
    monkeypatch.setattr(sender, "READ_S", 0.2)
    replies = {
        "hangs": Reply(0),
        "redirects": Reply(302, (("Location", f"{receiver.url}/elsewhere"),)),
        "never_ends": Reply(200, body=None),
        "large": Reply(200, body=bytes(1 << 20)),
    }
    webhook, _ = await store.webhooks.create(company.id, receiver.url, events=["room.started"])
    if reply == "closed":
        await store.webhooks.change(company.id, webhook.id, {"url": "http://127.0.0.1:9/"})
    else:
        receiver.answer = lambda message: replies[reply]
    await visit(store, company)
    async with dispatching() as counters:
        await until(lambda: _attempts(counters) == 1)
    (line,) = (await store.deliveries.list(webhook)).items
    said = {"hangs": "timeout", "redirects": "redirect: it is not followed"}
    if reply in ("never_ends", "large"):
        assert (line.state, line.error) == ("delivered", None)
    elif reply == "closed":
        assert line.error is not None
        assert line.error.startswith("ConnectionRefusedError")
    else:
        assert (line.state, line.error) == ("waiting", said[reply])
    assert {message.path for message in receiver.got} <= {"/hook"}


async def test_a_receiver_says_when_to_come_again(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, clock: Any
) -> None:
    receiver.answer = lambda message: Reply(429, (("Retry-After", "77"),))
    webhook, _ = await store.webhooks.create(company.id, receiver.url, events=["room.started"])
    await visit(store, company)
    async with dispatching() as counters:
        await until(lambda: _attempts(counters) == 1)
    (line,) = (await store.deliveries.list(webhook)).items
    assert line.next_at == clock.now + timedelta(seconds=77)


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


async def test_a_secret_of_another_server_key_pauses(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, database_url: str, clock: Any
) -> None:
    webhook, _ = await store.webhooks.create(company.id, receiver.url)
    await visit(store, company)
    async with open_store(database_url, ServerKey(bytes(32)), clock=clock) as strange:
        async with dispatching(strange) as counters:
            await until(lambda: counters.get("sfu_webhook_deliveries_total", result="paused") == 1)
        await strange.webhooks.rotate(company.id, webhook.id, 60)
        await strange.webhooks.resume(company.id, webhook.id)
        async with dispatching(strange):
            await until(lambda: len(receiver.got) == 4)


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
        await until(lambda: _attempts(counters) == 8)
        assert await store.webhooks.replay(company.id, webhook.id, since) == (5, 8)
        await until(lambda: _attempts(counters) == 12)
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
        await until(lambda: _attempts(counters) == 1)
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
        await until(lambda: _attempts(counters) == 1)
        receiver.answer, receiver.most_at_once = lambda message: Reply(0), 0
        for number in range(AT_ONCE):
            await visit(store, company, f"room-{number}")
        await until(lambda: len(receiver.got) == 2)
        await trio.sleep(0.1)  # as long as one more could take
    assert receiver.most_at_once == 1


async def test_two_servers_do_not_send_the_same(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, database_url: str, server_key: ServerKey,
    clock: Any,
) -> None:  # fmt: skip
    await store.webhooks.create(company.id, receiver.url)
    async with AsyncExitStack() as stack:
        for name in ("a", "b"):
            opened = open_store(database_url, server_key, server=name, clock=clock)
            await stack.enter_async_context(dispatching(await stack.enter_async_context(opened)))
        for number in range(10):
            await visit(store, company, f"room-{number % 3}", f"user-{number}")
        await until(lambda: len(receiver.got) == 40)
        await trio.sleep(0.1)
    assert sorted(message.said["seq"] for message in receiver.got) == list(range(1, 41))
    for room in range(3):
        seqs = [message.said["seq"] for message in receiver.got if message.said["room_id"] == f"room-{room}"]
        assert seqs == sorted(seqs)


async def test_another_server_goes_on_when_one_has_died(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, database_url: str, server_key: ServerKey,
    clock: Any,
) -> None:  # fmt: skip
    webhook, _ = await store.webhooks.create(company.id, receiver.url)
    await visit(store, company)
    async with open_store(database_url, server_key, server="dead", clock=clock) as dead:
        assert [one.id for one in await dead.sending.work()] == [webhook.id]
    assert await store.sending.work() == []
    async with dispatching():
        clock.advance(LEASE_S)
        await until(lambda: len(receiver.got) == 4)


async def test_a_stop_leaves_no_lease_behind(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, database_url: str, server_key: ServerKey,
    clock: Any,
) -> None:  # fmt: skip
    await store.webhooks.create(company.id, receiver.url)
    async with dispatching():
        await visit(store, company)
        await until(lambda: len(receiver.got) == 4)
    await visit(store, company)
    async with open_store(database_url, server_key, server="b", clock=clock) as second, dispatching(second):
        await until(lambda: len(receiver.got) >= 8)


async def test_a_disabled_company_is_sent_nothing_until_it_is_enabled(
    store: Store, company: Company, receiver: Receiver, dispatching: Any
) -> None:
    await store.webhooks.create(company.id, receiver.url)
    await visit(store, company)
    await store.companies.set_active(company.id, False)
    assert await store.sending.work() == []
    await store.companies.set_active(company.id, True)
    async with dispatching():
        await until(lambda: len(receiver.got) == 4)


async def test_a_room_goes_on_after_its_first_was_erased(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, clock: Any
) -> None:
    """By `sfu forget`, or by retention."""
    webhook, _ = await store.webhooks.create(company.id, receiver.url, events=["participant.*"])
    await visit(store, company, name="alice")
    await visit(store, company, name="bob")
    await store.sending.work()
    await store.deliveries.spread(webhook.id)
    await store.database.run("DELETE FROM deliveries WHERE user_name = 'alice'")
    assert await store.sending.due(webhook, 10) == []
    async with dispatching():
        await until(lambda: len(receiver.got) == 2)
    assert [name for _, name in receiver.facts()] == ["bob", "bob"]


REFUSED = {
    "sqlite": (
        "CREATE TRIGGER refused BEFORE UPDATE ON deliveries BEGIN SELECT RAISE(ABORT, 'refused'); END",
        "DROP TRIGGER refused",
    ),
    "postgresql": (
        "ALTER TABLE deliveries ADD CONSTRAINT refused CHECK (tried_at IS NULL) NOT VALID",
        "ALTER TABLE deliveries DROP CONSTRAINT refused",
    ),
}
"""Has a database refuse to write what became of a delivery; and lets it be."""


async def test_a_receiver_gets_nothing_again_while_results_cannot_be_written(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("sfu.webhooks.dispatcher.AGAIN_S", 0.05)
    before, after = REFUSED[database_url.partition(":")[0]]
    webhook, _ = await store.webhooks.create(company.id, receiver.url)
    await visit(store, company)
    await store.deliveries.spread(webhook.id)
    await store.database.run(before)
    async with dispatching() as counters:
        await until(lambda: receiver.got)
        await trio.sleep(0.3)  # some tries to write it
        assert len(receiver.got) == 1
        await store.database.run(after)
        await until(lambda: _attempts(counters) == 4)
    assert receiver.facts() == CALL


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
        await until(lambda: _attempts(counters) == 4)
    await store.sending.measure()
    assert store.sending.backlog.waiting == 0


async def test_private_addresses_are_refused(
    store: Store, company: Company, receiver: Receiver, dispatching: Any
) -> None:
    webhook, _ = await store.webhooks.create(company.id, receiver.url, events=["room.started"])
    await visit(store, company)
    async with dispatching(allow_private=False) as counters:
        await until(lambda: _attempts(counters) == 1)
    (line,) = (await store.deliveries.list(webhook)).items
    assert (line.state, line.error) == ("waiting", "address_refused: 127.0.0.1 has no public address")
    assert receiver.connections == 0
