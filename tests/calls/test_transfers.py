"""Places for transfers: nobody takes those of everybody else, and none is lost."""

from __future__ import annotations

import gc

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sfu.calls.transfers import SLACK_S, SLOWEST_BYTES_PER_S, WAIT_S, WHOLE_S, Place, Transfers, longest_s
from sfu.errors import ServerFull

ALICE, BOB = {"alice": 2, "192.0.2.1": 3}, {"bob": 2, "192.0.2.1": 3}


async def test_one_owner_gets_its_share(autojump_clock: MockClock) -> None:
    transfers = Transfers(10)
    held = [await transfers.place(ALICE) for _ in range(2)]
    with pytest.raises(ServerFull):
        await transfers.place(ALICE)
    assert trio.current_time() >= WAIT_S
    held.append(await transfers.place(BOB))
    with pytest.raises(ServerFull):
        await transfers.place(BOB)  # their common address has its share
    held += [await transfers.place({}) for _ in range(7)]
    with pytest.raises(ServerFull):
        await transfers.place({})


async def test_who_waits_gets_the_next_place(autojump_clock: MockClock) -> None:
    transfers, got = Transfers(2), list[Place]()
    held = [await transfers.place(ALICE) for _ in range(2)]
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            got.append(await transfers.place(BOB))

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert not got
        held[0].give_back()
        held[0].give_back()
    assert len(got) == 1
    with pytest.raises(ServerFull):
        await transfers.place(ALICE)


async def test_a_place_that_is_dropped_is_free_again(autojump_clock: MockClock) -> None:
    transfers = Transfers(1)
    for _ in range(3):
        await transfers.place(ALICE)
        gc.collect()


def test_a_transfer_has_a_least_speed() -> None:
    assert longest_s(0) == SLACK_S
    assert longest_s(100 * SLOWEST_BYTES_PER_S) == SLACK_S + 100
    assert longest_s(1 << 40) == WHOLE_S
