"""What a company conducts in its calls over REST: finds whom a request means, and has it done.

moderation.py is what moderators do in the call; both enforce it through the same parts.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfu.calls.lobby import Waiter
from sfu.calls.messages import Messages
from sfu.calls.moves import Moves
from sfu.calls.permits import Permits
from sfu.calls.registry import Calls, Seat
from sfu.calls.rooms import Room
from sfu.calls.spotlight import Spotlights
from sfu.errors import LobbyRefused
from sfu.store.audit import Author


class Conduct:
    """`spotlights`, `permits`, `messages` and `moves` act on the sessions and rooms that are found here."""

    def __init__(self, hub: Calls) -> None:
        self._hub = hub
        self.spotlights, self.permits = Spotlights(hub), Permits(hub)
        self.messages, self.moves = Messages(hub), Moves(hub)

    def seats(self, company_id: str, room_id: str) -> list[Seat]:
        """The sessions in the call of a room, in order of arrival."""
        here = (company_id, room_id)
        return [one for one in self._hub.sessions() if (one.entry.company_id, one.entry.room_id) == here]

    def seat(self, company_id: str, room_id: str, session_id: str) -> Seat | None:
        """A session in the call of this room."""
        return next((one for one in self.seats(company_id, room_id) if one.record.id == session_id), None)

    def room(self, company_id: str, room_id: str) -> Room | None:
        """The call in this room."""
        return self._hub.rooms.rooms.get(f"{company_id}/{room_id}")

    def waiting(self, company_id: str, room_id: str) -> Sequence[Waiter]:
        """Who waits in the lobby of this room, in order of arrival."""
        return self._hub.lobby.waiters(f"{company_id}/{room_id}")

    def waiter(self, company_id: str, room_id: str, waiter_id: str) -> Waiter | None:
        return self._hub.lobby.find(f"{company_id}/{room_id}", waiter_id)

    def refuse(self, waiter: Waiter, author: Author) -> None:
        """Refuses somebody in a lobby, as a moderator would."""
        waiter.refuse(LobbyRefused(), author)
