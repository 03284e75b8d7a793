"""The table of what calls reached in each network, beside the goals: for people, in JSON, and in docs/networks.md."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from support.process import ROOT

from networks import curves, figures
from networks.cases import CASES, Case, Goal
from networks.figures import Figures
from networks.trial import Recording, record

DOCUMENT = ROOT / "docs" / "networks.md"
_TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end -->)", re.DOTALL)
Row = dict[str, Any]
"""One case once: `case`, `at`, `commit`, `busy_pct`, `load`, `figures`, `curves`; or `failed`, with the reason."""

UNITS = {
    "pct": "%", "ms": "ms", "s": "s", "kbps": "kbps", "fps": "fps", "ratio": "×",
}  # fmt: skip
NAMES = {
    "height": "lines", "fps": "pictures", "speaker_fps": "speaker", "frozen_pct": "frozen",
    "made_up_pct": "sound made up",
    "made_up_first_pct": "sound made up in the first 10 s", "used_pct": "link used", "queue_ms": "mean queue",
    "gaps_s": "gaps", "below_s": "below the link after", "peak_ratio": "peak", "up_s": "large again after",
    "steps_back": "steps back", "paused_pct": "paused and told", "untold_pct": "still and not told",
    "late_ms": "sound late",
    "back_s": "back after", "alarms": "false alarms", "fair_ratio": "smaller share", "share_pct": "of its share",
}  # fmt: skip
SHOWN = ("height", "fps", "frozen_pct", "gap_s", "made_up_pct", "used_pct", "queue_ms")
"""Columns that all cases have, as far as they know them."""


def chosen(names: list[str], *, long: bool) -> list[Case]:
    """The cases with these names or of these runs, in the order of CASES; without names all but the long ones."""
    known = {case.name for case in CASES} | {case.run for case in CASES}
    if unknown := set(names) - known:
        raise SystemExit(f"There is no case {', '.join(sorted(unknown))}. There are: {', '.join(sorted(known))}")
    return [
        case for case in CASES if case.name in names or case.run in names or (not names and (long or not case.long))
    ]


def run(cases: list[Case], repeat: int, *, alone: bool) -> Iterator[Row]:
    """Runs all of them so many times; a row for each, as soon as it is there."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.name if alone else case.run, []).append(case)
    for _ in range(repeat):
        for group in groups.values():
            yield from _rows(group)


def _rows(cases: list[Case]) -> Iterator[Row]:
    told = {"at": time.strftime("%Y-%m-%d %H:%M:%S"), "commit": commit()}
    try:
        recordings = record(cases)
    except Exception as error:  # noqa: BLE001 -- one that fails leaves the others their turn, and counts as missed
        traceback.print_exc()
        for case in cases:
            yield {"case": case.name, **told, "failed": str(error)[-2000:], "figures": {}}
        return
    for recording in recordings:
        yield _row(recording) | told


def _row(recording: Recording) -> Row:
    problems = [problem for person in (*recording.watchers, *recording.publishers) for problem in person["problems"]]
    return {
        "case": recording.case.name,
        "busy_pct": recording.busy_pct,
        "load": recording.load,
        "cpu_limited": figures.cpu_limited(recording),
        "began_small": figures.began_small(recording),
        "problems": problems,
        "figures": figures.measured(recording),
        "curves": figures.curves(recording),
        "events": [[at - recording.began_s, what, detail] for at, what, detail in recording.watchers[0]["events"]],
    }


def commit() -> str:
    """What is tried, with a + where files differ from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def told(row: Row) -> str:
    """One line about one case that was run."""
    case = _case(row["case"])
    if "failed" in row:
        return f"{case.name}: failed: {row['failed'].splitlines()[-1] if row['failed'] else ''}"
    warned = " CPU-LIMITED" if row["cpu_limited"] else ""
    warned += f" BEGAN WITH {row['began_small']} LINES" if row["began_small"] else ""
    warned += f" problems: {row['problems']}" if row["problems"] else ""
    found = ", ".join(_against(goal, row["figures"].get(goal.figure)) for goal in case.goals)
    return f"{case.name:<12} {found}   (processors {row['busy_pct']:.0f} % busy){warned}"


def medians(rows: Iterable[Row]) -> dict[str, tuple[int, Figures]]:
    """By case: how often it was tried, and the median of each figure. What failed or never came is the worst."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row["case"], []).append(row)
    found = {}
    for case in (case for case in CASES if case.name in grouped):
        tries = grouped[case.name]
        keys = dict.fromkeys(key for row in tries for key in row["figures"])
        found[case.name] = len(tries), {key: _median(case, key, tries) for key in keys}
    return found


