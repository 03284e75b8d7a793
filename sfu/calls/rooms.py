"""Rooms, peers and their tracks: plain synchronous state. Every change returns the messages to deliver.

Nothing here awaits or does I/O, so every change is atomic for other tasks. Lookup, join and leave are O(1) apart from
the messages they cause, which are O(peers of that room). No method looks at a second room.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from sfu import bridge
from sfu.calls.summary import Summary
from sfu.network import turn
from sfu.protocol.client_messages import CHAT_BYTES
from sfu.protocol.orders import Changed, Permitted, Spotlit
from sfu.protocol.server_messages import (
    EVENT_OF,
    ChatDeleted,
    ChatLine,
    Connection,
    FileInfo,
    HandRaised,
    History,
    IceServer,
    Joined,
    Left,
    Limits,
    Muted,
    Participant,
    Quality,
    Reacted,
    RoomState,
    ServerMessage,
    Speakers,
    Track,
    TrackEnded,
    TrackInfo,
    Welcome,
)
from sfu.protocol.shared import BARE_EVENTS, Kind
from sfu.settings.config import Config
from sfu.tenancy.tokens import Permissions

SECRET_BYTES = 24
"""Random bytes in a peer's secret: 192 bits."""
_SECRET = re.compile(r"[A-Za-z0-9_-]{12}\.[A-Za-z0-9_-]{32}", re.ASCII)
EVERYTHING = Permissions(moderate=False)
"""What a peer without a token may do."""

OPEN = RoomState()
COMPANY = ""
"""In place of a peer's id: the company wrote this line of chat, over REST."""
HISTORY_LINES, HISTORY_BYTES = 200, 1 << 18
"""Most lines, and most bytes of UTF-8, of the chat history that a new peer gets."""


@dataclass(slots=True, eq=False)
class Peer:
    """One participant in a room. `full`: its client speaks sfu.v1, else only the events of pion's sfu-ws.

    `room_id` is the room's id as its client knows it. `secret` is known to its client only, which proves with it that
    it is this peer; `ticket` is what its client returns with after a reload. `tracks` are the published tracks by
    source. `muted` holds every muted source, published or not: a mute may arrive before the answer that starts the
    track. `hand` is when it was raised (ms since 1970), 0 while it is down. `lost`: nothing comes from it. `batches`:
    its client takes several arrivals in one message. `quality` is the last quality report to its client, `summary` the
    quality of its whole session so far.
    """

    id: str
    name: str
    room: Room
    full: bool
    room_id: str
    permissions: Permissions
    secret: str = field(repr=False)
    ticket: str = field(default="", repr=False)
    batches: bool = False
    tracks: dict[str, Kind] = field(default_factory=dict)
    muted: set[str] = field(default_factory=set)
    hand: int = 0
    lost: bool = False
    quality: Quality = field(default_factory=Quality)
    summary: Summary = field(default_factory=Summary)

    @property
    def moderator(self) -> bool:
        return self.permissions.moderate

    def takes(self, message: ServerMessage) -> bool:
        """Whether the client knows this message's event."""
        return self.full or EVENT_OF[type(message)] in BARE_EVENTS

    def described(self) -> Participant:
        tracks = tuple(TrackInfo(source, kind, source in self.muted) for source, kind in self.tracks.items())
        return Participant(self.id, self.name, tracks, self.hand, self.moderator, self.permissions.publish, self.lost)


