"""The same video over UDP and over TCP: what a forwarded packet costs, how late it comes, and what becomes of it on a
way that is too narrow for it.

    .venv/bin/python -m tests.net.side_by_side             as root, about two minutes
    .venv/bin/python -m tests.net.side_by_side --write     also writes the table in docs/reach.md
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "e2e")]

from support.namespaces import ServerOn  # noqa: E402
from support.process import workers  # noqa: E402

from net.cases import CASES, SERVER  # noqa: E402
from net.lab import Lab  # noqa: E402
from net.report import where  # noqa: E402

NARROW = "rate 1mbit burst 6kb latency 300ms"
"""tc-tbf(8): a way that queues for up to 300 ms, then drops."""
LOADS: dict[str, dict[str, Any]] = {
    "10 who watch one, 300 packets a second each": {"peers": 11, "pps": 300},
    "1 who watches one, 75 packets a second (0.7 Mbit/s), on 1 Mbit/s": {"peers": 2, "pps": 75},
    "1 who watches one, 300 packets a second (2.7 Mbit/s), on 1 Mbit/s": {"peers": 2, "pps": 300},
}
SECONDS = 10
_TABLE = re.compile(r"(?<=<!-- side by side -->\n).*?(?=<!-- end -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="writes the table in docs/reach.md")
    options = parser.parse_args()
    text = table(list(measure()))
    print(text)
    if options.write:
        document = ROOT / "docs" / "reach.md"
        document.write_text(_TABLE.sub(lambda _: text, document.read_text(), count=1))


def measure() -> Iterator[dict[str, Any]]:
    """A row for each load and way."""
    lab = Lab()
    server = ServerOn(lab.server, host="*", workers="1")
    try:
        lab.prepare(CASES[0])
        server.start()
        for name, load in LOADS.items():
            with _narrow(lab) if name.endswith(" on 1 Mbit/s") else contextlib.nullcontext():
                for way in ("UDP", "TCP"):
                    yield {"load": name, "way": way} | _run(lab, server, way, **load)
    finally:
        server.close()
        lab.close()


@contextlib.contextmanager
def _narrow(lab: Lab) -> Iterator[None]:
    """The way to alice's home; the way back stays wide."""
    lab.net.run("tc", "qdisc", "add", "dev", "home", "root", "tbf", *NARROW.split())
    try:
        yield
    finally:
        lab.net.run("tc", "qdisc", "del", "dev", "home", "root")


def _run(lab: Lab, server: ServerOn, way: str, **load: Any) -> dict[str, Any]:
    url = f"ws://{SERVER}:{server.port}/ws"
    command = [*lab.alice.command, sys.executable, str(ROOT / "tests" / "bench" / "load.py"), f"--url={url}"]
    command += [f"--{name}={value}" for name, value in load.items()] + [f"--seconds={SECONDS}"]
    command += [f"--pid={process.pid}" for process in workers(server.pid)] + (["--tcp"] if way == "TCP" else [])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the load failed: {done.stderr[-2000:]}\n{server.output[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """In Markdown."""
    lines = ["| Video | Way | Server's CPU a packet | Delay, median | Delay, p99 | Not delivered |", "|" + " --- |" * 6]
    for row in rows:
        cost = f"{row['cpu_us_per_forward']:.1f} µs" if row["cpu_us_per_forward"] else "–"
        delays = [f"{row[f'delay_ms_{part}']:.1f} ms" if row[f"delay_ms_{part}"] else "–" for part in ("p50", "p99")]
        lines.append(f"| {row['load']} | {row['way']} | {cost} | {' | '.join(delays)} | {row['loss_percent']:.1f} % |")
    control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return "\n".join([*lines, "", f"{where()} Its TCP has the congestion control `{control}`."]) + "\n"


if __name__ == "__main__":
    main()
