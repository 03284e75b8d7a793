"""Retention: deletes expired rows of all companies."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sfu.store.database import Database

SWEEP_S = 60.0
BATCH = 200
"""Most rows per statement. Between two statements others can write, and a cancelled sweep can end."""

log = logging.getLogger(__name__)


class Retention:
    """Deletes expired rows. `history_days`: how long closed sessions and expired tokens are kept; 0: forever."""

    def __init__(self, database: Database, clock: Callable[[], datetime], *, history_days: int) -> None:
        self._database = database
        self._clock = clock
        self._history_days = history_days

    LINES = """
        DELETE FROM chat_lines WHERE id IN (SELECT id FROM chat_lines WHERE expires_ms <= :now_ms LIMIT :count)
        RETURNING id
    """
    FILES = """
        DELETE FROM files WHERE id IN (SELECT id FROM files WHERE expires_ms <= :now_ms LIMIT :count) RETURNING id
    """
    BANS = "DELETE FROM bans WHERE id IN (SELECT id FROM bans WHERE expires_at <= :now LIMIT :count) RETURNING id"
    SESSIONS = """
        DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE disconnected_at < :before LIMIT :count)
        RETURNING id
    """
    TOKENS = """
        DELETE FROM tokens WHERE id IN (SELECT id FROM tokens WHERE expires_at < :before LIMIT :count) RETURNING id
    """

    async def sweep(self) -> None:
        """Deletes everything that has expired. Raises DatabaseUnavailable."""
        now = self._clock()
        now_ms = int(now.timestamp() * 1000)
        deleted = {
            "lines": await self._all(self.LINES, now_ms=now_ms),
            "files": await self._all(self.FILES, now_ms=now_ms),
            "bans": await self._all(self.BANS, now=now),
        }
        if self._history_days:
            before = now - timedelta(days=self._history_days)
            deleted["sessions"] = await self._all(self.SESSIONS, before=before)
            deleted["tokens"] = await self._all(self.TOKENS, before=before)
        if any(deleted.values()):
            log.info("deleted %s", " ".join(f"{name}={count}" for name, count in deleted.items()))

    async def _all(self, sql: str, **values: object) -> int:
        count = 0
        while True:
            rows = await self._database.write(sql, **values, count=BATCH)
            count += len(rows)
            if len(rows) < BATCH:
                return count
