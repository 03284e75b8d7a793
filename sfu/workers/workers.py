"""Starts, supervises and picks the media workers, each a child process behind a bridge.Channel.

If a worker dies, hangs or stops reading, only the rooms on it lose their media: `on_death` reports it, and the worker
is restarted. A worker exits when its bridge closes, so a killed control plane leaves no workers behind.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import anyio
import trio

from sfu import bridge
from sfu.connections import MediaConnection
from sfu.errors import ConfigError, MediaUnavailable, ServerFull
from sfu.process.metrics import Counters
from sfu.settings.config import Config
from sfu.stun import MARK_CHARS, mark
from sfu.workers.addresses import Addresses
from sfu.workers.capacity import Capacity

log = logging.getLogger("sfu.workers")

COMMAND = (sys.executable, "-m", "sfu.media.worker")
INHERITED = (
    "PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_*", "PYTHON*", "LD_*", "DYLD_*", "MALLOC_*", "GLIBC_TUNABLES",
    "OPENSSL_CONF", "JOURNAL_STREAM", "SFU_LOG_LEVEL", "SFU_LOG_FORMAT",
    "SFU_PORTABLE_UDP",
)  # fmt: skip
"""Environment variables that a worker inherits. It parses untrusted packets, so it must not see keys or passwords."""
UNLIMITED = 1 << 20

COMMAND_QUEUE = 10_000
"""Commands queued for a worker that does not read. Beyond that the worker counts as stuck and is killed."""
START_S = 30.0
"""Longest time from the start of the process to Ready. On a slow machine the imports alone take seconds."""
SILENCE_S = 10.0
"""A worker that sent nothing for this long hangs and is killed. It normally sends Stats every second."""
EXIT_S = 2.0
"""Time to exit after the bridge was closed, and again after SIGTERM; SIGKILL follows."""
STABLE_S = 10.0
"""A worker that lived this long is restarted at once. One that died sooner is restarted at once only the first time."""
FULL_S = 60.0
"""Least time between two lines in the log about a full server."""
RETRY_S, RETRY_MAX_S = 0.1, 5.0
"""Delay before the second restart in a row; it doubles with each further one, up to RETRY_MAX_S."""


_Channel = bridge.Channel[bridge.Event]


@dataclass(slots=True, eq=False)
class _Worker:
    """A slot for a worker process. A restart replaces the process but keeps `index` and the UDP port."""

    index: int
    started: trio.Event = field(default_factory=trio.Event)  # set by the first Ready
    ready: bool = False
    port: int = 0  # UDP; 0 until the first Ready
    handovers: list[socket.socket] = field(default_factory=list)  # its ends of the socket pairs to other workers
    connections: list[socket.socket] = field(default_factory=list)  # a pair through which it gets media connections
    peers: int = 0
    heard_at: float = -math.inf
    advertised: tuple[str, ...] = ()
    commands: trio.MemorySendChannel[bridge.Command] | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    why: str = ""  # the reason of its death, if it is known better than by the exit status


class Workers:
    """All media workers of this server.

    `on_event` gets a worker's index and an event about a room or peer, `on_death` the index of a worker whose peers
    must rejoin. Both are called synchronously and must not raise. `stats` holds the last Stats of each worker. They
    listen where `addresses` says; its `run` keeps that up to date.
    """

    def __init__(self, config: Config, counters: Counters, command: Sequence[str] = ()) -> None:
        self.on_event: Callable[[int, bridge.Event], None] = lambda worker, event: None
        self.on_death: Callable[[int], None] = lambda worker: None
        self.stats = [bridge.Stats() for _ in range(config.workers)]
        self.capacity = Capacity(config, trio.current_time)
        self.addresses = Addresses(config)
        self._config = config
        self._counters = counters
        self._command = command or COMMAND
        self._workers = [_Worker(index) for index in range(config.workers)]
        self._marked = {mark(worker.index): worker for worker in self._workers}
        self._full_at = -math.inf

    @property
    def ready(self) -> bool:
        """Whether peers can join: at least one worker is up."""
        return any(worker.ready for worker in self._workers)

    def answering(self, within_s: float) -> bool:
        """Whether a worker has sent something within that time."""
        return any(worker.ready and trio.current_time() - worker.heard_at <= within_s for worker in self._workers)

    @property
    def advertised(self) -> list[str]:
        """The addresses in the workers' ICE candidates."""
        return list(dict.fromkeys(address for worker in self._workers for address in worker.advertised))

    def is_ready(self, worker: int) -> bool:
        return self._workers[worker].ready

    def pick(self) -> int:
        """The worker for a new room: the least loaded (rounded to a tenth), among equals the one with fewest peers.

        Raises MediaUnavailable while none is up, ServerFull if none can take another peer.
        """
        ready = [worker for worker in self._workers if worker.ready]
        if not ready:
            raise MediaUnavailable
        loads = {worker: self.capacity.expected_load(worker.index) for worker in ready}
        ready.sort(key=lambda worker: (round(loads[worker], 1), worker.peers))
        free = (worker for worker in ready if not self.capacity.objection(worker.index))
        index = next(free, ready[0]).index
        self.admit(index)
        return index

    def admit(self, worker: int) -> None:
        """Raises ServerFull if one more peer would overload the worker, to the detriment of all calls on it."""
        if not (objection := self.capacity.objection(worker)):
            return
        if trio.current_time() - self._full_at > FULL_S:
            self._full_at = trio.current_time()
            log.warning("server_full worker=%d peers=%d %s", worker, self._workers[worker].peers, objection)
        raise ServerFull

    def place(self, worker: int, peer: str) -> None:
        """Counts one more peer on the worker; `release` undoes it."""
        self._workers[worker].peers += 1
        self.capacity.joined(worker, peer)

    def release(self, worker: int, peer: str) -> None:
        self._workers[worker].peers -= 1
        self.capacity.left(worker, peer)

    def send(self, worker: int, command: bridge.Command) -> None:
        """Queues a command. For a dead worker it is dropped (its peers are told to rejoin); a stuck one is killed."""
        to = self._workers[worker]
        if to.commands is None:
            return
        try:
            to.commands.send_nowait(command)
        except trio.WouldBlock:
            to.why = f"{COMMAND_QUEUE} commands unread"
            to.scope.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs every worker until cancelled; counts as started once all are ready.

        Raises ConfigError if a worker fails its first start. No child process outlives it.
        """
        self.addresses.tell = self._tell
        self.addresses.read()
        try:
            with self._open_pairs():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.capacity.measure)
                    for worker in self._workers:
                        nursery.start_soon(self._supervise, worker)
                    for worker in self._workers:
                        await worker.started.wait()
                    task_status.started()
        except ExceptionGroup as group:
            refused: BaseException | None = group.subgroup(ConfigError)
            while isinstance(refused, BaseExceptionGroup):
                refused = refused.exceptions[0]
            raise refused or group from None

    def _tell(self, command: bridge.Listen | bridge.AskMapping) -> None:
        """Only the first worker can ask: what comes from an address without a peer reaches it."""
        for worker in self._workers if isinstance(command, bridge.Listen) else self._workers[:1]:
            self.send(worker.index, command)

    def adopt(self, ufrag: str, fd: int, connection: MediaConnection) -> bool:
        """Passes a media connection, by its file descriptor, to the worker of this ufrag.

        False if there is none, or if it does not read. The caller keeps its own descriptor of the connection.
        """
        worker = self._marked.get(ufrag[:MARK_CHARS])
        if worker is None or not worker.ready:
            return False
        try:
            socket.send_fds(worker.connections[0], [connection.encode()], [fd])
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def _open_pairs(self) -> Iterator[None]:
        """Opens the socket pairs of the workers, which survive restarts of these: one to each worker, for media
        connections, and one between the first worker and each other one, if they share a UDP port.

        Workers hand datagrams for each other's peers over through the latter.
        """
        first, *others = self._workers
        for worker in self._workers:
            worker.connections += socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            worker.connections[0].setblocking(False)
        for worker in others if len(self._config.udp_ports) == 1 else ():
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            first.handovers.append(ours)
            worker.handovers.append(theirs)
        try:
            yield
        finally:
            for worker in self._workers:
                for sock in (*worker.handovers, *worker.connections):
                    sock.close()
                worker.handovers.clear()
                worker.connections.clear()

    def _configure(self, worker: _Worker) -> bridge.Configure:
        config, first = self._config, self._workers[0]
        port = config.port and config.port + worker.index
        return bridge.Configure(
            port=first.port or config.port if worker.handovers else port,
            hosts=self.addresses.listen.hosts,
            advertise=self.addresses.listen.advertise,
            max_tracks=config.max_tracks if config.limits else UNLIMITED,
            last_n=config.last_n if config.limits else 0,
            answer_s=config.answer_s,
            ice_s=config.ice_s,
            dtls_s=config.dtls_s,
            limits=config.limits,
            index=worker.index,
            handovers=tuple(sock.fileno() for sock in worker.handovers),
            joins=bool(worker.handovers) and first.started.is_set(),
            connections=worker.connections[1].fileno(),
            tcp_port=config.public_tcp_port,
        )

    async def _supervise(self, worker: _Worker) -> None:
        soon = 0
        while True:
            born = trio.current_time()
            why = await self._live(worker)
            if not worker.started.is_set():
                raise ConfigError(why)
            self._counters.add("sfu_worker_restarts_total")
            soon = 1 if trio.current_time() - born >= STABLE_S else soon + 1
            delay_s = 0.0 if soon == 1 else min(RETRY_S * 2 ** min(soon - 2, 10), RETRY_MAX_S)
            log.error("worker_died worker=%d why=%r retry_s=%.1f", worker.index, why, delay_s)
            await trio.sleep(delay_s)

    async def _live(self, worker: _Worker) -> str:
        """Runs one process until it ends; returns the reason."""
        ours, theirs = socket.socketpair()
        with theirs:
            channel = await bridge.Channel.open(ours, bridge.EVENTS)
            async with contextlib.aclosing(channel):
                fd = theirs.fileno()
                try:
                    process = await trio.lowlevel.open_process(
                        [*self._command, str(fd)],
                        stdin=subprocess.DEVNULL,
                        pass_fds=(fd, worker.connections[1].fileno(), *(sock.fileno() for sock in worker.handovers)),
                        env=_environment(),
                        start_new_session=True,  # a terminal's signals, such as Ctrl-C, go to the control plane only
                    )
                except OSError as error:
                    return f"A media worker cannot be started: {error}."
                theirs.close()
                stuck = False
                try:
                    if worker.handovers and worker.index:  # the first worker binds the shared port first
                        await self._workers[0].started.wait()
                    stuck = await self._converse(worker, channel, self._configure(worker))
                finally:
                    with trio.CancelScope(shield=True):
                        await channel.aclose()
                        await _reap(process, patient=not stuck)
        return worker.why or f"A media worker ended with status {process.returncode}."

    async def _converse(self, worker: _Worker, channel: _Channel, configure: bridge.Configure) -> bool:
        """Sends commands and handles events until the worker ends or must be killed; returns whether it must be."""
        worker.commands, commands = trio.open_memory_channel[bridge.Command](COMMAND_QUEUE)
        worker.commands.send_nowait(configure)
        worker.why, garbled = "", False
        try:
            with trio.CancelScope(deadline=trio.current_time() + START_S) as worker.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_write, channel, commands)
                    async for event in channel.receive():
                        worker.heard_at = trio.current_time()
                        worker.scope.deadline = worker.heard_at + SILENCE_S
                        self._handle(worker, event)
                    nursery.cancel_scope.cancel()
        except* Exception:  # a message that does not decode is a bug of the worker; it ends that worker only
            log.exception("worker_garbled worker=%d", worker.index)
            worker.why, garbled = "A media worker sent a message that cannot be decoded.", True
        finally:
            was_ready, worker.ready = worker.ready, False
            self.stats[worker.index] = bridge.Stats()
            self.capacity.restarted(worker.index)
            worker.commands.close()
            worker.commands = None
        if worker.scope.cancelled_caught:
            worker.why = worker.why or "A media worker stopped answering."
        if was_ready:
            self.on_death(worker.index)
        return garbled or worker.scope.cancelled_caught

    def _handle(self, worker: _Worker, event: bridge.Event) -> None:
        match event:
            case bridge.Ready():
                if not worker.ready:
                    addresses = ",".join(event.addresses)
                    log.info("worker_ready worker=%d udp_port=%d addresses=%s", worker.index, event.port, addresses)
                worker.ready, worker.advertised, worker.port = True, event.advertised, event.port
                worker.started.set()
            case bridge.Mapping():
                self.addresses.on_mapping(event)
            case bridge.Fatal():
                worker.why = event.message
            case bridge.Stats():
                self.stats[worker.index], gauges = event, event.gauges
                lag_s = gauges.get("loop_lag_us_max", 0.0) / 1e6
                self.capacity.worker_reported(worker.index, gauges.get("load", 0.0), lag_s)
            case _:
                self.on_event(worker.index, event)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if any(fnmatchcase(name, of) for of in INHERITED)}


async def _write(channel: _Channel, commands: trio.MemoryReceiveChannel[bridge.Command]) -> None:
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # the reader notices as well
        async for command in commands:
            await channel.send(command)


async def _reap(process: trio.Process, *, patient: bool) -> None:
    """Ends the process and collects its exit status, so that no zombie remains.

    `patient` first waits for it to exit by itself, then sends SIGTERM; else SIGKILL follows at once.
    """
    if patient:
        for harsher in (process.terminate, process.kill):
            with trio.move_on_after(EXIT_S):
                await process.wait()
            if process.returncode is None:
                harsher()
    else:
        process.kill()
    await process.wait()
