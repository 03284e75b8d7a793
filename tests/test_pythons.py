"""The server as it is installed, on each Python of this machine; and that what is pinned is what is meant.

conftest.py names in pytest's summary the versions that were found, and those that were not.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.process import ROOT, Server
from support.pythons import CONSTRAINTS, environment, found
from support.variants import variants
from support.wire import joined

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [Requirement(line) for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
NAMED = [Requirement(text) for text in PROJECT["dependencies"]]
VERSIONS = list(found())
DEV = [Requirement(text) for text in PROJECT["optional-dependencies"]["dev"]]

pytest_plugins = ["support.installed"]


@pytest.mark.timeout(600)  # where nothing of it is here yet, 60 MB are fetched
@pytest.mark.parametrize("version", [*VERSIONS[-1:], *variants(*VERSIONS[:-1])])
async def test_an_installed_server_has_calls(version: str, wheel: Path, tmp_path: Path) -> None:
    bin_dir = environment(found()[version], tmp_path / "env", str(wheel))
    server = Server(program=(str(bin_dir / "sfu"),), folder=tmp_path)
    try:
        server.start()
        assert server.get("/health")["status"] == "ok"
        async with joined(server.url) as alice:
            await alice.talks("hello")
        assert server.stop() == 0
        assert "Warning" not in server.output
    finally:
        print(server.output)
        server.close()


def test_what_is_installed_is_pinned() -> None:
    versions: dict[str, list[str]] = {}
    for pin in PINS:
        (exactly,) = pin.specifier
        assert exactly.operator == "=="
        versions.setdefault(canonicalize_name(pin.name), []).append(exactly.version)
    for requirement in NAMED + DEV:
        for version in versions[canonicalize_name(requirement.name)]:
            assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("requirement", NAMED, ids=lambda requirement: requirement.name)
def test_no_version_is_taken_that_nobody_has_tried(requirement: Requirement) -> None:
    """Who installs without constraints gets within this what is newest, on Pythons that came later, too."""
    assert {"==", "<"} & {one.operator for one in requirement.specifier}


def test_both_are_in_what_is_published() -> None:
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert "/constraints.txt" in targets["sdist"]["include"]
