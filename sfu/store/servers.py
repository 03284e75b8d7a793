"""The servers that share the database: who of them died, told by sessions that it no longer records."""

from __future__ import annotations

import logging
from datetime import datetime

from sfu.store.database import Database
from sfu.store.records import utc
from sfu.store.unseen import close_unseen

LOOK_S = 12.0
"""Time between two looks at the others, for a heartbeat of 10 s."""
LOOKS = 4
"""A server whose sessions did not change between so many looks is dead. Counting looks instead of comparing clocks
allows for clocks that differ, for pauses of this server, and for a database that nobody could reach."""

log = logging.getLogger(__name__)


class Servers:
    """Closes the sessions of servers that died, whichever server still lives."""

    def __init__(self, database: Database, server: str) -> None:
        self._database = database
        self._server = server
        self._unchanged: dict[str, tuple[datetime, int]] = {}  # by server: its last sign, and how many looks found it

    SEEN = """
        SELECT server, max(last_seen_at) AS seen_at FROM sessions
        WHERE disconnected_at IS NULL AND server <> :server GROUP BY server
    """
    LOST = "(server = :lost AND last_seen_at <= :seen_at)"

    async def look(self) -> None:
        """One look at the others. Raises DatabaseUnavailable; then the looks are counted anew."""
        before, self._unchanged = self._unchanged, {}
        now: dict[str, tuple[datetime, int]] = {}
        for row in await self._database.read(self.SEEN, server=self._server):
            server, seen_at = row["server"], utc(row["seen_at"])
            last, looks = before.get(server, (None, 0))
            now[server] = (seen_at, looks + 1 if seen_at == last else 0)
            if now[server][1] >= LOOKS:
                await self._close(server, seen_at)
        self._unchanged = now

    async def _close(self, lost: str, seen_at: datetime) -> None:
        await close_unseen(self._database, self.LOST, lost=lost, seen_at=seen_at)
        log.warning("server=%r state=lost last_seen=%s: its sessions are closed", lost, seen_at.isoformat())
