"""Finds the Pythons of this machine, and runs the tests without browsers on each: `just test-pythons`.

Arguments such as 3.13 choose among them, all others are pytest's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
UV = Path(sys.executable).with_name("uv")
MEANT = ("3.11", "3.12", "3.13", "3.14")
"""The versions that the server is meant for."""

_NAME = re.compile(r"python(3\.(\d+))")


def found() -> dict[str, Path]:
    """By version, the first of each that this machine has, from 3.11 on. Nothing is run for that."""
    pythons: dict[str, Path] = {}
    for folder in _folders():
        for path in sorted(folder.glob("python3.*")):
            name = _NAME.fullmatch(path.name)
            if name and int(name[2]) >= 11 and name[1] not in pythons and _is_program(path):
                pythons[name[1]] = path
    return dict(sorted(pythons.items(), key=lambda item: int(item[0].partition(".")[2])))


def missing() -> list[str]:
    return [version for version in MEANT if version not in found()]


def _folders() -> Iterator[Path]:
    """Where systems, pyenv and uv put them; the system's first."""
    home = Path.home()
    yield from (Path(name) for name in ("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"))
    yield from (Path(name) for name in os.environ.get("PATH", "").split(os.pathsep) if name)
    yield from sorted((Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions").glob("*/bin"))
    yield from sorted(Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python")).glob("*/bin"))
    yield Path(sys.base_prefix, "bin")


def _is_program(path: Path) -> bool:
    """Not one of pyenv's scripts, which may lead nowhere, and not the Python of an environment."""
    if not os.access(path, os.X_OK) or (path.parent.parent / "pyvenv.cfg").exists():
        return False
    with path.open("rb") as file:
        return file.read(2) != b"#!"


def environment(python: Path, folder: Path, *what: str) -> Path:
    """A new virtual environment there, with this installed and what it needs as pinned; returns its bin folder."""
    uv("venv", "--no-project", "--clear", "--python", python, folder)
    uv("pip", "install", "--python", folder / "bin/python", "--constraint", CONSTRAINTS, *what)
    return folder / "bin"


def uv(*arguments: str | Path) -> None:
    """pip would take four times as long, and needs one for each Python."""
    subprocess.run([UV, *arguments, "--quiet"], check=True, cwd=ROOT)


def main(arguments: list[str]) -> int:
    wanted = [one for one in arguments if re.fullmatch(r"3\.\d+", one)]
    options = [one for one in arguments if one not in wanted]
    failed = []
    for version, python in found().items():
        if wanted and version not in wanted:
            continue
        print(f"--- Python {version}: {python}", flush=True)
        bin_dir = environment(python, ROOT / ".pythons" / version, "--editable", f"{ROOT}[dev]")
        pytest = [
            bin_dir / "pytest",
            "--ignore=tests/e2e",
            "--ignore=tests/test_pythons.py",
            "-n",
            "auto",
            "--dist",
            "loadgroup",
            *options,
        ]
        failed += [version] * (subprocess.run(pytest, cwd=ROOT).returncode != 0)
    print(f"--- failed: {', '.join(failed) or 'none'}; not found: {', '.join(missing()) or 'none'}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
