"""The peers of one room on this worker: who is speaking, and whose video each peer gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from sfu.media.bandwidth.lastn import Video, left_out, rank
from sfu.media.peer.publication import Publication
from sfu.media.peer.speakers import Speakers, Speaking
from sfu.media.rtp import codecs

MICROPHONE = "microphone"
"""The source whose level tells that a peer speaks; a shared screen's sound is nobody's voice."""


class Member(Protocol):
    """What a room asks of a peer (peer.py)."""

    id: str

    @property
    def published(self) -> dict[str, Publication]:
        """By source."""

    @property
    def shows(self) -> frozenset[int]:
        """The payload types of video that it can show."""

    def check_codecs(self, types: frozenset[int]) -> None:
        """Everybody here can show these."""

    def leave_out(self, videos: frozenset[Video]) -> None:
        """These are not to be forwarded to it."""


M = TypeVar("M", bound=Member)


@dataclass(slots=True)
class Room(Generic[M]):
    """Isolation is that a peer looks no further than its room. `last_n` is how many videos each gets, 0 for all."""

    key: str
    last_n: int = 0
    peers: dict[str, M] = field(default_factory=dict)  # by id
    speakers: Speakers = field(default_factory=Speakers)
    rank: dict[Video, int] = field(default_factory=dict)  # places of its videos in the order of who spoke last

    @property
    def video_types(self) -> frozenset[int]:
        """The payload types that everybody here can show, and VP8, which whoever cannot is told of."""
        types = codecs.VIDEO_TYPES
        for peer in self.peers.values():
            types &= peer.shows
        return types | {codecs.VP8.payload_type}

    def check_codecs(self) -> None:
        """Somebody came, went or changed who can show other codecs than the rest."""
        types = self.video_types
        for peer in self.peers.values():
            peer.check_codecs(types)

    def listen(self, now_s: float) -> Speaking | None:
        """Who speaks now, if that changed since the last call."""
        levels = {}
        for peer in self.peers.values():
            track = peer.published.get(MICROPHONE)
            level = None if track is None else track.take_level()
            if track is None or track.muted:
                self.speakers.mute(peer.id)
            elif level is not None:
                levels[peer.id] = level
        change = self.speakers.update(levels, now_s)
        if change is not None:
            self.arrange()
        return change

    def arrange(self) -> None:
        """Leaves out for each peer the videos it is not to get now. A muted one takes nobody's place,
        nor does one of which nothing came."""
        videos = [
            Video(peer.id, source)
            for peer in self.peers.values()
            for source, track in peer.published.items()
            if track.kind == "video" and track.flows and not track.muted
        ]
        ranked = rank(videos, self.speakers.ranking)
        self.rank = {video: place for place, video in enumerate(ranked)}
        if not self.last_n:
            return
        for peer, videos_out in left_out(ranked, self.peers, self.last_n):
            self.peers[peer].leave_out(videos_out)
