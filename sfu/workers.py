"""Starts, supervises and picks the media workers, each a child process behind a bridge.Channel.

A worker that dies, hangs or stops reading takes only its rooms' media with it: `on_death` tells who is concerned, and
it is started again. Closing its bridge tells a worker to end, so a control plane that was killed leaves none behind.
"""

from __future__ import annotations

import contextlib
import logging
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
from sfu.config import ANY_HOST, Config
from sfu.errors import ConfigError, MediaUnavailable, ServerFull
from sfu.metrics import Counters

log = logging.getLogger("sfu.workers")

COMMAND = (sys.executable, "-m", "sfu.media.worker")
INHERITED = (
    "PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_*", "PYTHON*", "LD_*", "DYLD_*", "MALLOC_*", "GLIBC_TUNABLES",
    "OPENSSL_CONF", "SFU_LOG_LEVEL", "SFU_PORTABLE_UDP",
)  # fmt: skip
"""What a worker has of our environment. It reads what strangers send: no key or password is to be there."""
UNLIMITED = 1 << 20

COMMAND_QUEUE = 10_000
"""Commands waiting for a worker that does not read; past it the worker counts as stuck and is killed."""
START_S = 30.0
"""From the start of the process to Ready: on a slow machine the imports alone take seconds."""
SILENCE_S = 10.0
"""Stats come every second; a worker from which nothing came for this long hangs and is killed."""
EXIT_S = 2.0
"""For ending by itself once the bridge is closed, and again after SIGTERM; then comes SIGKILL."""
STABLE_S = 10.0
"""A worker that lived this long is started again at once, and so is one that dies sooner, but only the first time."""
RETRY_S, RETRY_MAX_S = 0.1, 5.0
"""The second time it waits RETRY_S, then twice that, and so on up to RETRY_MAX_S."""


_Channel = bridge.Channel[bridge.Event]


@dataclass(slots=True, eq=False)
class _Worker:
    """One place for a worker process; the processes come and go, `index` and the UDP port stay."""

    index: int
    started: trio.Event = field(default_factory=trio.Event)  # once Ready for the first time
    ready: bool = False
    port: int = 0  # UDP, once it is known
    handovers: list[socket.socket] = field(default_factory=list)  # its ends of the pairs to other workers
    peers: int = 0
    advertised: tuple[str, ...] = ()
    commands: trio.MemorySendChannel[bridge.Command] | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    why: str = ""  # it died, where we know better than its exit status


