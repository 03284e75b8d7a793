"""Calls over bad networks: real browsers behind emulated links, and what they reach, beside the goals. Needs root.

    .venv/bin/python -m tests.networks                        all cases, about a quarter of an hour
    .venv/bin/python -m tests.networks 250k step --repeat 3   a case, and all cases of a run; medians of three
    .venv/bin/python -m tests.networks 250k --alone           without the other cases of its run at the same time
    .venv/bin/python -m tests.networks --json found.json      adds to what is in the file; --show only prints that
    .venv/bin/python -m tests.networks --write                also the table and the curves of docs/networks.md

Exits with 1 where a goal was missed; so run it on a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "e2e")]

from networks import report  # noqa: E402
from networks.cases import CASES  # noqa: E402


def main() -> None:
    names = ", ".join(dict.fromkeys(name for case in CASES for name in (case.run, case.name)))
    parser = argparse.ArgumentParser(
        prog="python -m tests.networks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"or run, of: {names}")
    parser.add_argument("--repeat", type=int, default=1, metavar="N")
    parser.add_argument("--alone", action="store_true", help="one case at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where everything is kept")
    parser.add_argument("--show", action="store_true", help="runs nothing, prints what is in the JSON")
    parser.add_argument("--write", action="store_true", help="writes into docs/networks.md")
    options = parser.parse_args()
    if options.show and not options.json:
        parser.error("--show needs --json")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended."))  # browsers and namespaces go as well
    cases = report.chosen(options.cases, long=options.write)
    rows = report.load(options.json) if options.json else []
    if options.show:
        rows = [row for row in rows if row["case"] in {case.name for case in report.chosen(options.cases, long=True)}]
    else:
        for row in report.run(cases, options.repeat, alone=options.alone):
            print(report.told(row), flush=True)
            rows.append(row)
            if options.json:
                report.save(options.json, rows)
    print(report.table(rows))
    if options.write:
        report.write(rows)
    if problems := report.missed(rows):
        sys.exit("Goals that were missed:\n" + "\n".join(problems))


if __name__ == "__main__":
    main()
