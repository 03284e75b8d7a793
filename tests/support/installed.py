"""The server as it is installed: from its wheel, into an environment of its own."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from support.process import ROOT
from support.pythons import uv


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once, whichever of the parallel runs comes first."""
    folder = tmp_path_factory.getbasetemp()
    if folder.name.startswith("popen-"):  # one of pytest-xdist's; what is above it belongs to the whole run
        folder = folder.parent
    folder = folder / "wheel"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not list(folder.glob("*.whl")):
            uv("build", "--wheel", "--out-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built
