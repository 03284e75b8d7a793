"""The settings file: variables in the syntax of systemd's `EnvironmentFile=` (systemd.exec(5)).

A service gets them from systemd. A command outside the service reads the same file, so that both use one database.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from sfu.errors import ConfigError
from sfu.settings.config import PREFIX, unknown

DEFAULT = Path("/etc/sfu.env")
"""The settings file of the service, as in deploy/sfu.service."""
NONE = Path(os.devnull)
"""A file without settings."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SKIPPED = re.compile(r"(?:[ \t\r\n]|[#;][^\r\n]*(?=[\r\n]|\Z))*")
_NAME = re.compile(r"(?P<name>[^\r\n][^\r\n=]*?)[ \t]*(?:=|(?=[\r\n]|\Z))")
_SINGLE = re.compile(r"[ \t]*'([^']*)(?:'|\Z)")
_DOUBLE = re.compile(r'[ \t]*"((?:\\.|[^"\\])*)(?:"|\\?\Z)', re.DOTALL)
_PLAIN = re.compile(r"[ \t]*((?:\\.|[^\r\n\\])*?)(?:\\\Z|[ \t]*(?=[\r\n]|\Z))", re.DOTALL)


def read(file: Path) -> tuple[dict[str, str], list[str]]:
    """The variables of the file, and a warning for each line that sets none. Raises ConfigError."""
    try:
        text = file.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigError(f"The settings file {file} does not exist. --env-file names another one.") from None
    except PermissionError:
        raise ConfigError(
            f"The settings file {file} cannot be read by this user. Run the command as root, for example with sudo, or "
            f"name another file with --env-file; {NONE} is a file without settings."
        ) from None
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"The settings file {file} cannot be used: {error}.") from None
    if "\0" in text:
        raise ConfigError(f"The settings file {file} cannot be used: it contains a NUL character.")
    if (line := unclosed(text)) is not None:
        raise ConfigError(
            f"{file}, line {line}: the quote is not closed and takes the next line with it. Close it in the same line."
        )
    values, ignored = parse(text)
    return values, [f"{file}, line {line}: {reason}, so the line is ignored." for line, reason in ignored]


def parse(text: str) -> tuple[dict[str, str], list[tuple[int, str]]]:
    """The variables that systemd finds in the text, and the numbers of the lines it ignores, with the reason."""
    values: dict[str, str] = {}
    ignored: list[tuple[int, str]] = []
    for line, name, value in _entries(text):
        if value is not None and _VARIABLE.fullmatch(name):
            values[name] = value
        else:  # the reason does not quote the line, which may be a password's
            exported = re.match(r"export\s", name)
            ignored.append((line, "`export` is not supported" if exported else "it is not NAME=value"))
    return values, ignored


def unclosed(text: str) -> int | None:
    """The number of the first line whose quote goes on in the next line and takes a setting of ours with it."""
    for line, name, value in _entries(text):
        if value is not None and "\n" in value and PREFIX in f"{name}{value}".upper():
            return line
    return None


def _entries(text: str) -> Iterator[tuple[int, str, str | None]]:
    """Each line that is no comment: its number, and the name and value in it. It may be continued in other lines."""
    at = _end(_SKIPPED, text, 0)
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        key = _NAME.match(text, at)
        assert key is not None, "every line begins with a name, perhaps without a value"
        name, at = key["name"], key.end()
        value, at = _value(text, at) if key[0].endswith("=") else (None, at)
        yield line, name, value
        at = _end(_SKIPPED, text, at)


def add(file: Path, env: MutableMapping[str, str], *, strict: bool = False) -> list[str]:
    """Adds the variables of the file that `env` does not have. Returns warnings; raises ConfigError.

    `strict`: a line without effect is an error. A mistyped setting of a file that somebody named could lead to another
    database; the service itself ignores such lines of its own file, and so do commands that read it by default.
    """
    values, warnings = read(file)
    wrong = [*warnings, *(f"{file}: {warning}" for warning in unknown(values))]
    if strict and wrong:
        raise ConfigError(f"{wrong[0]} Correct the line or remove it.")
    for name, value in values.items():
        env.setdefault(name, value)
    return warnings


def default() -> Path | None:
    """The file that commands other than `serve` read if they are given none: the service's, if there is one.

    A process that systemd started has its settings already, and may have no right to read them from the file.
    """
    return DEFAULT if "STATE_DIRECTORY" not in os.environ and os.path.lexists(DEFAULT) else None


def source(named: Path | None, env: Mapping[str, str]) -> tuple[Path | None, dict[str, str]]:
    """The settings file that a server can read again, if there is one, and the variables that did not come from it.

    `env` is the environment without the `named` file. That of a service already has what systemd read from DEFAULT.
    """
    if named is not None or "STATE_DIRECTORY" not in env or not os.path.lexists(DEFAULT):
        return named, dict(env)
    try:
        from_file, _ = read(DEFAULT)
    except ConfigError:  # said when it is read again
        from_file = {}
    return DEFAULT, {name: value for name, value in env.items() if from_file.get(name) != value}


def option(used: Path | None) -> str:
    """The option for the shell that makes a command read the file that a server used; empty if it needs none."""
    file = used.absolute() if used else NONE if default() else None
    return f" --env-file {shlex.quote(str(file))}" if file else ""


def add_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--env-file`, which may stand before or after a subcommand."""
    parser.add_argument(
        "--env-file",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,  # a subcommand's default would replace what stands before the subcommand
        help="read settings from a file like systemd's EnvironmentFile; the environment takes precedence (default: "
        f"{DEFAULT} if it exists; for `serve` none)",
    )


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that begins at an index, and the index of its end: quoted parts, then text without quotes."""
    parts = []
    while True:
        if single := _SINGLE.match(text, at):
            parts.append(single[1])
            at = single.end()
        elif double := _DOUBLE.match(text, at):
            parts.append(re.sub(r'\\(["\\`$\n])', _unescaped, double[1]))
            at = double.end()
        else:
            break
    plain = _PLAIN.match(text, at)
    assert plain is not None, "text without quotes may be empty"
    parts.append(re.sub(r"\\(.)", _unescaped, plain[1], flags=re.DOTALL))
    return "".join(parts), plain.end()


def _unescaped(escape: re.Match[str]) -> str:
    """A backslash keeps the next character, except that it joins two lines."""
    return "" if escape[1] in "\r\n" else escape[1]


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
