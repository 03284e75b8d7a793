"""The signalling protocol: JSON text frames and frozen dataclasses, validated once, here. Pure.

A frame is `{"event": …, "data": …}`. `offer`, `answer` and `candidate` carry `data` as a JSON *string*, as pion's
sfu-ws example does; every other event carries an object. `docs/protocol.md` is the same table for people, and a test
holds the two against each other.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_type_hints

from sfu.errors import BadCandidate, BadMessage, BadName, BadSource, ChatTooLong, UnknownEvent
from sfu.tokens import Permissions

SUBPROTOCOL = "sfu.v1"
"""A client that opens the WebSocket with this subprotocol gets every event; others only those in BARE_EVENTS."""

BARE_EVENTS = frozenset({"offer", "answer", "candidate"})
"""What pion's sfu-ws clients know. Their `data` is a JSON string."""

Kind = Literal["audio", "video"]

NAME_CHARACTERS = 64
CHAT_BYTES = 4096
CANDIDATE_CHARACTERS = 1024
SHOWN_VIDEOS, SHOWN_PIXELS = 500, 16_384
SOURCE = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
MICROPHONE, CAMERA = "microphone", "camera"
"""The sources of the two sections of the first offer; more are asked for with `publish`."""

# --- client to server ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """The client's SDP answer to the one offer in flight."""

    type: Literal["answer"]
    sdp: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """An ICE candidate, either way (RFC 8838). The server is ICE-lite: it never probes what a client sends."""

    candidate: str
    sdpMid: str | None = None
    sdpMLineIndex: int | None = None


@dataclass(frozen=True, slots=True)
class Publish:
    """Asks for one more section to send in. The next offer's `send` names its mid."""

    source: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Unpublish:
    """Gives a section asked for with `publish` back."""

    source: str


@dataclass(frozen=True, slots=True)
class Mute:
    """The client muted or unmuted a source. While muted, the server forwards none of its media."""

    source: str
    muted: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A video as the page shows it, in device pixels."""

    peer: str
    source: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class View:
    """All videos that the page shows now. The server sends no others until the next `view`."""

    videos: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class Chat:
    """A line of chat for everyone in the room, the sender included."""

    text: str


@dataclass(frozen=True, slots=True)
class RestartIce:
    """The client's media path died, or its network is another one: it wants an offer with new ICE credentials."""


@dataclass(frozen=True, slots=True)
class Hand:
    """The client raises its hand, or takes it down."""

    raised: bool


@dataclass(frozen=True, slots=True)
class Reaction:
    """A small picture for everyone in the room, the sender included, to be shown for a moment."""

    reaction: Literal["thumbs_up", "heart", "laugh", "surprise", "clap", "celebrate"]


@dataclass(frozen=True, slots=True)
class Moderate:
    """Does something to another peer, or to somebody in the lobby. `source` is what to mute; null is the microphone."""

    action: Literal["mute", "ask_unmute", "remove", "admit", "refuse"]
    peer: str
    source: str | None


@dataclass(frozen=True, slots=True)
class ChangeRoom:
    """Locks or unlocks the room, puts a lobby before it or takes it away; null leaves it as it is."""

    locked: bool | None
    lobby: bool | None


@dataclass(frozen=True, slots=True)
class EndCall:
    """Ends the call for everybody."""


@dataclass(frozen=True, slots=True)
class Leave:
    """The client goes; the server answers with `bye` and closes."""


ClientMessage = (
    Answer | Candidate | Publish | Unpublish | Mute | View | Chat | RestartIce | Hand | Reaction | Moderate | ChangeRoom
    | EndCall | Leave
)  # fmt: skip

