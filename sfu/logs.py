"""Logging to standard error: `time=… level=… logger=… message`, times in UTC, one line per record.

If standard error is systemd's journal, each line begins with its priority, which the journal removes (sd-daemon(3)).
"""

from __future__ import annotations

import logging
import os
import sys
import time
from logging.handlers import SysLogHandler

PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""Syslog's severities (RFC 5424 section 6.2.1) by level."""

AUDIT = "sfu.audit"
"""The logger of what API keys, moderators and commands changed: one line each."""
QUOTED_CHARACTERS = 160
"""Most characters of a text in a line, unless the caller wants more."""


class _OneLine(logging.Formatter):
    """Folds tracebacks into the line of their record."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\\n")


class _Prioritized(_OneLine):
    def format(self, record: logging.LogRecord) -> str:
        return f"<{PRIORITIES.get(record.levelno, 5)}>{super().format(record)}"


def to_stderr(level: str, more: str = "") -> None:
    """Sets up logging. `level` is a name such as `info`; `more` is put before each message."""
    handler = logging.StreamHandler(sys.stderr)
    line = f"time=%(asctime)s.%(msecs)03dZ level=%(levelname)s logger=%(name)s {more}%(message)s"
    formatter = (_Prioritized if _to_journal() else _OneLine)(line, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
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
    handler.setFormatter(_OneLine("level=%(levelname)s logger=%(name)s %(message)s"))
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
