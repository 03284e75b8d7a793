"""What requests cost, beside yardsticks on the same machine in the same run: `just bench http`.

Each figure is the median of several turns, in which the servers are asked one after the other. `plain` is Quart-Trio
with one route. `--fastapi PYTHON` names a Python that has fastapi, uvicorn, asyncpg and pyjwt; with these it issues
tokens as well.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from support.postgres import running  # noqa: E402 -- found on the path set above
from support.process import ROOT, environment, free_port  # noqa: E402

YARDSTICKS = Path(__file__).parent / "yardsticks"
CONNECTIONS = 8
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
START_S = 30.0


class Server:
    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port, self._process = port, process

    @property
    def cpu_s(self) -> float:
        """Processor time of its main process."""
        spent = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(spent[11]) + int(spent[12])) * TICK_S


@contextmanager
def served(
    *command: str, port: int, env: dict[str, str] | None = None, python: str = sys.executable
) -> Iterator[Server]:
    with subprocess.Popen([python, *command], env=env, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        try:
            give_up = time.monotonic() + START_S
            while True:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if time.monotonic() > give_up:
                    raise SystemExit(f"{command} does not start")
                time.sleep(0.1)
            yield Server(port, process)
        finally:
            process.terminate()


def request(method: str, path: str, key: str = "", body: object = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    if content:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def ask(port: int, requests: Sequence[bytes], count: int) -> float:
    """Sends `count` requests over CONNECTIONS connections, one at a time on each; returns how many a second are
    answered."""
    with ExitStack() as opened, selectors.DefaultSelector() as waiting:
        began, asked, answered = time.perf_counter(), 0, 0
        for _ in range(CONNECTIONS):
            sock = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            waiting.register(sock, selectors.EVENT_READ, bytearray())
            sock.sendall(requests[asked % len(requests)])
            asked += 1
        while answered < count:
            for found, _ in waiting.select(10):
                sock, buffer = found.fileobj, found.data
                buffer += sock.recv(65536)  # type: ignore[union-attr]
                if not _complete(buffer):
                    continue
                if not buffer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 404")):
                    raise SystemExit(buffer.decode("latin1"))
                buffer.clear()
                answered += 1
                if asked < count:
                    sock.sendall(requests[asked % len(requests)])  # type: ignore[union-attr]
                    asked += 1
        return count / (time.perf_counter() - began)


def _complete(buffer: bytearray) -> bool:
    head, end, body = bytes(buffer).partition(b"\r\n\r\n")
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    return bool(end) and len(body) >= int(length.partition(b":")[2])


def compare(cases: Sequence[tuple[str, str, Server, Sequence[bytes], int]], turns: int) -> None:
    """Asks for each case in turn, and prints its medians, and of each title the ratio to its first case."""
    rates, costs = defaultdict[int, list[float]](list), defaultdict[int, list[float]](list)
    for _ in range(turns + 1):  # the first turn warms up
        for number, (_, _, server, requests, count) in enumerate(cases):
            before = server.cpu_s
            rates[number].append(ask(server.port, requests, count))
            costs[number].append((server.cpu_s - before) / count * 1e6)
    first: dict[str, float] = {}
    for number, (title, name, *_) in enumerate(cases):
        rate, cost = statistics.median(rates[number][1:]), statistics.median(costs[number][1:])
        ratio = rate / first.setdefault(title, rate)
        print(f"  {title:24} {name:22} {rate:8,.0f}/s  {cost:6,.0f} us of CPU   x {ratio:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--fastapi", metavar="PYTHON", default="")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        servers: dict[str, tuple[Server, str]] = {}
        postgres = stack.enter_context(running())
        for name, url in (("sfu sqlite", ""), ("sfu postgresql", postgres.emptied())):
            folder, port = stack.enter_context(tempfile.TemporaryDirectory()), free_port()
            settings = {"data_dir": folder, "port": str(port), "host": "127.0.0.1"}
            env = environment(**settings, **({"database_url": url} if url else {}))
            server = stack.enter_context(served("-m", "sfu", "serve", port=port, env=env))
            made = subprocess.run(
                [sys.executable, "-m", "sfu", "company", "rotate-key", "default"],
                env=env, cwd=ROOT, capture_output=True, text=True, check=True,
            )  # fmt: skip
            servers[name] = server, made.stdout.strip()
        port = free_port()
        plain = stack.enter_context(served(str(YARDSTICKS / "plain_quart.py"), str(port), port=port))
        health, ours = [request("GET", "/health")], servers["sfu sqlite"]
        cases = [("GET /health", "plain", plain, health, chosen.count)]
        cases.append(("GET /health", "sfu", ours[0], health, chosen.count))
        bodies = [{"room_id": f"room-{number}", "user_name": "alice"} for number in range(50)]
        if chosen.fastapi:
            port, key = free_port(), "pk_" + 43 * "x"
            command = (str(YARDSTICKS / "fastapi_asyncpg.py"), str(port), postgres.url, key)
            fastapi = stack.enter_context(served(*command, port=port, python=chosen.fastapi))
            tokens = [request("POST", "/api/v1/tokens", key, body) for body in bodies]
            cases.append(("POST /api/v1/tokens", "fastapi postgresql", fastapi, tokens, chosen.count // 3))
        for name, (server, key) in servers.items():
            tokens = [request("POST", "/api/v1/tokens", key, body) for body in bodies]
            cases.append(("POST /api/v1/tokens", name, server, tokens, chosen.count // 3))
            cases.append(("GET /api/v1/rooms/none", name, server, [request("GET", "/api/v1/rooms/none", key)], 500))
        compare(cases, chosen.turns)


if __name__ == "__main__":
    main()
