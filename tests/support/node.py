"""The page's pure modules, run by Node.js where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from support.process import ROOT

NODE = shutil.which("node")
MODULES = ROOT / "tests/page/node_modules"


def package(path: str) -> str:
    """The text of a file of a package in tests/page/package.json; the packages are installed if it is missing."""
    npm, file = shutil.which("npm"), MODULES / path
    if not file.is_file():
        if npm is None:
            pytest.skip("no npm is installed")
        subprocess.run([npm, "ci", "--prefix", ROOT / "tests/page", "--loglevel=error"], check=True, timeout=300)
    return file.read_text()


def run(script: str) -> Any:
    """What a script prints as JSON with `out(value)`. It imports the page's modules from `./public/`."""
    if NODE is None:
        pytest.skip("no Node.js is installed")
    with tempfile.TemporaryDirectory(prefix="sfu-node-") as place:
        folder = Path(place)
        (folder / "package.json").write_text('{"type": "module"}')
        (folder / "public").symlink_to(ROOT / "public")
        (folder / "script.js").write_text(f"const out = (value) => console.log(JSON.stringify(value));\n{script}")
        command = [NODE, "--preserve-symlinks", "--preserve-symlinks-main", "script.js"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
