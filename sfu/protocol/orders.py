"""Server messages by which moderators and the company conduct a call: frozen dataclasses. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Changed:
    """A participant, perhaps you, has another name or may do other things from now on. What they must not send any more
    ends with `track_ended`."""

    peer: str
    name: str
    moderator: bool
    publish: bool


@dataclass(frozen=True, slots=True)
class Permitted:
    """What you may do from now on, as Permissions in `welcome`."""

    publish: bool
    subscribe: bool
    chat: bool
    moderate: bool


@dataclass(frozen=True, slots=True)
class Spotlit:
    """Whom everybody shows large from now on, whoever speaks; null: nobody."""

    peer: str | None


@dataclass(frozen=True, slots=True)
class Data:
    """Data for the page, from the backend of the company. `topic` says what it is about, in the company's words."""

    topic: str
    data: Any


@dataclass(frozen=True, slots=True)
class Move:
    """Go on in another room: leave this one and join with this token, which is for one use and for a minute."""

    room: str
    token: str = field(repr=False)
