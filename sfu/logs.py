"""Logging to standard error: `time=… level=… logger=… message`, times in UTC, one line per record, or JSON.

A message is `event key=value …`. What is said while a request is handled has its `request_id`. If standard error is
systemd's journal, each line begins with its priority, which the journal removes (sd-daemon(3)).
"""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import secrets
import sys
import time
from contextlib import suppress
from contextvars import ContextVar
from logging.handlers import SysLogHandler

PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""Syslog's severities (RFC 5424 section 6.2.1) by level."""

AUDIT = "sfu.audit"
"""The logger of what API keys, moderators and commands changed: one line each."""
QUOTED_CHARACTERS = 160
"""Most characters of a text in a line, unless the caller wants more."""


_request_id: ContextVar[str] = ContextVar("request_id", default="")
_SANE = re.compile(r"[\w.:/+@-]{1,128}", re.ASCII)
"""A client's request id."""
_FIELD = re.compile(r"""(?:^|(?<=\s))(\w+)=('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\S*)""", re.ASCII)
"""A field of a message. What people wrote stands between quotes, so it cannot pass for a field."""
_EVENT = re.compile(r"[a-z_]+(?=\s|\Z)", re.ASCII)


def begin_request(wanted: str = "") -> str:
    """Gives this task, and those that it starts, a request id for their lines; returns the id.

    `wanted` is that of the client, which is taken if it cannot be mistaken for another part of a line.
    """
    _request_id.set(found := wanted if _SANE.fullmatch(wanted) else secrets.token_hex(8))
    return found


def request_id() -> str:
    """The id of the request that this task handles; empty if it handles none."""
    return _request_id.get()


def fields(message: str) -> dict[str, str]:
    """The fields of a message, without their quotes."""
    return {name: _unquoted(value) for name, value in _FIELD.findall(message)}


def _unquoted(value: str) -> str:
    if value[:1] in ("'", '"'):
        with suppress(ValueError, SyntaxError):
            return str(ast.literal_eval(value))
    return value


class _OneLine(logging.Formatter):
    """`more` goes before each message. Tracebacks are folded into the line of their record."""

    def __init__(self, more: str = "", line: str = "{time} level={level} logger={logger} {message}") -> None:
        super().__init__()
        self._more, self._line = more, line

    def format(self, record: logging.LogRecord) -> str:
        text = self._line.format(
            time=f"time={_time(record)}", level=record.levelname, logger=record.name, message=self._message(record)
        )
        return "\n".join(filter(None, (text, _traceback(self, record)))).replace("\n", "\\n")

    def _message(self, record: logging.LogRecord) -> str:
        message = f"{self._more}{record.getMessage()}"
        request = request_id()
        return message if not request or " request_id=" in message else f"{message} request_id={request}"


class _Json(_OneLine):
    """One JSON object per line: time, level, logger, message, and the event and fields of the message."""

    def format(self, record: logging.LogRecord) -> str:
        message = self._message(record)
        found = {"time": _time(record), "level": record.levelname, "logger": record.name, "message": message}
        if event := _EVENT.match(record.getMessage()):
            found["event"] = event[0]
        if traceback := _traceback(self, record):
            found["traceback"] = traceback
        return json.dumps(fields(message) | found, ensure_ascii=False)


class _Prioritized(logging.Formatter):
    """Puts the priority before each line, as the journal expects it."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return f"<{PRIORITIES.get(record.levelno, 5)}>{self._inner.format(record)}"


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""


def to_stderr(level: str, form: str = "text", more: str = "") -> None:
    """Sets up logging. `level` is a name such as `info`, `form` is `text` or `json`. `more` goes before messages."""
    handler = logging.StreamHandler(sys.stderr)
    formatter: logging.Formatter = (_Json if form == "json" else _OneLine)(more)
    handler.setFormatter(_Prioritized(formatter) if _to_journal() else formatter)
    logging.basicConfig(handlers=[handler], level=level.upper())


class _ToSyslog(SysLogHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- the name is logging's
        """Nobody reads the system's log. Standard error has the line, too."""


def to_syslog(logger: str, path: str = "/dev/log") -> None:
    """Sends the lines of this logger to the system's log, too, if the system has one. In the journal: `-t sfu`."""
    if not os.path.exists(path):
        return
    handler = _ToSyslog(path)
    handler.ident = "sfu: "
    handler.setFormatter(_OneLine(line="level={level} logger={logger} {message}"))
    logging.getLogger(logger).addHandler(handler)


def line(event: str, /, **fields: object) -> str:
    """A message of the log, `event key=value …`. A field without a value is left out; what people wrote is `quoted`."""
    return " ".join([event, *(f"{name}={value}" for name, value in fields.items() if value not in (None, ""))])


def quoted(text: str | None, most: int = QUOTED_CHARACTERS) -> str:
    """Text that people chose, on one line and between quotes, cut after `most` characters. Empty text stays empty."""
    return repr(text if len(text) <= most else text[:most] + "…") if text else ""


def say(text: str, level: int) -> None:
    """Prints a line that is not a record of the log, also before `to_stderr`. The journal gets its priority."""
    print(f"<{PRIORITIES[level]}>{text}" if _to_journal() else text, file=sys.stderr)


def _to_journal() -> bool:
    """Whether systemd connected standard error to its journal, and nothing redirected it since (systemd.exec(5))."""
    try:
        stat = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"
