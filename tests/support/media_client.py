"""Both ends of the media plane for its tests: a worker, in this process or its own, and clients on real sockets.

`Client` is a WebRTC endpoint whose every packet a test chooses: real ICE checks, aiortc's DTLS, answers and RTP made by
hand. `FullClient` is aiortc's RTCPeerConnection with real codecs. `Relay` stands between a client and the worker as a
NAT does.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import aioice.ice
from aioice import stun
from aiortc import RTCBundlePolicy, RTCCertificate, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport
from aiortc.rtp import RtpPacket
from aiortc.sdp import SessionDescription

from sfu import bridge
from sfu.media.rtp import headers, rtcp
from sfu.media.worker import Worker
from support.waiting import until

DEADLINE_S = 10.0
CLIENT_UFRAG, CLIENT_PWD = "client", "clientclientclientclient"
"""Of every Client."""
FIRST = 65_500
"""The number of a source's first packet, from which SRTP goes on to those about a wrap and to small ones."""
_ssrcs = itertools.count(0x10000001, 0x101)

T = TypeVar("T")


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        return True
    return False


LOOPBACKS = ["127.0.0.1", "::1"] if _has_ipv6() else ["127.0.0.1"]


RUN_S = 40.0
"""A test on a loop that takes longer has come to a stop."""


def run(test: Callable[[], Any]) -> None:
    """A test on a loop of its own, as media workers have one."""
    asyncio.run(asyncio.wait_for(test(), RUN_S))


def configure(**changes: Any) -> bridge.Configure:
    settings: dict[str, Any] = {
        "port": 0, "hosts": ("127.0.0.1",), "advertise": (), "max_tracks": 8, "last_n": 0, "answer_s": 10, "ice_s": 10,
        "dtls_s": 10, "limits": True,
    }  # fmt: skip
    return bridge.Configure(**(settings | changes))


class Control:
    """The control plane's end of a bridge: sends commands, keeps each peer's events until a test asks for them."""

    def __init__(self) -> None:
        self.stats: dict[str, float] = {}
        self.seen: list[bridge.Event] = []
        self._waiting: dict[str, list[bridge.Event]] = {}
        self._news: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def send(self, command: bridge.Command) -> None:
        raise NotImplementedError

    def deliver(self, event: bridge.Event) -> None:
        if isinstance(event, bridge.Stats):
            self.stats = event.counters | event.gauges
        else:
            self.seen.append(event)
            self._waiting.setdefault(getattr(event, "peer", ""), []).append(event)
        self._news.set_result(None)
        self._news = asyncio.get_running_loop().create_future()

    async def event(self, cls: type[T], peer: str = "", deadline_s: float = DEADLINE_S) -> T:
        """The peer's earliest event of this type that was not taken yet."""
        waiting = self._waiting.setdefault(peer, [])
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    for found in waiting:
                        if isinstance(found, cls):
                            waiting.remove(found)
                            return found
                    await asyncio.shield(self._news)
        except TimeoutError:
            raise AssertionError(f"no {cls.__name__} of {peer!r} within {deadline_s} s, but {waiting}") from None

    async def counted(self, holds: Callable[[dict[str, float]], object]) -> dict[str, float]:
        """The first report, the last one included, of which this holds."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not self.stats or not holds(self.stats):
                    await asyncio.shield(self._news)
        except TimeoutError:
            raise AssertionError(f"last report: {self.stats}") from None
        return self.stats

    def pending(self, cls: type[T], peer: str = "") -> list[T]:
        return [e for e in self._waiting.get(peer, []) if isinstance(e, cls)]


class LocalControl(Control):
    """Of a Worker in this process and loop, whose insides a test may look at."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.worker = worker

    async def send(self, command: bridge.Command) -> None:
        self.worker.handle(command)

    async def pump(self) -> None:
        while True:
            self.deliver(await self.worker.outbox.get())


def received(offer: bridge.Offer) -> set[tuple[str, str]]:
    """By peer and source, what an offer's sections bring."""
    return {(peer, source) for peer, source in offer.receive.values()}


async def failed(control: LocalControl, peer: str, code: str) -> None:
    """Waits until a peer has ended for this reason."""
    event = await control.event(bridge.Failed, peer)
    assert event.code == code
    assert event.message
    assert peer not in control.worker.peers