@dataclass(slots=True, eq=False)
class Room:
    """A room with at least one peer. `peers` is by id, in order of arrival; the media of all is on one worker.

    `id` is the database's: a room that was deleted and one made later under the same key have different ones.
    `version` is that of its settings in the database from which `state` was made. `since_ms` is when the call began (ms
    since 1970).
    `scores` are the current quality scores of peers that send or receive media. `lines` are the last chat lines, if
    chat is kept; `said_ms` is the time of the last line. `spotlight` is the peer that everybody shows large.
    """

    key: str
    worker: int
    state: RoomState = field(default_factory=RoomState)
    id: str = ""
    version: int = 0
    since_ms: int = 0
    peers: dict[str, Peer] = field(default_factory=dict)
    speakers: Speakers = field(default_factory=Speakers)
    scores: dict[str, float] = field(default_factory=dict)  # by peer id
    lines: deque[ChatLine] = field(default_factory=lambda: deque(maxlen=HISTORY_LINES))
    said_ms: int = 0
    spotlight: str | None = None

    def history(self, now_ms: int) -> History:
        """The last lines that have not expired and fit into HISTORY_BYTES."""
        found, left_bytes = deque[ChatLine](), HISTORY_BYTES
        for line in reversed(self.lines):
            left_bytes -= len(line.text.encode())
            if left_bytes < 0 or line.time < now_ms - 1000 * self.state.chat_kept_s:
                break
            found.appendleft(line)
        return History(tuple(found))

    def unexpired(self, now_ms: int) -> list[ChatLine]:
        """The lines that the database has to have, the oldest first."""
        return [line for line in self.lines if line.time >= now_ms - 1000 * self.state.chat_kept_s]

    def speakers_here(self) -> Speakers:
        """`speakers` without peers that have left since."""
        now = self.speakers
        dominant = now.dominant if now.dominant in self.peers else None
        return Speakers(dominant, tuple(peer for peer in now.speaking if peer in self.peers))


Deliveries = list[tuple[Peer, ServerMessage]]


