"""Rooms, peers and their tracks: plain synchronous state. Whoever changes it gets back what is to be sent to whom.

Nothing here awaits or does I/O, so a change is whole before anyone else can look. Lookup, join and leave are O(1) apart
from the messages they cause, which are O(peers of that room); no method looks at a second room.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sfu import bridge
from sfu.config import Config
from sfu.messages import (
    BARE_EVENTS,
    CHAT_BYTES,
    EVENT_OF,
    Cause,
    ChatLine,
    Direction,
    Joined,
    Kind,
    Left,
    Limits,
    Muted,
    Participant,
    Quality,
    ServerMessage,
    Speakers,
    Track,
    TrackEnded,
    TrackInfo,
    Welcome,
)
from sfu.summary import Summary
from sfu.tokens import Permissions

SECRET_BYTES = 24
"""Random ones in a peer's secret: 192 bits."""
EVERYTHING = Permissions(moderate=False)
"""What a peer without a token may do."""


@dataclass(slots=True, eq=False)
class Peer:
    """One connection in a room. `full`: it speaks sfu.v1, else only the events of pion's sfu-ws.

    `room_id` is what it knows the room by. `secret` is for its client alone, which resumes with it.
    `tracks` is what it publishes, by source. `muted` holds every source it muted, published by now or not: a mute may
    come before the answer that starts the track. `score` is how its call goes now, `quality` what it was told
    of that last, `summary` how it went so far.
    """

    id: str
    name: str
    room: Room
    full: bool
    room_id: str
    permissions: Permissions
    secret: str = field(repr=False)
    tracks: dict[str, Kind] = field(default_factory=dict)
    muted: set[str] = field(default_factory=set)
    score: float | None = None
    quality: Quality = field(default_factory=Quality)
    summary: Summary = field(default_factory=Summary)

    def takes(self, message: ServerMessage) -> bool:
        """Whether the client knows this kind of message."""
        return self.full or EVENT_OF[type(message)] in BARE_EVENTS

    def described(self) -> Participant:
        tracks = tuple(TrackInfo(source, kind, source in self.muted) for source, kind in self.tracks.items())
        return Participant(self.id, self.name, tracks)


@dataclass(slots=True, eq=False)
class Room:
    """Its peers by id, in the order they came; all their media is on one worker."""

    key: str
    worker: int
    peers: dict[str, Peer] = field(default_factory=dict)
    speakers: Speakers = field(default_factory=Speakers)

    def speakers_here(self) -> Speakers:
        """`speakers` without those who have left since."""
        now = self.speakers
        dominant = now.dominant if now.dominant in self.peers else None
        return Speakers(dominant, tuple(peer for peer in now.speaking if peer in self.peers))


Deliveries = list[tuple[Peer, ServerMessage]]


class Rooms:
    """Every room and peer of this server. `created` counts the peers there ever were."""

    def __init__(self, config: Config) -> None:
        self.rooms: dict[str, Room] = {}
        self.peers: dict[str, Peer] = {}
        self.created = 0
        self._limits = Limits(CHAT_BYTES, config.max_tracks, config.message_bytes, config.messages_per_s)

    def join(
        self,
        key: str,
        name: str,
        *,
        full: bool,
        pick: Callable[[], int],
        room_id: str = "",
        permissions: Permissions = EVERYTHING,
    ) -> tuple[Peer, Deliveries]:
        """A new peer in the room `key`, which is created on the worker `pick` names if it does not exist.

        `room_id` is what the peer knows the room by, `key` if it is empty. Whether there is a seat left is the store's
        to say. Raises what `pick` raises; then nothing has changed.
        """
        room = self.rooms.get(key)
        if room is None:
            room = self.rooms[key] = Room(key, pick())
        peer_id = secrets.token_urlsafe(9)
        secret = f"{peer_id}.{secrets.token_urlsafe(SECRET_BYTES)}"
        peer = Peer(peer_id, name, room, full, room_id or key, permissions, secret)
        room.peers[peer.id] = self.peers[peer.id] = peer
        self.created += 1
        return peer, self.welcome(peer) + _others(peer, Joined(peer.id, name))

    def welcome(self, peer: Peer, *, resumed: bool = False) -> Deliveries:
        """All that a client of this peer has to know to begin, or to go on after it missed things."""
        room = peer.room
        participants = tuple(other.described() for other in room.peers.values() if other is not peer)
        welcome = Welcome(
            peer.id, peer.room_id, peer.name, participants, self._limits, peer.permissions, peer.secret, resumed
        )
        deliveries = _to([peer], welcome)
        if (speakers := room.speakers_here()) != Speakers():
            deliveries += _to([peer], speakers)
        return deliveries

    def leave(self, peer: Peer, reason: str) -> Deliveries:
        """The peer is gone, and its room if it was the last. `reason` is an error code or `left`. Idempotent."""
        if self.peers.pop(peer.id, None) is None:
            return []
        del peer.room.peers[peer.id]
        if not peer.room.peers:
            del self.rooms[peer.room.key]
        return _others(peer, Left(peer.id, reason))

    def track(self, peer: Peer, source: str, kind: Kind) -> Deliveries:
        """The peer publishes a track from now on."""
        peer.tracks[source] = kind
        return _others(peer, Track(peer.id, source, kind, source in peer.muted))

    def track_ended(self, peer: Peer, source: str) -> Deliveries:
        """The peer no longer publishes the track. Whether it is muted stays known."""
        if peer.tracks.pop(source, None) is None:
            return []
        return _others(peer, TrackEnded(peer.id, source))

    def mute(self, peer: Peer, source: str, muted: bool) -> Deliveries:
        """The peer muted or unmuted a source; before its track exists this is only remembered."""
        (peer.muted.add if muted else peer.muted.discard)(source)
        return _others(peer, Muted(peer.id, source, muted)) if source in peer.tracks else []

    def speakers(self, key: str, dominant: str | None, speaking: Iterable[str]) -> Deliveries:
        """Who speaks in a room; nobody, if it is gone by now."""
        room = self.rooms.get(key)
        if room is None:
            return []
        room.speakers = Speakers(dominant, tuple(speaking))
        return _to(room.peers.values(), room.speakers_here())

    def measured(self, peer: Peer, told: bridge.Quality) -> Deliveries:
        """How the peer's call goes, for itself; the others hear its score with their own figures. Nothing if it is as
        it was."""
        peer.score = told.score
        peer.summary.add(told)
        up = None if told.up is None else Direction(**told.up)
        down = None if told.down is None else Direction(**told.down)
        cause = None if told.cause is None else Cause(**told.cause)
        scores = {one.id: one.score for one in peer.room.peers.values() if one.score is not None}
        before, peer.quality = peer.quality, Quality(up, down, cause, scores)
        return _to([peer], peer.quality) if peer.quality != before else []

    def chat(self, peer: Peer, text: str, time_ms: int) -> Deliveries:
        """A line for everyone in the room, the sender included, so that all see one order."""
        return _to(peer.room.peers.values(), ChatLine(peer.id, peer.name, text, time_ms))


def _to(peers: Iterable[Peer], message: ServerMessage) -> Deliveries:
    return [(peer, message) for peer in peers if peer.takes(message)]


def _others(sender: Peer, message: ServerMessage) -> Deliveries:
    return _to((peer for peer in sender.room.peers.values() if peer is not sender), message)
