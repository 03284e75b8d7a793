"""Server messages: frozen dataclasses written as JSON text frames. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from sfu.bridge import Cause, Direction
from sfu.errors import REJOIN_CLOSE_CODES, SfuError
from sfu.protocol.orders import Changed, Data, Move, Permitted, Spotlit
from sfu.protocol.shared import BARE_EVENTS, Candidate, Kind
from sfu.tenancy.names import NAME_CHARACTERS
from sfu.tenancy.tokens import Permissions

UnreachedCause = Literal["address", "server", "network", "partial"]
"""Why there is no media path, as far as the server can tell (calls/reach.py)."""


@dataclass(frozen=True, slots=True)
class TrackInfo:
    """A published track of a participant."""

    source: str
    kind: Kind
    muted: bool


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody in the room, with what they publish. `hand`: 0, or since when it is up, in milliseconds since 1970.
    `publish`: they may send sound and video."""

    peer: str
    name: str
    tracks: tuple[TrackInfo, ...] = ()
    hand: int = 0
    moderator: bool = False
    publish: bool = True
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server accepts from this client, so that a page can say so before it happens."""

    chat_bytes: int
    tracks: int
    message_bytes: int
    messages_per_s: int
    file_bytes: int
    name_characters: int = NAME_CHARACTERS


@dataclass(frozen=True, slots=True)
class RoomState:
    """How the room is set. `chat_kept_s`: how long its chat is kept, 0 for not at all. `public`: its name as a link,
    without a token, leads here."""

    locked: bool = False
    lobby: bool = False
    files: bool = False
    chat_kept_s: int = 0
    public: bool = False
    chat_cleared: bool = False


@dataclass(frozen=True, slots=True)
class IceServer:
    """TURN servers to send media through where UDP is blocked, with credentials. As RTCIceServer of W3C WebRTC."""

    urls: tuple[str, ...]
    username: str
    credential: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Welcome:
    """First event of who is in: who you are, who is here. `resumed`: on another WebSocket than before, so it replaces
    what was known. `session` is what to resume and to share files with, `ticket` what to return with after a reload;
    both are to be kept from everybody else."""

    peer: str
    room: str
    name: str
    participants: tuple[Participant, ...]
    limits: Limits
    permissions: Permissions
    state: RoomState
    session: str = field(repr=False)
    resumed: bool
    ticket: str = field(default="", repr=False)
    ice_servers: tuple[IceServer, ...] = ()


@dataclass(frozen=True, slots=True)
class Remote:
    """Whose track, and which, arrives in a section."""

    peer: str
    source: str


@dataclass(frozen=True, slots=True)
class Offer:
    """The server's SDP offer. `send` maps the mid of each section the client may send in to its source, `receive` the
    mid of each section that brings a track to its publisher. Bare clients get `type` and `sdp` only."""

    type: Literal["offer"]
    sdp: str
    send: dict[str, str] = field(default_factory=dict)
    receive: dict[str, Remote] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Joined:
    """Somebody entered the room."""

    peer: str
    name: str
    moderator: bool
    publish: bool = True


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Several entered the room, in this order. For clients that take it instead of one `joined` for each."""

    people: tuple[Participant, ...]


@dataclass(frozen=True, slots=True)
class Left:
    """Somebody is gone; `reason` is an error code or `left`."""

    peer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Track:
    """A participant publishes a track from now on."""

    peer: str
    source: str
    kind: Kind
    muted: bool


@dataclass(frozen=True, slots=True)
class TrackEnded:
    """A participant no longer publishes a track."""

    peer: str
    source: str


@dataclass(frozen=True, slots=True)
class Muted:
    """A participant muted or unmuted a source. `by`: the moderator who muted yours; empty otherwise."""

    peer: str
    source: str
    muted: bool
    by: str = ""


@dataclass(frozen=True, slots=True)
class Paused:
    """A video is not forwarded to you for a reason, or is again (null). It stays published."""

    peer: str
    source: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Layers:
    """Which layers of your simulcast anybody watches: the others need not be sent."""

    source: str
    active: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Speakers:
    """Who speaks, in the order they began. `dominant` is whom to show large; it may be in a pause."""

    dominant: str | None = None
    speaking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Quality:
    """How your call goes, and the scores of everybody. `up` is from you to the server."""

    up: Direction | None = None
    down: Direction | None = None
    cause: Cause | None = None
    peers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file that somebody shared; `url` is relative to the server, `size` in bytes."""

    name: str
    size: int
    type: str
    url: str


@dataclass(frozen=True, slots=True)
class ChatLine:
    """A line of chat; `time` is milliseconds since 1970, the server's clock. No two lines of a call have the same."""

    peer: str
    name: str
    text: str
    time: int
    id: str
    file: FileInfo | None = None


