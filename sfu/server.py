"""The server: connects its parts, handles signals, prints the startup banner."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import trio

from sfu import __version__, settings_file, systemd
from sfu.api import create_api
from sfu.calls.admission import Admission
from sfu.calls.entrance import Signaling
from sfu.calls.moderation import Moderation
from sfu.calls.registry import Calls
from sfu.calls.room_info import RoomInfo
from sfu.calls.rooms import Rooms
from sfu.calls.sharing import FOLDER, Sharing
from sfu.config import Config
from sfu.control import Control
from sfu.data import open_data
from sfu.errors import ConfigError
from sfu.lifecycle import Lifecycle
from sfu.links import page_urls
from sfu.metrics import Counters
from sfu.operations import Operations
from sfu.reload import Reload
from sfu.status import Status, create_metrics, create_status
from sfu.stopping import Stopping
from sfu.store import Store
from sfu.store.records import Company
from sfu.systemd import Notifier
from sfu.web import edge
from sfu.web.app import create_app
from sfu.web.tls import Tls, self_signed_context, server_context
from sfu.workers import Workers

log = logging.getLogger("sfu")

REPORT_S = 5.0
"""How often systemd is told what goes on; more often if its watchdog wants that."""
ANSWERS_S = 3.0
"""A media worker answers if its last report, one a second, is no older than this."""

RELOADS, RELOAD_S = 60, 1.0
"""How many times to try to load a renewed certificate, and the time between two tries."""


async def serve(
    config: Config, *, self_signed: bool, env_file: Path | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Runs the server until SIGTERM or SIGINT. `env_file` is the settings file that its hints name and that SIGHUP
    reads again, over the variables of `env`.

    Raises ConfigError or DatabaseUnavailable, bare or in an exception group, if it cannot start.
    """
    if self_signed and config.tls_cert:
        raise ConfigError("--self-signed and SFU_TLS_CERT exclude each other: omit one of them.")
    for metrics in (False, True) if config.metrics else (False,):  # a start that must fail upgrades no database
        for listener in await edge.listen(config, metrics=metrics):
            await listener.aclose()
    with Notifier.from_env(os.environ) as notifier, trio.open_signal_receiver(signal.SIGHUP) as hang_ups:
        async with open_data(config) as store:
            default = await store.companies.ensure_default()
            await store.companies.check_key()
            server = _Server(config, store, default, notifier)
            await server.run(hang_ups, self_signed=self_signed, env_file=env_file, env=env or {})
    log.info("stopped")


class _Server:
    """The parts of a running server."""

    def __init__(self, config: Config, store: Store, default: Company, notifier: Notifier) -> None:
        self._config, self._store, self._default, self._notifier = config, store, default, notifier
        self._counters, self._life = Counters(), Lifecycle(trio.current_time)
        rooms = Rooms(config)
        self._workers = Workers(config, self._counters)
        admission = Admission(config, store, default)
        calls = Calls(config, rooms, self._workers, self._counters, admission, self._life)
        moderation = Moderation(calls)
        self._control = Control(config.data_dir)
        Operations(config, calls, moderation, lambda: self._tls.context if self._tls else None).register(self._control)
        self._signaling = Signaling(calls, moderation)
        self._sharing = Sharing(calls, config.data_dir / FOLDER)
        status = Status(rooms, self._workers, self._counters, self._life, store)
        self._app = create_app(config, self._counters)
        self._app.register_blueprint(create_status(status))
        self._app.register_blueprint(create_api(config, store, moderation, self._counters))
        self._app.register_blueprint(self._sharing.routes())
        self._app.register_blueprint(RoomInfo(calls).routes())
        self._metrics_app = create_app(config, self._counters, page=False) if config.metrics else self._app
        own = self._metrics_app is not self._app
        self._metrics_app.register_blueprint(create_metrics(config, status, own=own))
        self._stop, self._starting = trio.Event(), trio.CancelScope()
        self._tls: Tls | None = None

    async def run(
        self, hang_ups: AsyncIterator[int], *, self_signed: bool, env_file: Path | None, env: Mapping[str, str]
    ) -> None:
        """Runs until a signal ends it."""
        config, workers = self._config, self._workers
        async with trio.open_nursery() as nursery:
            await nursery.start(Stopping(config, self._signaling, self._notifier, self._end).run)
            async with trio.open_nursery() as listening:
                with self._starting:
                    await nursery.start(workers.run)
                    # only after the UDP ports are bound: an accidental second start must not close the first's sessions
                    await nursery.start(self._store.run, config.heartbeat_s, self._counters)
                    await nursery.start(self._signaling.run)
                    await nursery.start(self._sharing.run)
                    self._tls = _tls(config, self_signed, workers.advertised)
                    await nursery.start(self._control.run)
                    await self._listen(listening)
                    reload = Reload(config, env_file, env, workers)
                    nursery.start_soon(self._follow_hang_ups, hang_ups, reload)
                    self._life.started()
                    nursery.start_soon(self._report)
                    _announce(config, workers.advertised, self._default, self_signed=self_signed, env_file=env_file)
            nursery.cancel_scope.cancel()

    def _end(self) -> None:
        self._store.stop()
        self._signaling.stop()
        self._stop.set()
        self._starting.cancel()

    async def _listen(self, nursery: trio.Nursery) -> None:
        config, counters = self._config, self._counters
        adopt = self._workers.adopt if config.public_tcp_port else None
        main = partial(edge.serve, tls=self._tls, stop=self._stop, adopt=adopt)
        await nursery.start(main, config, self._app, self._signaling.serve, counters)
        if config.metrics:
            other = partial(edge.serve, tls=None, stop=self._stop, metrics=True)
            await nursery.start(other, config, self._metrics_app, _no_signaling, counters)

    async def _report(self) -> None:
        """Tells systemd that the server is ready, and then what goes on. Its watchdog is fed as long as this loop runs
        and a media worker answers; the supervisor (workers.py) deals with single workers that do not."""
        notifier, rooms = self._notifier, self._signaling.calls.rooms
        notifier.tell(systemd.READY)
        while True:
            if self._life.phase == "ready":
                notifier.tell(systemd.status(rooms.described()))
            if notifier.watchdog_s and self._workers.answering(ANSWERS_S):
                notifier.tell(systemd.WATCHDOG)
            await trio.sleep(min(REPORT_S, notifier.watchdog_s / 3 or REPORT_S))

    async def _follow_hang_ups(self, hang_ups: AsyncIterator[int], settings: Reload) -> None:
        """Reloads settings and certificate on each SIGHUP, which also a closing terminal sends."""
        async with trio.open_nursery() as nursery:
            loading = trio.CancelScope()
            async for _ in hang_ups:
                running = self._life.phase == "ready"  # a reload is no longer systemd's business once it stops
                if running:
                    self._notifier.tell(*systemd.reloading())
                settings.reload()
                if self._tls is not None and self._tls.files is not None:
                    loading.cancel()
                    loading = trio.CancelScope()
                    nursery.start_soon(_reload, self._tls, loading)
                if running:
                    self._notifier.tell(systemd.READY)


