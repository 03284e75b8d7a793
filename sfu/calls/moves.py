"""Moves to another room: the client gets a token for it, which the server makes, and goes there by itself."""

from __future__ import annotations

from sfu.calls import facts
from sfu.calls.registry import Calls, Seat
from sfu.protocol.orders import Move
from sfu.refusals import CannotMove
from sfu.store.audit import SERVER, Author
from sfu.store.records import Company
from sfu.tenancy import tokens
from sfu.tenancy.grants import Grant, Permissions, grant

MOVE_S = 60
"""How long the token is valid. It is for one use, so it is of no use to anybody who finds it later."""


class Moves:
    def __init__(self, hub: Calls) -> None:
        self._hub = hub

    async def move(
        self, company: Company, seat: Seat, room_id: str, permissions: Permissions, author: Author = SERVER
    ) -> Grant:
        """Sends a participant to another room of their company, with these permissions there; returns the grant.

        Whether they may enter is decided there: a lock, a lobby and the number of places hold for them as well.
        Raises CannotMove if their client cannot be told, or DatabaseUnavailable.
        """
        store, now = self._hub.admission.store, self._hub.admission.clock()
        came = seat.entry.grant
        longest_s = None if came is None else came.max_duration_s
        if longest_s is not None:  # what is left of their stay
            longest_s = max(1, longest_s - int((now - seat.record.connected_at).total_seconds()))
        made = grant(
            company_id=company.id,
            room_id=room_id,
            user_name=seat.peer.name,
            duration_s=MOVE_S,
            now=now,
            permissions=permissions,
            user_id="" if came is None else came.user_id,
            max_duration_s=longest_s,
            metadata=None if came is None else came.metadata,
        )
        token = tokens.encode(made, store.companies.secret(company).reveal())
        if seat.connected and seat.peer.full:
            await store.tokens.add(made, token, single_use=True)
        if not (seat.connected and seat.peer.full and self._hub.seats.get(seat.peer.id) is seat):
            raise CannotMove
        seat.tell(Move(made.room_id, token))
        facts.moved(store, seat.record, made.room_id, made.id, author)
        return made
