"""Connection slots: a total for the server and a share per address. Pure.

When no slot is left for a new connection, one that waits for a request gives way, preferably one that waits for its
first request. A browser opens another connection once it needs one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import Enum

from sfu.errors import ServerFull, TooManyConnections
from sfu.limits.rates import place


class Waits(Enum):
    """Which request a connection waits for. Those that wait for their first give way first, the oldest first."""

    FIRST = 0
    NEXT = 1


class Slots:
    """`n` slots, of which one address (for IPv6 one /64) may take `share`. `exempt` addresses may take all."""

    def __init__(self, n: int, share: int, exempt: Callable[[str], bool]) -> None:
        self._share, self._exempt = share, exempt
        self._free, self._taken = n, Counter[str]()
        self._waiting: dict[Waits, dict[Slot, None]] = {waits: {} for waits in Waits}

    def take(self, address: str, close: Callable[[], None]) -> Slot:
        """Takes a slot for a new connection from `address`. Raises ServerFull or TooManyConnections.

        `close` is called, at most once, when the connection must give way to a new one; the slot is then already free.
        """
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
        """Closes a waiting connection of this owner (None: of anybody); false if there is none."""
        for waiting in self._waiting.values():
            slot = next((slot for slot in waiting if owner in (None, slot.owner)), None)
            if slot is not None:
                slot.give_back()
                slot.close()
                return True
        return False


class Slot:
    """The slot of one connection. `owner` is the address it counts for.

    A connection of an exempt proxy counts for the client that its current request names, else for nobody ("").
    """

    def __init__(self, slots: Slots, owner: str, close: Callable[[], None]) -> None:
        self._slots, self._connected = slots, owner
        self.owner, self.close = owner, close
        self._waits: Waits | None = None
        self._taken = True
        self._count(1)
        self._wait(Waits.FIRST)

    def named(self, address: str) -> None:
        """A proxy said that the connection is of the client at `address`. Raises TooManyConnections as `asked`."""
        self._count_for(address)
        self._connected = self.owner

    def asked(self, address: str) -> None:
        """A request of the client at `address` arrived. Raises TooManyConnections if that address has its share."""
        self._wait(None)
        self._count_for(address)

    def answered(self) -> None:
        """The response was sent; the connection waits for the next request."""
        self._move(self._connected)
        self._wait(Waits.NEXT)

    def give_back(self) -> None:
        """Frees the slot. Idempotent."""
        if self._taken:
            self._wait(None)
            self._taken = False
            self._count(-1)

    def _count_for(self, address: str) -> None:
        owner = self._slots._owner(address)
        if owner != self.owner:
            self._slots._make_room(owner)
            self._move(owner)

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
