"""Sections of a peer's session: the use of each m-line, and the effects of offers and answers on it. Pure.

The server is always the offerer, so of JSEP's states (RFC 8829 section 3.2) two are left: stable, and an offer in
flight. `Sections` knows no SDP text, timer or socket: negotiation.py turns plans into offers and carries out what
answers lead to.

Rules (RFC 8829 section 5.2.2), which tests hold against a model of a browser:

1. A section keeps its index, its kind, and whether the server sends or receives in it.
2. A section is reused for another track only after an answer has seen it inactive, so that a browser never takes the
   new track for the old one.
3. While an offer is in flight, nothing in it changes. Changes go into the next plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sfu.errors import BadSource, TooManyTracks, UnexpectedAnswer
from sfu.media.peer.sdp import AnswerSection
from sfu.media.rtp.codecs import Direction, Kind


class Publishable(Protocol):
    """A track that sections can bring to the peer."""

    @property
    def kind(self) -> Kind:
        """Of the sections that can carry it."""


T = TypeVar("T", bound=Publishable)


@dataclass(slots=True, eq=False)
class Transceiver(Generic[T]):
    """One m-line. A receiving transceiver belongs to a source of the peer, a sending one to a track of another peer.

    `accepted`: the last answer took the track. `settled`: no answer is needed before the transceiver gets another use.
    `rtx_ssrc` is the SSRC of the track's retransmissions, 0 if they use the track's own; `repairs`: the client supports
    RTX.
    """

    kind: Kind
    receives: bool
    source: str | None = None
    track: T | None = None
    accepted: bool = False
    settled: bool = True
    rtx_ssrc: int = 0
    repairs: bool = False

    @property
    def direction(self) -> Direction:
        """The server's."""
        if self.receives:
            return "recvonly" if self.source is not None else "inactive"
        return "sendonly" if self.track is not None else "inactive"


@dataclass(frozen=True, slots=True)
class Planned(Generic[T]):
    """A section as it is offered: its transceiver's state at that moment. Its mid is its index."""

    kind: Kind
    direction: Direction
    receives: bool
    source: str | None
    track: T | None
    rtx_ssrc: int


@dataclass(frozen=True, slots=True)
class Dropped(Generic[T]):
    """A plan took this track out of its section for good."""

    track: T
    rtx_ssrc: int


@dataclass(frozen=True, slots=True)
class Began:
    """The answer says that the client sends this source."""

    source: str
    kind: Kind
    section: AnswerSection


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer says that the client does not send this source."""

    source: str


@dataclass(frozen=True, slots=True)
class Accepted(Generic[T]):
    """The client takes the track."""

    track: T
    section: AnswerSection


@dataclass(frozen=True, slots=True)
class Refused(Generic[T]):
    """The client does not take the track."""

    track: T


Effect = Began | Ended | Accepted[T] | Refused[T]


class Sections(Generic[T]):
    """The sections of one peer. `sources` begin with one each; they keep their sections until `shut`. `new_rtx_ssrc`
    gives the SSRC of a track's retransmissions."""

    def __init__(self, sources: Sequence[tuple[str, Kind]], new_rtx_ssrc: Callable[[T], int]) -> None:
        self.transceivers: list[Transceiver[T]] = [Transceiver(kind, True, source=source) for source, kind in sources]
        self._permanent = {source for source, _ in sources}
        self._new_rtx_ssrc = new_rtx_ssrc
        self._in_flight: list[Planned[T]] | None = None
        self._claimed: dict[str, Kind] = {}  # sources that are to get a section

    @property
    def in_flight(self) -> bool:
        """Whether an offer waits for its answer."""
        return self._in_flight is not None

    def claim(self, source: str, kind: Kind, most: int) -> None:
        """Asks for a section to receive a source in, if it has none. It gets one with the next offer: an answer on its
        way may set one free. Raises TooManyTracks beyond `most` sources and BadSource if the source has another
        kind."""
        kinds = {one.source: one.kind for one in self.transceivers if one.source is not None} | self._claimed
        if source not in kinds:
            if len(kinds) >= most:
                raise TooManyTracks(f"A peer may publish {most} tracks.")
            self._claimed[source] = kind
        elif kinds[source] != kind:
            raise BadSource(f"The source {source!r} is {kinds[source]}.")

    def release(self, source: str) -> None:
        """Gives the section of a source back, unless it is permanent. Raises BadSource if the source has none."""
        if source in self._permanent or self._claimed.pop(source, None) is not None:
            return
        index = next((i for i, one in enumerate(self.transceivers) if one.source == source), None)
        if index is None:
            raise BadSource
        self.transceivers[index].source, self.transceivers[index].settled = None, False

    def open(self, sources: Sequence[tuple[str, Kind]]) -> None:
        """The peer may send from now on: these sources get sections that they keep, with the next offer."""
        self._permanent = {source for source, _ in sources}
        self._claimed.update(sources)

    def shut(self) -> None:
        """The peer may send nothing any more: no section is for a source. What it answers to an offer that is in
        flight does not count."""
        self._permanent = set()
        self._claimed.clear()
        for one in self.transceivers:
            if one.receives and one.source is not None:
                one.source, one.settled = None, False

    def plan(self, wanted: Iterable[T]) -> tuple[list[Planned[T]], list[Dropped[T]]]:
        """The sections of the next offer, which is in flight from now on, and the tracks that none of them brings any
        more. `wanted` are all tracks the peer is to get. Without a section there is nothing to offer."""
        assert self._in_flight is None
        missing, dropped = dict.fromkeys(wanted), []
        for transceiver in self.transceivers:
            track = transceiver.track
            if track is not None and track in missing:
                del missing[track]
            elif track is not None:
                dropped.append(Dropped(track, transceiver.rtx_ssrc))
                transceiver.track, transceiver.accepted, transceiver.settled = None, False, False
        for source, kind in self._claimed.items():
            self._unused(kind, receives=True).source = source
        self._claimed.clear()
        for track in missing:
            transceiver = self._unused(track.kind, receives=False)
            transceiver.track, transceiver.rtx_ssrc = track, self._new_rtx_ssrc(track)
        planned = [
            Planned(one.kind, one.direction, one.receives, one.source, one.track, one.rtx_ssrc)
            for one in self.transceivers
        ]
        if planned:
            self._in_flight = planned
        return planned, dropped

    def settle(self, answer: Sequence[AnswerSection]) -> list[Effect[T]]:
        """Applies an answer, which has a section for each of the offer's. Raises UnexpectedAnswer if no offer is in
        flight."""
        if self._in_flight is None:
            raise UnexpectedAnswer
        in_flight, self._in_flight = self._in_flight, None
        effects: list[Effect[T]] = []
        for transceiver, planned, said in zip(self.transceivers, in_flight, answer, strict=False):
            if planned.direction == "inactive":
                transceiver.settled = True
            elif transceiver.track is not None:
                transceiver.accepted, transceiver.repairs = said.receives, said.repairs
                effects.append(Accepted(transceiver.track, said) if said.receives else Refused(transceiver.track))
            elif transceiver.source is not None:
                began = Began(transceiver.source, transceiver.kind, said)
                effects.append(began if said.sends else Ended(transceiver.source))
        return effects

    def _unused(self, kind: Kind, *, receives: bool) -> Transceiver[T]:
        for one in self.transceivers:
            unused = one.source is None and one.track is None
            if unused and one.settled and one.kind == kind and one.receives == receives:
                return one
        self.transceivers.append(Transceiver(kind, receives))
        return self.transceivers[-1]
