"""The table of what happens in each network, for people and for docs/reach.md."""

from __future__ import annotations

import os
import re
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from support.process import ROOT

from net.cases import CASES, Case
from net.lab import Lab
from net.trial import Outcome, attempt

DOCUMENT = ROOT / "docs" / "reach.md"
_TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end -->)", re.DOTALL)
WAYS = {"udp": "a call over UDP", "tcp": "a call over TCP", "relay": "a call through the TURN server"}
GOALS_S = {"udp": 2.0, "tcp": 4.0, "relay": 4.0}
SAID_ALWAYS = "Audio and video can’t connect The server can be reached, but audio and video can’t get through. "
"""How each sentence begins."""
SAID_S = 8.0
"""Until the page names a cause."""

Row = tuple[Case, Outcome]


def run(only: list[str] | None = None) -> list[Row]:
    """Tries the cases with these names, or all."""
    lab = Lab()
    try:
        with sync_playwright() as on, lab.browser(on, lab.alice) as alice, lab.browser(on, lab.bob) as bob:
            return [_tried(lab, case, alice, bob) for case in CASES if not only or case.name in only]
    finally:
        lab.close()


def _tried(lab: Lab, case: Case, alice: Browser, bob: Browser) -> Row:
    try:
        found = attempt(lab, case, alice, bob)
    except AssertionError as error:
        found = Outcome("nothing", 0.0, str(error), "", (), (), 0)
    print(f"{case.name}: {found.happened} after {found.seconds:.1f} s {found.sentence}", flush=True)
    return case, found


def table(rows: list[Row]) -> str:
    """In Markdown."""
    lines = ["| Network | What happens | After |", "| --- | --- | --- |"]
    for case, found in rows:
        said = WAYS.get(found.happened, f"“{found.sentence.removeprefix(SAID_ALWAYS)} {found.advice}”")
        lines.append(f"| {case.about[0].upper()}{case.about[1:]} | {said} | {found.seconds:.1f} s |")
    return "\n".join([*lines, "", where()]) + "\n"


def where() -> str:
    """The machine of a measurement, for a document."""
    load, cores = os.getloadavg()[0], os.cpu_count()
    return f"Measured on a machine with {cores} cores and a load of {load:.0f}."


def missed(rows: list[Row]) -> list[str]:
    """What did not happen, or later than it should on a machine with nothing else to do."""
    problems = []
    for case, found in rows:
        goal_s = GOALS_S.get(case.expect, SAID_S)
        if found.happened != case.expect:
            problems.append(f"{case.name}: {found.happened}, not {case.expect}")
        elif found.seconds > goal_s:
            problems.append(f"{case.name}: after {found.seconds:.1f} s, not {goal_s:g}")
    return problems


def write(rows: list[Row], document: Path = DOCUMENT) -> None:
    """Replaces the table in the document."""
    text = document.read_text()
    document.write_text(_TABLE.sub(lambda _: table(rows), text, count=1))
