"""`sfu doctor`: finds the causes that keep calls from working, with the fix for each."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sfu.commands import output
from sfu.errors import ConfigError, SfuError

if TYPE_CHECKING:
    from sfu.doctor.finding import Check, Context, Finding
    from sfu.doctor.phone import Device
    from sfu.settings.config import Config

NAME, HELP = "doctor", "find out what keeps calls from working"
DESCRIPTION = (
    "Checks the server, its machine and its network, one line a check, each with what to change. With the server "
    "running it also asks the server, and sends sound through it. The exit status is 1 if a check failed."
)

FAILED = 1
"""Exit status if a check failed."""
MARKS = {"ok": "ok", "note": "note", "failed": "FAILED", "skipped": "-"}
COLOURS = {"ok": "32", "note": "33", "failed": "31;1", "skipped": "2"}
WIDTH = 13
"""Columns for the name of a check."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `sfu doctor`."""
    output.add_json(parser)
    parser.add_argument("--only", metavar="CHECKS", default="", help="run these checks only, comma-separated")
    parser.add_argument("--skip", metavar="CHECKS", default="", help="run all checks but these, comma-separated")
    parser.add_argument("--domain", default="", help="the name at which people open the server")
    parser.add_argument("--phone", action="store_true", help="show a QR code, and test the device that scans it")
    parser.add_argument("--devices", type=int, default=1, help="with --phone: devices to wait for (default: 1)")


async def run(config: Config, options: argparse.Namespace) -> int:
    """Returns the exit status. Raises ConfigError for an unknown check, or a phone test without a server."""
    context = await make_context(config, options, os.environ)
    return await _phone(context, options) if options.phone else await _examine(context, options)


async def make_context(config: Config, options: argparse.Namespace, env: Mapping[str, str]) -> Context:
    """What checks look at. Asks the running server, if there is one."""
    import msgspec

    from sfu.doctor.finding import Context, Running
    from sfu.operator.control import ask

    context = Context(config, dict(env), options.env_file, domain=options.domain)
    try:
        context.running = msgspec.convert(await ask(config, "doctor"), Running)
    except SfuError as error:
        context.absent = str(error)
    return context


async def _examine(context: Context, options: argparse.Namespace) -> int:
    from sfu.doctor.finding import examine

    checks = chosen(options.only, options.skip)
    terminal = sys.stderr.isatty() and not options.json
    context.progress = _progress if terminal else lambda text: None
    done = []
    if not options.json:
        _head(context)
    async for checked in examine(context, checks):
        done.append(checked)
        if not options.json:
            _clear(terminal)
            _print(checked.check.name, checked.finding)
    bad = [checked for checked in done if checked.finding.status == "failed"]
    if options.json:
        found = {"ok": not bad, "server": context.running is not None, "checks": [one.as_json() for one in done]}
        output.print_json(found)
    elif bad:
        print(f"\n{len(bad)} of {len(done)} checks failed: {', '.join(one.check.name for one in bad)}.")
    else:
        print("\nNothing failed. `sfu doctor --phone` tests the way from a phone.")
    return FAILED if bad else 0


def chosen(only: str, skip: str) -> Sequence[Check]:
    """The checks to run. Raises ConfigError for a name that is none."""
    from sfu.doctor.checks import CHECKS

    names = {check.name for check in CHECKS}
    wanted, left = ({name.strip() for name in text.split(",") if name.strip()} for text in (only, skip))
    if unknown := (wanted | left) - names:
        shown = ", ".join(check.name for check in CHECKS)
        raise ConfigError(f"There is no check {sorted(unknown)[0]!r}. The checks are {shown}.")
    return [check for check in CHECKS if (not wanted or check.name in wanted) and check.name not in left]


def _head(context: Context) -> None:
    running = context.running
    print(f"The server runs as process {running.pid}." if running else f"No running server was asked: {context.absent}")
    print(flush=True)


def _print(name: str, finding: Finding) -> None:
    """A line for what was found, and one for the fix."""
    mark = f"{MARKS[finding.status]:6}"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        mark = f"\033[{COLOURS[finding.status]}m{mark}\033[0m"
    print(f"{mark} {name:{WIDTH}}{finding.text}{f' -> {finding.fix}' if finding.fix else ''}", flush=True)


def _progress(text: str) -> None:
    print(f"\r\033[K… {text}", end="", file=sys.stderr, flush=True)


def _clear(terminal: bool) -> None:
    if terminal:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


async def _phone(context: Context, options: argparse.Namespace) -> int:
    from sfu.doctor import phone

    page, hints = await phone.link(context)
    status: list[str] = []

    def opened(secret: str, lasts_s: float) -> None:
        url = f"{page}#{secret}"
        if options.json:
            print(json.dumps({"url": url, "lasts_s": lasts_s, "hints": hints}), flush=True)
            return
        print(phone.qr(url, coloured=sys.stdout.isatty()))
        print(f"Scan the code, or open {url}\nIt is valid for {lasts_s / 60:.0f} minutes; Ctrl-C ends it at once.")
        for hint in hints:
            print(textwrap.fill(hint, 100, initial_indent="- ", subsequent_indent="  "))
        print("\nWaiting for a device ... If the page does not open there, its TCP port does not arrive.", flush=True)

    def told(device: Device) -> None:
        found = list(phone.findings(context, device))
        status.extend(finding.status for _, finding in found)
        if options.json:
            legs = {name: {"status": one.status, "text": one.text, "fix": one.fix} for name, one in found}
            print(json.dumps({"client": device.client, "legs": legs}, ensure_ascii=False), flush=True)
            return
        print()
        for name, finding in found:
            _print(name, finding)

    devices = await phone.watch(context, options.devices, opened, told)
    if not devices and not options.json:
        print("No device came, and the link has ended. If the page did not open, open its TCP port in the firewall.")
    return FAILED if not devices or "failed" in status else 0
