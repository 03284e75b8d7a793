"""Retention: deletes expired rows of all companies."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta

import trio

from sfu.store.answers import KEPT_S
from sfu.store.database import Database

SWEEP_S = 60.0
EMPTY_S = 60
"""How long a room must have been empty before it, or its chat, is deleted: people reload the page, servers restart."""
BATCH = 50
"""Most rows per statement. Between two statements others can write, and a cancelled sweep can end."""

REST = 4.0
"""How long a sweep pauses after a batch, in durations of that batch. SQLite has one writer, and without pauses every
join would wait for a batch."""

log = logging.getLogger(__name__)


class Retention:
    """Deletes expired rows. `history_days`: how long closed sessions and expired tokens are kept; 0: forever.
    `audit_days`: how long the audit log is kept; 0: forever.
    `guest_days`: how long closed sessions without a token are kept, if that is shorter; 0: like others.
    `event_days`: how long events are kept, and what was sent to webhooks or still waits for them; 0: forever.
    `keep_open_chat`: chat outlives the call also in rooms that anyone can enter by name."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        *,
        audit_days: int,
        history_days: int,
        guest_days: int,
        event_days: int,
        keep_open_chat: bool,
    ) -> None:
        self._database = database
        self._clock = clock
        self._audit_days = audit_days
        self._history_days = history_days
        self._guest_days = guest_days
        self._event_days = event_days
        self._keep_open_chat = keep_open_chat

    LINES = """
        DELETE FROM chat_lines WHERE id IN (SELECT id FROM chat_lines WHERE expires_ms <= :now_ms LIMIT :count)
        RETURNING id
    """
    FILES = """
        DELETE FROM files WHERE id IN (SELECT id FROM files WHERE expires_ms <= :now_ms LIMIT :count) RETURNING id
    """
    _EMPTY = """
        FROM {table} AS one JOIN rooms AS r ON r.company_id = one.company_id AND r.room_id = one.room_id
        WHERE one.company_id = (SELECT id FROM companies WHERE is_default) AND r.access = 'open'
            AND r.chat_kept_s IS NULL AND NOT EXISTS (
                SELECT 1 FROM sessions AS s WHERE s.company_id = one.company_id AND s.room_id = one.room_id
                    AND (s.disconnected_at IS NULL OR s.disconnected_at > :empty_since)
            )
        LIMIT :count
    """
    OPEN_LINES = f"DELETE FROM chat_lines WHERE id IN (SELECT one.id {_EMPTY.format(table='chat_lines')}) RETURNING id"
    OPEN_FILES = f"DELETE FROM files WHERE id IN (SELECT one.id {_EMPTY.format(table='files')}) RETURNING id"
    BANS = "DELETE FROM bans WHERE id IN (SELECT id FROM bans WHERE expires_at <= :now LIMIT :count) RETURNING id"
    ROOMS = """
        DELETE FROM rooms WHERE NOT kept AND last_join_at < :empty_since AND id IN (
            SELECT r.id FROM rooms AS r
            WHERE NOT r.kept AND r.last_join_at < :empty_since AND NOT EXISTS (
                SELECT 1 FROM sessions AS s WHERE s.company_id = r.company_id AND s.room_id = r.room_id
                    AND (s.disconnected_at IS NULL OR s.disconnected_at > :empty_since)
            )
            AND NOT EXISTS (SELECT 1 FROM chat_lines AS l WHERE l.company_id = r.company_id AND l.room_id = r.room_id)
            AND NOT EXISTS (SELECT 1 FROM files AS f WHERE f.company_id = r.company_id AND f.room_id = r.room_id)
            AND NOT EXISTS (SELECT 1 FROM bans AS b WHERE b.company_id = r.company_id AND b.room_id = r.room_id)
            LIMIT :count
        ) RETURNING id
    """
    """Rooms that somebody made by entering, that were never edited, and that nothing belongs to any more. PostgreSQL
    looks at the first two conditions again if somebody joined or edited the room meanwhile."""
    AUDIT = """
        DELETE FROM audit_entries WHERE id IN (SELECT id FROM audit_entries WHERE at < :before LIMIT :count)
        RETURNING id
    """
    GUESTS = """
        DELETE FROM sessions WHERE id IN (
            SELECT id FROM sessions WHERE token_id IS NULL AND disconnected_at < :before LIMIT :count
        ) RETURNING id
    """
    SESSIONS = """
        DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE disconnected_at < :before LIMIT :count)
        RETURNING id
    """
    TIERS = "SELECT tier, history_days FROM tiers WHERE history_days IS NOT NULL"
    TIER_SESSIONS = """
        DELETE FROM sessions WHERE id IN (
            SELECT id FROM sessions
            WHERE disconnected_at < :before AND company_id IN (SELECT id FROM companies WHERE tier = :tier)
            LIMIT :count
        ) RETURNING id
    """
    TOKENS = """
        DELETE FROM tokens WHERE id IN (SELECT id FROM tokens WHERE expires_at < :before LIMIT :count) RETURNING id
    """
    ANSWERS = """
        DELETE FROM answers WHERE id IN (SELECT id FROM answers WHERE created_at <= :before LIMIT :count) RETURNING id
    """

    EVENTS = "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < :before LIMIT :count) RETURNING id"
    DELIVERIES = """
        DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE created_at < :before LIMIT :count)
        RETURNING id
    """

    async def sweep(self) -> None:
        """Deletes everything that has expired, one batch of each kind in turn. Raises DatabaseUnavailable."""
        deleted: Counter[str] = Counter()
        tiers = {row["tier"]: int(row["history_days"]) for row in await self._database.read(self.TIERS)}
        more = True
        while more:
            more = False
            for kind, sql, value in self._kinds(tiers):
                if kind == "tokens" and more:
                    break  # deleting a token also writes to its sessions, so expired sessions go first
                began = trio.current_time()
                count = len(await self._database.write(sql, **value, count=BATCH))
                deleted[kind] += count
                more = more or count == BATCH
                if count:
                    await trio.sleep(REST * (trio.current_time() - began))
        if deleted.total():
            log.info("deleted %s", " ".join(f"{kind}={count}" for kind, count in deleted.items()))

    def _kinds(self, tiers: Mapping[str, int]) -> Iterator[tuple[str, str, dict[str, object]]]:
        """Each kind of row with its statement and the time before which its rows have expired. `tiers` has the days for
        which those keep their history."""
        now = self._clock()
        now_ms = int(now.timestamp() * 1000)
        yield "lines", self.LINES, {"now_ms": now_ms}
        yield "files", self.FILES, {"now_ms": now_ms}
        yield "bans", self.BANS, {"now": now}
        yield "answers", self.ANSWERS, {"before": now - timedelta(seconds=KEPT_S)}
        empty_since = now - timedelta(seconds=EMPTY_S)
        if not self._keep_open_chat:
            yield "lines", self.OPEN_LINES, {"empty_since": empty_since}
            yield "files", self.OPEN_FILES, {"empty_since": empty_since}
        yield "rooms", self.ROOMS, {"empty_since": empty_since}
        if self._audit_days:
            yield "audit", self.AUDIT, {"before": now - timedelta(days=self._audit_days)}
        if self._event_days:
            before = now - timedelta(days=self._event_days)
            yield "events", self.EVENTS, {"before": before}
            yield "deliveries", self.DELIVERIES, {"before": before}
        if self._guest_days:
            yield "sessions", self.GUESTS, {"before": now - timedelta(days=self._guest_days)}
        for tier, days in tiers.items():
            yield "sessions", self.TIER_SESSIONS, {"tier": tier, "before": now - timedelta(days=days)}
        if self._history_days:
            before = now - timedelta(days=self._history_days)
            yield "sessions", self.SESSIONS, {"before": before}
            yield "tokens", self.TOKENS, {"before": before}
