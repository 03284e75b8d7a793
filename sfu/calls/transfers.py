"""Places for transfers of files: a total, a share per person and address, and a least speed."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Mapping

import trio

from sfu.errors import ServerFull

WHOLE_S = 600.0
"""Timeout for a whole transfer."""
SLACK_S, SLOWEST_BYTES_PER_S = 20.0, 4096
"""A transfer may be slower than this for SLACK_S in all. Otherwise a few that send a byte at a time take all places."""
WAIT_S = 30.0
"""How long a transfer may wait for its place."""


def longest_s(n_bytes: int) -> float:
    """The time that a transfer of `n_bytes` may take."""
    return min(WHOLE_S, SLACK_S + n_bytes / SLOWEST_BYTES_PER_S)


class Transfers:
    """`n` places for transfers in one direction."""

    def __init__(self, n: int) -> None:
        self._free, self._taken = n, Counter[str]()
        self._freed = trio.Event()

    async def place(self, shares: Mapping[str, int]) -> Place:
        """Takes a place, which counts for each of these owners with its share. Raises ServerFull if there is none."""
        with trio.move_on_after(WAIT_S):
            while self._free <= 0 or any(self._taken[owner] >= share for owner, share in shares.items()):
                await self._freed.wait()
            self._free -= 1
            self._taken.update(shares.keys())
            return Place(self, shares.keys())
        raise ServerFull("Too many files are being transferred. Try again in a moment.")

    def _free_one(self, owners: list[str]) -> None:
        self._free += 1
        self._taken -= Counter(owners)
        self._freed.set()
        self._freed = trio.Event()


class Place:
    """One transfer's place. Given back by `give_back`, at the latest when the last reference is gone."""

    def __init__(self, transfers: Transfers, owners: Iterable[str]) -> None:
        self.give_back = weakref.finalize(self, transfers._free_one, list(owners))
