"""The audit log: each change, with its author and their address."""

from __future__ import annotations

import logging

from sfu.logs import AUDIT, line, quoted, to_syslog
from sfu.process import users

_log = logging.getLogger(AUDIT)


def record(event: str, /, *, by: str, client: str, **about: object) -> None:
    """Writes one line. `by` is the user or participant who did it, `client` their address. Fields that people wrote
    are `quoted` already, except `by`."""
    _log.info("%s", line(event, **about, by=quoted(by), client=client))


def record_command(event: str, /, **about: object) -> None:
    """Writes the line of a command, also to the system's log: nobody else keeps its standard error."""
    to_syslog(AUDIT)
    record(event, **about, by=users.caller(), client=users.caller_address())
