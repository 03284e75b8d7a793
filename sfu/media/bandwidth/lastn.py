"""Last-N: in a large room, each peer gets the videos of those who spoke last. Pure.

Every video has a place in one order for the whole room; a peer gets the first n of those that are not its own. The
rest is one set for all peers that have no video among the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

CAMERA = "camera"


class Video(NamedTuple):
    """A track, by publishing peer and source."""

    peer: str
    source: str


def rank(videos: Sequence[Video], speakers: Sequence[str]) -> list[Video]:
    """The room's order: the first speaker's camera, what is shared (screens), the other speakers' cameras, the rest.

    `videos` is in the order they began, which decides where nothing else does; `speakers` as `Speakers.ranking`, where
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
    """What each subscriber is not to get of the room's order: all but the first n that are not its own."""
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