# --- server to client ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrackInfo:
    """A published track of a participant."""

    source: str
    kind: Kind
    muted: bool


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody in the room, with what they publish. `hand`: 0, or since when it is up, in milliseconds since 1970."""

    peer: str
    name: str
    tracks: tuple[TrackInfo, ...] = ()
    hand: int = 0
    moderator: bool = False


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
    """How the room is set. `chat_kept_s`: how long its chat is kept, 0 for not at all."""

    locked: bool = False
    lobby: bool = False
    files: bool = False
    chat_kept_s: int = 0


@dataclass(frozen=True, slots=True)
class Welcome:
    """First event of who is in: who you are, who is here. `resumed`: on another WebSocket than before, so it replaces
    what was known. `session` is what to resume and to share files with, to be kept from everybody else."""

    peer: str
    room: str
    name: str
    participants: tuple[Participant, ...]
    limits: Limits
    permissions: Permissions
    state: RoomState
    session: str = field(repr=False)
    resumed: bool


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
    """A participant muted or unmuted a source."""

    peer: str
    source: str
    muted: bool


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
class Direction:
    """Figures of one direction between a client and the server, of the last seconds."""

    loss: float
    jitter_ms: float
    round_trip_ms: float | None
    bitrate_bps: int


@dataclass(frozen=True, slots=True)
class Cause:
    """What makes a call bad: whose leg, and by how much."""

    kind: Literal["upload_loss", "download_loss", "download_limited", "delay"]
    peer: str
    value: float
    unit: Literal["%", "bps", "ms"]


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
    """You are in the lobby of the room until somebody lets you in: `welcome` or `bye` follows."""

    room: str
    name: str


@dataclass(frozen=True, slots=True)
class Expiring:
    """The token ends soon, and with it the connection; `seconds` from now."""

    seconds: int


@dataclass(frozen=True, slots=True)
class Error:
    """The last message (or what it asked for) was refused; the connection goes on."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Bye:
    """The server ends the connection and closes after this; `rejoin` tells whether trying again can help."""

    code: str
    message: str
    rejoin: bool


ServerMessage = (
    Waiting | Welcome | Offer | Candidate | Joined | Left | Track | TrackEnded | Muted | Paused | Layers | Speakers
    | Quality | ChatLine | History | ChatDeleted | HandRaised | Reacted | Asked | RoomState | Lobby | Expiring | Error
    | Bye
)  # fmt: skip

CLIENT_EVENTS: dict[str, type] = {
    "answer": Answer,
    "candidate": Candidate,
    "publish": Publish,
    "unpublish": Unpublish,
    "mute": Mute,
    "view": View,
    "chat": Chat,
    "restart_ice": RestartIce,
    "hand": Hand,
    "reaction": Reaction,
    "moderate": Moderate,
    "room": ChangeRoom,
    "end_call": EndCall,
    "leave": Leave,
}
SERVER_EVENTS: dict[str, type] = {
    "waiting": Waiting,
    "welcome": Welcome,
    "offer": Offer,
    "candidate": Candidate,
    "joined": Joined,
    "left": Left,
    "track": Track,
    "track_ended": TrackEnded,
    "mute": Muted,
    "paused": Paused,
    "layers": Layers,
    "speakers": Speakers,
    "quality": Quality,
    "chat": ChatLine,
    "history": History,
    "chat_deleted": ChatDeleted,
    "hand": HandRaised,
    "reaction": Reacted,
    "asked": Asked,
    "room": RoomState,
    "lobby": Lobby,
    "expiring": Expiring,
    "error": Error,
    "bye": Bye,
}
EVENT_OF: dict[type, str] = {cls: event for event, cls in SERVER_EVENTS.items()}
_HINTS = {cls: get_type_hints(cls) for cls in CLIENT_EVENTS.values()}
_BARE_FIELDS = {"type", "sdp"}


def decode(text: str) -> ClientMessage:
    """One frame from a client as a dataclass.

    Unknown keys are ignored (browsers add some). Raises BadMessage, UnknownEvent, BadCandidate, BadSource or
    ChatTooLong; whatever `text` holds, nothing else.
    """
    data = _object(text)
    event = data.get("event")
    cls = CLIENT_EVENTS.get(event) if isinstance(event, str) else None
    if cls is None:
        raise UnknownEvent(f"The server does not know the event {str(event)[:40]!r}.")
    body = data.get("data")
    if event in BARE_EVENTS:
        if not isinstance(body, str):
            raise BadMessage(f"The data of {event!r} must be a JSON string.")
        body = _object(body)
    elif body is None:
        body = {}
    if not isinstance(body, dict):
        raise BadMessage(f"The data of {event!r} must be an object.")
    message: ClientMessage = cls(**{f.name: _value(event, f.name, body, _HINTS[cls][f.name], f) for f in fields(cls)})
    _check(message)
    return message


