from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.media.bandwidth.lastn import Video, left_out, rank


def cameras(peers: str) -> list[Video]:
    return [Video(peer, "camera") for peer in peers]


def text(videos: list[Video]) -> str:
    """Peers in order, a shared screen in upper case."""
    return "".join(video.peer.upper() if video.source == "screen" else video.peer for video in videos)


@pytest.mark.parametrize(
    ("videos", "speakers", "expected"),
    [
        ("abcd", "", "abcd"),
        ("abcd", "c", "cabd"),
        ("abcd", "dbc", "dbca"),
        ("abAcd", "", "Aabcd"),
        ("abAcd", "dc", "dAcab"),  # the speaker, then the screen, then who spoke before
        ("abAcCd", "dc", "dACcab"),
        ("abcd", "xcy", "cabd"),  # who speaks without a camera takes no place
        ("bcA", "ab", "Abc"),  # the speaker's screen is a screen
        ("", "ab", ""),
    ],
)
def test_the_order_of_a_room(videos: str, speakers: str, expected: str) -> None:
    made = [Video(peer.lower(), "camera" if peer.islower() else "screen") for peer in videos]
    assert text(rank(made, list(speakers))) == expected


@pytest.mark.parametrize(
    ("order", "subscriber", "n", "out"),
    [
        ("abcdef", "x", 4, "ef"),
        ("abcdef", "f", 4, "ef"),  # its own counts for nothing
        ("abcdef", "a", 4, "f"),
        ("abcdef", "d", 4, "f"),
        ("abcdef", "e", 4, "ef"),
        ("aAbcdef", "a", 4, "f"),
        ("abcde", "e", 5, ""),
        ("abcde", "a", 4, ""),
        ("abcde", "e", 1, "bcde"),
        ("abcde", "a", 1, "cde"),
        ("", "a", 1, ""),
    ],
)
def test_what_a_subscriber_is_not_to_get(order: str, subscriber: str, n: int, out: str) -> None:
    made = [Video(peer.lower(), "camera" if peer.islower() else "screen") for peer in order]
    assert dict(left_out(made, [subscriber], n)) == {subscriber: frozenset(cameras(out))}


peers = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["camera", "screen", "slides"])), unique=True),
       peers, peers, st.integers(1, 6))  # fmt: skip
def test_everybody_gets_n_of_the_others_and_the_speaker_among_them(
    published: list[tuple[str, str]], speakers: list[str], subscribers: list[str], n: int
) -> None:
    videos = [Video(*one) for one in published]
    ranked = rank(videos, speakers)
    assert sorted(ranked) == sorted(videos)
    for subscriber, out in left_out(ranked, subscribers, n):
        others = {video for video in videos if video.peer != subscriber}
        got = others - out
        assert len(got) == min(n, len(others))
        if speakers and Video(speakers[0], "camera") in others:
            assert Video(speakers[0], "camera") in got
