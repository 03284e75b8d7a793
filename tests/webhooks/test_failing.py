"""Receivers that fail, hang, redirect or are gone, and results that cannot be written. On both engines."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import trio
from support.receivers import Receiver, Reply
from support.visits import CALL, attempts, log, visit
from support.waiting import until

from sfu.store import Store, open_store
from sfu.store.records import Company
from sfu.store.sending import PAUSE_S
from sfu.tenancy.keys import ServerKey
from sfu.webhooks import sender
from sfu.webhooks.dispatcher import WAITS_S

pytest_plugins = ["support.storing"]


async def test_waits_grow_and_a_webhook_that_fails_for_days_is_paused(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, clock: Any
) -> None:
    receiver.answer = lambda message: 503
    webhook, _ = await store.webhooks.create(company.id, receiver.url, events=["room.started"])
    await visit(store, company)
    began, waits = clock.now, []
    async with dispatching() as counters:
        for attempt in range(1, 100):
            await until(lambda attempt=attempt: attempts(counters) == attempt)  # type: ignore[misc]
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


async def test_one_that_never_gets_through_holds_its_room_up_for_days_and_not_for_ever(
    store: Store, company: Company, receiver: Receiver, dispatching: Any, clock: Any
) -> None:
    receiver.answer = lambda message: 400 if message.said["seq"] == 1 else 200
    webhook, _ = await store.webhooks.create(company.id, receiver.url)
    await visit(store, company)
    async with dispatching() as counters:
        await until(lambda: attempts(counters) == 1)
        await visit(store, company, "other")  # gets through, so the webhook is not what fails
        await until(lambda: attempts(counters) == 5)
        clock.advance(PAUSE_S + 1)
        await until(lambda: attempts(counters) == 9)
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
        await until(lambda: attempts(counters) == 1)
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
        await until(lambda: attempts(counters) == 1)
    (line,) = (await store.deliveries.list(webhook)).items
    assert line.next_at == clock.now + timedelta(seconds=77)


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
        await until(lambda: attempts(counters) == 4)
    assert receiver.facts() == CALL
