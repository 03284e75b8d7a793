from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfu.media.peer.speakers import HOLD_S, LEAD_S, LISTEN_S, Speakers, Speaking

QUIET, TALK, SHOUT = -75.0, -30.0, -12.0


class Room:
    """Speakers with a clock that goes on by LISTEN_S a call."""

    def __init__(self, start_s: float = 1000.0) -> None:
        self.speakers, self.now_s = Speakers(), start_s
        self.told: list[Speaking] = []

    def hear(self, calls: int = 1, **levels: float) -> Speaking:
        for _ in range(calls):
            self.now_s += LISTEN_S
            if (change := self.speakers.update(levels, self.now_s)) is not None:
                self.told.append(change)
        return self.speakers.now

    def until(self, wanted: Speaking, **levels: float) -> int:
        """After how many calls it comes to that; at most 100."""
        return next(n for n in range(1, 101) if self.hear(**levels) == wanted)


def test_nobody_speaks_where_all_is_quiet() -> None:
    room = Room()
    assert room.hear(50, a=QUIET, b=-127.0) == Speaking()
    assert room.hear(50) == Speaking()
    assert room.told == []


@pytest.mark.parametrize("before", [-127.0, QUIET])
@pytest.mark.parametrize("level", [-44.0, -40.0, TALK, SHOUT, 0.0])
def test_who_begins_is_known_within_300_ms(before: float, level: float) -> None:
    """The first window may hold a moment of speech only, then come two whole ones at most."""
    room = Room()
    room.hear(20, a=before, b=QUIET)
    assert room.until(Speaking("a", ("a",)), a=level, b=QUIET) <= (2 if level >= -40 else 4)


def test_a_level_from_the_first_packet_on_counts() -> None:
    assert Room().hear(1, a=TALK) == Speaking("a", ("a",))


def test_whoever_comes_later_counts_as_soon_as_others() -> None:
    """And no sooner, though nobody was listened to before."""
    room = Room()
    room.hear(30)
    assert room.until(Speaking("a", ("a",)), a=-44.0) == 3


def test_who_is_muted_as_the_dominant_one_leaves_speaks_no_more() -> None:
    room = Room()
    room.hear(5, a=SHOUT, b=TALK)
    room.speakers.leave("a")
    room.speakers.mute("b")
    assert room.hear() == Speaking()
    assert room.told[-1] == Speaking()


def test_a_click_is_no_speech() -> None:
    """20 ms at full level among five packets of 20 ms."""
    room = Room()
    room.hear(20, a=QUIET)
    for _ in range(20):
        room.hear(1, a=(4 * QUIET + 0.0) / 5)
        room.hear(5, a=QUIET)
    assert room.told == []


def test_a_pause_between_words_is_none() -> None:
    room = Room()
    room.hear(5, a=TALK)
    for _ in range(10):
        room.hear(round(HOLD_S / LISTEN_S) - 1, a=QUIET)
        room.hear(3, a=TALK)
    assert room.told == [Speaking("a", ("a",))]


def test_who_falls_silent_stays_dominant_and_speaks_no_more() -> None:
    room = Room()
    room.hear(5, a=TALK)
    room.hear(20, a=QUIET)
    assert room.told == [Speaking("a", ("a",)), Speaking("a", ())]


def test_silence_may_be_no_packets_at_all() -> None:
    room = Room()
    room.hear(5, a=TALK)
    assert room.hear(20) == Speaking("a", ())


def test_the_next_speaker_takes_over_in_the_first_ones_pause() -> None:
    room = Room()
    room.hear(20, a=TALK, b=QUIET)
    room.hear(3, a=QUIET, b=QUIET)
    assert room.speakers.now == Speaking("a", ("a",)), "in the pause a still counts as speaking"
    assert room.until(Speaking("b", ("a", "b")), a=QUIET, b=TALK) <= 2


def test_an_interjection_does_not_take_over() -> None:
    room = Room()
    room.hear(20, a=TALK, b=QUIET)
    assert room.hear(2, a=TALK, b=SHOUT) == Speaking("a", ("a", "b")), "louder, but for less than LEAD_S"
    assert room.hear(50, a=TALK, b=TALK + 3).dominant == "a", "for long, but hardly louder"


