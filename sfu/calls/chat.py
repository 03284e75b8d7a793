"""Chat: delivered to everybody at once, and kept for those who join later."""

from __future__ import annotations

import time

from sfu.calls.admission import Entry
from sfu.calls.rooms import HISTORY_LINES, Deliveries, Peer, Rooms
from sfu.protocol.server_messages import ChatLine, FileInfo
from sfu.store import Store, records


class Chat:
    def __init__(self, rooms: Rooms, store: Store) -> None:
        self._rooms = rooms
        self._store = store

    def say(self, entry: Entry, peer: Peer, text: str) -> Deliveries:
        """The deliveries of a line of this peer. It is queued for the database if the room keeps its chat."""
        return self._say(entry, peer, text, None)

    def share(self, entry: Entry, peer: Peer, file: records.File) -> Deliveries:
        """The deliveries of a line with a file, which must already be on disk and in the database."""
        return self._say(entry, peer, "", file)

    def _say(self, entry: Entry, peer: Peer, text: str, file: records.File | None) -> Deliveries:
        line, deliveries = self._rooms.chat(peer, text, now_ms(), None if file is None else file_info(file))
        if kept_s := peer.room.state.chat_kept_s:
            kept = records.Line(line.id, line.peer, line.name, line.text, line.time, file)
            self._store.chat.add(entry.company_id, entry.room_id, kept, kept_s=kept_s)
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
