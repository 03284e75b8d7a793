"""The table in the document and the picture beside it are those of the tries."""

from __future__ import annotations

import xml.etree.ElementTree
from pathlib import Path
from typing import Any

from networks import curves, report

CURVES = {
    "offered": [[at, 900.0] for at in range(60)],
    "delivered": [[at, 500.0] for at in range(60)],
    "queue": [],
    "rate": [[0.0, 600.0]],
    "height speaker": [[0.0, 720], [2.0, 180]],
    "still speaker": [[3.0, 5.0]],
    "paused speaker": [[6.0, 9.0]],
}


def row(case: str, **figures: float) -> dict[str, Any]:
    return {
        "case": case,
        "figures": figures,
        "curves": CURVES,
        "busy_pct": 50.0,
        "cpu_limited": False,
        "began_small": 0,
        "problems": [],
    }


def test_the_table_is_replaced_and_the_picture_drawn(tmp_path: Path) -> None:
    document, picture = tmp_path / "networks.md", tmp_path / "networks.svg"
    document.write_text("before\n<!-- table -->\nold\n<!-- end -->\nafter\n")
    rows = [row(name, fps=9.0, height=180.0, frozen_pct=1.0, made_up_pct=0.7) for name in curves.DRAWN]
    report.write(rows, document, picture)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    narrow = next(line for line in text.splitlines() if line.startswith("| 250 kbps |"))
    assert "pictures 9.0 fps (≥ 7) ✓" in narrow
    assert "sound made up 0.7 % (≤ 0.5) ✗" in narrow
    assert "180 lines" in narrow
    shapes = [one.tag.rpartition("}")[2] for one in xml.etree.ElementTree.parse(picture).iter()]
    assert shapes.count("polyline") == 2 * len(curves.DRAWN), "what was sent, and the link"


def test_a_picture_of_other_cases_stays(tmp_path: Path) -> None:
    picture = tmp_path / "networks.svg"
    curves.draw([row("600k")], picture)
    assert not picture.exists()


def test_what_was_kept_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    assert report.load(path) == []
    report.save(path, [row("600k", fps=3.0)])
    assert report.load(path) == [row("600k", fps=3.0)]


def test_a_case_that_failed_says_why() -> None:
    failed = {"case": "600k", "figures": {}, "failed": "first\nnobody came"}
    assert report.told(failed) == "600k: failed: nobody came"
    assert "BEGAN WITH 180 LINES" in report.told(row("600k") | {"began_small": 180})
    assert "CPU-LIMITED" in report.told(row("600k") | {"cpu_limited": True})
