"""The SDKs as their users get them: built, and installed into a place of their own."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from support.process import ROOT, environment
from support.pythons import uv
from support.receivers import Message

SDK = ROOT / "sdk"
Run = Callable[..., Any]
"""Runs a program in the language of an SDK with an input, and environment variables; returns what it prints."""


def example(language: str, number: int) -> str:
    """A program of an SDK's README."""
    folder = {"python": "python", "js": "js"}[language]
    return str(re.findall(rf"```{language}\n(.*?)```", (SDK / folder / "README.md").read_text(), re.DOTALL)[number])


def installed_python(folder: Path) -> Run:
    """From its wheel, into a virtual environment without anything else."""
    uv("build", "--wheel", "--out-dir", folder / "dist", SDK / "python")
    (wheel,) = (folder / "dist").glob("*.whl")
    uv("venv", "--no-project", folder / "env")
    uv("pip", "install", "--python", folder / "env/bin/python", "--no-index", wheel)
    return _runner(folder, "program.py", folder / "env/bin/python", "-I", "-W", "error")


def installed_js(folder: Path) -> Run:
    """From its package, into a folder without anything else."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no Node.js with npm is installed")
    packed = _npm(npm, folder, "pack", "--json", SDK / "js")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    _npm(npm, folder, "install", "--offline", "--no-audit", "--no-fund", folder / json.loads(packed)[0]["filename"])
    return _runner(folder, "program.js", node)


def _npm(npm: str, folder: Path, *arguments: str | Path) -> str:
    done = subprocess.run([npm, *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _runner(folder: Path, name: str, *command: str | Path) -> Run:
    async def run(program: str, given: str = "", **variables: str) -> str:
        (folder / name).write_text(program)
        env = environment() | variables
        with trio.fail_after(60):
            done = await trio.run_process(
                [*map(str, command), name],
                cwd=folder,
                env=env,
                stdin=given.encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    return run


def cases(secret: str, other: str, message: Message) -> str:
    """A message as it came, which is accepted, and then what must be refused: JSON for a program's input."""
    headers, body = message.headers, message.body
    later = {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}
    unsigned = {name: value for name, value in headers.items() if name != "webhook-signature"}
    found: Sequence[tuple[str, dict[str, str], bytes]] = [
        (secret, headers, body),
        (other, headers, body),
        (secret, headers, body + b" "),
        (secret, {**headers, "webhook-id": "another"}, body),
        (secret, later, body),
        (secret, {**headers, "webhook-timestamp": "soon"}, body),
        (secret, {**headers, "webhook-signature": "v1,é v1, v2," + headers["webhook-signature"][3:]}, body),
        (secret, unsigned, body),
    ]
    return json.dumps([[one, head, base64.b64encode(text).decode()] for one, head, text in found])
