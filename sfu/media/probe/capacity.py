"""How much a media worker of this machine forwards: `python -m sfu.media.probe.capacity SECONDS`.

Starts a worker process as the server does, on loopback, with rooms of 6 in which everybody sends 720p and sound, and
measures the worker's processor time per room. Prints progress and the result as lines of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiortc import RTCCertificate

from sfu import bridge
from sfu.media.probe.peer import Peer, answer, candidates, fingerprint

ROOMS, PEERS = 2, 6
VIDEO_BPS, VIDEO_BYTES, FPS = 2_500_000, 1100, 30
"""720p at 30 frames a second, the most that the page sends (docs/sizing.md), in packets of VIDEO_BYTES."""
SOUND_PPS, SOUND_BYTES = 50, 80
HEADERS_BYTES = 28 + 12 + 16
"""IPv4 and UDP, RTP, and the tag of SRTP."""
START_S = 20.0
"""Timeout for the worker and all peers to be connected."""
RECEIVE_BUFFER = 4 << 20


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    text: str


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """Processor time of a worker for one packet to one subscriber, and what a room takes: packets to subscribers, and
    bandwidth. The latter are computed, since a busy machine sends less here than people do. `lost` is the share of
    packets that did not arrive: above a few percent the machine was too busy for a true figure."""

    us_per_forward: float
    forwards_per_s: float
    in_bps: float
    out_bps: float
    lost: float


class _Sink:
    """A client's UDP socket: what arrives is counted, except for what is not media."""

    def __init__(self, to: tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._socket.setblocking(False)
        self._socket.connect(to)
        self.packets = 0
        self.peer: Peer | None = None
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def _readable(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = self._socket.recv(2048)
                if 128 <= data[0] < 192:
                    if not 192 <= data[1] <= 223:  # RTCP (RFC 5761)
                        self.packets += 1
                elif self.peer is not None:
                    self.peer.received(data)

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(data)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


class _Load:
    """The worker's other end of the bridge, and all peers."""

    def __init__(self, channel: bridge.Channel[bridge.Event], worker_pid: int) -> None:
        self._channel, self._pid = channel, worker_pid
        self._certificate = RTCCertificate.generateCertificate()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.sinks: dict[str, _Sink] = {}
        self.peers: dict[str, Peer] = {}
        self._connected: set[str] = set()
        self._changed = asyncio.Event()
        self.sent = 0

    async def events(self) -> None:
        async for event in self._channel.receive():
            match event:
                case bridge.Ready():
                    self._ready.set_result(None)
                case bridge.Fatal(message):
                    self._ready.set_exception(RuntimeError(message))
                case bridge.Offer(peer, sdp):
                    self._start(self._offered(peer, sdp))
                case bridge.Connected(peer):
                    self._connected.add(peer)
                    self._changed.set()

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _offered(self, name: str, sdp: str) -> None:
        ssrc = int.from_bytes(name.encode()[-3:].rjust(4, b"\1"))
        text = answer(sdp, fingerprint(self._certificate), {"video": ssrc, "audio": ssrc ^ 0x40000000})
        await self._channel.send(bridge.Answer(name, text))
        if name not in self.peers:
            peer = self.peers[name] = Peer(sdp, self._certificate)
            at = next(one for one in candidates(sdp) if one.transport == "udp")
            sink = self.sinks[name] = _Sink((at.host, at.port))
            peer.pipe, sink.peer = sink, peer
            await peer.check()
            await peer.handshake()
            self._start(self._send(peer, ssrc))

    async def join(self) -> None:
        """Everybody, connected, and receiving from everybody else in the room."""
        await self._ready
        names = [(f"{room}", f"peer-{room}-{i:03}") for room in range(ROOMS) for i in range(PEERS)]
        for room, name in names:
            await self._channel.send(bridge.Join(name, room, False, True, True))
            while name not in self._connected:
                self._changed.clear()
                await self._changed.wait()

    async def _send(self, peer: Peer, ssrc: int) -> None:
        """Frames: the packets of 1/FPS s as one burst, and sound in between."""
        seqs, rest = [secrets.randbelow(0x7000), 0], secrets.token_bytes(VIDEO_BYTES)
        owed_video, owed_sound, stamp = 0.0, 0.0, 0
        due = time.monotonic() + secrets.randbelow(33) / 1e3
        protect = peer.dtls._tx_srtp.protect
        while True:
            owed_video += VIDEO_BPS / 8 / VIDEO_BYTES / FPS
            owed_sound += SOUND_PPS / FPS
            stamp = (stamp + 3000) & 0xFFFFFFFF
            n, owed_video = int(owed_video), owed_video % 1
            for i in range(n):
                start = b"\x10\x01" if i == 0 else b"\x00\x01"
                self._packet(peer, protect, 96 | (i == n - 1) << 7, seqs, 0, stamp, ssrc, start + rest[2:])
            for _ in range(int(owed_sound)):
                self._packet(peer, protect, 111, seqs, 1, stamp, ssrc ^ 0x40000000, rest[:SOUND_BYTES])
            owed_sound %= 1
            due += 1 / FPS
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _packet(
        self, peer: Peer, protect: Any, kind: int, seqs: list[int], of: int, stamp: int, ssrc: int, payload: bytes
    ) -> None:
        head = struct.pack("!BBHII", 0x80, kind, seqs[of], stamp, ssrc)
        seqs[of] = (seqs[of] + 1) & 0xFFFF
        peer.send(protect(head + payload))
        self.sent += 1

    def counted(self) -> tuple[float, int, int]:
        """The worker's processor time, packets sent, and packets received."""
        return cpu_s(self._pid), self.sent, sum(sink.packets for sink in self.sinks.values())

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers.values():
            await peer.close()


def cpu_s(pid: int) -> float:
    """Processor time that a process used (proc(5))."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def _worker() -> AsyncIterator[_Load]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "sfu.media.worker", str(theirs.fileno())]
    process = await asyncio.create_subprocess_exec(*command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
    theirs.close()
    channel = await bridge.Channel.open(ours, bridge.EVENTS)
    configure = bridge.Configure(
        port=0, hosts=("127.0.0.1",), advertise=(), max_tracks=8, last_n=0, answer_s=START_S, ice_s=START_S,
        dtls_s=START_S, limits=False,
    )  # fmt: skip
    await channel.send(configure)
    load = _Load(channel, process.pid)
    events = asyncio.ensure_future(load.events())
    try:
        yield load
    finally:
        await load.close()
        events.cancel()
        await channel.aclose()  # the worker ends with its bridge
        await process.wait()


def _say(message: Progress | Measured) -> None:
    print(msgspec.json.encode(message).decode(), flush=True)


async def measure(seconds: float) -> None:
    async with _worker() as load:
        _say(Progress(f"{ROOMS} rooms of {PEERS} join"))
        async with asyncio.timeout(START_S):
            await load.join()
        await asyncio.sleep(1.0)  # the last offers, and the first frames
        _say(Progress(f"they talk for {seconds:g} s"))
        before = load.counted()
        await asyncio.sleep(seconds)
        cpu, sent, received = (b - a for a, b in zip(before, load.counted(), strict=True))
        expected = sent * (PEERS - 1)
        per_peer = VIDEO_BPS * (VIDEO_BYTES + HEADERS_BYTES) / VIDEO_BYTES
        per_peer += SOUND_PPS * (SOUND_BYTES + HEADERS_BYTES) * 8
        forwards = PEERS * (PEERS - 1) * (VIDEO_BPS / 8 / VIDEO_BYTES + SOUND_PPS)
        lost = max(0.0, 1 - received / expected) if expected else 1.0
        us = cpu / received * 1e6 if received else 0.0
        _say(Measured(us, forwards, PEERS * per_peer, PEERS * (PEERS - 1) * per_peer, lost))


if __name__ == "__main__":
    logging.disable()
    asyncio.run(measure(float(sys.argv[1])))
