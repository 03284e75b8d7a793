"""The server: connects its parts and runs them until a signal ends it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path

import trio

from sfu.api import create_api
from sfu.calls.admission import Admission
from sfu.calls.entrance import Signaling
from sfu.calls.moderation import Moderation
from sfu.calls.registry import Calls
from sfu.calls.room_info import RoomInfo
from sfu.calls.rooms import Rooms
from sfu.calls.sharing import Sharing
from sfu.doctor.server import add_doctor
from sfu.operator.control import Control
from sfu.operator.operations import Operations
from sfu.process import systemd
from sfu.process.lifecycle import Lifecycle
from sfu.process.metrics import Counters
from sfu.process.systemd import Notifier
from sfu.serving.banner import announce
from sfu.serving.reload import Reload
from sfu.serving.status import Status, create_metrics, create_metrics_sign, create_status
from sfu.serving.stopping import Stopping
from sfu.settings.config import Config
from sfu.store import Store
from sfu.store.data import FILES, open_data
from sfu.store.records import Company
from sfu.web import edge
from sfu.web.app import create_app
from sfu.web.https import Https, check_https, open_https
from sfu.web.proxies import Seen
from sfu.webhooks.dispatcher import Dispatcher
from sfu.workers.workers import Workers

log = logging.getLogger("sfu")

REPORT_S = 5.0
"""How often systemd is told what goes on; more often if its watchdog wants that."""
ANSWERS_S = 3.0
"""A media worker answers if its last report, one a second, is no older than this."""


async def serve(
    config: Config, *, self_signed: bool, env_file: Path | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Runs the server until SIGTERM or SIGINT. `env_file` is the settings file that its hints name and that SIGHUP
    reads again, over the variables of `env`.

    Raises ConfigError or DatabaseUnavailable, bare or in an exception group, if it cannot start.
    """
    check_https(config, self_signed=self_signed)
    needed = await edge.listen(config) + (await edge.listen_plain(config) if config.redirect_port else [])
    needed += await edge.listen(config, metrics=True) if config.metrics else []
    for listener in needed:  # a start that is bound to fail must not upgrade the database
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
        self._counters.declare()
        rooms = Rooms(config)
        self._workers = Workers(config, self._counters)
        admission = Admission(config, store, default)
        calls = Calls(config, rooms, self._workers, self._counters, admission, self._life)
        moderation = Moderation(calls)
        self._control = Control(config.data_dir)
        Operations(config, calls, moderation, lambda: self._https.tls if self._https else None).register(self._control)
        self._signaling = Signaling(calls, moderation)
        self._dispatcher = Dispatcher(store, self._counters, allow_private=config.webhook_allow_private)
        self._sharing = Sharing(calls, config.data_dir / FILES)
        certificate = lambda: self._https.certificate if self._https else None  # noqa: E731
        status = Status(rooms, self._workers, self._counters, self._life, store, certificate)
        self._app = create_app(config, self._counters)
        self._app.register_blueprint(create_status(status))
        self._app.register_blueprint(create_api(config, store, moderation, self._counters))
        self._app.register_blueprint(self._sharing.routes())
        self._app.register_blueprint(RoomInfo(calls).routes())
        self._metrics_app = create_app(config, self._counters, page=False) if config.metrics else self._app
        own = self._metrics_app is not self._app
        if config.metrics:
            self._app.register_blueprint(create_metrics_sign(config.metrics))
        self._metrics_app.register_blueprint(create_metrics(config, status, own=own))
        self._stop, self._starting = trio.Event(), trio.CancelScope()
        self._https: Https | None = None
        self._seen = Seen()

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
                    await nursery.start(workers.addresses.run)
                    # only after the UDP ports are bound: an accidental second start must not close the first's sessions
                    await nursery.start(self._store.run, config.heartbeat_s, self._counters)
                    await nursery.start(self._dispatcher.run)
                    await nursery.start(self._signaling.run)
                    await nursery.start(self._sharing.run)
                    hosts = ["localhost", *workers.advertised] if self_signed else ()
                    self._https = await open_https(config, self._counters, hosts)
                    add_doctor(self._control, self._signaling.calls, self._seen, secure=self._https is not None)
                    await nursery.start(self._control.run)
                    await self._listen(listening)
                    if self._https is not None:
                        nursery.start_soon(self._https.run, self._counters)
                    reload = Reload(config, env_file, env, workers)
                    nursery.start_soon(self._follow_hang_ups, hang_ups, reload)
                    self._life.started()
                    nursery.start_soon(self._report)
                    announce(config, workers.addresses, self._default, self._https, self_signed, env_file)
            nursery.cancel_scope.cancel()

    def _end(self) -> None:
        self._store.stop()
        self._signaling.stop()
        self._stop.set()
        self._starting.cancel()

    async def _listen(self, nursery: trio.Nursery) -> None:
        config, counters = self._config, self._counters
        adopt = self._workers.adopt if config.public_tcp_port else None
        main = partial(edge.serve, stop=self._stop, adopt=adopt, seen=self._seen)
        if (https := self._https) is not None:
            main = partial(main, tls=https.tls, challenges=https.challenges, plain=https.plain)
        await nursery.start(main, config, self._app, self._signaling.serve, counters)
        if config.metrics:
            other = partial(edge.serve, stop=self._stop, metrics=True)
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
        async for _ in hang_ups:
            running = self._life.phase == "ready"  # a reload is no longer systemd's business once it stops
            if running:
                self._notifier.tell(*systemd.reloading())
            settings.reload()
            if self._https is not None:
                self._https.hang_up()
            if running:
                self._notifier.tell(systemd.READY)


async def _no_signaling(connection: edge.Upgraded) -> None:
    """Closes a WebSocket where there are none."""
    await trio.aclose_forcefully(connection.stream)
