"""A media worker without media, for tests of the control plane: a process at the other end of a bridge.

`worker_child.py PLAN STARTS FD`: the n-th start does what the n-th word of the comma-separated PLAN says (the last
counts for all later ones); the file STARTS grows by a byte a start. `ready` works; `mute` never makes an offer; `fatal`
cannot start; `crash` dies at once; `stubborn` works, ignores SIGTERM and outlives its bridge; `garbled` answers the
first Join with what is no event; `silent` is ready but never reports.

A working one offers at Join and Publish. An answer starts a microphone track the first time. An answer that is `do:`
and a JSON list of [event, fields] makes it send those instead; `do:commands` makes it offer an SDP that is the JSON of
the commands it got; `flood:` and [peer, offers, bytes] makes it send that many offers of that length to a peer.

It writes its process's number and the client's address to a media connection, then the check that came with it, then
what it reads from it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import msgspec

from sfu import bridge
from sfu.connections import MEDIA_CONNECTION_BYTES, MediaConnection

SDP = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"
STATS_S = 0.1
TAKEN = 40_000
"""The port where any will do."""
PID_BYTES, ADDRESS_BYTES = 8, 48


class Child:
    def __init__(self, channel: bridge.Channel, mode: str) -> None:
        self.channel, self.mode = channel, mode
        self.commands: list[tuple[str, object]] = []
        self.sources: dict[str, list[str]] = {}
        self.publishing: set[str] = set()
        self.sending = asyncio.Lock()

    async def send(self, event: bridge.Event) -> None:
        async with self.sending:
            await self.channel.send(event)

    async def handle(self, command: bridge.Command) -> None:
        self.commands.append((type(command).__name__, msgspec.structs.asdict(command)))
        match command:
            case bridge.Configure():
                connections = socket.socket(fileno=command.connections)
                asyncio.get_running_loop().add_reader(connections, self.take_connection, connections)
                await self.send(bridge.Ready(command.port or TAKEN, ("127.0.0.1",), (str(os.getpid()),)))
            case bridge.Join(peer):
                if self.mode == "garbled":
                    os.write(int(sys.argv[3]), b'["Nonsense",{}]\n')
                self.sources[peer] = ["microphone", "camera"]
                await self.offer(peer)
            case bridge.Leave(peer):
                self.publishing.discard(peer)
                await self.send(bridge.Gone(peer))
            case bridge.Publish(peer, source):
                self.sources[peer].append(source)
                await self.offer(peer)
            case bridge.Answer(peer, sdp) if sdp == "do:commands":
                await self.send(bridge.Offer(peer, json.dumps(self.commands), {}, {}))
            case bridge.Answer(peer, sdp) if sdp.startswith("do:"):
                for name, values in json.loads(sdp.removeprefix("do:")):
                    cls = getattr(bridge, name)
                    own = {"peer": peer} if "peer" in cls.__struct_fields__ else {}
                    await self.send(cls(**{**own, **values}))
            case bridge.Answer(_, sdp) if sdp.startswith("flood:"):
                peer, offers, n_bytes = json.loads(sdp.removeprefix("flood:"))
                for _ in range(offers):
                    await self.send(bridge.Offer(peer, "x" * n_bytes, {}, {}))
            case bridge.Answer(peer) if peer not in self.publishing:
                self.publishing.add(peer)
                await self.send(bridge.Track(peer, "microphone", "audio"))

    def take_connection(self, connections: socket.socket) -> None:
        data, files, _, _ = socket.recv_fds(connections, MEDIA_CONNECTION_BYTES, 1)
        passed = MediaConnection.decode(data)
        for file in files:
            threading.Thread(target=echo, args=(socket.socket(fileno=file), passed), daemon=True).start()

    async def offer(self, peer: str) -> None:
        if self.mode != "mute":
            send = {str(mid): source for mid, source in enumerate(self.sources[peer])}
            await self.send(bridge.Offer(peer, SDP, send, {}))

    async def report(self) -> None:
        while True:
            await asyncio.sleep(STATS_S)
            await self.send(bridge.Stats({}, {"commands": float(len(self.commands))}))


def echo(connection: socket.socket, passed: MediaConnection) -> None:
    address = f"{passed.address} {passed.port}".encode().ljust(ADDRESS_BYTES)
    with connection:
        connection.setblocking(True)
        connection.sendall(str(os.getpid()).encode().ljust(PID_BYTES) + address + passed.check)
        while data := connection.recv(2000):
            connection.sendall(data)


async def serve(mode: str) -> None:
    channel = await bridge.Channel.open(socket.socket(fileno=int(sys.argv[3])), bridge.COMMANDS)
    child = Child(channel, mode)
    if mode == "fatal":
        await child.send(bridge.Fatal("UDP port 8080 is taken."))
        return
    report = None if mode == "silent" else asyncio.create_task(child.report())
    async for command in channel.receive():
        await child.handle(command)
    if report is not None:
        report.cancel()


def main() -> None:
    starts = Path(sys.argv[2])
    with starts.open("ab") as file:
        file.write(b".")
    plan = sys.argv[1].split(",")
    mode = plan[min(starts.stat().st_size, len(plan)) - 1]
    if mode == "crash":
        os._exit(3)
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    asyncio.run(serve(mode))
    if mode == "stubborn":
        time.sleep(60)


if __name__ == "__main__":
    main()