@dataclass(frozen=True, slots=True)
class History:
    """The last lines that were written before you came, the oldest first."""

    lines: tuple[ChatLine, ...]


@dataclass(frozen=True, slots=True)
class ChatDeleted:
    """A line of chat was deleted, with its file."""

    id: str


@dataclass(frozen=True, slots=True)
class Connection:
    """Nothing comes from a peer any more (`lost`), or something comes again."""

    peer: str
    lost: bool


@dataclass(frozen=True, slots=True)
class HandRaised:
    """Somebody raised their hand, at `raised` in milliseconds since 1970, or took it down (0)."""

    peer: str
    raised: int


@dataclass(frozen=True, slots=True)
class Reacted:
    """Somebody reacted. Your own come back to you."""

    peer: str
    reaction: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A moderator, by name, asks you to unmute a source."""

    name: str
    source: str


@dataclass(frozen=True, slots=True)
class Waiter:
    """Somebody in the lobby; `peer` is the id to admit or refuse them by."""

    peer: str
    name: str


@dataclass(frozen=True, slots=True)
class Lobby:
    """Who waits to be let in, to those who may moderate."""

    waiting: tuple[Waiter, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """You are in the lobby of the room until somebody lets you in: `welcome` or `bye` follows. `attended`: somebody who
    can is in the room."""

    room: str
    name: str
    attended: bool


@dataclass(frozen=True, slots=True)
class Unreached:
    """No media path to you is up a few seconds after your answer; the search goes on. `addresses` are those of the
    server's candidates, with UDP port; `tcp` tells that media can reach them over TCP, too."""

    cause: UnreachedCause
    addresses: tuple[str, ...]
    tcp: bool


@dataclass(frozen=True, slots=True)
class Error:
    """The last message (or what it asked for) was refused; the connection goes on."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Draining:
    """The server stops in `in_s` seconds, or when its last call has ended, and begins no more calls."""

    in_s: int


@dataclass(frozen=True, slots=True)
class Bye:
    """The server ends the connection and closes after this; `rejoin` tells whether trying again can help, and
    `retry_after_s` when, if the server knows."""

    code: str
    message: str
    rejoin: bool
    retry_after_s: int | None = None

    @classmethod
    def of(cls, error: SfuError | None) -> Bye:
        """Why a client's session ended; None if the client left by itself."""
        if error is None:
            return cls("left", "You left the room.", rejoin=False)
        rejoin = error.close_code in REJOIN_CLOSE_CODES
        return cls(error.code, str(error), rejoin, error.retry_after_s if rejoin else None)


ServerMessage = (
    Waiting | Welcome | Offer | Candidate | Joined | Arrivals | Left | Track | TrackEnded | Muted | Paused | Layers
    | Speakers | Quality | ChatLine | History | ChatDeleted | Connection | HandRaised | Reacted | Asked | RoomState
    | Lobby | Unreached | Draining | Error | Bye | Changed | Permitted | Spotlit | Data | Move
)  # fmt: skip

SERVER_EVENTS: dict[str, type] = {
    "waiting": Waiting,
    "welcome": Welcome,
    "offer": Offer,
    "candidate": Candidate,
    "joined": Joined,
    "arrivals": Arrivals,
    "left": Left,
    "track": Track,
    "track_ended": TrackEnded,
    "mute": Muted,
    "paused": Paused,
    "layers": Layers,
    "changed": Changed,
    "permissions": Permitted,
    "spotlight": Spotlit,
    "message": Data,
    "move": Move,
    "speakers": Speakers,
    "quality": Quality,
    "chat": ChatLine,
    "history": History,
    "chat_deleted": ChatDeleted,
    "connection": Connection,
    "hand": HandRaised,
    "reaction": Reacted,
    "asked": Asked,
    "room": RoomState,
    "lobby": Lobby,
    "unreached": Unreached,
    "draining": Draining,
    "error": Error,
    "bye": Bye,
}
EVENT_OF: dict[type, str] = {cls: event for event, cls in SERVER_EVENTS.items()}


class _BareOffer(msgspec.Struct):
    sdp: str
    type: Literal["offer"] = "offer"


def encode(message: ServerMessage, *, full: bool = True) -> str:
    """The frame for a client; `full` is false for bare clients, whose offers hold `type` and `sdp` only."""
    event = EVENT_OF[type(message)]
    body = _BareOffer(message.sdp) if isinstance(message, Offer) and not full else message
    data = _to_json(body).decode() if event in BARE_EVENTS else body
    return _to_json({"event": event, "data": data}).decode()


_to_json = msgspec.json.Encoder().encode
