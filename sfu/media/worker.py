"""A media worker: one process, one asyncio loop. Started as `python -m sfu.media.worker FD`, with the bridge on FD.

It ends when the bridge does, so a control plane that was killed leaves no worker behind. It holds no state that
outlives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import anyio

from sfu import bridge, logs
from sfu.errors import SfuError
from sfu.media.bandwidth.lastn import Video
from sfu.media.listening import Listening
from sfu.media.peer.peer import Peer
from sfu.media.peer.quality import QUALITY_S, uploads
from sfu.media.peer.room import Room
from sfu.media.peer.shared import Shared
from sfu.media.peer.speakers import LISTEN_S
from sfu.media.peer.subscriber import Tile
from sfu.media.priority import hurry
from sfu.media.rtp.twcc import FEEDBACK_MS
from sfu.media.streams.fanout import SendBuffers
from sfu.media.streams.ingress import Ingress
from sfu.media.transport import libc
from sfu.media.transport.demux import UdpPort
from sfu.media.transport.dtls import Certificate
from sfu.media.transport.handover import Handover, Handovers
from sfu.media.transport.tcp import TcpPort

log = logging.getLogger("sfu.media")

EVENT_QUEUE = 10_000
"""Events waiting for a control plane that does not read; past that the worker gives up and is started again."""
STATS_S = 1.0
MAXIMA = ("loop_lag_us_max", "gc_pause_us_max")
"""Kept among the counters, but reset with each report."""
LAG_S = 0.5
"""How often the loop's lag is measured while no feedback is due: an idle worker should sleep."""
SLEPT_S = 1.0
"""A loop later than this did not run: its process was stopped, alone or with the machine."""
ALLOCATE_S = 0.2
"""How often each peer's downlink is allocated, and the wanted layers are determined."""
TURN_S = 1e-3
"""How long measuring may take before packets have their turn."""
LOAD_WEIGHT = 0.3
"""Weight of the last second in the load that decides on admission, which covers about the last five seconds."""
FULL_COLLECTION_S, FULL_COLLECTION_PEERS = 30.0, 25
"""A full garbage collection runs this long after the last one if peers have left, or as soon as FULL_COLLECTION_PEERS
have: what they held is megabytes."""


class Usage(NamedTuple):
    """Clocks and counters at one moment."""

    wall_s: float
    cpu_s: float
    packets_in: int
    packets_out: int

    @classmethod
    def now(cls, counters: dict[str, int]) -> Usage:
        return cls(time.monotonic(), time.process_time(), counters["packets_in"], counters["packets_out"])


