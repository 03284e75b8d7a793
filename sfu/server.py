"""The server: connects its parts, handles signals, prints the startup banner."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import trio

from sfu import __version__, settings_file
from sfu.api import create_api
from sfu.calls.admission import Admission
from sfu.calls.entrance import Signaling
from sfu.calls.moderation import Moderation
from sfu.calls.registry import Calls
from sfu.calls.room_info import RoomInfo
from sfu.calls.rooms import Rooms
from sfu.calls.sharing import FOLDER, Sharing
from sfu.config import Config
from sfu.data import open_data
from sfu.errors import ConfigError
from sfu.metrics import Counters
from sfu.status import create_status
from sfu.store import Store
from sfu.store.records import Company
from sfu.web import edge
from sfu.web.app import create_app
from sfu.web.tls import Tls, self_signed_context, server_context
from sfu.workers import Workers

log = logging.getLogger("sfu")

RELOADS, RELOAD_S = 60, 1.0
"""How many times to try to load a renewed certificate, and the time between two tries."""


async def serve(config: Config, *, self_signed: bool, env_file: Path | None = None) -> None:
    """Runs the server until SIGTERM or SIGINT. `env_file` is the settings file that its hints name.

    Raises ConfigError or DatabaseUnavailable, bare or in an exception group, if it cannot start.
    """
    if self_signed and config.tls_cert:
        raise ConfigError("--self-signed and SFU_TLS_CERT exclude each other: omit one of them.")
    for listener in await edge.listen(config):  # a start that is bound to fail must not upgrade the database
        await listener.aclose()
    with trio.open_signal_receiver(signal.SIGHUP) as hang_ups:
        async with open_data(config) as store:
            await _serve(config, store, self_signed, env_file, hang_ups)
    log.info("stopped")


async def _serve(
    config: Config, store: Store, self_signed: bool, env_file: Path | None, hang_ups: AsyncIterator[int]
) -> None:
    counters = Counters()
    counters.declare()
    rooms = Rooms(config)
    workers = Workers(config, counters)
    default = await store.companies.ensure_default()
    await store.companies.check_key()
    calls = Calls(config, rooms, workers, counters, Admission(config, store, default))
    moderation = Moderation(calls)
    signaling = Signaling(calls, moderation)
    app = create_app(config, counters)
    app.register_blueprint(create_status(rooms, workers, counters, store))
    app.register_blueprint(create_api(config, store, moderation, counters))
    sharing = Sharing(calls, config.data_dir / FOLDER)
    app.register_blueprint(sharing.routes())
    app.register_blueprint(RoomInfo(calls).routes())
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        starting = trio.CancelScope()

        def end() -> None:
            store.stop()
            signaling.stop()
            stop.set()
            starting.cancel()

        await nursery.start(_watch_signals, end)
        async with trio.open_nursery() as listening:
            with starting:
                await nursery.start(workers.run)
                # only after the UDP ports are bound: an accidental second start must not close the first's sessions
                await nursery.start(store.run, config.heartbeat_s, counters)
                await nursery.start(signaling.run)
                await nursery.start(sharing.run)
                tls = _tls(config, self_signed, workers.advertised)
                nursery.start_soon(_renew, tls, hang_ups)
                adopt = workers.adopt if config.public_tcp_port else None
                edge_serve = partial(edge.serve, tls=tls, stop=stop, adopt=adopt)
                await listening.start(edge_serve, config, app, signaling.serve, counters)
                _announce(config, workers.advertised, default, self_signed=self_signed, env_file=env_file)
        nursery.cancel_scope.cancel()


async def _watch_signals(end: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
    """The first signal calls `end`; the second exits the process at once. Media workers exit when the bridge closes."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        received = await anext(signals)
        log.info("stopping signal=%s", signal.Signals(received).name)
        end()
        received = await anext(signals)
        log.warning("stopping_at_once signal=%s", signal.Signals(received).name)
        os._exit(128 + received)


async def _renew(tls: Tls | None, hang_ups: AsyncIterator[int]) -> None:
    """Reloads the certificate on each SIGHUP. A SIGHUP from a closing terminal does not end the server either."""
    async with trio.open_nursery() as nursery:
        reloading = trio.CancelScope()
        async for _ in hang_ups:
            if tls is not None and tls.files is not None:
                reloading.cancel()
                reloading = trio.CancelScope()
                nursery.start_soon(_reload, tls, reloading)


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
    hosts = others if config.host in others else ["localhost", *others]
    urls = [f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{config.port}" for host in hosts]
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
