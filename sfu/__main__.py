"""The `sfu` command: wiring and signals, nothing else."""

from __future__ import annotations

import argparse
import logging
import os
import resource
import shutil
import signal
import ssl
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address

import trio

from sfu import __version__, company, edge, tls
from sfu.admission import Admission
from sfu.api import create_api
from sfu.config import Config, settings, unknown
from sfu.counters import Counters
from sfu.data import open_data
from sfu.errors import ConfigError
from sfu.refusals import Refusal
from sfu.room_info import RoomInfo
from sfu.rooms import Rooms
from sfu.sharing import FOLDER, Sharing
from sfu.signaling import Signaling
from sfu.store import Store
from sfu.store.records import Company
from sfu.web import create_app
from sfu.workers import Workers

log = logging.getLogger("sfu")

OPEN_FILES = 65536
"""As many as the server asks for: each connection takes one, and systems start processes with 256 to 1024."""
REFUSED = 2
"""Exit status when the command line or a setting cannot be used."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status."""
    options = _parser().parse_args(arguments)
    status = 0
    try:
        trio.run(options.command, _prepare(), options)
    except* (ConfigError, Refusal) as group:
        print(f"sfu: {_first(group)}", file=sys.stderr)
        status = REFUSED
    except* KeyboardInterrupt:  # Ctrl-C before the signals were taken over
        status = 128 + signal.SIGINT
    return status


def _prepare() -> Config:
    """The process as the server needs it: settings read, log set up, files enough."""
    if not __debug__:
        raise ConfigError("Python's -O (or PYTHONOPTIMIZE) removes checks the server relies on: start it without.")
    config = Config.from_env(os.environ)
    _log_to_stderr(config.log_level)
    for warning in unknown(os.environ):
        print(f"sfu: {warning}", file=sys.stderr)
    _raise_open_files()
    return config


async def serve(config: Config, options: argparse.Namespace) -> None:
    """Runs the server until SIGTERM or SIGINT.

    Raises ConfigError or DatabaseUnavailable, alone or in a group, when it cannot start.
    """
    if options.self_signed and config.tls_cert:
        raise ConfigError("--self-signed and SFU_TLS_CERT exclude each other: leave one of them out.")
    async with open_data(config) as store:
        await _serve(config, store, options.self_signed)
    log.info("stopped")


async def _serve(config: Config, store: Store, self_signed: bool) -> None:
    counters = Counters()
    rooms = Rooms(config)
    workers = Workers(config, counters)
    default = await store.companies.ensure_default()
    signaling = Signaling(config, rooms, workers, counters, Admission(config, store, default))
    app = create_app(config, rooms, workers, counters, store)
    app.register_blueprint(create_api(config, store, signaling.moderation, counters))
    sharing = Sharing(signaling, config.data_dir / FOLDER)
    app.register_blueprint(sharing.routes())
    app.register_blueprint(RoomInfo(signaling).routes())
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        starting = trio.CancelScope()

        def end() -> None:
            signaling.stop()
            stop.set()
            starting.cancel()

        await nursery.start(_watch_signals, end)
        async with trio.open_nursery() as listening:
            with starting:
                await nursery.start(workers.run)
                # not before the ports are ours: a second start by mistake must not close the first one's sessions
                await nursery.start(store.run, config.heartbeat_s)
                await nursery.start(signaling.run)
                await nursery.start(sharing.run)
                context = _ssl_context(config, self_signed, workers.advertised)
                edge_serve = partial(edge.serve, ssl_context=context, stop=stop)
                await listening.start(edge_serve, config, app, signaling.serve, counters)
                _announce(config, workers.advertised, default, self_signed=self_signed)
        nursery.cancel_scope.cancel()


async def _watch_signals(end: Callable[[], None], *, task_status: trio.TaskStatus[None]) -> None:
    """The first signal calls `end`, the second ends the process at once; media workers end with their bridge."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        received = await anext(signals)
        log.info("stopping signal=%s", signal.Signals(received).name)
        end()
        received = await anext(signals)
        log.warning("stopping_at_once signal=%s", signal.Signals(received).name)
        os._exit(128 + received)


def _ssl_context(config: Config, self_signed: bool, addresses: Sequence[str]) -> ssl.SSLContext | None:
    if self_signed:
        return tls.self_signed_context(["localhost", *addresses])
    if config.tls_cert and config.tls_key:
        return tls.server_context(config.tls_cert, config.tls_key)
    return None


def _announce(config: Config, addresses: Sequence[str], default: Company, *, self_signed: bool) -> None:
    """Says on standard output which URLs to open, which ports must be open, and what will not work."""
    secure = self_signed or config.tls_cert is not None
    others = [address for address in addresses if not ip_address(address).is_loopback]
    hosts = others if config.host in others else ["localhost", *others]
    urls = [f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{config.port}" for host in hosts]
    last = config.port + config.workers - 1
    ports = f"{config.port}" if last == config.port else f"{config.port}-{last}"
    rows = [("Open", url) for url in urls]
    rows.append(("Ports", f"TCP {config.port} and UDP {ports}, with media at {', '.join(addresses)}"))
    if self_signed:
        rows.append(("Note", "The certificate is made anew at every start: browsers warn, and can be told to go on."))
    elif others and not secure and not config.trusted_proxies:
        rows.append(("Note", "Over http, browsers give camera and microphone to localhost only."))
        rows.append(("", "For a phone, start with: sfu serve --self-signed"))
    if default.created_at == default.updated_at:  # nobody has fetched its key yet
        rows.append(
            ("API key", f"sfu company rotate-key {default.name}   shows one for the REST API, {urls[0]}/api/v1/docs")
        )
    print(f"sfu {__version__} is ready. Stop it with Ctrl-C.")
    shown = ""
    for label, text in rows:
        print(f"  {label if label != shown else '':7} {text}")
        shown = label
    sys.stdout.flush()


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:  # macOS refuses more than its kernel allows, whatever it said
        log.warning("open_files_limited soft=%d wanted=%d error=%r", soft, wanted, str(error))


class _OneLine(logging.Formatter):
    """`time=… level=… logger=… message`, with tracebacks folded into the line."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\\n")


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    line = "time=%(asctime)s.%(msecs)03dZ level=%(levelname)s logger=%(name)s %(message)s"
    formatter = _OneLine(line, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level.upper())


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    table = _settings_table()
    parser = argparse.ArgumentParser(
        prog="sfu", description="A server for video rooms.", epilog=table, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"sfu {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serving = commands.add_parser(
        "serve", help="run the server", description="Runs the server.", epilog=table, formatter_class=raw
    )
    serving.add_argument(
        "--self-signed", action="store_true", help="https with a certificate made at start, to try cameras of phones"
    )
    serving.set_defaults(command=serve)
    companies = commands.add_parser(
        "company", help="make, list and change companies and their API keys", allow_abbrev=False
    )
    companies.set_defaults(command=company.run)
    company.add_parsers(companies)
    return parser


def _settings_table() -> str:
    width = shutil.get_terminal_size().columns
    variable_width = max(len(setting.variable) for setting in settings()) + 4
    rows = []
    for setting in settings():
        default = f"{setting.default} {setting.unit}".strip()
        text = f"  {setting.variable:{variable_width}}{setting.help} [{default}]"
        rows.append(textwrap.fill(text, max(width, 60), subsequent_indent=" " * (variable_width + 2)))
    return "settings, from the environment [with their defaults]:\n" + "\n".join(rows)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    sys.exit(main())