class Rooms:
    """Every room and peer of this server. `created` counts all peers since the start."""

    def __init__(self, config: Config) -> None:
        self.rooms: dict[str, Room] = {}
        self.peers: dict[str, Peer] = {}
        self.created = 0
        self._config = config

    def described(self) -> str:
        """How much is going on, for people: `3 people in 1 room`."""
        people, rooms = len(self.peers), len(self.rooms)
        return f"{people} {'person' if people == 1 else 'people'} in {rooms} {'room' if rooms == 1 else 'rooms'}"

    def join(
        self,
        key: str,
        name: str,
        *,
        full: bool,
        pick: Callable[[], int],
        room_id: str = "",
        id: str = "",  # noqa: A002 -- the name of the field
        permissions: Permissions = EVERYTHING,
        state: RoomState = OPEN,
        earlier: Sequence[ChatLine] = (),
        now_ms: int = 0,
        ticket: str = "",
        batches: bool = False,
    ) -> tuple[Peer, Deliveries]:
        """Adds a peer to the room `key`. Creates the room if necessary, with `state`, the chat lines `earlier`, and on
        the worker that `pick` returns.

        `room_id` is the room's id as the peer knows it; empty means `key`. `id` is `Room.id`: a call in a deleted room
        goes on apart from this one until its peers have left. The store has already checked that a seat
        is left. Peers that take several arrivals in one message are not told here (calls/arrivals.py).
        Raises what `pick` raises; then nothing has changed.
        """
        room = self.rooms.get(key)
        if room is None or room.id != id:
            room = self.rooms[key] = Room(key, pick(), state, id, since_ms=now_ms)
            room.lines.extend(earlier)
        peer_id = new_id()
        secret = f"{peer_id}.{secrets.token_urlsafe(SECRET_BYTES)}"
        peer = Peer(peer_id, name, room, full, room_id or key, permissions, secret, ticket, batches)
        room.peers[peer.id] = self.peers[peer.id] = peer
        self.created += 1
        joined = Joined(peer.id, name, peer.moderator, permissions.publish)
        return peer, self.welcome(peer, now_ms) + [one for one in _others(peer, joined) if not one[0].batches]

    def welcome(self, peer: Peer, now_ms: int, *, resumed: bool = False) -> Deliveries:
        """The whole state that the peer's client needs to begin, or to continue after it missed messages."""
        room = peer.room
        participants = tuple(other.described() for other in room.peers.values() if other is not peer)
        welcome = Welcome(
            peer.id,
            peer.room_id,
            peer.name,
            participants,
            self._limits(),
            peer.permissions,
            room.state,
            peer.secret,
            resumed,
            peer.ticket,
            self._ice_servers(peer, now_ms),
        )
        deliveries = _to([peer], welcome)
        if (speakers := room.speakers_here()) != Speakers():
            deliveries += _to([peer], speakers)
        if room.spotlight is not None:
            deliveries += _to([peer], Spotlit(room.spotlight))
        if (history := room.history(now_ms)).lines:
            deliveries += _to([peer], history)
        if resumed and peer.hand:
            deliveries += _to([peer], HandRaised(peer.id, peer.hand))
        if resumed and peer.quality != Quality():
            deliveries += _to([peer], peer.quality)
        return deliveries

    def _ice_servers(self, peer: Peer, now_ms: int) -> tuple[IceServer, ...]:
        urls, secret = self._config.turn_urls, self._config.turn_secret
        return (IceServer(urls, *turn.credentials(secret, peer.id, now_ms // 1000)),) if urls else ()

    def _limits(self) -> Limits:
        config = self._config
        return Limits(CHAT_BYTES, config.max_tracks, config.message_bytes, config.messages_per_s, config.file_bytes)

    def leave(self, peer: Peer, reason: str) -> Deliveries:
        """Removes the peer, and the room with its last peer. `reason` is an error code or `left`. Idempotent."""
        if self.peers.pop(peer.id, None) is None:
            return []
        del peer.room.peers[peer.id]
        peer.room.scores.pop(peer.id, None)
        if not peer.room.peers and self.rooms.get(peer.room.key) is peer.room:
            del self.rooms[peer.room.key]
        dark = self.spotlight(peer.room, None) if peer.room.spotlight == peer.id else []
        return _others(peer, Left(peer.id, reason)) + dark

    def fall_silent(self, peer: Peer) -> Deliveries:
        """The media of a peer whose page went away has ended. Its seat and its raised hand are kept."""
        peer.room.scores.pop(peer.id, None)
        peer.summary.restart()
        peer.quality = Quality()
        ended = [one for source in list(peer.tracks) for one in self.track_ended(peer, source)]
        return ended + self.lost(peer, True)

    def lost(self, peer: Peer, lost: bool) -> Deliveries:
        """Nothing comes from the peer any more, or something comes again."""
        if peer.lost == lost:
            return []
        peer.lost = lost
        return _others(peer, Connection(peer.id, lost))

    def track(self, peer: Peer, source: str, kind: Kind) -> Deliveries:
        """The peer began to publish a track."""
        peer.tracks[source] = kind
        return _others(peer, Track(peer.id, source, kind, source in peer.muted))

    def track_ended(self, peer: Peer, source: str) -> Deliveries:
        """The peer stopped publishing the track. Its mute state is kept."""
        if peer.tracks.pop(source, None) is None:
            return []
        return _others(peer, TrackEnded(peer.id, source))

    def mute(self, peer: Peer, source: str, muted: bool) -> Deliveries:
        """The peer muted or unmuted a source. Nobody is told before its track exists."""
        (peer.muted.add if muted else peer.muted.discard)(source)
        return _others(peer, Muted(peer.id, source, muted)) if source in peer.tracks else []

    def speakers(self, key: str, dominant: str | None, speaking: Iterable[str]) -> Deliveries:
        """The active speakers of a room changed. Ignored if the room no longer exists."""
        room = self.rooms.get(key)
        if room is None:
            return []
        room.speakers = Speakers(dominant, tuple(speaking))
        return _to(room.peers.values(), room.speakers_here())

    def measured(self, peer: Peer, told: bridge.Quality) -> Deliveries:
        """A quality report for the peer. The others get its score with their own next report.

        Nothing to deliver if the report equals the last one.
        """
        scores = peer.room.scores
        if told.score is None:
            scores.pop(peer.id, None)
        else:
            scores[peer.id] = told.score
        peer.summary.add(told)
        before, peer.quality = peer.quality, Quality(told.up, told.down, told.cause, dict(scores))
        return _to([peer], peer.quality) if peer.quality != before else []

    def hand(self, peer: Peer, raised_ms: int) -> Deliveries:
        """The peer raises its hand, or lowers it (0). A hand that is already up keeps its place in the queue; only the
        peer is told of it again."""
        if bool(raised_ms) == bool(peer.hand):
            return _to([peer], HandRaised(peer.id, peer.hand))
        peer.hand = raised_ms
        return _to(peer.room.peers.values(), HandRaised(peer.id, raised_ms))

    def permit(self, peer: Peer, name: str, permissions: Permissions) -> Deliveries:
        """The peer is called `name` and may do this from now on. Everybody is told who it is, and it what it may do."""
        before, permitted = peer.described(), peer.permissions != permissions
        peer.name, peer.permissions = name, permissions
        now = peer.described()
        told = _to([peer], Permitted(**permissions.to_json())) if permitted else []
        if before != now:
            told += _to(peer.room.peers.values(), Changed(peer.id, name, now.moderator, now.publish))
        return told

    def spotlight(self, room: Room, peer: Peer | None) -> Deliveries:
        """Everybody in the room shows this peer large from now on; None: nobody in particular."""
        lit = None if peer is None else peer.id
        if room.spotlight == lit:
            return []
        room.spotlight = lit
        return _to(room.peers.values(), Spotlit(lit))

    def react(self, peer: Peer, reaction: str) -> Deliveries:
        """A reaction, delivered to everyone in the room, including the sender."""
        return _to(peer.room.peers.values(), Reacted(peer.id, reaction))

    def change(self, key: str, state: RoomState) -> Deliveries:
        """Sets the state of the room, if it exists, and tells everyone in it."""
        room = self.rooms.get(key)
        if room is None or room.state == state:
            return []
        room.state = state
        if not state.chat_kept_s:
            room.lines.clear()
        return _to(room.peers.values(), state)

    def moderators(self, key: str) -> list[Peer]:
        """The peers in this room that may moderate."""
        room = self.rooms.get(key)
        return [] if room is None else [peer for peer in room.peers.values() if peer.moderator]

    def chat(self, peer: Peer, text: str, now_ms: int, file: FileInfo | None = None) -> tuple[ChatLine, Deliveries]:
        """A chat line for everyone in the room, including the sender, so that all see the same order.

        Times of lines in one room increase strictly.
        """
        return self._say(peer.room, peer.id, peer.name, text, now_ms, file)

    def announce(self, room: Room, name: str, text: str, now_ms: int) -> tuple[ChatLine, Deliveries]:
        """Like `chat`, for a line that the company wrote under this name."""
        return self._say(room, COMPANY, name, text, now_ms, None)

    def _say(
        self, room: Room, by: str, name: str, text: str, now_ms: int, file: FileInfo | None
    ) -> tuple[ChatLine, Deliveries]:
        room.said_ms = max(now_ms, room.said_ms + 1)
        line = ChatLine(by, name, text, room.said_ms, str(uuid.uuid4()), file)
        if room.state.chat_kept_s:
            room.lines.append(line)
        return line, _to(room.peers.values(), line)

    def chat_deleted(self, key: str, line_id: str) -> Deliveries:
        """A chat line was deleted."""
        room = self.rooms.get(key)
        if room is None:
            return []
        room.lines = deque((line for line in room.lines if line.id != line_id), maxlen=HISTORY_LINES)
        return _to(room.peers.values(), ChatDeleted(line_id))


def is_secret(text: str) -> bool:
    """Whether the text has the form of a peer's secret."""
    return _SECRET.fullmatch(text) is not None


def new_id() -> str:
    """An id for a peer: short, and unguessable (72 random bits). None looks like an option of a command."""
    made = secrets.token_urlsafe(9)
    return new_id() if made.startswith("-") else made


def _to(peers: Iterable[Peer], message: ServerMessage) -> Deliveries:
    return [(peer, message) for peer in peers if peer.takes(message)]


def _others(sender: Peer, message: ServerMessage) -> Deliveries:
    return _to((peer for peer in sender.room.peers.values() if peer is not sender), message)
