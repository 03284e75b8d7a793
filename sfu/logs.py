"""Logging to standard error: `time=… level=… logger=… message`, times in UTC, one line per record.

If standard error is systemd's journal, each line begins with its priority, which the journal removes (sd-daemon(3)).
"""

from __future__ import annotations

import logging
import os
import sys
import time

PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""Syslog's severities (RFC 5424 section 6.2.1) by level."""


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
