"""What `sfu doctor` finds, in this process; and the command as a person runs it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from sfu.commands import doctor as command
from sfu.doctor.finding import Finding, examine
from sfu.operator.control import SOCKET
from sfu.settings.config import SERVER_FILES, Config
from support.process import environment, sfu

Found = tuple[str, str, str]
"""Status, text and fix."""


async def doctor(only: str, *, env: Mapping[str, str] | None = None, domain: str = "", **settings: str) -> Found:
    """The finding of one check, with the environment of a server or with these settings."""
    env = dict(env or environment()) | {f"SFU_{name.upper()}": value for name, value in settings.items()}
    options = argparse.Namespace(env_file=None, domain=domain)
    context = await command.make_context(Config.from_env(env, omit=SERVER_FILES), options, env)
    there = (context.config.data_dir / SOCKET).exists()
    assert context.running is not None or not there, context.absent  # the server of this environment answers
    found: list[Finding] = [checked.finding async for checked in examine(context, command.chosen(only, ""))]
    (one,) = found
    return one.status, one.text, one.fix


def run_doctor(*options: str, env: Mapping[str, str] | None = None) -> tuple[int, dict[str, Found]]:
    """The exit status of the command, and its findings by check."""
    done = sfu("doctor", "--json", *options, env=dict(env or environment()))
    assert done.returncode in (0, 1), done.stderr
    said = json.loads(done.stdout)
    assert said["ok"] == (done.returncode == 0)
    return done.returncode, {one["name"]: (one["status"], one["text"], one["fix"]) for one in said["checks"]}
