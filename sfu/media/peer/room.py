"""The peers of one room on this worker: who is speaking, and whose video each peer gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from sfu.media.bandwidth.lastn import Video, left_out, rank
from sfu.media.peer.publication import Publication
from sfu.media.peer.speakers import Speakers, Speaking
from sfu.media.rtp import codecs

MICROPHONE = "microphone"
"""The source whose level shows that a peer speaks; a shared screen's audio is nobody's voice."""


class Member(Protocol):
    """What a room needs of a peer (implemented in peer.py)."""

    id: str

    @property
    def published(self) -> dict[str, Publication]:
        """By source."""

    @property
    def shows(self) -> frozenset[int]:
        """The video payload types that it can show."""

    def check_codecs(self, types: frozenset[int]) -> None:
        """All peers of the room can show these payload types."""

    def leave_out(self, videos: frozenset[Video]) -> None:
        """These videos are not to be forwarded to it."""


M = TypeVar("M", bound=Member)


@dataclass(slots=True)
class Room(Generic[M]):
    """Rooms are isolated because a peer looks no further than its own room. `last_n` is how many videos each peer gets,
    0 for all."""

    key: str
    last_n: int = 0
    peers: dict[str, M] = field(default_factory=dict)  # by id
    speakers: Speakers = field(default_factory=Speakers)
    rank: dict[Video, int] = field(default_factory=dict)  # places of the videos in the order of lastn.py
    first: str | None = None  # the peer whose camera comes first for everybody, whoever speaks

    @property
    def video_types(self) -> frozenset[int]:
        """The video payload types that all peers here can show, and VP8: a peer that cannot show VP8 is told so."""
        types = codecs.VIDEO_TYPES
        for peer in self.peers.values():
            types &= peer.shows
        return types | {codecs.VP8.payload_type}

    def check_codecs(self) -> None:
        """A peer came, left or changed its codecs: tells all peers which ones everybody can show."""
        types = self.video_types
        for peer in self.peers.values():
            peer.check_codecs(types)

    def listen(self, now_s: float) -> Speaking | None:
        """Who is speaking, if that changed since the last call."""
        levels = {}
        for peer in self.peers.values():
            publication = peer.published.get(MICROPHONE)
            level = None if publication is None else publication.take_level()
            if publication is None or publication.muted:
                self.speakers.mute(peer.id)
            elif level is not None:
                levels[peer.id] = level
        change = self.speakers.update(levels, now_s)
        if change is not None:
            self.arrange()
        return change

    def put_first(self, peer_id: str | None) -> None:
        """This peer's camera comes first for everybody from now on; None: that of whoever speaks."""
        self.first = peer_id
        self.arrange()

    def arrange(self) -> None:
        """Tells each peer which videos it does not get now. A muted video, or one of which nothing has come, takes
        nobody's place."""
        videos = [
            Video(peer.id, source)
            for peer in self.peers.values()
            for source, publication in peer.published.items()
            if publication.kind == "video" and publication.flows and not publication.muted
        ]
        first = [] if self.first is None else [self.first]
        ranked = rank(videos, [*first, *(peer for peer in self.speakers.ranking if peer != self.first)])
        self.rank = {video: place for place, video in enumerate(ranked)}
        if not self.last_n:
            return
        for peer, videos_out in left_out(ranked, self.peers, self.last_n):
            self.peers[peer].leave_out(videos_out)
