"""Client messages: JSON text frames parsed into frozen dataclasses and validated once. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from sfu.errors import BadCandidate, BadMessage, BadSource, ChatTooLong, UnknownEvent
from sfu.protocol.shared import BARE_EVENTS, Candidate, Kind

CHAT_BYTES = 4096
CANDIDATE_CHARACTERS = 1024
SHOWN_VIDEOS, SHOWN_PIXELS = 500, 16_384
MAX_BPS = 100_000_000
Pixels = msgspec.Meta(ge=1, le=SHOWN_PIXELS)
SOURCE = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")


@dataclass(frozen=True, slots=True)
class Answer:
    """The client's SDP answer to the one offer in flight."""

    type: Literal["answer"]
    sdp: str


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
    width: Annotated[int, Pixels]
    height: Annotated[int, Pixels]


@dataclass(frozen=True, slots=True)
class View:
    """All videos that the page shows now. The server sends no others until the next `view`."""

    videos: Annotated[tuple[Shown, ...], msgspec.Meta(max_length=SHOWN_VIDEOS)]


@dataclass(frozen=True, slots=True)
class LayerSize:
    """A simulcast layer as the client sends it: the size of its picture, and its maximum bitrate."""

    rid: Literal["q", "h", "f"]
    width: Annotated[int, Pixels]
    height: Annotated[int, Pixels]
    max_bps: Annotated[int, msgspec.Meta(ge=1, le=MAX_BPS)]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The layers that the client sends of a source from now on, and no others."""

    source: str
    layers: Annotated[tuple[LayerSize, ...], msgspec.Meta(max_length=3)]


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
    source: str | None = None


@dataclass(frozen=True, slots=True)
class ChangeRoom:
    """Locks or unlocks the room, puts a lobby before it or takes it away; null leaves it as it is."""

    locked: bool | None = None
    lobby: bool | None = None


@dataclass(frozen=True, slots=True)
class Spotlight:
    """Has everybody show this peer large, or (null) nobody in particular."""

    peer: str | None = None


@dataclass(frozen=True, slots=True)
class EndCall:
    """Ends the call for everybody."""


@dataclass(frozen=True, slots=True)
class Leave:
    """The client goes; the server answers with `bye` and closes."""


ClientMessage = (
    Answer | Candidate | Publish | Unpublish | Mute | View | Sizes | Chat | RestartIce | Hand | Reaction | Moderate
    | ChangeRoom | Spotlight | EndCall | Leave
)  # fmt: skip

CLIENT_EVENTS: dict[str, type] = {
    "answer": Answer,
    "candidate": Candidate,
    "publish": Publish,
    "unpublish": Unpublish,
    "mute": Mute,
    "view": View,
    "layers": Sizes,
    "chat": Chat,
    "restart_ice": RestartIce,
    "hand": Hand,
    "reaction": Reaction,
    "moderate": Moderate,
    "room": ChangeRoom,
    "spotlight": Spotlight,
    "end_call": EndCall,
    "leave": Leave,
}


class _Frame(msgspec.Struct):
    event: Any = None
    data: msgspec.Raw = msgspec.Raw(b"{}")


_FRAME = msgspec.json.Decoder(_Frame)
_TEXT = msgspec.json.Decoder(str)
_DATA: dict[str, msgspec.json.Decoder[Any]] = {event: msgspec.json.Decoder(cls) for event, cls in CLIENT_EVENTS.items()}


def decode(text: str) -> ClientMessage:
    """One frame from a client as a dataclass.

    Unknown keys are ignored (browsers add some). Raises BadMessage, UnknownEvent, BadCandidate, BadSource or
    ChatTooLong; whatever `text` holds, nothing else.
    """
    try:
        frame = _FRAME.decode(text)
    except (ValueError, RecursionError) as error:  # half a surrogate pair and NaN are not JSON either
        raise BadMessage from error
    decoder = _DATA.get(frame.event) if isinstance(frame.event, str) else None
    if decoder is None:
        raise UnknownEvent(f"The server does not know the event {str(frame.event)[:40]!r}.")
    data: bytes | str = bytes(frame.data)
    try:
        if frame.event in BARE_EVENTS:
            data = _TEXT.decode(data)
        message: ClientMessage = decoder.decode("{}" if data == b"null" else data)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"The data of {frame.event!r} does not fit: {str(error)[:200]}.") from error
    _check(message)
    return message


def _check(message: ClientMessage) -> None:
    """What a type cannot say: sizes and alphabets."""
    match message:
        case Chat(text):
            if len(text.encode()) > CHAT_BYTES:
                raise ChatTooLong(f"A chat message may be {CHAT_BYTES} bytes.")
            if not text.strip():
                raise BadMessage("The chat message is empty.")
        case Publish(source) | Unpublish(source) | Mute(source) | Sizes(source) | Moderate(_, _, str(source)):
            if not SOURCE.match(source):
                raise BadSource("A source is 1 to 32 of a-z, 0-9 and '-', a letter first.")
        case Candidate(candidate):
            if len(candidate) > CANDIDATE_CHARACTERS or (
                candidate and not candidate.removeprefix("a=").startswith("candidate:")
            ):
                raise BadCandidate