async def _no_signaling(connection: edge.Upgraded) -> None:
    """Closes a WebSocket where there are none."""
    await trio.aclose_forcefully(connection.stream)


async def _reload(tls: Tls, scope: trio.CancelScope) -> None:
    """Reloads the certificate, and retries for a while: of two files being renewed, only one may be written yet."""
    with scope:
        for attempt in range(RELOADS):
            try:
                tls.reload()
            except ConfigError as error:
                if attempt == 0:
                    log.warning("certificate_kept reason=%r", str(error))
                await trio.sleep(RELOAD_S)
            else:
                log.info("certificate_renewed")
                return


def _tls(config: Config, self_signed: bool, addresses: Sequence[str]) -> Tls | None:
    if self_signed:
        return Tls(self_signed_context(["localhost", *addresses]))
    if config.tls_cert and config.tls_key:
        return Tls(server_context(config.tls_cert, config.tls_key), (config.tls_cert, config.tls_key))
    return None


def _announce(
    config: Config, addresses: Sequence[str], default: Company, *, self_signed: bool, env_file: Path | None
) -> None:
    """Prints the URLs to open, the ports that must be reachable, and what will not work."""
    command, given = _command(), settings_file.option(env_file)
    secure = self_signed or config.tls_cert is not None
    others = [address for address in addresses if not ip_address(address).is_loopback]
    urls = page_urls(config, addresses, secure=secure)
    first, last = config.udp_ports[0], config.udp_ports[-1]
    ports = f"{first}" if last == first else f"{first}-{last}"
    rows = [("Open", url) for url in urls]
    rows.append(("Ports", f"TCP {config.port} and UDP {ports}, with media at {', '.join(addresses)}"))
    if self_signed:
        rows.append(("Note", "The certificate is new at every start: browsers show a warning; choose to continue."))
    elif others and not secure and not config.trusted_proxies:
        rows.append(("Note", "Over http, browsers allow camera and microphone on localhost only."))
        rows.append(("", f"For a phone, start with: {command} serve --self-signed{given}"))
    if default.created_at == default.updated_at:  # its key was never rotated, so nobody knows it
        shows = f"shows one for the REST API, {urls[0]}/api/v1/docs"
        rows.append(("API key", f"{command} company rotate-key {default.name}{given}   {shows}"))
    lines, shown = [f"sfu {__version__} is ready. Stop it with Ctrl-C."], ""
    for label, text in rows:
        lines.append(f"  {label if label != shown else '':7} {text}")
        shown = label
    try:
        print("\n".join(lines), flush=True)
    except OSError:  # standard output was closed, with its terminal or pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _command() -> str:
    """What to type to run this program: its name if the shell finds it, else its path."""
    program = Path(sys.argv[0]).absolute()
    if program.name != "sfu" or shutil.which("sfu") == str(program):
        return "sfu"
    folder = Path.cwd()
    if folder == Path("/") or not program.is_relative_to(
        folder
    ):  # a service starts in /, its operator's shell does not
        return str(program)
    return str(program.relative_to(folder))
