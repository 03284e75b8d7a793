"""deploy/sfu.service, as systemd reads it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.process import ROOT

UNIT = ROOT / "deploy" / "sfu.service"
MOST_EXPOSED = 17
"""Tenths of systemd's 0 to 10. A server that needs the network and low ports can hardly be below."""


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("this test needs systemd-analyze")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert "/opt/sfu/bin/sfu serve" in text
    copy = tmp_path / "sfu.service"
    copy.write_text(text.replace("/opt/sfu/bin/sfu serve", f"{sys.executable} -m sfu serve"))
    done = analyze("verify", "--recursive-errors=no", str(copy))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_service_has_no_more_rights_than_it_needs() -> None:
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", str(UNIT))
    assert done.returncode == 0, done.stdout
