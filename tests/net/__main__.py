"""Tries a call in each of the networks of cases.py. Needs root.

    .venv/bin/python -m tests.net                  all of them, some minutes
    .venv/bin/python -m tests.net --only turn      one
    .venv/bin/python -m tests.net --write          also writes the table in docs/reach.md

Exits with 1 where something else happened, or too late; so run it on a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "e2e")]

from net import report  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.net", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="of a case; may be given more than once")
    parser.add_argument("--write", action="store_true", help="writes the table in docs/reach.md")
    options = parser.parse_args()
    rows = report.run(options.only)
    print(report.table(rows))
    if options.write:
        report.write(rows)
    if problems := report.missed(rows):
        sys.exit("Not as it should be:\n" + "\n".join(problems))


if __name__ == "__main__":
    main()
