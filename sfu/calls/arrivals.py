"""Arrivals: who joins is announced at once, or together with others where many join within moments.

Each of n people who join a room is news for everybody there, which is n²/2 messages. For clients that take several in
one message, the first of a while is told at once, and those that follow within a window are told together at its end.
Nobody hears of a person before their arrival: what else is told of them is told after it.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from sfu.calls.rooms import Peer, Room
from sfu.protocol.server_messages import Arrivals as Told
from sfu.protocol.server_messages import Joined, encode

WINDOW_S = 0.1
PER_PEER_S, LONGEST_S = 0.002, 0.5
"""The window is longer in a room of more than 50, where each message goes to many and nobody looks for one newcomer."""


class Arrivals:
    """`send` queues a frame for a peer."""

    def __init__(self, send: Callable[[Peer, str], None]) -> None:
        self._send = send
        self._untold: dict[str, Peer] = {}  # by id, in order of arrival
        self._due_s: dict[Room, float] = {}  # the end of each room's window
        self._began = trio.Event()

    def came(self, peer: Peer) -> None:
        """A peer has entered its room, and its own client has been told who else is there."""
        self._untold[peer.id] = peer
        if peer.room not in self._due_s:
            self.tell(peer.room)
            self._due_s[peer.room] = trio.current_time() + _window_s(peer.room)
            self._began.set()

    def before(self, peer_id: str) -> None:
        """Something else is about to be told of this peer: its arrival comes first."""
        if (peer := self._untold.get(peer_id)) is not None:
            self.tell(peer.room)

    def tell(self, room: Room) -> None:
        """Tells of all arrivals in this room that nobody has been told of. Each client that takes several in a message
        gets those who came after it: its `welcome` had the others."""
        new = [peer for peer in self._untold.values() if peer.room is room]
        if not new:
            return
        places = {peer.id: place for place, peer in enumerate(new, 1)}
        texts: dict[int, str] = {}
        for receiver in room.peers.values():
            first = places.get(receiver.id, 0)
            if receiver.batches and first < len(new):
                if first not in texts:
                    texts[first] = _text(new[first:])
                self._send(receiver, texts[first])
        for peer in new:
            del self._untold[peer.id]

    async def run(self) -> None:
        """Tells what is due, until cancelled."""
        while True:
            if not self._due_s:
                self._began = trio.Event()
                await self._began.wait()
            await trio.sleep_until(min(self._due_s.values()))
            now_s = trio.current_time()
            for room in [room for room, due_s in self._due_s.items() if due_s <= now_s]:
                del self._due_s[room]
                if any(peer.room is room for peer in self._untold.values()):
                    self.tell(room)
                    self._due_s[room] = now_s + _window_s(room)


def _window_s(room: Room) -> float:
    return max(WINDOW_S, min(LONGEST_S, PER_PEER_S * len(room.peers)))


def _text(new: list[Peer]) -> str:
    if len(new) == 1:
        (peer,) = new
        return encode(Joined(peer.id, peer.name, peer.moderator, peer.permissions.publish))
    return encode(Told(tuple(peer.described() for peer in new)))
