"""Who uses a database: servers hold a lock together, a command that replaces its contents holds it alone.

SQLite: a lock on the file `…-server` (flock), which the system releases even if the process is killed. PostgreSQL: an
advisory lock of each connection, which ends with the connection.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import Any

from sfu.errors import ConfigError

SHARE_S = 1.0
"""How long a starting server waits for another one that starts: that one holds the lock alone for a moment."""
POSTGRESQL = 7331003
"""The number of the advisory lock. 7331002 is that of the schema."""


class InUse(ConfigError):
    """A server runs on the database, so its contents cannot be replaced."""


class Replacing(ConfigError, ConnectionError):
    """A command replaces the contents of the database, so no server can run on it. To one that runs, it is away."""

    def __init__(self) -> None:
        super().__init__("A command is restoring or moving this database. Start the server when it has finished.")


def share(database: str) -> tuple[int, bool]:
    """Registers a server of a SQLite file: the descriptor that holds the lock, and whether it is the only server.

    Raises Replacing, or OSError on a file system without locks.
    """
    file = _open(database)
    alone = _lock(file, fcntl.LOCK_EX)
    give_up = time.monotonic() + SHARE_S
    while not _lock(file, fcntl.LOCK_SH):
        if time.monotonic() > give_up:
            os.close(file)
            raise Replacing
        time.sleep(0.02)
    return file, alone


def take(database: str) -> int:
    """The descriptor that holds the lock of a SQLite file alone. Raises InUse, or OSError without locks."""
    file = _open(database)
    if not _lock(file, fcntl.LOCK_EX):
        os.close(file)
        raise InUse(_IN_USE)
    return file


async def share_connection(connection: Any) -> None:
    """Registers a connection to PostgreSQL. Raises Replacing."""
    if not await connection.fetchval(f"SELECT pg_try_advisory_lock_shared({POSTGRESQL})"):
        raise Replacing


async def take_connection(connection: Any) -> None:
    """Takes the lock of a PostgreSQL database for its only connection. Raises InUse."""
    if not await connection.fetchval(f"SELECT pg_try_advisory_lock({POSTGRESQL})"):
        raise InUse(_IN_USE)


_IN_USE = (
    "A server or another command uses this database and would not notice that its contents are replaced. Stop it, for "
    "example with `sudo systemctl stop sfu`, and run the command again."
)


def _open(database: str) -> int:
    file = os.open(f"{database}-server", os.O_RDWR | os.O_CREAT, 0o600)
    if os.geteuid() == 0:  # the server, another user, opens it as well
        owner = os.stat(database)
        os.fchown(file, owner.st_uid, owner.st_gid)
    return file


def _lock(file: int, kind: int) -> bool:
    """Whether the descriptor now has this lock. If it raises, the descriptor is closed."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        os.close(file)
        raise
    return True