def _median(case: Case, key: str, tries: list[Row]) -> float | None:
    least = any(goal.least for goal in case.goals if goal.figure == key)
    worst = float("-inf") if least else float("inf")
    values = [row["figures"].get(key) for row in tries]
    middle = statistics.median_high(worst if value is None else value for value in values)
    if least:
        middle = statistics.median_low(worst if value is None else value for value in values)
    return None if middle in (worst, -worst) else middle


def table(rows: list[Row]) -> str:
    """For a terminal."""
    lines = [f"{'case':<13}{'n':>3}" + "".join(f"{NAMES.get(name, name):>15}" for name in SHOWN) + "   goals"]
    for name, (count, found) in medians(rows).items():
        cells = "".join(f"{_number(key, found.get(key)):>15}" for key in SHOWN)
        goals = ", ".join(_against(goal, found.get(goal.figure)) for goal in _case(name).goals)
        lines.append(f"{name:<13}{count:>3}{cells}   {goals}")
    met = sum(
        goal.met(found.get(goal.figure)) for name, (_, found) in medians(rows).items() for goal in _case(name).goals
    )
    all_ = sum(len(_case(name).goals) for name in medians(rows))
    return "\n".join([*lines, f"{met} of {all_} goals are met."])


def missed(rows: list[Row]) -> list[str]:
    return [
        f"{name}: {_against(goal, found.get(goal.figure))}"
        for name, (_, found) in medians(rows).items()
        for goal in _case(name).goals
        if not goal.met(found.get(goal.figure))
    ]


def markdown(rows: list[Row]) -> str:
    lines = [
        "| Network | Reached, and the goal | Picture | Before | LiveKit 1.13; with its send-side estimator |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, (_, found) in medians(rows).items():
        case = _case(name)
        goals = "<br>".join(_against(goal, found.get(goal.figure)) for goal in case.goals)
        picture = ""
        if found.get("height") is not None:
            picture = f"{found['height']:.0f} lines, {_number('fps', found['fps'])}"
        lines.append(
            f"| {case.about[0].upper()}{case.about[1:]} | {goals} | {picture} | {case.today} | {case.livekit} |"
        )
    counts = sorted({count for count, _ in medians(rows).values()})
    tries = "One try of each" if counts == [1] else f"Medians of {' or '.join(map(str, counts))}"
    return "\n".join([*lines, "", f"{tries}. ✗ is a goal that was missed."]) + "\n"


def write(rows: list[Row], document: Path = DOCUMENT, picture: Path = curves.PICTURE) -> None:
    """Replaces the table in the document, and draws the curves beside it."""
    text = document.read_text()
    assert _TABLE.search(text), f"{document} has a place for the table"
    document.write_text(_TABLE.sub(lambda _: markdown(rows), text, count=1))
    curves.draw(rows, picture)


def load(path: Path) -> list[Row]:
    found: list[Row] = json.loads(path.read_text()) if path.exists() else []
    return found


def save(path: Path, rows: list[Row]) -> None:
    path.write_text(json.dumps(rows))


def _case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def _against(goal: Goal, value: float | None) -> str:
    mark = "✓" if goal.met(value) else "✗"
    return f"{NAMES[goal.figure]} {_number(goal.figure, value)} ({goal}) {mark}"


def _number(figure: str, value: float | None) -> str:
    if value is None or value == figures.NEVER_S:
        return "–" if value is None else "never"
    unit = UNITS.get(figure.rpartition("_")[2], "")
    small = abs(value) < 10 and unit not in ("", "ms", "kbps")
    return f"{value:.{1 if small else 0}f} {unit}".strip()
