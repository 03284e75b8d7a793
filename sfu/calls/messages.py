"""What a company says in its calls: data for pages and lines of chat. Bounded for each room."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import trio

from sfu.calls import facts
from sfu.calls.registry import Calls, Seat
from sfu.limits.rates import Buckets
from sfu.protocol.orders import Data
from sfu.protocol.server_messages import ChatLine
from sfu.refusals import NoCall, TooManyRequests
from sfu.store import records
from sfu.store.audit import SERVER, Author

MESSAGE_BYTES = 200
"""What a message costs beyond its data."""
BY_ROOM = (1 << 15, 1 << 20)
"""Most bytes of data per second on average, and at once, in one room: what clients do not read in time ends them."""


class Messages:
    def __init__(self, hub: Calls) -> None:
        self._hub = hub
        self._buckets = Buckets(*BY_ROOM)

    def send(self, key: str, seats: Iterable[Seat], topic: str, data: Any, size: int, author: Author = SERVER) -> int:
        """Sends data of `size` bytes to these sessions of the room `key`. Returns how many are connected: the others
        do not get it. Raises TooManyRequests."""
        if self._hub.config.limits and not self._buckets[key].take(trio.current_time(), size + MESSAGE_BYTES):
            raise TooManyRequests(1)
        message = Data(topic, data)
        there = [seat.peer for seat in seats if seat.connected and seat.peer.takes(message)]
        self._hub.deliver([(peer, message) for peer in there])
        facts.sent(self._hub.admission.store, *_place(key), topic, len(there), author)
        return len(there)

    def say(self, room: records.Room, name: str, text: str, author: Author = SERVER) -> ChatLine:
        """A line of chat by the company, under this name. Raises ChatLimit, or NoCall if nobody could ever read it: the
        room keeps no chat, and nobody is there."""
        hub, key = self._hub, f"{room.company_id}/{room.room_id}"
        state = hub.admission.state(room.company_id, room.room_id, room)
        call = hub.rooms.rooms.get(key)
        if call is None and not state.chat_kept_s:
            raise NoCall
        line, deliveries = hub.chat.announce(room.id, key, name, text, kept=bool(state.chat_kept_s))
        hub.deliver(deliveries)
        facts.written(hub.admission.store, *_place(key), line, author)
        return line


def _place(key: str) -> tuple[str, str]:
    """The company and the room of a call's key."""
    company_id, _, room_id = key.partition("/")
    return company_id, room_id
