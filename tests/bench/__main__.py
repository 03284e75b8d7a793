"""What the server carries, what that costs, and how far it is from the least possible.

    just bench                                       about eight minutes
    just bench --quick
    just bench --compare ws://127.0.0.1:9000/ws --pid 1234     any server that speaks pion sfu-ws signalling

Needs two cores: the server on the first, the load on the second. A machine that does other work at the same time gives
figures that mean little.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.disturbed import company_key, delays, two_workers  # noqa: E402

ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
FRAME_S = 1 / 30
"""From one frame to the next."""
PACKETS = ("sfu_worker_packets_long_way_total", "sfu_worker_packets_in_total")
SUBSCRIBERS, RATES = (3, 10, 30), {"low": 300, "high": 2000}


def tree(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def rss_kb(pids: list[int]) -> int:
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


class Server:
    def __init__(self, url: str, pids: list[int], new_key: Callable[[], str] | None = None) -> None:
        self.url, self.pids, self.new_key = url, pids, new_key
        self._packets: dict[str, float] = {}  # of all workers since their start, by the metric's name

    def load(self, **options: float) -> dict[str, Any]:
        command = [*pinned(1), sys.executable, str(ROOT / "tests/bench/load.py"), "--url", self.url]
        command += [f"--{name}={value}" for name, value in options.items()] + [f"--pid={pid}" for pid in self.pids]
        done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            sys.exit(f"the load failed: {done.stderr[-2000:]}")
        time.sleep(1.2)  # the worker's next report
        result: dict[str, Any] = json.loads(done.stdout)
        return result | self.metrics()

    def metrics(self) -> dict[str, Any]:
        """The worst loop lag, and of the packets since the last call the share that left the fast path."""
        try:
            page = urllib.request.urlopen(
                self.url.replace("ws://", "http://").removesuffix("/ws") + "/metrics", timeout=5
            )
        except OSError:
            return {}
        with page:
            lines = [line.split() for line in page.read().decode().splitlines() if line.startswith("sfu_worker_")]
        found: dict[str, list[float]] = {}
        for name, value in lines:
            found.setdefault(name.partition("{")[0], []).append(float(value))
        before, self._packets = self._packets, {name: sum(found.get(name, [])) for name in PACKETS}
        long_way, packets_in = (self._packets[name] - before.get(name, 0.0) for name in PACKETS)
        lag = max(found.get("sfu_worker_loop_lag_us_max", [0.0])) / 1e3
        return {"loop_lag_ms": lag, "long_way_percent": 100 * long_way / packets_in if packets_in else 0.0}


def pinned(*cores: int) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, cores))] if sys.platform == "linux" and (os.cpu_count() or 1) > 1 else []


@contextmanager
def ours(workers: int = 1, cores: Iterable[int] = (0,)) -> Iterator[Server]:
    with socket.socket() as free, tempfile.TemporaryDirectory() as data:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        env = ENV | {
            "SFU_HOST": "127.0.0.1", "SFU_PUBLIC_IP": "127.0.0.1", "SFU_PORT": str(port), "SFU_WORKERS": str(workers),
            "SFU_LIMITS": "off", "SFU_DATABASE_URL": f"sqlite:///{data}/bench.db",
        }  # fmt: skip
        sfu = [sys.executable, "-m", "sfu"]
        command = [*pinned(*cores), *sfu, "serve"]
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(300):
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    break
                time.sleep(0.1)
            yield Server(f"ws://127.0.0.1:{port}/ws", tree(process.pid), lambda: company_key(sfu, env))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(15)


def floors(quick: bool, pause_s: float = 0.0) -> dict[str, float]:
    code = "import sys, json; sys.path.insert(0, 'tests/bench'); from floor import floor_us\n"
    code += "print(json.dumps({f'{n} {name}': floor_us(n, b, *map(float, sys.argv[1:])) for n in (3, 10, 30) "
    code += "for name, b in (('low', 10), ('high', 32))}))"
    command = [*pinned(0), sys.executable, "-c", code, "0.5" if quick else "1.5", str(pause_s)]
    found: dict[str, float] = json.loads(
        subprocess.run(command, env=ENV, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    )
    return found


COLUMNS = {
    "cpu_us_per_forward": "µs/fwd", "floor_us": "floor", "ratio": "ratio",
    "paced_floor_us": "paced", "paced_ratio": "ratio", "forwards_per_s": "fwd/s", "delay_ms_p50":
    "p50 ms", "delay_ms_p99": "p99 ms", "loss_percent": "loss %", "loop_lag_ms": "lag ms",
    "long_way_percent": "long %",
}  # fmt: skip


def row(name: str, result: dict[str, Any]) -> None:
    cells = (result.get(key) for key in COLUMNS)
    print(f"{name:24s}" + "".join(f"{'-' if cell is None else round(cell, 2):>10}" for cell in cells), flush=True)


Results = dict[str, Any]


def packets(server: Server, quick: bool) -> Results:
    """A packet's cost beside the floor, and how it grows with rooms."""
    seconds = 2.0 if quick else 4.0
    results: Results = {}
    floor, paced = floors(quick), floors(quick, FRAME_S)
    print(f"{'':24s}" + "".join(f"{title:>10}" for title in COLUMNS.values()))
    for n in SUBSCRIBERS:
        for name, pps in RATES.items():
            result = server.load(peers=n + 1, pps=pps, seconds=seconds)
            result |= {"floor_us": floor[f"{n} {name}"], "paced_floor_us": paced[f"{n} {name}"]}
            if us := result["cpu_us_per_forward"]:
                result |= {"ratio": us / result["floor_us"], "paced_ratio": us / result["paced_floor_us"]}
            results[f"{n} subscribers {name}"] = result
            row(f"{n} subscribers, {name}", result)
    for rooms in (1, 10) if quick else (1, 5, 10, 20, 40):
        result = server.load(rooms=rooms, peers=5, pubs=5, pps=75, pause=0.02, seconds=seconds)
        results[f"{rooms} rooms of 5"] = result
        row(f"{rooms} rooms of 5, 75 pps", result)
    results["limit"] = limit(results)
    print(results["limit"])
    return results


