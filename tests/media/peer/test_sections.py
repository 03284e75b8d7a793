"""Plans keep to JSEP's rules and answers have their effects, in any order of requests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sfu.errors import BadSource, TooManyTracks, UnexpectedAnswer
from sfu.media.peer.sdp import AnswerSection
from sfu.media.peer.sections import Accepted, Began, Ended, Planned, Refused, Sections

KINDS = {"microphone": "audio", "camera": "video", "screen": "video", "screen-audio": "audio", "screen-2": "video"}
PERMANENT: list[tuple[str, Any]] = [("microphone", "audio"), ("camera", "video")]
MOST = 4


@dataclass(frozen=True)
class Track:
    name: str
    kind: Any


TRACKS = [Track(f"{kind}-{n}", kind) for kind in ("audio", "video") for n in range(4)]


def said(mid: int, planned: Planned[Track], takes: bool) -> AnswerSection:
    """A browser's answer to one section; `takes`: it accepts the offered use."""
    sends = takes and planned.direction == "recvonly"
    receives = takes and planned.direction == "sendonly"
    return AnswerSection(str(mid), planned.kind, sends=sends, receives=receives, ssrcs=(), repairs=mid % 2 == 0)


class Jsep(RuleBasedStateMachine):
    """A browser that remembers what each m-line was, beside the sources and tracks that are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.sections = Sections[Track](PERMANENT, lambda track: 1 + TRACKS.index(track))
        self.sources = {source for source, _ in PERMANENT}
        self.wanted: set[Track] = set()
        self.lines: list[tuple[str, bool]] = []  # kind and way of each m-line that the browser has seen
        self.uses: list[object] = []  # the use of each as the browser last answered it, None for inactive
        self.offer: list[Planned[Track]] | None = None
        self.permanent = {source for source, _ in PERMANENT}
        self.released: set[str] = set()  # since the offer; their sections are no longer theirs
        self.gone: set[str] = set()  # since the offer, as the peer may not send any more
        self.taken: set[Track] = set()

    # --- what is asked for --------------------------------------------------------------------------------------------

    @rule(source=st.sampled_from(sorted(KINDS)))
    def claim(self, source: str) -> None:
        kind: Any = KINDS[source]
        if source not in self.sources and len(self.sources) == MOST:
            with pytest.raises(TooManyTracks):
                self.sections.claim(source, kind, MOST)
        else:
            self.sections.claim(source, kind, MOST)
            self.sources.add(source)

    @rule(source=st.sampled_from(sorted(KINDS)))
    def claim_as_another_kind(self, source: str) -> None:
        if source in self.sources:
            with pytest.raises(BadSource):
                self.sections.claim(source, "audio" if KINDS[source] == "video" else "video", MOST)

    @rule(source=st.sampled_from(sorted(KINDS)))
    def release(self, source: str) -> None:
        if source not in self.sources:
            with pytest.raises(BadSource):
                self.sections.release(source)
        else:
            self.sections.release(source)
            self.released.add(source)
            self.sources -= {source} - self.permanent

    @precondition(lambda self: self.permanent)
    @rule()
    def shut(self) -> None:
        self.sections.shut()
        self.gone |= self.sources
        self.sources, self.permanent = set(), set()

    @precondition(lambda self: not self.permanent and len(self.sources) <= 2)
    @rule()
    def open(self) -> None:
        self.sections.open(PERMANENT)
        self.permanent = {source for source, _ in PERMANENT}
        self.sources |= self.permanent

    @rule(tracks=st.sets(st.sampled_from(TRACKS)))
    def want(self, tracks: set[Track]) -> None:
        self.wanted = tracks

    # --- negotiation --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.offer is None)
    @rule()
    def plan(self) -> None:
        before = {one.track for one in self.sections.transceivers} - {None}
        planned, dropped = self.sections.plan(sorted(self.wanted, key=TRACKS.index))
        assert {gone.track for gone in dropped} == before - self.wanted
        assert all(gone.rtx_ssrc == 1 + TRACKS.index(gone.track) for gone in dropped)
        self.taken &= self.wanted
        assert Counter(one.track for one in planned if one.track) == Counter(self.wanted)
        assert Counter(one.source for one in planned if one.source) == Counter(self.sources)
        assert len(planned) >= len(self.lines), "m-lines never go away"
        idle = Counter(line for line, use in zip(self.lines, self.uses, strict=True) if use is None)
        for mid, one in enumerate(planned):
            line, use = (one.kind, one.receives), one.source or one.track
            assert one.direction == ("inactive" if use is None else "recvonly" if one.receives else "sendonly")
            if mid < len(self.lines):
                assert line == self.lines[mid], "an m-line keeps its kind and its way"
                assert use in (None, self.uses[mid]) or self.uses[mid] is None, "it was seen inactive between two uses"
                idle[line] -= use is not None and self.uses[mid] is None
            else:
                assert idle[line] == 0, "m-lines are reused before there are more"
        self.offer, self.released, self.gone = planned, set(), set()

    @precondition(lambda self: self.offer is not None)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        assert self.offer is not None
        offer, self.offer = self.offer, None
        answers = [said(mid, one, data.draw(st.booleans())) for mid, one in enumerate(offer)]
        effects = self.sections.settle(answers)
        expected: list[object] = []
        for one, answer in zip(offer, answers, strict=True):
            if one.track is not None:
                expected.append(Accepted(one.track, answer) if answer.receives else Refused(one.track))
            elif one.source in self.gone:
                continue
            elif one.source is not None and (one.source not in self.released or one.source in self.permanent):
                expected.append(Began(one.source, one.kind, answer) if answer.sends else Ended(one.source))
        assert effects == expected
        self.lines = [(one.kind, one.receives) for one in offer]
        self.uses = [one.source or one.track for one in offer]
        self.taken = {effect.track for effect in effects if isinstance(effect, Accepted)}

    @precondition(lambda self: self.offer is None)
    @rule()
    def answer_to_nothing(self) -> None:
        with pytest.raises(UnexpectedAnswer):
            self.sections.settle([])

    @invariant()
    def what_is_accepted_was_accepted(self) -> None:
        assert {one.track for one in self.sections.transceivers if one.accepted} == self.taken
        assert self.sections.in_flight == (self.offer is not None)

    def teardown(self) -> None:
        """When nothing more is asked for, two rounds suffice: one that shows sections inactive, one that uses them."""
        for _ in range(2):
            if self.offer is None:
                self.plan()
            assert self.offer is not None
            self.sections.settle([said(mid, one, True) for mid, one in enumerate(self.offer)])
            self.uses = [one.source or one.track for one in self.offer]
            self.lines = [(one.kind, one.receives) for one in self.offer]
            self.offer, self.taken = None, self.wanted
        assert {one.track for one in self.sections.transceivers if one.accepted} == self.wanted


TestJsep = Jsep.TestCase
TestJsep.settings = settings(max_examples=60, stateful_step_count=25)


def test_without_sections_nothing_is_in_flight() -> None:
    sections = Sections[Track]([], lambda track: 0)
    assert sections.plan([]) == ([], [])
    assert not sections.in_flight


def test_a_share_begun_while_its_section_is_shown_unused_takes_that_section() -> None:
    """Sharing, stopping and sharing again, each before the last answer came, made one more m-line each time."""
    sections = Sections[Track](PERMANENT, lambda track: 0)
    for _ in range(3):
        sections.claim("screen", "video", MOST)
        for _ in range(2):  # one answer may still be about the offer before
            planned, _ = sections.plan([])
            sections.settle([said(mid, one, True) for mid, one in enumerate(planned)])
        sections.release("screen")
        planned, _ = sections.plan([])
        sections.claim("screen", "video", MOST)
        sections.settle([said(mid, one, True) for mid, one in enumerate(planned)])
    assert [one.source for one in sections.plan([])[0]] == ["microphone", "camera", "screen"]


def test_a_released_source_that_was_never_offered_gives_its_section_to_the_next() -> None:
    sections = Sections[Track](PERMANENT, lambda track: 0)
    sections.claim("screen", "video", MOST)
    sections.release("screen")
    sections.claim("screen-2", "video", MOST)
    assert [one.source for one in sections.plan([])[0]] == ["microphone", "camera", "screen-2"]