class Worker:
    """The peers and rooms of this process. Commands are handled one at a time, without awaiting."""

    def __init__(self, configure: bridge.Configure) -> None:
        self.peers: dict[str, Peer] = {}
        self.rooms: dict[str, Room[Peer]] = {}
        self.counters: dict[str, int] = defaultdict(int)  # no Counter, whose item assignment is slower
        ways = [Handover(socket.socket(fileno=fd), self.counters) for fd in configure.handovers]
        send_buffers = SendBuffers(self.counters)
        forward = Ingress(self.counters, send_buffers.history).forward
        self.udp = UdpPort(self.counters, forward, Handovers(configure.index, ways), joins=configure.joins)
        passed = socket.socket(fileno=configure.connections) if configure.connections >= 0 else None
        self.tcp = TcpPort(self.udp, self.counters, forward, passed) if passed is not None else None
        self.outbox: asyncio.Queue[bridge.Event] = asyncio.Queue(EVENT_QUEUE)
        self.shared = Shared(
            configure, self.udp, Certificate.generateCertificate(), self.emit, self.counters,
            send_buffers, bridge.Listen(configure.hosts, configure.advertise), candidates=[],
        )  # fmt: skip
        self.listening = Listening(self.shared, self.peers)
        self._measuring = asyncio.Event()
        self._last, self._load = Usage.now(self.counters), 0.0
        self._started_s = self._last.wall_s
        self._left, self._collected_s = 0, time.perf_counter()

    def emit(self, event: bridge.Event) -> None:
        """Queues an event for the control plane. A failed peer is forgotten here, as its Leave may take a while."""
        if isinstance(event, bridge.Failed):
            self._forget(event.peer)
        self.outbox.put_nowait(event)

    def handle(self, command: bridge.Command) -> None:
        """Carries out one command. A client's mistake becomes a Refused event; an internal error ends the peer."""
        if isinstance(command, bridge.Configure):
            raise TypeError("configured twice")
        if isinstance(command, bridge.LogLevel):
            logging.getLogger().setLevel(command.level.upper())
            log.debug("log_level level=%s", command.level)
            return
        if isinstance(command, bridge.Listen):
            self.listening.change(command)
            return
        if isinstance(command, bridge.AskMapping):
            self.listening.ask(command)
            return
        if isinstance(command, bridge.Join):
            room = self.rooms.setdefault(command.room, Room(command.room, self.shared.config.last_n))
            self.peers[command.peer] = Peer(command, room, self.shared)
            self.peers[command.peer].enter()
            return
        if (peer := self.peers.get(command.peer)) is not None:  # else it failed while the command was on its way
            self._try(command, peer)
        if isinstance(command, bridge.Leave):
            self.emit(bridge.Gone(command.peer))

    def _try(self, command: bridge.PeerCommand, peer: Peer) -> None:
        try:
            self._carry_out(command, peer)
        except SfuError as error:
            self.emit(bridge.Refused(peer.id, error.code, str(error)))
        except Exception as error:  # noqa: BLE001 - it must not harm the rest of the room
            self._end(peer, error)

    def _carry_out(self, command: bridge.PeerCommand, peer: Peer) -> None:
        match command:
            case bridge.Answer():
                peer.negotiation.answer(command.sdp)
            case bridge.Publish():
                peer.negotiation.publish(command.source, command.kind)
            case bridge.Unpublish():
                peer.publisher.tell_sizes(command.source, ())
                peer.negotiation.unpublish(command.source)
            case bridge.Mute():
                peer.publisher.mute(command.source, command.muted)
            case bridge.RestartIce():
                peer.negotiation.restart_ice()
            case bridge.Hold():
                peer.hold(command.held)
            case bridge.View():
                tiles = {Video(publisher, source): Tile(*size) for publisher, source, *size in command.videos}
                peer.subscriber.view(tiles, time.monotonic())
            case bridge.Permit():
                peer.permit(command.publish, command.subscribe)
            case bridge.Spotlight():
                peer.room.put_first(peer.id if command.on else None)
            case bridge.Sizes():
                peer.publisher.tell_sizes(command.source, command.layers)
            case bridge.Leave():
                self._forget(peer.id)
                peer.close()

    def _each(self, work: Callable[[Peer], None]) -> None:
        """Calls `work` for every peer; an exception ends that peer and no other."""
        for peer in list(self.peers.values()):
            try:  # not `_guarded`: one more call per peer costs as much as most of the work
                work(peer)
            except Exception as error:  # noqa: BLE001 - as above
                self._end(peer, error)

    def _guarded(self, work: Callable[[Peer], None], peer: Peer) -> None:
        try:
            work(peer)
        except Exception as error:  # noqa: BLE001 - as above
            self._end(peer, error)

    def _end(self, peer: Peer, error: Exception) -> None:
        """Ends a peer after an internal error, which is logged; its client may join again."""
        log.error("peer_failed peer=%s error=%r", peer.id, error, exc_info=error)
        if self.peers.get(peer.id) is peer:
            self.emit(bridge.Failed(peer.id, SfuError.code, str(SfuError())))
        try:
            peer.close()
        except Exception as another:
            log.error("peer_close_failed peer=%s error=%r", peer.id, another, exc_info=another)

    def _forget(self, peer_id: str) -> None:
        peer = self.peers.pop(peer_id, None)
        self._left += 1
        if peer is not None and not (peer.room.peers.keys() - {peer_id}):
            del self.rooms[peer.room.key]

    async def tick(self) -> None:
        """All periodic work, by one timer, as every wake-up costs: feedback to publishers every FEEDBACK_MS, speakers
        every LISTEN_S, the rest when it is due. Also measures how late the loop runs (uvloop's own clock counts only
        milliseconds)."""
        listen_s = allocate_s = measure_s = report_s = 0.0
        while True:
            wanted = any(peer.numbers_packets for peer in self.peers.values())
            heard = any(room.speakers.audible for room in self.rooms.values())
            pause_s = FEEDBACK_MS / 1e3 if wanted else LISTEN_S if heard else LAG_S
            due = time.monotonic() + pause_s
            await asyncio.sleep(pause_s)
            late_s = time.monotonic() - due
            self.counters["loop_lag_us_max"] = max(self.counters["loop_lag_us_max"], int(late_s * 1e6))
            if late_s > SLEPT_S:
                self._each(lambda peer: peer.slept(late_s))  # noqa: B023 - at once
            self._each(Peer.send_feedback)
            if due >= listen_s:
                listen_s = due + LISTEN_S - FEEDBACK_MS / 2e3  # every second tick while feedback is sent
                self._listen(due)
            if due >= allocate_s:
                allocate_s = due + ALLOCATE_S - FEEDBACK_MS / 2e3
                self._allocate(time.monotonic())
            if due >= measure_s:
                measure_s = due + QUALITY_S - FEEDBACK_MS / 2e3
                self._measuring.set()
            if due >= report_s:
                report_s = due + STATS_S - FEEDBACK_MS / 2e3
                self._report()

    def _allocate(self, now_s: float) -> None:
        """For all peers at the same moment, so that each publication's layer options are computed only once."""
        self._each(lambda peer: peer.subscriber.allocate(now_s))
        self._each(lambda peer: peer.publisher.ask_layers(now_s))
        if self.shared.config.limits:
            self._each(lambda peer: peer.publisher.bound(now_s))

    def _listen(self, now_s: float) -> None:
        for room in self.rooms.values():
            if (speaking := room.listen(now_s)) is not None:
                self.emit(bridge.Speakers(room.key, speaking.dominant, tuple(speaking.speaking)))

    def _report(self) -> None:
        """Emits statistics, which also show the control plane that the worker is alive; sends receiver reports, ends
        peers that are silent, and collects garbage."""
        last, now = self._last, Usage.now(self.counters)
        self._each(lambda peer: peer.check_liveness(now.wall_s))
        self._each(lambda peer: peer.publisher.send_reports())
        passed_s = now.wall_s - last.wall_s
        busy = (now.cpu_s - last.cpu_s) / passed_s
        self._last, self._load = now, self._load + (busy - self._load) * LOAD_WEIGHT
        self._collect()
        counters: dict[str, float] = dict(self.counters)
        gauges = {name: counters.pop(name, 0) for name in MAXIMA} | {
            "busy": busy,
            "load": self._load,
            "packets_in_per_s": (now.packets_in - last.packets_in) / passed_s,
            "packets_out_per_s": (now.packets_out - last.packets_out) / passed_s,
            "peers": len(self.peers),
            "peers_over_tcp": sum(peer.agent.transport == "tcp" for peer in self.peers.values()),
            "rooms": len(self.rooms),
            "tracks": sum(one.flows for peer in self.peers.values() for one in peer.published.values()),
            "uptime_seconds": now.wall_s - self._started_s,
        }
        for name in MAXIMA:
            self.counters[name] = 0
        self.emit(bridge.Stats(counters | {"cpu_seconds": now.cpu_s}, gauges))

    async def measure(self) -> None:
        """Updates every peer's quality, in turns with packets: a large room has thousands of down tracks."""
        while True:
            await self._measuring.wait()
            self._measuring.clear()
            turn_s = time.monotonic()
            for _ in self._measure():
                if time.monotonic() - turn_s > TURN_S:
                    await asyncio.sleep(0)
                    turn_s = time.monotonic()

    def _measure(self) -> Iterator[None]:
        """One round of measuring, peer by peer."""
        for room in list(self.rooms.values()):
            for peer in list(room.peers.values()):
                self._guarded(lambda peer: peer.measure(time.monotonic()), peer)
                yield
            worst = uploads({peer.id: peer.quality for peer in room.peers.values()})
            for peer in list(room.peers.values()):
                self._guarded(lambda peer: peer.tell_quality(worst, time.monotonic()), peer)  # noqa: B023 - at once
                yield

    def _collect(self) -> None:
        """Collects garbage now rather than in the middle of a burst. Reference cycles come from peers that ended, not
        from packets. The young generations are collected every second. The old one is collected FULL_COLLECTION_S after
        the last time if peers have left since, or when so many have left that their memory is worth the pause."""
        began_s = time.perf_counter()
        overdue = self._left and began_s - self._collected_s > FULL_COLLECTION_S
        if overdue or self._left >= FULL_COLLECTION_PEERS:
            self._left, self._collected_s = 0, began_s
            gc.collect()
        else:
            gc.collect(1)
        pause_us = int((time.perf_counter() - began_s) * 1e6)
        self.counters["gc_pause_us_max"] = max(self.counters["gc_pause_us_max"], pause_us)

    def close(self) -> None:
        for peer in list(self.peers.values()):
            peer.close()
        if self.tcp is not None:
            self.tcp.close()
        self.udp.close()


