"""Runs too long for the tests: calls over bad networks, a large room, and a server that people come to and leave.

    just soak                                  everything, about twenty minutes
    just soak loss --seconds 20
    just soak loss --compare ws://127.0.0.1:9000/ws     the same through any server that speaks pion sfu-ws signalling
    just soak speakers
    just soak memory --seconds 60

Exits with 1 where a goal was missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "e2e")]

from elsewhere import site  # noqa: E402

from tests.soak import loss, memory, speakers  # noqa: E402

PARTS = ("loss", "speakers", "memory")


def _loss(options: argparse.Namespace) -> tuple[Any, list[str]]:
    losses = options.loss or list(loss.GOALS)
    with site() as origin:
        with loss.ours(origin) as url:
            rows = loss.run("ours", origin, url, losses, options.seconds, options.seed)
        if options.compare:
            rows += loss.run("other", origin, options.compare, losses, options.seconds, options.seed)
    rows.sort(key=lambda row: row["loss"])
    print(loss.table(rows))
    return rows, loss.missed(rows)


def _speakers(_: argparse.Namespace) -> tuple[Any, list[str]]:
    with site() as origin:
        row = speakers.run(origin)
    print(f"{speakers.PEERS} peers, last-N {speakers.LAST_N}: {row}")
    return row, speakers.missed(row)


def _memory(options: argparse.Namespace) -> tuple[Any, list[str]]:
    rows = memory.run(options.seconds)
    for row in rows:
        print("{joins:>6} joins  {process:<8}{memory_kb:>9} KB{files:>5} files{threads:>4} threads".format(**row))
    print(memory.growth(rows))
    return rows, memory.missed(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="just soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=PARTS, help="all of them without")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--loss", type=float, action="append", help="share of 1; may be given more than once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compare", metavar="URL", help="its media must come from 127.0.0.1")
    parser.add_argument("--json", type=Path, help="where to write everything")
    options = parser.parse_args()
    parts = {"loss": _loss, "speakers": _speakers, "memory": _memory}
    results, problems = {}, []
    for part in [options.part] if options.part else PARTS:
        results[part], missed = parts[part](options)
        problems += [f"{part}: {problem}" for problem in missed]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    if problems:
        sys.exit("Goals that were missed:\n" + "\n".join(problems))


if __name__ == "__main__":
    main()
