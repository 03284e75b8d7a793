"""A call in each of the networks of cases.py, or the sentence that says why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from net import report
from net.cases import CASES, PRIVATE, SERVER, SERVER6, TAKEN, Case
from net.lab import Lab
from net.trial import Outcome, attempt

TOLD = {"nat-missing": (PRIVATE,), "nat-wrong": (TAKEN,), "nat-wrong-stun": (TAKEN,), "nat-stun": (SERVER, PRIVATE)}
"""Candidates, where they are not the server's one public address."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=() if case.cheap else pytest.mark.soak) for case in CASES]
)
def test_a_call_or_the_reason_why_there_is_none(lab: Lab, browsers: tuple[Browser, Browser], case: Case) -> None:
    found = attempt(lab, case, *browsers)
    assert found.happened == case.expect
    assert found.told == TOLD.get(case.name, (SERVER6 if SERVER6 in case.page else SERVER,))
    assert found.joins == 1, "nobody saw her come twice"
    if case.calls:
        assert not found.warnings
        return
    assert found.sentence
    assert found.told[0] in found.advice
    (unreached,) = (line for line in found.warnings if " unreached " in line)
    for part in ("name='alice'", "client=198.51.100.2", f"advertised={found.told[0]}:8080", f"cause={case.expect}"):
        assert part in unreached
    assert "advice=" in unreached
    if "stun" in case.settings:
        assert any(f"SFU_PUBLIC_IP={SERVER}" in line for line in found.warnings)


def test_the_table_is_written_in_place_of_the_last_one(tmp_path: Path) -> None:
    document = tmp_path / "reach.md"
    document.write_text("before\n<!-- table -->\n<!-- end -->\nbetween\n<!-- other -->\n<!-- end -->\n")
    row = CASES[0], Outcome("udp", 1.25, "", "", (), (), 1)
    for _ in range(2):
        report.write([row], document)
        text = document.read_text()
        assert text.startswith("before\n<!-- table -->\n| Network |")
        assert text.count("| UDP is open | a call over UDP | 1.2 s |") == 1
        assert text.endswith("<!-- end -->\nbetween\n<!-- other -->\n<!-- end -->\n")
    assert report.missed([row]) == []
    assert report.missed([(CASES[0], Outcome("tcp", 1.0, "", "", (), (), 1))]) == ["open: tcp, not udp"]
