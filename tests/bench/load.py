"""A load of real peers, in its own process: signalling as pion's sfu-ws, ICE, DTLS, raw SRTP out, counting sinks.

Prints a JSON line a measurement. Started by `tests/bench`, whose help tells what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import secrets
import socket
import struct
import time
from array import array
from typing import Any
from urllib.parse import urlsplit

import uvloop
from aioice import stun
from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport
from aiortc.sdp import SessionDescription
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request, TextMessage

from sfu.media.transport import libc
from sfu.media.transport.dtls import PROFILES
from sfu.media.transport.rows import READ_BATCH, ROW_BYTES
from sfu.media.transport.sockets import Receiver

CERTIFICATE = RTCCertificate.generateCertificate()
FINGERPRINT = next(f.value for f in CERTIFICATE.getFingerprints() if f.algorithm == "sha-256")
FPS = 30
PAYLOAD = 1100
SAMPLE = 16  # one packet in so many is decrypted for its delay
UFRAG, PWD = "benchbench", "benchbenchbenchbenchbench"


class Signalling:
    """A WebSocket that speaks {"event": …, "data": "…"}."""

    def __init__(self) -> None:
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._text = ""

    async def open(self, url: str, room: str, name: str) -> None:
        parts = urlsplit(url)
        self._reader, self._writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 24)
        target = f"{parts.path}?room={room}&username={name}" + (f"&{parts.query}" if parts.query else "")
        self._writer.write(self._ws.send(Request(host=parts.netloc, target=target)))

    def send(self, event: str, data: Any) -> None:
        self._writer.write(self._ws.send(TextMessage(json.dumps({"event": event, "data": json.dumps(data)}))))

    async def run(self, on_event: Any) -> None:
        while data := await self._reader.read(1 << 16):
            self._ws.receive_data(data)
            for event in self._ws.events():
                if isinstance(event, Ping):
                    self._writer.write(self._ws.send(event.response()))
                elif isinstance(event, TextMessage):
                    self._text += event.data
                    if event.message_finished:
                        message, self._text = json.loads(self._text), ""
                        await on_event(message["event"], message["data"])
                elif isinstance(event, CloseConnection | BytesMessage):
                    return
                else:
                    assert isinstance(event, AcceptConnection), event

    def close(self) -> None:
        self._writer.close()


class StampedReceiver(Receiver):
    """Knows when the kernel had each datagram: how long this process takes to come and read it is no delay of the
    server's."""

    SO_TIMESTAMPNS = 35
    CONTROL_BYTES = 32  # a header, seconds and nanoseconds

    def __init__(self) -> None:
        super().__init__(socket.AF_INET)
        ffi, size = libc.ffi, self.CONTROL_BYTES
        self._controls = ffi.new("uint64_t[]", READ_BATCH * size // 8)
        start = ffi.cast("char *", self._controls)
        for i in range(READ_BATCH):
            self._messages[i].msg_hdr.msg_control = start + i * size
        at, step = ffi.offsetof("struct msghdr", "msg_controllen"), ffi.sizeof("struct mmsghdr")
        self._room = memoryview(ffi.buffer(self._messages)).cast("B").cast("Q")[at // 8 :: step // 8]
        self._whole = array("Q", [size]) * READ_BATCH
        words = memoryview(ffi.buffer(self._controls)).cast("B").cast("Q")
        self._seconds, self._nanoseconds = words[2 :: size // 8], words[3 :: size // 8]

    def receive(self, endpoint: Any) -> int:
        self._room[:] = self._whole  # the kernel says how much it used
        return super().receive(endpoint)

    def came_s(self, i: int) -> float:
        return self._seconds[i] + self._nanoseconds[i] / 1e9


class Wire:
    """The client's socket: what DTLS needs of an ICE transport, then counting."""

    KIND = "udp"
    role = "controlling"
    receiver = StampedReceiver()

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, 33 if os.geteuid() == 0 else socket.SO_RCVBUF, 4 << 20)
        self.socket.setsockopt(socket.SOL_SOCKET, StampedReceiver.SO_TIMESTAMPNS, 1)
        self.socket.bind(("", 0))
        self.socket.setblocking(False)
        self.fd = self.socket.fileno()
        self.server: Any = None
        self.proved = asyncio.Event()
        self.rx: Any = None
        self.packets = 0
        self.streams: dict[bytes, float] = {}  # SSRC → time of its first packet
        self.delays: list[float] = []
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(self.fd, self._readable)

    async def open(self) -> None:
        """`server` is known."""

    def send(self, data: bytes) -> None:
        self.socket.sendto(data, self.server)

    def _readable(self) -> None:
        receiver = self.receiver
        n = receiver.receive(self)
        view = receiver.rows.view
        for i, size in enumerate(receiver.rows.lengths[: max(n, 0)].tolist()):
            at = i * ROW_BYTES
            if 128 <= view[at] < 192:
                if not 192 <= view[at + 1] <= 223:
                    self._media(view, at, size, receiver.came_s(i))
            else:
                self._other(bytes(view[at : at + size]), receiver.address(i))

    def _media(self, view: memoryview, at: int, size: int, came_s: float) -> None:
        self.packets += 1
        ssrc = bytes(view[at + 8 : at + 12])
        first = ssrc not in self.streams
        if first:
            self.streams[ssrc] = time.time()
        if self.rx is not None and (first or self.packets % SAMPLE == 0):
            payload = self.rx.unprotect(bytes(view[at : at + size]))[12:]
            self.delays.append(came_s - struct.unpack_from("!d", payload, 12)[0])

    def _other(self, data: bytes, address: Any) -> None:
        if data[0] >= 20:
            self._inbox.put_nowait(data)
        elif data[:2] == b"\x01\x01":
            self.proved.set()
        elif data[:2] == b"\x00\x01":  # a full ICE agent checks us, too
            request = stun.parse_message(data)
            response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, transaction_id=request.transaction_id)
            response.attributes["XOR-MAPPED-ADDRESS"] = address
            response.add_message_integrity(PWD.encode())
            self.send(bytes(response))

    async def check(self, ufrag: str, pwd: str) -> None:
        while not self.proved.is_set():
            if self.server is not None:
                self.consent(ufrag, pwd)
            await asyncio.wait([asyncio.ensure_future(self.proved.wait())], timeout=0.1)

    def consent(self, ufrag: str, pwd: str) -> None:
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        request.attributes |= {
            "USERNAME": f"{ufrag}:{UFRAG}", "PRIORITY": 1853693695, "ICE-CONTROLLING": 1, "USE-CANDIDATE": None,
        }  # fmt: skip
        request.add_message_integrity(pwd.encode())
        self.send(bytes(request))

    async def _recv(self) -> bytes:
        return await self._inbox.get()

    async def _send(self, data: bytes) -> None:
        self.send(data)


class TcpWire(Wire):
    """The client's connection, for a peer whose network blocks UDP (RFC 6544, RFC 4571)."""

    KIND = "tcp"

    def __init__(self) -> None:
        super().__init__()
        asyncio.get_running_loop().remove_reader(self.fd)
        self.socket.close()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        reader, self._writer = await asyncio.open_connection(*self.server)
        self._reading = asyncio.ensure_future(self._read(reader))

    def send(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(len(data).to_bytes(2) + data)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            size = int.from_bytes(await reader.readexactly(2))
            data = await reader.readexactly(size)
            if not 128 <= data[0] < 192:
                self._other(data, self.server)
            elif not 192 <= data[1] <= 223:
                self._media(memoryview(data), 0, size, time.time())


class Peer:
    def __init__(self, room: str, name: str, publishes: bool, tcp: bool) -> None:
        self.room, self.name, self.publishes = room, name, publishes
        self.wire, self.signalling = TcpWire() if tcp else Wire(), Signalling()
        self.ssrc = secrets.randbelow(1 << 32) or 1
        self.began_s = time.time()
        self.sent = 0
        self._seq, self._ts = secrets.randbelow(0x7000), 0
        self._tx: Any = None
        self._tasks: list[asyncio.Task[Any]] = []

    async def join(self, url: str) -> None:
        await self.signalling.open(url, self.room, self.name)
        self._tasks.append(asyncio.ensure_future(self.signalling.run(self._event)))

    async def _event(self, event: str, data: Any) -> None:
        if event == "offer":
            self._answer(json.loads(data)["sdp"])
        elif event == "candidate":
            self._candidate(json.loads(data).get("candidate") or "")

    def _candidate(self, line: str) -> None:
        line_of = rf"candidate:\S+ 1 {self.wire.KIND} \d+ (127\.\S+|\d+\.\d+\.\d+\.\d+) (\d+) typ host"
        found = re.search(line_of, line, re.IGNORECASE)
        if found and self.wire.server is None:
            self.wire.server = found[1], int(found[2])

    def _answer(self, sdp: str) -> None:
        lines, published = ["v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0"], False
        parsed = SessionDescription.parse(sdp).media
        for media in parsed:
            direction = "inactive"
            if (
                media.direction in ("recvonly", "sendrecv")
                and media.kind == "video"
                and self.publishes
                and not published
            ):
                direction, published = "sendonly", True
            elif media.direction in ("sendonly", "sendrecv"):
                direction = "recvonly"
            lines += [
                f"m={media.kind} 9 UDP/TLS/RTP/SAVPF {' '.join(map(str, media.fmt))}", "c=IN IP4 0.0.0.0",
                f"a=ice-ufrag:{UFRAG}", f"a=ice-pwd:{PWD}", f"a=fingerprint:sha-256 {FINGERPRINT}", "a=setup:active",
                f"a=mid:{media.rtp.muxId}", f"a={direction}", "a=rtcp-mux",
                *(f"a=rtpmap:{c.payloadType} {c.name}/{c.clockRate}" for c in media.rtp.codecs if media.kind ==
                "video"),
            ]  # fmt: skip
            if direction == "sendonly":
                lines += [f"a=msid:{self.name} camera", f"a=ssrc:{self.ssrc} cname:{self.name}"]
        bundle = "a=group:BUNDLE " + " ".join(media.rtp.muxId for media in parsed)
        lines.insert(4, bundle)
        self.signalling.send("answer", {"type": "answer", "sdp": "\r\n".join(lines) + "\r\n"})
        if not any(task.get_name() == "connect" for task in self._tasks):
            self._tasks.append(asyncio.create_task(self._connect(sdp), name="connect"))

    async def _connect(self, sdp: str) -> None:
        ufrag, pwd = (re.search(rf"a=ice-{name}:(\S+)", sdp) for name in ("ufrag", "pwd"))
        assert ufrag is not None
        assert pwd is not None
        for line in sdp.splitlines():
            self._candidate(line)
        await self.wire.open()
        await self.wire.check(ufrag[1], pwd[1])
        dtls = RTCDtlsTransport(self.wire, [CERTIFICATE])  # type: ignore[arg-type]
        dtls._srtp_profiles = PROFILES
        dtls._set_role("client")
        prints = SessionDescription.parse(sdp).media[0].dtls.fingerprints
        await dtls.start(RTCDtlsParameters([RTCDtlsFingerprint(f.algorithm, f.value) for f in prints]))
        assert dtls.state == "connected", dtls.state
        self._tx, self.wire.rx = dtls._tx_srtp, dtls._rx_srtp
        while True:
            await asyncio.sleep(5)
            self.wire.consent(ufrag[1], pwd[1])

    async def publish(self, rate: dict[str, float]) -> None:
        """Frames: each the packets of 1/FPS s as one burst, about equal in size as browsers split them."""
        owed, due = 0.0, time.monotonic() + secrets.randbelow(33) / 1e3
        rest = secrets.token_bytes(PAYLOAD)
        while True:
            due += 1 / FPS
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            owed += rate["pps"] / FPS
            n, owed = int(owed), owed % 1
            if self._tx is None:
                continue
            self._ts = (self._ts + 3000) & 0xFFFFFFFF
            for i in range(n):
                head = struct.pack("!BBHII", 0x80, 96 | (i == n - 1) << 7, self._seq, self._ts, self.ssrc)
                payload = bytes([0x10 if i == 0 else 0, 1]) + bytes(10) + struct.pack("!d", time.time())
                data = head + payload + rest[: PAYLOAD - len(payload) - (i < n // 2)]
                self.wire.send(self._tx.protect(data))
                self._seq = (self._seq + 1) & 0xFFFF
                self.sent += 1

    def start(self, rate: dict[str, float]) -> None:
        self._tasks.append(asyncio.ensure_future(self.publish(rate)))

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self.signalling.close()


def cpu_s(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        with open(f"/proc/{pid}/schedstat") as file:
            total += int(file.read().split()[0]) / 1e9
    return total


async def measure(a: argparse.Namespace) -> dict[str, Any]:
    peers: list[Peer] = []
    rate = {"pps": 20.0}  # a trickle while joining: some servers announce a track with its first packet
    for room in range(a.rooms):
        for i in range(a.peers):
            peer = Peer(f"bench-{a.label}-{room}", f"u{i}", i < a.pubs, a.tcp and i >= a.pubs)
            peers.append(peer)
            await peer.join(a.url)
            if peer.publishes:
                peer.start(rate)
            await asyncio.sleep(a.pause)
    until = time.time() + a.setup
    while time.time() < until and not all(len(p.wire.streams) >= a.pubs - p.publishes for p in peers):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    missing = sum(max(0, a.pubs - p.publishes - len(p.wire.streams)) for p in peers)
    firsts = [min(p.wire.streams.values()) - p.began_s for p in peers if p.wire.streams]
    joined_s = max((max(p.wire.streams.values()) for p in peers if p.wire.streams), default=0.0) - peers[0].began_s
    rate["pps"] = 0
    await asyncio.sleep(0.5)
    for peer in peers:
        peer.wire.delays.clear()
    sent, received = sum(p.sent for p in peers), sum(p.wire.packets for p in peers)
    cpu, wall = cpu_s(a.pid), time.monotonic()
    rate["pps"] = a.pps
    await asyncio.sleep(a.seconds)
    rate["pps"] = 0
    wall = time.monotonic() - wall
    await asyncio.sleep(0.5)
    cpu = cpu_s(a.pid) - cpu
    expected = (sum(p.sent for p in peers) - sent) * (a.peers - 1)
    received = sum(p.wire.packets for p in peers) - received
    delays = sorted(delay * 1e3 for p in peers for delay in p.wire.delays)
    for peer in peers:
        peer.close()
    return {
        "rooms": a.rooms, "peers": a.peers, "publishers": a.pubs, "pps": a.pps, "missing_tracks": missing,
        "first_packet_ms": round(1e3 * sorted(firsts)[len(firsts) // 2], 1) if firsts else None,
        "all_joined_s": round(joined_s, 2), "forwards_per_s": round(received / wall),
        "loss_percent": round(100 * (1 - received / expected), 3) if expected else None,
        "cpu_us_per_forward": round(cpu * 1e6 / received, 2) if received and a.pid else None,
        "delay_ms_p50": round(delays[len(delays) // 2], 2) if delays else None,
        "delay_ms_p99": round(delays[len(delays) * 99 // 100], 2) if delays else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--label", default=base64.b32encode(os.urandom(5)).decode())
    for name, default in (("rooms", 1), ("peers", 4), ("pubs", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, seconds in (("pps", 300.0), ("seconds", 3.0), ("pause", 0.05), ("setup", 20.0)):
        parser.add_argument(f"--{name}", type=float, default=seconds)
    parser.add_argument("--pid", type=int, action="append", default=[])
    parser.add_argument("--tcp", action="store_true", help="those who do not publish get their media over TCP")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(measure(parser.parse_args()))), flush=True)


if __name__ == "__main__":
    main()