async def serve(sock: socket.socket) -> None:
    """Runs until the bridge ends."""
    channel = await bridge.Channel.open(sock, bridge.COMMANDS)
    commands = channel.receive()
    configure = await anext(commands, None)
    if not isinstance(configure, bridge.Configure):
        return
    worker = Worker(configure)
    try:
        worker.listening.open()
    except OSError as error:
        await channel.send(bridge.Fatal(f"Cannot listen: {error}. Free the port or set SFU_PORT to another."))
        return
    gc.collect()
    gc.freeze()
    gc.disable()  # `_report` collects
    log.debug("loop=%s batches=%s", type(asyncio.get_running_loop()).__module__, libc.lib is not None)
    worker.emit(worker.listening.ready)

    async def send_events() -> None:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # the reader sees the end too
            while True:
                event = await worker.outbox.get()
                await channel.send(event, more=not worker.outbox.empty())

    try:
        async with anyio.create_task_group() as tasks:
            for task in (send_events, worker.tick, worker.measure):
                tasks.start_soon(task)
            async for command in commands:
                worker.handle(command)
            tasks.cancel_scope.cancel()
    finally:
        worker.close()
        await channel.aclose()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, if installed: waking up for an isolated packet takes 15 µs with it, and 24 with asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _raise_open_files() -> None:
    """Where workers share a port, each address of a peer needs a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS allows less than it reports
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    level = os.environ.get("SFU_LOG_LEVEL", "").strip().upper() or "INFO"  # the control plane has checked it
    logs.to_stderr(level, os.environ.get("SFU_LOG_FORMAT", "").strip().lower(), f"pid={os.getpid()} ")
    hurry()
    _raise_open_files()
    for signum in (signal.SIGINT, signal.SIGHUP):  # Ctrl-C and a closed terminal reach the whole group
        signal.signal(signum, signal.SIG_IGN)  # the control plane decides
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
