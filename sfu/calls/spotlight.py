"""The spotlight: one participant whom everybody shows large, whoever speaks. It lasts until they leave."""

from __future__ import annotations

from sfu import bridge
from sfu.calls import facts
from sfu.calls.registry import Calls
from sfu.calls.rooms import Peer, Room
from sfu.errors import UnknownPeer
from sfu.store.audit import SERVER, Author


class Spotlights:
    def __init__(self, hub: Calls) -> None:
        self._hub = hub

    def turn(self, room: Room, peer_id: str | None, author: Author = SERVER) -> Peer | None:
        """Turns the spotlight of a room to this peer, or (None) off. Raises UnknownPeer.

        The media worker sends that peer's camera to everybody, even where a room has more videos than each may get.
        """
        peer = None if peer_id is None else room.peers.get(peer_id)
        if peer_id is not None and peer is None:
            raise UnknownPeer
        before = room.peers.get(room.spotlight or "")
        self._hub.deliver(self._hub.rooms.spotlight(room, peer))
        if peer is not None:
            self._hub.workers.send(room.worker, bridge.Spotlight(peer.id, True))
        elif before is not None:
            self._hub.workers.send(room.worker, bridge.Spotlight(before.id, False))
        company_id, _, room_id = room.key.partition("/")
        seat = None if peer is None else self._hub.seats.get(peer.id)
        facts.spotlit(self._hub.admission.store, company_id, room_id, None if seat is None else seat.record, author)
        return peer
