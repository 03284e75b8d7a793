"""Logging to standard error: `time=… level=… logger=… message`, times in UTC, one line per record."""

from __future__ import annotations

import logging
import sys
import time


class _OneLine(logging.Formatter):
    """Folds tracebacks into the line of their record."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\\n")


def to_stderr(level: str, more: str = "") -> None:
    """Sets up logging. `level` is a name such as `info`; `more` is put before each message."""
    handler = logging.StreamHandler(sys.stderr)
    line = f"time=%(asctime)s.%(msecs)03dZ level=%(levelname)s logger=%(name)s {more}%(message)s"
    formatter = _OneLine(line, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level.upper())
