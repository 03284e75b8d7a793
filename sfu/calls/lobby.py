"""The lobby: people who wait to be admitted. For a limited time they hold a connection, but no seat and no media."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from sfu.calls.admission import Entry, utc_now
from sfu.calls.rooms import new_id
from sfu.calls.websocket import Door, keep_alive
from sfu.errors import LobbyTimeout, RoomFull, SfuError
from sfu.limits.rates import place
from sfu.protocol import server_messages
from sfu.protocol.client_messages import Leave, decode
from sfu.refusals import TokenExpired
from sfu.settings.config import Config
from sfu.store.audit import SERVER, Author

FRAMES = 20
"""Most frames from a waiting client, which may only send `leave`. One that sends more is removed."""
SHARE = 5
"""One address gets at most a fifth of a lobby, or it could lock everybody else out."""


@dataclass(slots=True, eq=False)
class Waiter:
    """A person in the lobby. `invited`: a moderator admitted them. `left`: they left. `error`: why they are refused.
    `by`: who let them in or refused them, if it was somebody.

    `decided` is set once with the outcome, `changed` whenever `attended` may have changed.
    """

    entry: Entry
    id: str = field(default_factory=new_id)
    since: datetime = field(default_factory=utc_now)
    invited: bool = False
    left: bool = False
    error: SfuError | None = None
    by: Author = SERVER
    decided: trio.Event = field(default_factory=trio.Event)
    changed: trio.Event = field(default_factory=trio.Event)

    def invite(self, author: Author = SERVER) -> None:
        """Admits them, unless it is already decided."""
        if not self.decided.is_set():
            self.invited, self.by = True, author
            self.decided.set()

    def refuse(self, error: SfuError | None, author: Author = SERVER) -> None:
        """Refuses them, unless it is already decided. None: they left by themselves."""
        if not self.decided.is_set():
            self.error, self.left, self.by = error, error is None, author
            self.decided.set()


class Lobby:
    """The lobbies of all rooms.

    `changed` is called with a room's key when its list of waiters changed. `attended` says whether a moderator is in
    the room with a key; call `look_again` when its result may have changed. `came` and `went` are called with whoever
    begins to wait, and with their outcome.
    """

    def __init__(
        self,
        config: Config,
        changed: Callable[[str], None],
        attended: Callable[[str], bool],
        came: Callable[[Waiter], None],
        went: Callable[[Waiter], None],
    ) -> None:
        self._config = config
        self._came, self._went = came, went
        self._changed, self._attended = changed, attended
        self._rooms: dict[str, dict[str, Waiter]] = {}

    def waiting(self, key: str) -> server_messages.Lobby:
        """The people who wait for the room `key`, in order of arrival."""
        waiters = self._rooms.get(key, {}).values()
        return server_messages.Lobby(tuple(server_messages.Waiter(one.id, one.entry.user_name) for one in waiters))

    def waiters(self, key: str) -> list[Waiter]:
        """The people who wait for the room `key` and are not decided about yet, in order of arrival."""
        return [one for one in self._rooms.get(key, {}).values() if not one.decided.is_set()]

    @property
    def keys(self) -> list[str]:
        """The keys of the rooms that people wait for."""
        return list(self._rooms)

    @property
    def count(self) -> int:
        """How many people wait, in all rooms."""
        return sum(map(len, self._rooms.values()))

    def find(self, key: str, waiter_id: str) -> Waiter | None:
        return self._rooms.get(key, {}).get(waiter_id)

    def open(self, key: str) -> None:
        """The room no longer has a lobby: everybody who waits tries to join again."""
        for waiter in self._rooms.get(key, {}).values():
            waiter.decided.set()

    def look_again(self, key: str) -> None:
        for waiter in self._rooms.get(key, {}).values():
            waiter.changed.set()

    def refuse(self, who: Callable[[Entry], bool], error: SfuError) -> None:
        for waiters in self._rooms.values():
            for waiter in waiters.values():
                if who(waiter.entry):
                    waiter.refuse(error)

    async def wait(self, door: Door, entry: Entry, seconds_left: float | None) -> Waiter:
        """Waits for the decision. Raises RoomFull, LobbyTimeout, TokenExpired, or the error they were refused with.

        `seconds_left` is the time until their token expires, None without a token.
        """
        waiter = self._add(entry)
        try:
            ws = await door.accept()
            async with trio.open_nursery() as nursery:
                if door.full:
                    nursery.start_soon(self._tell, ws, waiter)
                nursery.start_soon(self._listen, ws, waiter)
                nursery.start_soon(self._keep_alive, ws, waiter)
                late: SfuError = LobbyTimeout()
                patience_s = self._config.lobby_s
                if seconds_left is not None and seconds_left < patience_s:
                    patience_s, late = seconds_left, TokenExpired()
                with trio.move_on_after(patience_s):
                    await waiter.decided.wait()
                waiter.refuse(late)  # has no effect if it is already decided
                nursery.cancel_scope.cancel()
        except* ConnectionClosed:
            waiter.refuse(None)
        finally:
            self._remove(waiter)
        if waiter.error is not None:
            raise waiter.error
        return waiter

    def _add(self, entry: Entry) -> Waiter:
        waiters = self._rooms.get(entry.key, {})
        here = sum(place(other.entry.address) == place(entry.address) for other in waiters.values())
        limit = self._config.max_waiting
        if self._config.limits and (len(waiters) >= limit or here >= max(1, limit // SHARE)):
            raise RoomFull("Too many people are waiting to be admitted. Try again later.")
        waiter = Waiter(entry)
        self._rooms.setdefault(entry.key, waiters)[waiter.id] = waiter
        self._came(waiter)
        self._changed(entry.key)
        return waiter

    def _remove(self, waiter: Waiter) -> None:
        waiters = self._rooms[waiter.entry.key]
        del waiters[waiter.id]
        if not waiters:
            del self._rooms[waiter.entry.key]
        self._went(waiter)
        self._changed(waiter.entry.key)

    async def _tell(self, ws: WebSocketConnection, waiter: Waiter) -> None:
        """Tells the client that they wait, and whether a moderator is present, now and after each change."""
        said: bool | None = None
        while True:
            waiter.changed = trio.Event()
            entry, attended = waiter.entry, self._attended(waiter.entry.key)
            if attended is not said:
                waiting = server_messages.Waiting(entry.room_id, entry.user_name, attended)
                await ws.send_message(server_messages.encode(waiting))
                said = attended
            await waiter.changed.wait()

    async def _listen(self, ws: WebSocketConnection, waiter: Waiter) -> None:
        """Reads frames, so that `leave` and a closed connection are noticed. Other messages are ignored."""
        for _ in range(FRAMES):
            frame = await ws.get_message()
            try:
                said = decode(frame if isinstance(frame, str) else "")
            except SfuError:
                continue
            if isinstance(said, Leave):
                break
        waiter.refuse(None)

    async def _keep_alive(self, ws: WebSocketConnection, waiter: Waiter) -> None:
        waiter.refuse(await keep_alive(ws, self._config))
