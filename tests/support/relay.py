"""A bad network in userspace: between clients and a server's UDP port, in a process of its own.

The server listens on 127.0.0.1 and advertises 127.0.0.2 (SFU_PUBLIC_IP); the relay is there, on the port of the same
number. It has a socket towards the server for each client, so the server sees as many addresses as there are clients.
All that chance decides comes from a seed: the nth datagram of the kth client meets the same fate in every run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

HOST, SERVER_HOST = "127.0.0.2", "127.0.0.1"
BUFFER_BYTES = 4 << 20
READS = 64
STOP_S = 5.0

Direction = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What happens to the datagrams of one direction. Shares are of 1."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0  # the share that is held back by up to `hold_s`, so that later ones overtake it
    hold_s: float = 0.03
    delay_s: float = 0.0
    rate_bps: float = 0.0  # 0: no limit
    queue_bytes: int = 40_000  # what may wait for the rate; beyond it datagrams are dropped


CLEAN, SILENT = Shape(), Shape(loss=1.0)


class Link:
    """One direction of one client. Pure: the clock is an argument."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._free_s = 0.0  # when all that waits will have left

    def admit(self, size: int, shape: Shape, now_s: float) -> list[float]:
        """When the copies of a datagram arrive; none do if it is lost. Draws as often whatever the shape, so that a
        change of one setting leaves what the others decide."""
        lost, twice, held, longer = (self._random.random() for _ in range(4))
        if lost < shape.loss:
            return []
        leaves_s = now_s
        if shape.rate_bps:
            waits_s = max(0.0, self._free_s - now_s)
            if waits_s * shape.rate_bps / 8 + size > shape.queue_bytes:
                return []
            leaves_s = self._free_s = now_s + waits_s + size * 8 / shape.rate_bps
        arrives_s = leaves_s + shape.delay_s + (longer * shape.hold_s if held < shape.reorder else 0.0)
        return [arrives_s] * (2 if twice < shape.duplicate else 1)


class Relay:
    """The process, and what a test asks of it."""

    def __init__(self, port: int, seed: int = 1) -> None:
        command = [sys.executable, __file__, str(seed)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.listen(port)

    def listen(self, port: int) -> None:
        """Stands for one more port of the server; a second time it changes nothing."""
        self._ask("listen", port=port)

    def shape(self, direction: Direction, shape: Shape, client: int | None = None) -> None:
        """From now on this happens to what goes `up` to the server or `down` from it: for the client with this port,
        or for all that have no shape of their own."""
        self._ask("shape", direction=direction, client=client, **asdict(shape))

    def rebind(self) -> None:
        """Every client gets another address towards the server, as when a router forgets; the old ones are dead."""
        self._ask("rebind")

    @property
    def counts(self) -> dict[str, int]:
        """Datagrams and bytes: `up`, `up_bytes`, `up_lost`, `up_twice`, and the same for down."""
        return dict(self._ask("counts"))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._process.communicate(timeout=STOP_S)  # the end of its input ends it
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, what: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what} | arguments) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the relay has ended"
        return json.loads(answer)


# --- the process ------------------------------------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class Client:
    """An address on the near side of a front."""

    front: socket.socket
    server: tuple[str, int]
    address: tuple[str, int]
    links: dict[Direction, Link]
    back: socket.socket = field(init=False)


class Process:
    """Runs on one loop until the end of its input."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._loop = asyncio.get_running_loop()
        self._fronts: dict[int, socket.socket] = {}
        self._clients: dict[tuple[int, Any], Client] = {}
        self._shapes: dict[Direction, Shape] = {"up": CLEAN, "down": CLEAN}
        self._own: dict[tuple[Direction, int], Shape] = {}  # by direction and the client's port
        self._counts: Counter[str] = Counter()

    async def run(self) -> None:
        lines = asyncio.StreamReader()
        await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            request = json.loads(line)
            answer = getattr(self, "do_" + request.pop("what"))(**request)
            print(json.dumps(answer), flush=True)

    def do_listen(self, port: int) -> None:
        if port not in self._fronts:
            front = self._fronts[port] = self._open((HOST, port))
            self._loop.add_reader(front, self._read, front, partial(self._from_client, front, port))

    def do_shape(self, direction: Direction, client: int | None, **shape: Any) -> None:
        if client is None:
            self._shapes[direction] = Shape(**shape)
        else:
            self._own[direction, client] = Shape(**shape)

    def do_rebind(self) -> None:
        for client in self._clients.values():
            self._loop.remove_reader(client.back)
            client.back.close()
            self._bind(client)

    def do_counts(self) -> dict[str, int]:
        return self._counts

    def _open(self, address: tuple[str, int]) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setblocking(False)
        for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            opened.setsockopt(socket.SOL_SOCKET, buffer, BUFFER_BYTES)
        opened.bind(address)
        return opened

    def _bind(self, client: Client) -> None:
        client.back = back = self._open((SERVER_HOST, 0))
        self._loop.add_reader(back, self._read, back, partial(self._from_server, client))

    def _read(self, source: socket.socket, received: Callable[[bytes, Any], None]) -> None:
        for _ in range(READS):
            try:
                data, address = source.recvfrom(65535)
            except BlockingIOError:
                return
            except OSError:  # what went out before could not be delivered
                continue
            received(data, address)

    def _from_client(self, front: socket.socket, port: int, data: bytes, address: Any) -> None:
        client = self._clients.get((port, address))
        if client is None:
            seed = f"{self._seed}/{len(self._clients)}"
            links: dict[Direction, Link] = {"up": Link(f"{seed}/up"), "down": Link(f"{seed}/down")}
            client = self._clients[port, address] = Client(front, (SERVER_HOST, port), address, links)
            self._bind(client)
        self._carry("up", client, data)

    def _from_server(self, client: Client, data: bytes, address: Any) -> None:
        if address == client.server:
            self._carry("down", client, data)

    def _carry(self, direction: Direction, client: Client, data: bytes) -> None:
        now_s = self._loop.time()
        shape = self._own.get((direction, client.address[1]), self._shapes[direction])
        arrivals = client.links[direction].admit(len(data), shape, now_s)
        self._counts[direction] += 1
        self._counts[f"{direction}_bytes"] += len(data)
        self._counts[f"{direction}_{('lost', 'once', 'twice')[len(arrivals)]}"] += 1
        for arrives_s in arrivals:
            if arrives_s <= now_s:
                self._deliver(direction, client, data)
            else:
                self._loop.call_at(arrives_s, self._deliver, direction, client, data)

    def _deliver(self, direction: Direction, client: Client, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a full buffer or a dead receiver: lost, as on any network
            if direction == "up":
                client.back.sendto(data, client.server)
            else:
                client.front.sendto(data, client.address)


async def _main() -> None:
    await Process(sys.argv[1]).run()


if __name__ == "__main__":
    asyncio.run(_main())
