"""What a check is, what it finds, and how all of them run: one after the other, each with a timeout and none fatal."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import trio

from sfu.settings.config import Config

TIMEOUT_S = 10.0

Status = Literal["ok", "note", "failed", "skipped"]
"""`note`: it works, and something about it may surprise. `skipped`: it could not be checked; the text says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`text` is what was found, `fix` what to do about it; a finding that is ok has none."""

    status: Status
    text: str
    fix: str = ""


def ok(text: str) -> Finding:
    return Finding("ok", text)


def note(text: str, fix: str) -> Finding:
    return Finding("note", text, fix)


def failed(text: str, fix: str) -> Finding:
    return Finding("failed", text, fix)


def skipped(text: str, fix: str = "") -> Finding:
    return Finding("skipped", text, fix)


class Running(msgspec.Struct, frozen=True):
    """What the running server says of itself; server.py makes it. `settings` are texts by variable, without secrets.

    `proxies` are the addresses whose forwarding headers it believed, `ignored` those whose headers it did not.
    """

    pid: int
    secure: bool
    advertised: tuple[str, ...]
    udp_port: int
    tcp_port: int
    peers: int
    database: str
    settings: dict[str, str]
    proxies: tuple[str, ...]
    ignored: tuple[str, ...]


@dataclass(slots=True)
class Context:
    """What checks look at. `running` is None if no server answers, and `absent` then says why."""

    config: Config
    env: Mapping[str, str]
    env_file: Path | None = None
    running: Running | None = None
    absent: str = ""
    domain: str = ""
    progress: Callable[[str], None] = field(default=lambda text: None)


Run = Callable[[Context], Awaitable[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    about: str
    run: Run
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Checked:
    check: Check
    finding: Finding
    ms: int

    def as_json(self) -> dict[str, Any]:
        found = self.finding
        return {
            "name": self.check.name,
            "status": found.status,
            "text": found.text,
            "fix": found.fix,
            "ms": self.ms,
        }


async def examine(context: Context, checks: Sequence[Check]) -> AsyncIterator[Checked]:
    """Runs the checks in order. A check that crashes or takes too long is a finding of its own."""
    for check in checks:
        began_s = time.monotonic()
        finding = await _run(context, check)
        yield Checked(check, finding, round((time.monotonic() - began_s) * 1e3))


async def _run(context: Context, check: Check) -> Finding:
    with trio.move_on_after(check.timeout_s):
        try:
            return await check.run(context)
        except Exception as error:  # noqa: BLE001 - no check may end the others
            return failed(f"This check failed itself: {type(error).__name__}: {error}", "Please report this line.")
    return failed(f"No answer within {check.timeout_s:g} s.", f"Find out what is slow: {check.about}.")
