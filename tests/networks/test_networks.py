"""A short call over three bad links at once: a narrow one, one that hardly carries sound, and one with an outage.

`python -m tests.networks` tries all networks, for longer, against goals that take a machine with nothing else to do.
These bounds hold on a busy one, and show that a call goes on. The three take some 25 s of processor.
"""

from __future__ import annotations

import dataclasses

import pytest
from support.namespaces import skip_without_namespaces

from networks import figures
from networks.cases import CASES, Camera, Case
from networks.trial import Recording, record

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]


def quick(name: str, **changes: object) -> Case:
    """A case with a small camera, which one core encodes beside others' work."""
    case = next(case for case in CASES if case.name == name)
    return dataclasses.replace(case, run="quick", cameras=(Camera(360),), lines=360, **changes)  # type: ignore[arg-type]


NARROW = quick("250k", seconds=22.0)
SOUND = quick("100k", seconds=22.0)
OUTAGE = quick("outage-3", seconds=22.0)


@pytest.fixture(scope="module")
def recordings() -> dict[str, Recording]:
    skip_without_namespaces()
    return {recording.case.name: recording for recording in record([NARROW, SOUND, OUTAGE])}


def measured(recordings: dict[str, Recording], case: Case) -> figures.Figures:
    recording = recordings[case.name]
    found = figures.measured(recording)
    print(f"{case.name}: {found}\n{figures.curves(recording)}")
    assert not [problem for person in recording.watchers for problem in person["problems"]]
    return found


def test_a_narrow_link_has_a_picture_and_sound(recordings: dict[str, Recording]) -> None:
    found = measured(recordings, NARROW)
    assert (found["fps"] or 0) >= 3
    assert (found["made_up_pct"] or 0) <= 5
    assert 0 < (found["link_kbps"] or 0) <= 1.05 * 250, "it was on the link"


def test_a_link_for_sound_pauses_the_video_and_says_so(recordings: dict[str, Recording]) -> None:
    found = measured(recordings, SOUND)
    assert (found["paused_pct"] or 0) >= 50
    assert (found["made_up_pct"] or 0) <= 10


def test_a_picture_comes_back_after_an_outage(recordings: dict[str, Recording]) -> None:
    found = measured(recordings, OUTAGE)
    assert (found["gap_s"] or 0) >= 2.5, "there was an outage"
    assert (found["back_s"] or 0) <= 5
    assert found["joins"] == 1, "nobody saw them come twice"
