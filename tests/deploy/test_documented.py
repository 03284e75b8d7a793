"""The files of `deploy` are the only place of what they say: the documentation links to them."""

from __future__ import annotations

import re

from support.process import ROOT

PAGE = ROOT / "docs" / "operating.md"
MADE = {"deploy/sfu.env", "deploy/.env", "deploy/turnserver.conf"}
"""What the page tells to make."""


def test_the_page_links_to_every_file() -> None:
    linked = set(re.findall(r"\(\.\./(deploy/[\w.-]+)\)", PAGE.read_text()))
    files = {f"deploy/{file.name}" for file in (ROOT / "deploy").iterdir()}
    assert linked == files - {"deploy/Dockerfile.dockerignore"} - MADE


def test_every_file_that_is_named_exists() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").iterdir()]:
        for name in re.findall(r"\bdeploy/[\w.-]*\w", page.read_text()):
            assert name in MADE or (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_page_repeats_no_configuration() -> None:
    """Where a proxy's or systemd's directives are in the page, they drift from the files."""
    for directive in ("proxy_pass", "reverse_proxy", "proxy_set_header", "ExecStart", "send-proxy-v2", "stripPrefix"):
        assert directive not in PAGE.read_text(), directive
