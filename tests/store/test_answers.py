"""Answers to repeated requests, on both engines: of many claims one wins, and what is kept is sealed."""

from __future__ import annotations

from typing import Any

import trio

from sfu.store import Store
from sfu.store.answers import KEPT_S, RUNNING_S, Answer
from sfu.store.records import Company

pytest_plugins = ["support.storing"]


async def test_of_many_claims_one_wins(store: Store, company: Company, other: Company) -> None:
    found: list[Answer] = []

    async def claim() -> None:
        found.append(await store.answers.claim(company.id, "key", "digest"))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(claim)
    assert sorted(one.mine for one in found) == [False] * 7 + [True]
    assert len({one.id for one in found}) == 1
    assert (await store.answers.claim(other.id, "key", "digest")).mine


async def test_an_answer_is_kept_sealed_and_not_replaced(store: Store, company: Company, clock: Any) -> None:
    first = await store.answers.claim(company.id, "key", "digest")
    await store.answers.keep(company.id, first.id, 201, "the secret answer")
    await store.answers.keep(company.id, first.id, 201, "another")
    await store.answers.release(company.id, first.id)
    found = await store.answers.claim(company.id, "key", "other digest")
    assert (found.mine, found.request, found.text) == (False, "digest", "the secret answer")
    (row,) = await store.database.read("SELECT sealed FROM answers")
    assert "secret" not in row["sealed"]
    clock.advance(KEPT_S)
    await store.retention.sweep()
    assert (await store.answers.claim(company.id, "key", "other digest")).mine


async def test_what_was_given_up_is_taken_over_once(store: Store, company: Company, clock: Any) -> None:
    first = await store.answers.claim(company.id, "key", "digest")
    clock.advance(RUNNING_S - 1)
    assert not (await store.answers.claim(company.id, "key", "digest")).mine
    clock.advance(1)
    assert not (await store.answers.claim(company.id, "key", "another")).mine
    taken = [await store.answers.claim(company.id, "key", "digest") for _ in range(2)]
    assert [(one.id, one.mine) for one in taken] == [(first.id, True), (first.id, False)]
    await store.answers.release(company.id, first.id)
    assert (await store.answers.claim(company.id, "key", "another")).id != first.id
