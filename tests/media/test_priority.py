from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sfu.media.priority import SLICE_NS

KERNEL = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))

HURRY = """
import os
from pathlib import Path
from sfu.media.priority import hurry

before = os.getpriority(os.PRIO_PROCESS, 0)
hurry()
assert os.getpriority(os.PRIO_PROCESS, 0) <= before
print(Path("/proc/self/sched").read_text() if Path("/proc/self/sched").exists() else "")
"""
UNPRIVILEGED = "import os; os.setuid(65534) if os.getuid() == 0 else None\n"


@pytest.mark.parametrize("start", ["", UNPRIVILEGED], ids=["as it is", "unprivileged"])
def test_who_hurries_has_short_turns(start: str) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", HURRY.replace("\nbefore", f"\n{start}before")]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    found = re.search(r"se\.slice\s*:\s*(\d+)", said)
    if found is not None and KERNEL >= (6, 12):
        assert int(found[1]) == SLICE_NS