class ProcessControl(Control):
    """Of a worker process."""

    def __init__(self, process: subprocess.Popen[bytes], channel: bridge.Channel) -> None:
        super().__init__()
        self.process, self.channel = process, channel

    async def send(self, command: bridge.Command) -> None:
        await self.channel.send(command)

    async def pump(self) -> None:
        async for event in self.channel.receive():
            self.deliver(event)


@contextlib.asynccontextmanager
async def beside(*work: Any) -> AsyncIterator[None]:
    """Runs coroutines beside a test; one that ends with an error ends the test."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


@contextlib.asynccontextmanager
async def local_worker(**changes: Any) -> AsyncIterator[LocalControl]:
    """A worker on this loop: what `serve` runs, without the process."""
    worker = Worker(configure(**changes))
    worker.listening.open()
    control = LocalControl(worker)
    try:
        async with beside(control.pump(), worker.tick(), worker.measure()):
            yield control
    finally:
        worker.close()


@contextlib.asynccontextmanager
async def worker_process(**changes: Any) -> AsyncIterator[ProcessControl]:
    """A real worker process, ready or not: its first event is Ready or Fatal."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "sfu.media.worker", str(theirs.fileno())]
    files = [theirs.fileno(), *changes.get("handovers", [])]
    process = subprocess.Popen(command, pass_fds=files, stderr=subprocess.PIPE)  # noqa: ASYNC220
    theirs.close()
    channel = await bridge.Channel.open(ours, bridge.EVENTS)
    control = ProcessControl(process, channel)
    try:
        async with beside(control.pump()):
            await control.send(configure(**changes))
            yield control
    finally:
        await channel.aclose()
        if process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, DEADLINE_S)
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


# --- packets ----------------------------------------------------------------------------------------------------------


def rtp_packet(
    seq16: int,
    ssrc: int = 0,
    payload: bytes = b"payload",
    *,
    pt: int = 96,
    timestamp: int = 0,
    twcc: int | None = None,
    level: int | None = None,
) -> bytes:
    """An RTP packet; `twcc` adds the transport-wide sequence number as header extension 5, `level` the audio level in
    -dBov as 1."""
    head = struct.pack("!BBHII", 0x80, pt, seq16 & 0xFFFF, timestamp, ssrc)
    block = b"" if twcc is None else struct.pack("!BH", 5 << 4 | 1, twcc & 0xFFFF)
    block += b"" if level is None else struct.pack("!BB", 1 << 4, level)
    if block:
        block += bytes(-len(block) % 4)
        head = bytes([0x90]) + head[1:] + struct.pack("!HH", headers.ONE_BYTE_PROFILE, len(block) // 4) + block
    return head + payload


def check(ufrag: str, pwd: str, *, nominate: bool = True) -> stun.Message:
    """A connectivity check as a browser writes it."""
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    request.attributes["USERNAME"] = f"{ufrag}:client"
    request.attributes["PRIORITY"] = 1853693695
    request.attributes["ICE-CONTROLLING"] = 1
    if nominate:
        request.attributes["USE-CANDIDATE"] = None
    request.add_message_integrity(pwd.encode())
    return request


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes, Any], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._received(data, addr)


async def open_udp(received: Callable[[bytes, Any], None], host: str = "127.0.0.1") -> asyncio.DatagramTransport:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Datagrams(received), local_addr=(host, 0)
    )
    return transport


