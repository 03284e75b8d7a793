"""Runs too long for the tests: calls between browsers over networks that lose packets.

    just soak                     two minutes for each loss, about seven in all
    just soak --seconds 20
    just soak --compare ws://127.0.0.1:9000/ws     the same through any server that speaks pion sfu-ws signalling

Exits with 1 where a goal was missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "e2e")]

from elsewhere import site  # noqa: E402

from tests.soak import loss  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="just soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--loss", type=float, action="append", help="share of 1; may be given more than once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compare", metavar="URL", help="its media must come from 127.0.0.1")
    parser.add_argument("--json", type=Path, help="where to write everything")
    options = parser.parse_args()
    losses = options.loss or list(loss.GOALS)
    with site() as origin:
        with loss.ours(origin) as url:
            rows = loss.run("ours", origin, url, losses, options.seconds, options.seed)
        if options.compare:
            rows += loss.run("other", origin, options.compare, losses, options.seconds, options.seed)
    rows.sort(key=lambda row: row["loss"])
    print(loss.table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    if problems := loss.missed(rows):
        sys.exit("Goals that were missed:\n" + "\n".join(problems))


if __name__ == "__main__":
    main()