class Workers:
    """`on_event` gets what workers report about peers, `on_death` the index of a worker whose peers are to rejoin.

    Both are called synchronously and must not raise. `stats` holds the last Stats of each worker.
    """

    def __init__(self, config: Config, counters: Counters, command: Sequence[str] = COMMAND) -> None:
        self.on_event: Callable[[int, bridge.Event], None] = lambda worker, event: None
        self.on_death: Callable[[int], None] = lambda worker: None
        self.stats = [bridge.Stats() for _ in range(config.workers)]
        self._config = config
        self._counters = counters
        self._command = command
        self._workers = [_Worker(index) for index in range(config.workers)]

    @property
    def ready(self) -> bool:
        """Whether anybody can join: at least one worker is up."""
        return any(worker.ready for worker in self._workers)

    @property
    def advertised(self) -> list[str]:
        """The addresses in the workers' candidates."""
        return list(dict.fromkeys(address for worker in self._workers for address in worker.advertised))

    def is_ready(self, worker: int) -> bool:
        return self._workers[worker].ready

    def pick(self) -> int:
        """The worker for a new room: the least loaded, to a tenth, and of those the one with the fewest peers.

        Raises MediaUnavailable while none is up, ServerFull when even that one has too much to do.
        """
        ready = [worker for worker in self._workers if worker.ready]
        if not ready:
            raise MediaUnavailable
        index = min(ready, key=lambda worker: (round(self.load(worker.index), 1), worker.peers)).index
        self.admit(index)
        return index

    def load(self, worker: int) -> float:
        """The fraction of a core that it used in the last seconds."""
        return self.stats[worker].gauges.get("load", 0.0)

    def admit(self, worker: int) -> None:
        """Raises ServerFull when one more peer on the worker would spoil the calls of all that are there."""
        if self._config.limits and self.load(worker) > self._config.max_load:
            raise ServerFull

    def place(self, worker: int) -> None:
        """One more peer is on the worker; `release` says that it is gone."""
        self._workers[worker].peers += 1

    def release(self, worker: int) -> None:
        self._workers[worker].peers -= 1

    def send(self, worker: int, command: bridge.Command) -> None:
        """Queues a command. A dead worker ignores it (its peers are being told to rejoin), a stuck one is killed."""
        to = self._workers[worker]
        if to.commands is None:
            return
        try:
            to.commands.send_nowait(command)
        except trio.WouldBlock:
            to.why = f"{COMMAND_QUEUE} commands unread"
            to.scope.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs every worker until cancelled; started when each is ready.

        Raises ConfigError when one cannot be started the first time. Ends with every child process gone.
        """
        try:
            with self._share_port():
                async with trio.open_nursery() as nursery:
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

    @contextlib.contextmanager
    def _share_port(self) -> Iterator[None]:
        """Pairs of sockets between the first worker and each other one, for as long as workers come and go: they hand
        over to each other what comes to the port they share."""
        first, *others = self._workers
        for worker in others if len(self._config.udp_ports) == 1 else ():
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            first.handovers.append(ours)
            worker.handovers.append(theirs)
        try:
            yield
        finally:
            for worker in self._workers:
                while worker.handovers:
                    worker.handovers.pop().close()

    def _configure(self, worker: _Worker) -> bridge.Configure:
        config, first = self._config, self._workers[0]
        port = config.port and config.port + worker.index
        return bridge.Configure(
            port=first.port or config.port if worker.handovers else port,
            hosts=() if config.host == ANY_HOST else (config.host,),
            advertise=config.public_ip,
            max_tracks=config.max_tracks if config.limits else UNLIMITED,
            last_n=config.last_n if config.limits else 0,
            answer_s=config.answer_s,
            ice_s=config.ice_s,
            dtls_s=config.dtls_s,
            limits=config.limits,
            index=worker.index,
            handovers=tuple(sock.fileno() for sock in worker.handovers),
            joins=bool(worker.handovers) and first.started.is_set(),
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
        """One process from its birth to its end; returns why it ended."""
        ours, theirs = socket.socketpair()
        with theirs:
            channel = await bridge.Channel.open(ours, bridge.EVENTS)
            async with contextlib.aclosing(channel):
                fd = theirs.fileno()
                try:
                    process = await trio.lowlevel.open_process(
                        [*self._command, str(fd)],
                        stdin=subprocess.DEVNULL,
                        pass_fds=(fd, *(sock.fileno() for sock in worker.handovers)),
                        env=_environment(),
                        start_new_session=True,  # what a terminal sends to its processes is for the control plane
                    )
                except OSError as error:
                    return f"A media worker cannot be started: {error}."
                theirs.close()
                stuck = False
                try:
                    if worker.handovers and worker.index:  # the port is the first one's to take
                        await self._workers[0].started.wait()
                    stuck = await self._converse(worker, channel, self._configure(worker))
                finally:
                    with trio.CancelScope(shield=True):
                        await channel.aclose()
                        await _reap(process, patient=not stuck)
        return worker.why or f"A media worker ended with status {process.returncode}."

    async def _converse(self, worker: _Worker, channel: _Channel, configure: bridge.Configure) -> bool:
        """Commands down, events up, until the worker ends or is stuck; returns whether it is stuck."""
        worker.commands, commands = trio.open_memory_channel[bridge.Command](COMMAND_QUEUE)
        worker.commands.send_nowait(configure)
        worker.why, garbled = "", False
        try:
            with trio.CancelScope(deadline=trio.current_time() + START_S) as worker.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_write, channel, commands)
                    async for event in channel.receive():
                        worker.scope.deadline = trio.current_time() + SILENCE_S
                        self._handle(worker, event)
                    nursery.cancel_scope.cancel()
        except* Exception:  # what does not decode is a bug of the worker and ends that worker only
            log.exception("worker_garbled worker=%d", worker.index)
            worker.why, garbled = "A media worker sent what cannot be read.", True
        finally:
            was_ready, worker.ready = worker.ready, False
            self.stats[worker.index] = bridge.Stats()
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
                worker.ready, worker.advertised, worker.port = True, event.advertised, event.port
                worker.started.set()
                addresses = ",".join(event.addresses)
                log.info("worker_ready worker=%d udp_port=%d addresses=%s", worker.index, event.port, addresses)
            case bridge.Fatal():
                worker.why = event.message
            case bridge.Stats():
                self.stats[worker.index] = event
            case _:
                self.on_event(worker.index, event)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if any(fnmatchcase(name, of) for of in INHERITED)}


async def _write(channel: _Channel, commands: trio.MemoryReceiveChannel[bridge.Command]) -> None:
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # the reader sees its end, too
        async for command in commands:
            await channel.send(command)


async def _reap(process: trio.Process, *, patient: bool) -> None:
    """Ends the process, gently if it may still listen, and takes its exit status, so that no zombie stays."""
    if patient:
        for harsher in (process.terminate, process.kill):
            with trio.move_on_after(EXIT_S):
                await process.wait()
            if process.returncode is None:
                harsher()
    else:
        process.kill()
    await process.wait()