class Ice:
    """The controlling agent of a client: one socket, checks that nominate, and what DTLS needs of an ICE transport.

    `lose` picks datagrams that never arrive; `lost` keeps them.
    """

    role = "controlling"

    def __init__(self, server: tuple[str, int], ufrag: str, pwd: str) -> None:
        self.server, self.ufrag, self.pwd = server, ufrag, pwd
        self._answers: dict[bytes, asyncio.Future[stun.Message]] = {}
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._udp: asyncio.DatagramTransport | None = None
        self.lose: Callable[[bytes], bool] = lambda data: False
        self.lost: list[bytes] = []
        self.answers = True  # checks of the worker's, as whoever really is at this address does

    async def rebind(self) -> None:
        """Another port, as when a NAT forgets the old one."""
        self.close()
        self._udp = await open_udp(self._received, self.server[0])

    @property
    def address(self) -> Any:
        assert self._udp is not None
        return self._udp.get_extra_info("sockname")

    async def check(self, *, nominate: bool = True) -> stun.Message:
        """The worker's response; sent again every 200 ms until it comes."""
        request = check(self.ufrag, self.pwd, nominate=nominate)
        answer = self._answers[request.transaction_id] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(DEADLINE_S):
            while not answer.done():
                self.send(bytes(request))
                await asyncio.wait([answer], timeout=0.2)
        return answer.result()

    def send(self, data: bytes) -> None:
        if self._udp is not None:
            self._udp.sendto(data, self.server)

    def _received(self, data: bytes, addr: Any) -> None:
        if data[0] < 4:
            message = stun.parse_message(data)
            if message.message_class == stun.Class.REQUEST:
                self._checked(message)
                return
            assert message.check_message_integrity(self.pwd.encode())
            waiting = self._answers.pop(message.transaction_id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        elif self.lose(data):
            self.lost.append(data)
        else:
            self._inbox.put_nowait(data)

    def _checked(self, request: stun.Message) -> None:
        assert request.attributes["USERNAME"] == f"{CLIENT_UFRAG}:{self.ufrag}"
        assert request.check_message_integrity(CLIENT_PWD.encode())
        if self.answers:
            response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
            response.add_message_integrity(CLIENT_PWD.encode())
            self.send(bytes(response))

    async def _recv(self) -> bytes:
        return await self._inbox.get()

    async def _send(self, data: bytes) -> None:
        self.send(data)

    def close(self) -> None:
        if self._udp is not None:
            self._udp.close()
            self._udp = None


class Dtls(RTCDtlsTransport):
    """aiortc's DTLS, with what arrives kept as it is."""

    def __init__(self, ice: Any, certificate: RTCCertificate) -> None:
        super().__init__(ice, [certificate])
        self.rtp: asyncio.Queue[bytes] = asyncio.Queue()
        self.rtcp: asyncio.Queue[rtcp.Rtcp] = asyncio.Queue()

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        self.rtp.put_nowait(data)

    async def _handle_rtcp_data(self, data: bytes) -> None:
        for packet in rtcp.rtcp_packets(data):
            self.rtcp.put_nowait(packet)


# --- clients ----------------------------------------------------------------------------------------------------------


class Client:
    """A peer whose answers are made by hand: it publishes the sources in `publishes` and `takes` all tracks or none."""

    def __init__(self, control: Control, peer: str, publishes: tuple[str, ...] = ("microphone", "camera")) -> None:
        self.control, self.id = control, peer
        self.publishes = set(publishes)
        self.takes = True
        self.setup = "active"
        self.names_ssrcs = True
        self.repairs = False  # whether its camera has a stream of retransmissions, one SSRC on
        self.layers: tuple[str, ...] = ()  # the rids that its camera sends, if it is a simulcast
        self.takes_repairs = False  # whether it takes retransmissions
        self.redundant = False  # whether it sends and takes RED
        self.shows = "96 98 45 102"  # payload types of video it can receive
        self.opus = ""  # fmtp of what it sends as microphone
        self.ssrcs: dict[str, int] = {}  # by source
        self.begun: dict[str, int] = {}  # by source the SSRC of which a packet was sent
        self.first = FIRST  # and its number
        self.offer: bridge.Offer | None = None  # the last one
        self.certificate = RTCCertificate.generateCertificate()
        self.ice: Ice | None = None
        self.dtls: Dtls | None = None
        self._following: asyncio.Task[None] | None = None

    async def join(self, room: str = "room", *, publish: bool = True, subscribe: bool = True) -> Client:
        await self.control.send(bridge.Join(self.id, room, True, publish, subscribe))
        return self

    async def start(self, room: str = "room", *, publish: bool = True, subscribe: bool = True) -> Client:
        """Joins, connects, and answers every later offer by itself."""
        await self.join(room, publish=publish, subscribe=subscribe)
        await self.negotiate()
        await self.connect()
        await self.begin()
        self._following = asyncio.ensure_future(self._follow())
        return self

    async def _follow(self) -> None:
        while True:
            await self.negotiate(deadline_s=3600)
            await self.begin()

    async def begin(self) -> None:
        """Shows the worker that it sends what its last answer named, so that the others are offered that. The packets
        have the other kind's payload type: they are not forwarded, and a test's own are the first."""
        assert self.offer is not None
        for source in self.publishes.intersection(self.offer.send.values(), self.ssrcs):
            ssrc = self.ssrcs[source]
            if self.names_ssrcs and self.begun.get(source) != ssrc:
                self.begun[source] = ssrc
                await self.send(rtp_packet(self.first, ssrc, pt=96 if source == "microphone" else 111))

    async def next_offer(self, deadline_s: float = DEADLINE_S) -> bridge.Offer:
        self.offer = await self.control.event(bridge.Offer, self.id, deadline_s)
        return self.offer

    async def negotiate(self, deadline_s: float = DEADLINE_S) -> bridge.Offer:
        """Takes the next offer and answers it."""
        offer = await self.next_offer(deadline_s)
        await self.control.send(bridge.Answer(self.id, self.answer(offer)))
        return offer

    def fingerprint(self) -> str:
        return next(f.value for f in self.certificate.getFingerprints() if f.algorithm == "sha-256")

    def answer(self, offer: bridge.Offer, fingerprint: str = "") -> str:
        """The text of an answer, much as Chromium writes it."""
        lines = ["v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0"]
        for media in SessionDescription.parse(offer.sdp).media:
            mid = media.rtp.muxId
            source = offer.send.get(mid)
            direction = "inactive"
            if media.direction == "recvonly" and source in self.publishes:
                direction = "sendonly"
            elif media.direction == "sendonly" and self.takes:
                direction = "recvonly"
            types = " ".join(str(pt) for pt in media.fmt if pt != 63 or self.redundant)
            if media.kind == "video" and media.direction == "sendonly":
                types = self.shows + " 97" * self.takes_repairs
            lines += [
                f"m={media.kind} 9 UDP/TLS/RTP/SAVPF {types}",
                "c=IN IP4 0.0.0.0", f"a=ice-ufrag:{CLIENT_UFRAG}", f"a=ice-pwd:{CLIENT_PWD}",
                f"a=fingerprint:sha-256 {fingerprint or self.fingerprint()}",
                f"a=setup:{self.setup}", f"a=mid:{mid}", f"a={direction}", "a=rtcp-mux",
            ]  # fmt: skip
            if direction == "sendonly" and source == "camera" and self.layers:
                lines += [f"a=rid:{rid} send" for rid in self.layers]
                lines.append("a=simulcast:send " + ";".join(self.layers))
            elif direction == "sendonly" and source is not None and self.names_ssrcs:
                lines += [f"a=fmtp:111 {self.opus}"] * (source == "microphone" and bool(self.opus))
                lines.append(f"a=ssrc:{self.ssrcs.setdefault(source, next(_ssrcs))} cname:{self.id}")
                if source == "camera" and self.repairs:
                    lines.append(f"a=ssrc:{self.ssrcs[source] + 1} cname:{self.id}")
        return "\r\n".join(lines) + "\r\n"

    def server(self) -> tuple[tuple[str, int], str, str]:
        """The address, ufrag and password in the last offer."""
        assert self.offer is not None
        found = re.search(r"a=candidate:1 1 udp [0-9]+ (\S+) ([0-9]+) typ host", self.offer.sdp)
        ufrag = re.search(r"a=ice-ufrag:(\S+)", self.offer.sdp)
        pwd = re.search(r"a=ice-pwd:(\S+)", self.offer.sdp)
        assert found is not None
        assert ufrag is not None
        assert pwd is not None
        return (found[1], int(found[2])), ufrag[1], pwd[1]

    async def check(self, *, nominate: bool = True) -> Ice:
        """ICE with the addresses of the last offer."""
        self.ice = Ice(*self.server())
        await self.ice.rebind()
        await self.ice.check(nominate=nominate)
        return self.ice

    async def move(self) -> None:
        """To another address, nominated there, until the worker has taken it."""
        assert isinstance(self.control, LocalControl)
        assert self.ice is not None
        agent = self.control.worker.peers[self.id].agent
        await self.ice.rebind()
        await self.ice.check()
        await until(lambda: agent.selected and agent.selected.address == self.ice.address, "moved")  # type: ignore[union-attr]

    async def handshake(self) -> Dtls:
        """DTLS, whatever comes of it."""
        assert self.offer is not None
        self.dtls = Dtls(self.ice, self.certificate)
        self.dtls._set_role("client" if self.setup == "active" else "server")
        parsed = SessionDescription.parse(self.offer.sdp).media[0].dtls
        fingerprints = [RTCDtlsFingerprint(f.algorithm, f.value) for f in parsed.fingerprints]
        async with asyncio.timeout(DEADLINE_S):
            await self.dtls.start(RTCDtlsParameters(fingerprints))
        return self.dtls

    async def connect(self) -> bridge.Connected:
        await self.check()
        dtls = await self.handshake()
        assert dtls.state == "connected"
        return await self.control.event(bridge.Connected, self.id)

    async def send(self, data: bytes) -> None:
        """Encrypts and sends one RTP or RTCP packet."""
        assert self.dtls is not None
        await self.dtls._send_rtp(data)

    async def send_rtp(self, source: str, seq16: int, payload: bytes = b"payload", **fields: Any) -> None:
        fields = {"pt": 111 if source == "microphone" else 96} | fields
        await self.send(rtp_packet(seq16, self.ssrcs[source], payload, **fields))

    async def talk(self, level: int = 30) -> None:
        """Sends a microphone of this level, in -dBov, until it is cancelled."""
        for step in itertools.count():
            await self.send_rtp("microphone", step, b"voice", timestamp=960 * step, twcc=step, level=level)
            await asyncio.sleep(0.02)

    async def rtp(self) -> RtpPacket:
        """The next media packet that arrives."""
        return RtpPacket.parse(await self.raw_rtp())

    async def raw_rtp(self) -> bytes:
        assert self.dtls is not None
        return await asyncio.wait_for(self.dtls.rtp.get(), DEADLINE_S)

    async def rtcp(self, kind: int, form: int | None = None) -> rtcp.Rtcp:
        """The next RTCP packet of this type and format; those before it are passed over."""
        assert self.dtls is not None
        async with asyncio.timeout(DEADLINE_S):
            while True:
                packet = await self.dtls.rtcp.get()
                if packet.type == kind and form in (None, packet.format):
                    return packet

    async def takes_from(self, *publishers: str) -> Client:
        """Waits until the last answered offer brings exactly the tracks of these peers."""
        await until(lambda: self.sources() == set(publishers), f"{self.id} has {self.sources()}, wants {publishers}")
        return self

    def sources(self) -> set[str]:
        return {peer for peer, _ in self.offer.receive.values()} if self.offer is not None else set()

    def ssrc_of(self, publisher: str, source: str) -> int:
        """The SSRC under which a track arrives here, from the last offer."""
        assert self.offer is not None
        mid = next(mid for mid, track in self.offer.receive.items() if list(track) == [publisher, source])
        return int(SessionDescription.parse(self.offer.sdp).media[int(mid)].ssrc[0].ssrc)

    async def leave(self) -> None:
        await self.control.send(bridge.Leave(self.id))
        await self.aclose()

    async def aclose(self) -> None:
        """Goes without a word to anybody."""
        for task in (self._following, self.dtls and self.dtls._task):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self.ice is not None:
            self.ice.close()


@contextlib.asynccontextmanager
async def clients(control: Control, *names: str, room: str = "room", first: int = FIRST) -> AsyncIterator[list[Client]]:
    """Connected clients that all have each other's tracks. What a test sends follows the number `first`, by less than
    half of all numbers."""
    made = [Client(control, name) for name in names]
    try:
        for client in made:
            client.first = first & 0xFFFF
            await client.start(room)
        for client in made:
            await client.takes_from(*(set(names) - {client.id}))
        if len(made) > 1:
            await settled(control, made)
        yield made
    finally:
        for client in made:
            await client.aclose()


async def settled(control: Control, made: list[Client]) -> None:
    """Waits until media flows from each to each, so that a test's packets are not the first."""
    if isinstance(control, LocalControl):
        peers = control.worker.peers
        wanted = len(made) - 1
        await until(
            lambda: all(len(t.down_tracks) == wanted for c in made for t in peers[c.id].published.values()),
            "all legs attached",
        )


class FullClient:
    """aiortc's RTCPeerConnection, answering every offer. `frames` holds what it decoded, by track id.

    Two things aiortc cannot do: begin with video, and take an offer while it still connects. So start one after the
    other, each with audio first.
    """

    def __init__(self, control: Control, peer: str, tracks: list[MediaStreamTrack], relay: Relay | None = None) -> None:
        self.control, self.id, self.tracks, self.relay = control, peer, tracks, relay
        # with its default policy aiortc leaves the second section of a kind on a transport that it has stopped
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self.frames: dict[str, list[Any]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.pc.on("track", self._track)

    async def start(self, room: str = "room") -> FullClient:
        await self.control.send(bridge.Join(self.id, room, False, True, True))
        for track in self.tracks:
            self.pc.addTrack(track)
        self._tasks.append(asyncio.ensure_future(self._follow()))
        await until(lambda: self.pc.connectionState == "connected", f"{self.id} connected")
        return self

    async def _follow(self) -> None:
        while True:
            offer = await self.control.event(bridge.Offer, self.id, 3600)
            text = offer.sdp
            if self.relay is not None:
                text = re.sub(r"(a=candidate:1 1 udp [0-9]+ \S+) [0-9]+", rf"\1 {self.relay.port}", text)
            await self.pc.setRemoteDescription(RTCSessionDescription(text, "offer"))
            await self.pc.setLocalDescription(await self.pc.createAnswer())
            await self.control.send(bridge.Answer(self.id, self.pc.localDescription.sdp))

    def _track(self, track: MediaStreamTrack) -> None:
        self._tasks.append(asyncio.ensure_future(self._read(track)))

    async def _read(self, track: MediaStreamTrack) -> None:
        kept = self.frames.setdefault(track.id, [])
        with contextlib.suppress(MediaStreamError):
            while True:
                try:
                    kept.append(await asyncio.wait_for(track.recv(), 1))
                except TimeoutError:
                    await self._ask_for_keyframe(track)

    async def _ask_for_keyframe(self, track: MediaStreamTrack) -> None:
        """As browsers do when they cannot decode; aiortc waits for ever if the first one came before it listened."""
        receiver = next(r for r in self.pc.getReceivers() if r.track is track)
        for media in SessionDescription.parse(self.pc.remoteDescription.sdp).media:
            if media.msid and media.msid.endswith(track.id):
                await receiver._send_rtcp_pli(media.ssrc[0].ssrc)

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.pc.close()
        if self._tasks:
            await asyncio.wait(self._tasks)


@contextlib.contextmanager
def loopback_candidates() -> Any:
    """aioice leaves 127.0.0.1 out when it gathers, so without this a machine with no network has no candidate."""
    before = aioice.ice.get_host_addresses
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    try:
        yield
    finally:
        aioice.ice.get_host_addresses = before


class Relay:
    """Between one client and the worker. `lose` picks what gets lost of the worker's; `rebind` is a new NAT port."""

    def __init__(self, server_port: int) -> None:
        self._server = ("127.0.0.1", server_port)
        self._client: Any = None
        self._front: asyncio.DatagramTransport | None = None
        self._back: asyncio.DatagramTransport | None = None
        self.lose: Callable[[bytes], bool] = lambda data: False

    async def open(self) -> Relay:
        self._front = await open_udp(self._from_client)
        await self.rebind()
        return self

    @property
    def port(self) -> int:
        assert self._front is not None
        return int(self._front.get_extra_info("sockname")[1])

    async def rebind(self) -> None:
        before, self._back = self._back, await open_udp(self._from_server)
        if before is not None:
            before.close()

    def _from_client(self, data: bytes, addr: Any) -> None:
        self._client = addr
        if self._back is not None:
            self._back.sendto(data, self._server)

    def _from_server(self, data: bytes, addr: Any) -> None:
        if self._front is not None and not self.lose(data):
            self._front.sendto(data, self._client)

    def close(self) -> None:
        for transport in (self._front, self._back):
            if transport is not None:
                transport.close()


async def passes(sender: Client, receiver: Client, seq16: int, payload: bytes = b"media") -> None:
    """A packet gets through; sent again while the worker is busy with a flood, as its socket may overflow."""
    for attempt in range(40):
        await sender.send_rtp("camera", seq16 + attempt, payload)
        try:
            async with asyncio.timeout(0.25):
                while not (await receiver.raw_rtp()).endswith(payload):
                    pass
        except TimeoutError:
            continue
        return
    raise AssertionError("no media gets through")
