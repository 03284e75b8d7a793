"""The audit log of commands: its lines, and the author of what they change in the database."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sfu.logs import AUDIT, line, quoted, to_syslog
from sfu.process import users

if TYPE_CHECKING:
    from sfu.store.audit import Author

_log = logging.getLogger(AUDIT)


def record(event: str, /, *, by: str, client: str, **about: object) -> None:
    """Writes one line. `by` is the user or participant who did it, `client` their address. Fields that people wrote
    are `quoted` already, except `by`."""
    _log.info("%s", line(event, **about, by=quoted(by), client=client))


def author_of(by: str, client: str) -> Author:
    """The user `by` of a command, who came from the address `client`."""
    from sfu.store.audit import Author  # takes a quarter of a second; `sfu --help` need not wait for it

    return Author("command", name=by, address=client)


def commander() -> Author:
    """Who runs this command, for what it changes in the database."""
    return author_of(users.caller(), users.caller_address())


def record_command(event: str, /, **about: object) -> None:
    """Writes the line of a command, also to the system's log: nobody else keeps its standard error."""
    to_syslog(AUDIT)
    record(event, **about, by=users.caller(), client=users.caller_address())