def joins(server: Server, quick: bool) -> Results:
    many = server.load(peers=50, pubs=1 if quick else 50, pps=10, pause=0.0, seconds=1, setup=30)
    print(
        "50 joining one room at once: all receive all after {all_joined_s} s, {missing_tracks} tracks missing".format(
            **many
        )
    )
    one = server.load(peers=2, pps=100, seconds=0.5)
    print(f"one joining: first packet after {one['first_packet_ms']} ms")
    return {"50 at once": many, "join": one}


def disturbed(server: Server, quick: bool) -> Results:
    assert server.new_key is not None
    found = delays(server, server.new_key(), 2.0 if quick else 8.0)
    print(
        "p99 delay at 10 subscribers: {delay_ms_p99_idle:.2f} ms; at 100 REST requests/s {rest_ratio:.2f} of that, "
        "while 5 peers a second join other rooms {joins_ratio:.2f}".format(**found)
    )
    return found


def memory(server: Server, quick: bool) -> Results:
    """By how much a worker grows by a room of 10 that all publish, while they and another such room are there: the
    first one also pays for what all rooms share."""
    workers = [pid for pid in server.pids if b"media.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    command = [sys.executable, str(ROOT / "tests/bench/load.py"), "--url", server.url, "--peers=10", "--pubs=10"]
    with ExitStack() as stack:
        held = [rss_kb(workers)]
        for seconds in (22, 10):
            load = subprocess.Popen([*command, f"--seconds={seconds}"], env=ENV, stdout=subprocess.DEVNULL)
            stack.enter_context(load)
            time.sleep(9)
            if load.poll():
                sys.exit("the load failed")
            held.append(rss_kb(workers))
    first, second = (b - a for a, b in pairwise(held))
    found = {"first_room_kb": first, "worker_kb_per_peer": second // 10, "worker_kb_per_track": second // 90}
    print("memory: {worker_kb_per_peer} KB a peer in a room of 10, {worker_kb_per_track} KB a track; the first room "
          "takes {first_room_kb} KB".format(**found))  # fmt: skip
    return found


def limit(results: dict[str, Any]) -> str:
    """What bounds it: a core that is full, or the load itself."""
    most = max((r for r in results.values() if r.get("forwards_per_s")), key=lambda r: int(r["forwards_per_s"]))
    if not most["cpu_us_per_forward"]:
        return "limit: unknown without --pid"
    used = most["forwards_per_s"] * most["cpu_us_per_forward"] / 1e6
    return (
        f"limit: {most['forwards_per_s']} forwards/s took {used:.0%} of a core, most of it in libsrtp and the kernel "
        f"(the floor); one core would carry about {most['forwards_per_s'] / used:.0f} a second"
    )


PARTS: dict[str, Callable[[Server, bool], Results]] = {
    "memory": memory, "packets": packets, "joins": joins, "disturbed": disturbed,
}  # fmt: skip
"""Each with a server of its own. `quick` is for a first look."""
COMPARABLE = ("packets", "joins")
QUICK = ("memory", *COMPARABLE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", metavar="URL", help="drive the server at this ws:// address instead of ours")
    parser.add_argument("--pid", type=int, help="with --compare, the server's process, for its CPU time")
    parser.add_argument("--quick", action="store_true", help="shorter, with fewer sizes")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be given more than once")
    parser.add_argument("--json", default="bench.json", help="where to write every figure (default: %(default)s)")
    a = parser.parse_args()
    parts = a.only or (COMPARABLE if a.compare else QUICK if a.quick else PARTS)
    if a.compare and not set(parts) <= set(COMPARABLE):
        parser.error(f"of another server only these can be measured: {', '.join(COMPARABLE)}")
    results: Results = {}
    for name in parts:
        if a.compare:
            results[name] = PARTS[name](Server(a.compare, tree(a.pid) if a.pid else []), a.quick)
        else:
            with ours() as server:
                results[name] = PARTS[name](server, a.quick)
    if not a.compare and not a.quick and not a.only:
        results["two workers"] = two_workers(ours, 4.0)
        print(
            "two workers on two rooms forward {forwards_per_worker_cpu_ratio:.2f} of what one does on one, "
            "for the same CPU each".format(**results["two workers"])
        )
    Path(a.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
