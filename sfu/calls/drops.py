"""How often a session lost its connection and the person came back, for the history. Pure.

A page that is closed has not lost its connection. It is counted once the person comes back: then it was a reload or a
crash.
"""

from __future__ import annotations

from sfu.errors import REJOIN_CLOSE_CODES, PageGone, SfuError
from sfu.store.records import SessionDrops


class Drops:
    """The counts of one session, which go on from those of its record."""

    def __init__(self, before: SessionDrops) -> None:
        self._drops, self._returns, self._last = before.drops, before.returns, before.last_drop
        self._lost = False

    def lost(self, code: str) -> None:
        """The connection was lost, for this reason. What follows until the person is back is the same loss."""
        self._drops += not self._lost
        self._lost, self._last = True, code

    def came_back(self, code: str) -> None:
        """The person is back. `code` is the reason for a loss that the server has not noticed."""
        if not self._lost:
            self.lost(code)
        self._lost = False
        self._returns += 1

    def ended(self, error: SfuError | None) -> SessionDrops:
        """The counts at the end of the session; None if the person left."""
        if error is not None and error.close_code in REJOIN_CLOSE_CODES and not isinstance(error, PageGone):
            self.lost(error.code)
        return self.now

    @property
    def now(self) -> SessionDrops:
        return SessionDrops(self._drops, self._returns, self._last)
