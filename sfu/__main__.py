"""The `sfu` command line: argument parsing and process setup."""

from __future__ import annotations

import argparse
import difflib
import itertools
import logging
import os
import resource
import shutil
import signal
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import trio

from sfu import __version__, logs
from sfu.commands import (
    admin_key,
    audit,
    backup,
    company,
    completion,
    coturn_config,
    doctor,
    end,
    forget,
    key,
    kick,
    log,
    move_db,
    participants,
    restore,
    rooms,
    serve,
    status,
    tier,
    token,
)
from sfu.errors import ConfigError
from sfu.process.clock import AwakeClock
from sfu.refusals import DatabaseUnavailable, Refusal
from sfu.settings import settings_file
from sfu.settings.config import SERVER_FILES, Config, settings, unknown

_log = logging.getLogger("sfu")

OPEN_FILES = 65536
"""Limit on open files that the server asks for. Each connection needs one, and systems start with 256 to 1024."""
COMMANDS = (
    serve, doctor, status, rooms, participants, kick, end, log, audit, token, company, key, admin_key, tier, backup,
    restore, move_db, forget, coturn_config, completion,
)  # fmt: skip
"""The modules of the commands, in the order of `sfu --help`."""
REFUSED = 2
"""Exit status for an invalid command line or setting."""
AWAY = 3
"""Exit status while the database is unavailable: a service manager tries again, which it need not with REFUSED."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    options = _parsed(_parser(), sys.argv[1:] if arguments is None else arguments)
    status = 0
    try:
        status = trio.run(options.command.run, _prepare(options), options, clock=AwakeClock()) or 0
        sys.stdout.flush()
    except* DatabaseUnavailable as group:
        logs.say(f"sfu: {_first(group)}", logging.ERROR)
        status = AWAY
    except* (ConfigError, Refusal) as group:
        logs.say(f"sfu: {_first(group)}", logging.ERROR)
        status = REFUSED
    except* BrokenPipeError:  # as of `sfu rooms | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    except* KeyboardInterrupt:  # Ctrl-C before the signal handlers were installed
        status = 128 + signal.SIGINT
    if _left_behind():
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)
    return status


def _left_behind() -> bool:
    """Whether a thread of the database would keep the process. Commands without one do not import it to know."""
    portal = sys.modules.get("sfu.store.portal")
    return portal is not None and bool(portal.left_behind())


def _prepare(options: argparse.Namespace) -> Config:
    """Prepares the process: reads the settings, sets up logging, raises the limit on open files.

    Sets `options.env_file` to the settings file that was read, or to None, and `options.env` to the environment
    without it.
    """
    if not __debug__:
        raise ConfigError("Python's -O (or PYTHONOPTIMIZE) removes checks the server relies on. Start it without.")
    named, options.env_file = "env_file" in options, _settings_file(options)
    options.env = dict(os.environ)
    warnings = settings_file.add(options.env_file, os.environ, strict=named) if options.env_file else []
    config = Config.from_env(os.environ, omit=frozenset() if options.command is serve else SERVER_FILES)
    logs.to_stderr(config.log_level, config.log_format)
    for warning in [*warnings, *unknown(os.environ)]:
        _log.warning("%s", warning)
    _raise_open_files()
    return config


def _settings_file(options: argparse.Namespace) -> Path | None:
    """The settings file to read: the one named, or for a command other than `serve` the service's, if there is one.

    A server without the option takes nothing from the service's file: it may run beside the service.
    """
    named: Path | None = getattr(options, "env_file", None)
    return named if named or options.command is serve else settings_file.default()


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:  # macOS refuses more than its kernel allows, even if the limit says more
        _log.warning("open_files_limited soft=%d wanted=%d error=%r", soft, wanted, str(error))


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    table = _settings_table()
    parser = argparse.ArgumentParser(
        prog="sfu", description="A server for video rooms.", epilog=table, formatter_class=raw, allow_abbrev=False
    )
    parser.set_defaults(parser=parser)
    settings_file.add_option(parser)
    parser.add_argument("--version", action="version", version=f"sfu {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        one = commands.add_parser(
            command.NAME,
            help=command.HELP,
            description=command.DESCRIPTION,
            epilog=table if command is serve else None,
            formatter_class=raw if command is serve else argparse.HelpFormatter,
            allow_abbrev=False,
        )
        settings_file.add_option(one)
        command.add_arguments(one)
        one.set_defaults(command=command)
    return parser


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed command line. An unknown option is named before argparse takes its value for a command."""
    known = _options(parser)
    for argument in itertools.takewhile(lambda argument: argument != "--", arguments):
        name = argument.partition("=")[0]
        if name.startswith("-") and name != "-" and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            parser.error(f"unknown option {name}" + (f". Did you mean {close[0]}?" if close else ""))
    return parser.parse_args(arguments)


def _options(parser: argparse.ArgumentParser) -> set[str]:
    """The names of the options of a parser and its subcommands."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(*map(_options, action.choices.values()))
    return found


def _settings_table() -> str:
    width = shutil.get_terminal_size().columns
    variable_width = max(len(setting.variable) for setting in settings()) + 4
    rows = []
    for setting in settings():
        default = f"{setting.default} {setting.unit}".strip()
        text = f"  {setting.variable:{variable_width}}{setting.help} [{default}]"
        rows.append(textwrap.fill(text, max(width, 60), subsequent_indent=" " * (variable_width + 2)))
    return "settings, from the environment or --env-file [with their defaults]:\n" + "\n".join(rows)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    sys.exit(main())
