"""Servers that share a database, and what waits when one stops, dies, or is told to stop sending. On both engines."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import trio
from support.receivers import Receiver
from support.visits import visit
from support.waiting import until

from sfu.store import Store, open_store
from sfu.store.records import Company
from sfu.store.sending import LEASE_S
from sfu.tenancy.keys import ServerKey

pytest_plugins = ["support.storing"]


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