def test_who_is_louder_for_long_takes_over() -> None:
    room = Room()
    room.hear(20, a=TALK, b=QUIET)
    calls = room.until(Speaking("b", ("a", "b")), a=TALK, b=SHOUT)
    assert LEAD_S / LISTEN_S < calls <= LEAD_S / LISTEN_S + 3


def test_the_lead_must_be_in_one_piece() -> None:
    room = Room()
    room.hear(20, a=TALK, b=QUIET)
    for _ in range(10):
        room.hear(3, a=TALK, b=SHOUT)
        room.hear(6, a=TALK, b=TALK - 3)
    assert room.speakers.now.dominant == "a"


def test_two_who_talk_over_each_other_do_not_flap() -> None:
    room = Room()
    for _ in range(100):
        room.hear(2, a=TALK, b=TALK - 10)
        room.hear(2, a=TALK - 10, b=TALK)
    assert {change.dominant for change in room.told} == {"a"}


def test_who_is_muted_is_silent_at_once() -> None:
    room = Room()
    room.hear(5, a=SHOUT, b=TALK)
    room.speakers.mute("a")
    assert room.hear(1, b=TALK) == Speaking("b", ("b",))
    room.speakers.mute("b")
    assert room.hear(1) == Speaking()
    assert room.hear(50) == Speaking()


def test_who_leaves_is_forgotten() -> None:
    room = Room()
    room.hear(5, a=SHOUT, b=TALK)
    told = len(room.told)
    room.speakers.leave("a")
    assert room.speakers.now == Speaking(None, ("b",))
    assert room.hear(1, b=TALK) == Speaking("b", ("b",))
    assert len(room.told) == told + 1
    room.hear(50)
    assert room.speakers.ranking == ["b"]
    room.speakers.leave("b")
    assert room.speakers.ranking == []
    assert room.speakers.now == Speaking()


def test_the_ranking_begins_with_the_dominant_then_who_speaks_then_who_spoke_last() -> None:
    room = Room()
    for peer in "abcd":
        room.hear(5, **{peer: TALK})
        room.hear(20)
    assert room.speakers.ranking == ["d", "c", "b", "a"]
    room.hear(5, b=TALK)
    assert room.speakers.ranking == ["b", "d", "c", "a"]
    room.hear(3, b=SHOUT, a=TALK, c=TALK)
    assert room.speakers.ranking[0] == "b"
    assert set(room.speakers.ranking[:3]) == {"a", "b", "c"}, "d is silent"


def test_a_long_speech_is_not_outranked_by_interjections() -> None:
    room = Room()
    room.hear(10, a=TALK)
    for peer in "bcdefg":
        room.hear(3, **{"a": TALK, peer: TALK})
        room.hear(10, a=TALK)
    assert room.speakers.ranking[0] == "a"


levels = st.dictionaries(st.sampled_from("abcd"), st.floats(-127, 0), max_size=4)
steps = st.one_of(
    st.tuples(st.just("update"), levels, st.sampled_from([0.0, 0.05, 0.1, 0.1, 0.3, 5.0])),
    st.tuples(st.sampled_from(["mute", "leave"]), st.sampled_from("abcd"), st.just(0.0)),
)


@given(st.lists(steps, max_size=60))
def test_whatever_comes_the_state_makes_sense(script: list[tuple[str, Mapping[str, float] | str, float]]) -> None:
    speakers, now_s, known = Speakers(), 0.0, set[str]()
    last = Speaking()
    for what, argument, passed_s in script:
        now_s += passed_s
        if what == "update":
            assert not isinstance(argument, str)
            known |= argument.keys()
            change = speakers.update(argument, now_s)
            assert (change is None) == (speakers.now == last)
        elif what == "mute":
            speakers.mute(str(argument))
        else:
            speakers.leave(str(argument))
            known.discard(str(argument))
            assert argument not in (speakers.now.dominant, *speakers.now.speaking, *speakers.ranking)
        now = last = speakers.now
        assert {*now.speaking, *speakers.ranking} <= known
        assert len(set(now.speaking)) == len(now.speaking)
        assert not now.speaking or now.dominant is not None or what != "update"
        assert now.dominant is None or speakers.ranking[0] == now.dominant
