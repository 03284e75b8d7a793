"""Runs too long for `just test`: variants of what it covers, and calls over networks that lose packets or are narrow.

    just soak                     all of it, about half an hour
    just soak --only variants     the tests that `just test` leaves out: every language, window, proxy; long searches
    just soak --seconds 20 --only narrow
    just soak --only net          the table of docs/reach.md: a call in each kind of network, with times; needs root
    just soak --only networks     the table of docs/networks.md: calls over bad links, with goals; needs root
    just soak --compare ws://127.0.0.1:9000/ws     the same through any server that speaks pion sfu-ws signalling

Exits with 1 where a goal was missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "e2e")]

from elsewhere import site  # noqa: E402
from net import report  # noqa: E402
from networks import report as networks  # noqa: E402

from tests.soak import loss, narrow, soon  # noqa: E402

TIMES = 5
"""How often it is looked how soon something is there."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="just soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--only", choices=("variants", "loss", "narrow", "soon", "net", "networks"))
    parser.add_argument("--loss", type=float, action="append", help="share of 1; may be given more than once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compare", metavar="URL", help="its media must come from 127.0.0.1")
    parser.add_argument("--json", type=Path, help="where to write everything")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    problems: list[str] = []
    if options.only in (None, "variants"):
        problems += variants()
    if options.only in (None, "loss"):
        rows = found["loss"] = lossy(options)
        print(loss.table(rows), flush=True)
        problems += loss.missed(rows)
    if options.only in (None, "narrow"):
        rows = found["narrow"] = narrow.run(options.seconds, options.seed)
        print(narrow.table(rows))
        problems += narrow.missed(rows)
    if options.only in (None, "soon"):
        rows = found["soon"] = soon.run(TIMES)
        print(soon.table(rows))
        problems += soon.missed(rows)
    if options.only == "net":  # without times, the variants have it
        tried = report.run()
        print(report.table(tried))
        problems += report.missed(tried)
    if options.only == "networks":  # likewise
        rows = found["networks"] = list(networks.run(networks.chosen([], long=False), 1, alone=False))
        print(networks.table(rows))
        problems += networks.missed(rows)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    if problems:
        sys.exit("Goals that were missed:\n" + "\n".join(problems))


def variants() -> list[str]:
    """Runs the tests that are marked `soak`."""
    command = [sys.executable, "-m", "pytest", "-n", "auto", "--dist", "loadgroup", "-m", "soak"]
    return ["tests of variants"] if subprocess.run(command, cwd=ROOT).returncode else []


def lossy(options: argparse.Namespace) -> list[dict[str, Any]]:
    losses = options.loss or list(loss.GOALS)
    with site() as origin:
        with loss.ours(origin) as url:
            rows = loss.run("ours", origin, url, losses, options.seconds, options.seed)
        if options.compare:
            rows += loss.run("other", origin, options.compare, losses, options.seconds, options.seed)
    return sorted(rows, key=lambda row: row["loss"])


if __name__ == "__main__":
    main()