def encode(message: ServerMessage, *, full: bool = True) -> str:
    """The frame for a client; `full` is false for bare clients, whose offers hold `type` and `sdp` only."""
    event = EVENT_OF[type(message)]
    body = asdict(message)
    if event not in BARE_EVENTS:
        return json.dumps({"event": event, "data": body}, ensure_ascii=False)
    if isinstance(message, Offer) and not full:
        body = {key: body[key] for key in _BARE_FIELDS}
    return json.dumps({"event": event, "data": json.dumps(body, ensure_ascii=False)}, ensure_ascii=False)


def clean_name(text: str, what: str = "name") -> str:
    """NFC, without control, format (bidi) and surrogate characters, white space folded; 1 to 64 characters or
    BadName."""
    kept = "".join(
        c
        for c in unicodedata.normalize("NFC", text[: 16 * NAME_CHARACTERS])
        if c.isspace() or unicodedata.category(c)[0] != "C"
    )
    name = " ".join(kept.split())
    if not name:
        raise BadName(f"The {what} is empty.")
    if len(name) > NAME_CHARACTERS:
        raise BadName(f"The {what} is longer than {NAME_CHARACTERS} characters.")
    return name


def _object(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise BadMessage from None
    if not isinstance(data, dict):
        raise BadMessage
    return data


def _value(event: object, name: str, body: dict[str, Any], hint: Any, spec: Any) -> Any:
    """The checked value of one field: `hint` is str, bool, int, a Literal of strings, one of these with None, or a
    tuple of objects with such fields."""
    value = body.get(name)
    choices: tuple[Any, ...] = getattr(hint, "__args__", ())
    if getattr(hint, "__origin__", None) is tuple:
        return _items(event, name, value, choices[0])
    if value is None and type(None) in choices:
        return None
    if getattr(hint, "__origin__", None) is Literal:
        fits = isinstance(value, str) and value in choices
    else:
        wanted = next((c for c in choices if c is not type(None)), hint)
        fits = type(value) is wanted
    if fits and isinstance(value, str):
        fits = not any(
            "\ud800" <= c <= "\udfff" for c in value
        )  # half a character would break whoever it is sent on to
    if not fits:
        raise BadMessage(f"The field {name!r} of {event!r} is missing or of the wrong type.")
    return value


def _items(event: object, name: str, value: Any, cls: Any) -> Any:
    if not isinstance(value, list) or len(value) > SHOWN_VIDEOS or not all(isinstance(one, dict) for one in value):
        raise BadMessage(f"The field {name!r} of {event!r} must be an array of at most {SHOWN_VIDEOS} objects.")
    hints, items = get_type_hints(cls), fields(cls)
    return tuple(cls(**{f.name: _value(event, f.name, one, hints[f.name], f) for f in items}) for one in value)


def _check(message: ClientMessage) -> None:
    """What a type cannot say: sizes and alphabets."""
    match message:
        case View(videos):
            if not all(0 < pixels <= SHOWN_PIXELS for shown in videos for pixels in (shown.width, shown.height)):
                raise BadMessage(f"A video is shown in 1 to {SHOWN_PIXELS} pixels each way.")
        case Chat(text):
            if len(text.encode()) > CHAT_BYTES:
                raise ChatTooLong(f"A chat message may be {CHAT_BYTES} bytes.")
            if not text.strip():
                raise BadMessage("The chat message is empty.")
        case Publish(source) | Unpublish(source) | Mute(source) | Moderate(_, _, str(source)):
            if not SOURCE.match(source):
                raise BadSource("A source is 1 to 32 of a-z, 0-9 and '-', a letter first.")
        case Candidate(candidate):
            if len(candidate) > CANDIDATE_CHARACTERS or (
                candidate and not candidate.removeprefix("a=").startswith("candidate:")
            ):
                raise BadCandidate
