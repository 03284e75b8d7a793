"""Chat: delivered to everybody at once, and kept for those who join later."""

from __future__ import annotations

import time
import uuid

import trio

from sfu.calls.admission import Entry
from sfu.calls.rooms import COMPANY, HISTORY_LINES, Deliveries, Peer, Rooms
from sfu.errors import ChatLimit
from sfu.limits.rates import Buckets, place
from sfu.protocol.server_messages import ChatLine, FileInfo
from sfu.store import Store, records

LINE_BYTES = 200
"""What a line costs beyond its text: in the database, and with each person it is sent to."""
BY_PEER, BY_ROOM = (300, 1 << 16), (3000, 1 << 20)
"""Most bytes of chat per second on average, and at once: from one peer, and in one room. The limit of a room is also
that of all people without a token at one address, who could leave and come back as often as they like."""


class Chat:
    def __init__(self, rooms: Rooms, store: Store, *, limits: bool) -> None:
        self._rooms = rooms
        self._store = store
        self._limits = limits
        self._by_peer, self._by_room, self._by_address = Buckets(*BY_PEER), Buckets(*BY_ROOM), Buckets(*BY_ROOM)

    def say(self, entry: Entry, peer: Peer, text: str) -> Deliveries:
        """The deliveries of a line of this peer. It is queued for the database if the room keeps its chat.

        Raises ChatLimit.
        """
        if self._limits:
            self._pay(entry, peer, LINE_BYTES + len(text.encode()))
        return self._say(peer, text, None)

    def announce(self, room_row_id: str, key: str, name: str, text: str, *, kept: bool) -> tuple[ChatLine, Deliveries]:
        """A line that the company writes in the room `key`, with its deliveries if there is a call. `kept`: it is
        queued for the database, for the room with this id of its row.

        Raises ChatLimit.
        """
        if self._limits and not self._by_room[key].take(trio.current_time(), LINE_BYTES + len(text.encode())):
            raise ChatLimit("There is too much chat in this room. Try again in a moment.")
        room = self._rooms.rooms.get(key)
        if room is not None and room.id == room_row_id:
            line, deliveries = self._rooms.announce(room, name, text, now_ms())
        else:
            line, deliveries = ChatLine(COMPANY, name, text, now_ms(), str(uuid.uuid4())), []
        if kept:
            self._store.chat.add(room_row_id, records.Line(line.id, line.peer, line.name, line.text, line.time, None))
        return line, deliveries

    def _pay(self, entry: Entry, peer: Peer, cost: int) -> None:
        buckets = [self._by_peer[peer.id], self._by_room[entry.key]]
        if entry.grant is None:
            buckets.append(self._by_address[place(entry.address)])
        now_s = trio.current_time()
        if not all(bucket.holds(now_s, cost) for bucket in buckets):
            raise ChatLimit
        for bucket in buckets:
            bucket.take(now_s, cost)

    def share(self, peer: Peer, file: records.File) -> Deliveries:
        """The deliveries of a line with a file, which must already be on disk and in the database."""
        return self._say(peer, "", file)

    def _say(self, peer: Peer, text: str, file: records.File | None) -> Deliveries:
        line, deliveries = self._rooms.chat(peer, text, now_ms(), None if file is None else file_info(file))
        if peer.room.state.chat_kept_s:
            kept = records.Line(line.id, line.peer, line.name, line.text, line.time, file)
            self._store.chat.add(peer.room.id, kept)
        return deliveries

    async def earlier(self, entry: Entry) -> list[ChatLine]:
        """The room's last lines in the database, the oldest first. Raises DatabaseUnavailable."""
        page = await self._store.chat.list(entry.company_id, entry.room_id, limit=HISTORY_LINES)
        return [chat_line(line) for line in reversed(page.items)]


def chat_line(line: records.Line) -> ChatLine:
    file = None if line.file is None else file_info(line.file)
    return ChatLine(line.peer, line.user_name, line.text, line.sent_ms, line.id, file)


def file_info(file: records.File) -> FileInfo:
    return FileInfo(file.name, file.size, file.type, f"/files/{file.id}")


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
