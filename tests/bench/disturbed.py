"""What other work costs a call: its delay while the REST API is driven and while peers join other rooms of the same
worker, and what a second worker carries beside the first.

The load, the REST client and the joining peers share the second core. A delay ends when the kernel has the packet for
its receiver, so what these cost each other is not in it.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tests.bench.__main__ import Server

ROUNDS = 5
REQUESTS_PER_S = 100
JOINS_PER_S = 5
LOAD = {"peers": 11, "pubs": 1, "pps": 300}


@contextmanager
def meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def requests(server: Server, key: str) -> Callable[[threading.Event], None]:
    """A backend that fetches tokens and looks at its rooms, in turn, REQUESTS_PER_S a second."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def work(stop: threading.Event) -> None:
        due, n = time.monotonic(), 0
        while not stop.wait(max(0.0, due - time.monotonic())):
            due += 1 / REQUESTS_PER_S
            n += 1
            if n % 2:
                body = json.dumps({"room_id": "bench-rest", "user_name": f"u{n}", "duration": 60})
                connection.request("POST", "/api/v1/tokens", body, headers)
            else:
                connection.request("GET", "/api/v1/rooms", headers=headers)
            response = connection.getresponse()
            response.read()
            if response.status >= 300:
                raise RuntimeError(f"REST answered {response.status}")

    return work


def joins(server: Server) -> Callable[[threading.Event], None]:
    """Peers that join rooms of five, JOINS_PER_S a second, and publish."""

    def work(stop: threading.Event) -> None:
        while not stop.is_set():
            server.load(rooms=4, peers=5, pubs=5, pps=20, pause=1 / JOINS_PER_S, seconds=0.1, setup=1)

    return work


def delays(server: Server, key: str, seconds: float) -> dict[str, Any]:
    """p99 of the one-way delay, medians, and the ratios to the undisturbed one measured in turn with them. A machine
    that stops for a moment spoils a round, and not the median."""
    found: dict[str, list[float]] = {"idle": [], "rest": [], "joins": []}
    work: dict[str, Callable[[threading.Event], None]] = {"rest": requests(server, key), "joins": joins(server)}
    for _ in range(ROUNDS):
        for name, values in found.items():
            with meanwhile(work[name]) if name in work else nullcontext():
                values.append(server.load(**LOAD, seconds=seconds)["delay_ms_p99"])
    p99 = {name: statistics.median(values) for name, values in found.items()}
    return {
        **{f"delay_ms_p99_{name}": value for name, value in p99.items()},
        "rest_ratio": p99["rest"] / p99["idle"],
        "joins_ratio": p99["joins"] / p99["idle"],
    }


def company_key(command: list[str], env: dict[str, str]) -> str:
    done = subprocess.run([*command, "company", "create", "bench"], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def two_workers(start: Callable[..., Any], seconds: float) -> dict[str, Any]:
    """CPU a forwarded packet with two workers on two rooms, over that with one worker on one: in turn. Both cores
    serve, and the load runs on them, too; so what is compared is work, not what two full cores carry."""
    costs: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for workers in costs:
            with start(workers=workers, cores=range(os.cpu_count() or 1)) as server:
                result = server.load(rooms=workers, peers=11, pubs=1, pps=1000, seconds=seconds)
                costs[workers].append(result["cpu_us_per_forward"])
    one, two = (statistics.median(costs[workers]) for workers in (1, 2))
    return {"us_one_worker": one, "us_two_workers": two, "forwards_per_worker_cpu_ratio": one / two}
