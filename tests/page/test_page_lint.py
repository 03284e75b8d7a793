"""What checks the page: the same on every machine, from whichever registry npm is set to. It is not run here."""

from __future__ import annotations

import json
import re
from typing import Any

from support.process import ROOT

FOLDER = ROOT / "tests/page"


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def test_its_versions_are_exact() -> None:
    wanted = read("package.json")["devDependencies"]
    packages = read("package-lock.json")["packages"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values()), wanted
    assert packages[""]["devDependencies"] == wanted
    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted


def test_its_packages_are_pinned_by_content_and_not_by_host() -> None:
    packages = {name: package for name, package in read("package-lock.json")["packages"].items() if name}
    assert [name for name, package in packages.items() if "integrity" not in package] == []
    assert [name for name, package in packages.items() if "resolved" in package] == []
