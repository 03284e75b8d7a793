"""Client messages: JSON text frames parsed into frozen dataclasses and validated once. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from typing import Any, Literal, get_type_hints

from sfu.errors import BadCandidate, BadMessage, BadSource, ChatTooLong, UnknownEvent
from sfu.protocol.shared import BARE_EVENTS, Candidate, Kind

CHAT_BYTES = 4096
CANDIDATE_CHARACTERS = 1024
SHOWN_VIDEOS, SHOWN_PIXELS = 500, 16_384
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
_HINTS = {cls: get_type_hints(cls) for cls in CLIENT_EVENTS.values()}


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
    message: ClientMessage = cls(**{f.name: _value(event, f.name, body, _HINTS[cls][f.name]) for f in fields(cls)})
    _check(message)
    return message


def _object(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise BadMessage from None
    if not isinstance(data, dict):
        raise BadMessage
    return data


def _value(event: object, name: str, body: dict[str, Any], hint: Any) -> Any:
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
        # half a character would break whoever it is sent on to
        fits = not any("\ud800" <= c <= "\udfff" for c in value)
    if not fits:
        raise BadMessage(f"The field {name!r} of {event!r} is missing or of the wrong type.")
    return value


def _items(event: object, name: str, value: Any, cls: Any) -> Any:
    if not isinstance(value, list) or len(value) > SHOWN_VIDEOS or not all(isinstance(one, dict) for one in value):
        raise BadMessage(f"The field {name!r} of {event!r} must be an array of at most {SHOWN_VIDEOS} objects.")
    hints, items = get_type_hints(cls), fields(cls)
    return tuple(cls(**{f.name: _value(event, f.name, one, hints[f.name]) for f in items}) for one in value)


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
