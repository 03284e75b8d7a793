"""Connection slots: a total for the server and a share per address. Pure.

A connection that waits for a request, most of all for its first one, gives way to one that comes when there is no slot
left for it: a browser opens another when it has something to ask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import Enum

from sfu.errors import ServerFull, TooManyConnections
from sfu.rates import place


class Waits(Enum):
    """What for. Those that wait for the first go first, and of these whoever waits longest."""

    FIRST = 0
    NEXT = 1


class Slots:
    """`n` slots, of which one address, for IPv6 one /64, may have `share`; those that are `exempt` may have all."""

    def __init__(self, n: int, share: int, exempt: Callable[[str], bool]) -> None:
        self._share, self._exempt = share, exempt
        self._free, self._taken = n, Counter[str]()
        self._waiting: dict[Waits, dict[Slot, None]] = {waits: {} for waits in Waits}

    def take(self, address: str, close: Callable[[], None]) -> Slot:
        """The slot of a new connection from `address`. `close` is called, at most once and by another connection's
        coming, when it has to give way; then it has none any more. Raises ServerFull or TooManyConnections."""
        owner = self._owner(address)
        self._make_room(owner)
        if self._free <= 0 and not self._dismiss(None):
            raise ServerFull
        return Slot(self, owner, close)

    def _owner(self, address: str) -> str:
        return "" if self._exempt(address) else place(address)

    def _make_room(self, owner: str) -> None:
        if owner and self._taken[owner] >= self._share and not self._dismiss(owner):
            raise TooManyConnections

    def _dismiss(self, owner: str | None) -> bool:
        """Ends one that waits, of this owner or of anybody; false if none does."""
        for waiting in self._waiting.values():
            slot = next((slot for slot in waiting if owner in (None, slot.owner)), None)
            if slot is not None:
                slot.give_back()
                slot.close()
                return True
        return False


class Slot:
    """One connection's. `owner` is the address it counts for: an exempt one's client, once a request names it."""

    def __init__(self, slots: Slots, owner: str, close: Callable[[], None]) -> None:
        self._slots, self._connected = slots, owner
        self.owner, self.close = owner, close
        self._waits: Waits | None = None
        self._taken = True
        self._count(1)
        self._wait(Waits.FIRST)

    def asked(self, address: str) -> None:
        """A request came, for whoever is at `address`. Raises TooManyConnections when they have their share."""
        self._wait(None)
        owner = self._slots._owner(address)
        if owner != self.owner:
            self._slots._make_room(owner)
            self._move(owner)

    def answered(self) -> None:
        """The connection waits for the next request."""
        self._move(self._connected)
        self._wait(Waits.NEXT)

    def give_back(self) -> None:
        """The connection ends. Idempotent."""
        if self._taken:
            self._wait(None)
            self._taken = False
            self._count(-1)

    def _move(self, owner: str) -> None:
        if self._taken:
            self._count(-1)
            self.owner = owner
            self._count(1)

    def _count(self, n: int) -> None:
        slots = self._slots
        slots._free -= n
        slots._taken[self.owner] += n
        if not slots._taken[self.owner]:
            del slots._taken[self.owner]

    def _wait(self, waits: Waits | None) -> None:
        if not self._taken:
            return
        if self._waits is not None:
            del self._slots._waiting[self._waits][self]
        self._waits = waits
        if waits is not None:
            self._slots._waiting[waits][self] = None
