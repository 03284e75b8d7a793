"""Last-N: in a large room, each peer gets the videos of those who spoke last. Pure.

All videos of a room are in one order; a peer gets the first n that are not its own. Peers without a video among the
first share one set of videos left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

CAMERA = "camera"


class Video(NamedTuple):
    """A published video, by peer and source."""

    peer: str
    source: str


def rank(videos: Sequence[Video], speakers: Sequence[str]) -> list[Video]:
    """The room's order: the first speaker's camera, shared screens, the other speakers' cameras, the rest.

    `videos` are in the order in which they began, which breaks ties; `speakers` are as in `Speakers.ranking`, where
    peers may be missing or have no video.
    """
    spoke = {peer: place for place, peer in enumerate(speakers)}
    first = speakers[0] if speakers else None

    def place(video: Video) -> tuple[int, int]:
        if video.source != CAMERA:
            return 1, 0
        if video.peer == first:
            return 0, 0
        return (2, spoke[video.peer]) if video.peer in spoke else (3, 0)

    return sorted(videos, key=place)


def left_out(ranked: Sequence[Video], subscribers: Iterable[str], n: int) -> Iterator[tuple[str, frozenset[Video]]]:
    """The videos of the room's order that each subscriber does not get: all but the first n that are not its own."""
    rest: dict[int, frozenset[Video]] = {}
    for subscriber in subscribers:
        cut = n
        for place, video in enumerate(ranked):
            if place >= cut:
                break
            cut += video.peer == subscriber
        if cut not in rest:
            rest[cut] = frozenset(ranked[cut:])
        yield subscriber, rest[cut]
