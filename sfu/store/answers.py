"""Answers to requests with an Idempotency-Key, kept for a day, so that a repeated request has no second effect.

A row is written before the request is carried out, and completed before it is answered. A row without an answer means
that the request runs, or that its server died: after RUNNING_S, whoever repeats the request carries it out again, with
the same row. Answers may hold tokens and keys, so they are sealed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sfu.store.database import Database
from sfu.store.records import utc
from sfu.store.statements import Statements
from sfu.tenancy.keys import Secret, ServerKey

KEPT_S = 86_400
RUNNING_S = 60
"""How long a request without an answer counts as running: longer than one can take."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a key. `mine`: this request is to be carried out. `text`: the answer, once there is one.

    Otherwise another request with the key runs; it is given up after `seconds_left`.
    """

    id: str
    request: str
    mine: bool
    text: str | None
    seconds_left: float


class Answers:
    def __init__(self, database: Database, server_key: ServerKey, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._server_key = server_key
        self._clock = clock

    FORGET = """
        DELETE FROM answers WHERE company_id = :company_id AND key = :key AND created_at <= :over
    """
    CLAIM = """
        INSERT INTO answers (id, company_id, key, request, created_at)
        VALUES (:id, :company_id, :key, :request, :now)
        ON CONFLICT (company_id, key) DO NOTHING RETURNING id
    """
    TAKE_OVER = """
        UPDATE answers SET created_at = :now
        WHERE company_id = :company_id AND key = :key AND request = :request AND status IS NULL
            AND created_at <= :given_up
        RETURNING id
    """
    GET = "SELECT id, request, status, sealed, created_at FROM answers WHERE company_id = :company_id AND key = :key"

    async def claim(self, company_id: str, key: str, request: str) -> Answer:
        """Of all requests with a key, one at a time gets it. `request` is a digest of what is asked for."""
        now, place = self._clock(), {"company_id": company_id, "key": key}
        over, given_up = now - timedelta(seconds=KEPT_S), now - timedelta(seconds=RUNNING_S)

        async def work(statements: Statements) -> Answer:
            await statements.run(self.FORGET, **place, over=over)
            row = await statements.one(self.CLAIM, **place, id=str(uuid.uuid4()), request=request, now=now)
            if row is None:
                row = await statements.one(self.TAKE_OVER, **place, request=request, now=now, given_up=given_up)
            if row is not None:
                return Answer(str(row["id"]), request, True, None, RUNNING_S)
            row = await statements.one(self.GET, **place)
            if row is None:  # released between the two statements
                return Answer("", request, False, None, 1)
            left_s = (utc(row["created_at"]) - given_up).total_seconds()
            text = None if row["status"] is None else self._open(row["sealed"], company_id, str(row["id"]))
            return Answer(str(row["id"]), row["request"], False, text, left_s)

        return await self._database.transaction(work)

    KEEP = """
        UPDATE answers SET status = :status, sealed = :sealed
        WHERE company_id = :company_id AND id = :id AND status IS NULL
    """

    async def keep(self, company_id: str, id_: str, status: int, text: str) -> None:
        """Completes a claimed row."""
        sealed = self._server_key.seal(Secret(text.encode()), f"{company_id}/{id_}")
        await self._database.run(self.KEEP, company_id=company_id, id=id_, status=status, sealed=sealed)

    RELEASE = "DELETE FROM answers WHERE company_id = :company_id AND id = :id AND status IS NULL"

    async def release(self, company_id: str, id_: str) -> None:
        """Forgets a claimed row: the request was refused and had no effect."""
        await self._database.run(self.RELEASE, company_id=company_id, id=id_)

    def _open(self, sealed: str, company_id: str, id_: str) -> str:
        return self._server_key.unseal(sealed, f"{company_id}/{id_}").reveal().decode()
