"""A Unix socket at a path, for the users of one machine: only the server's user and root may connect."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import trio

from sfu.errors import ConfigError
from sfu.process import users

PATH_BYTES = 100
"""Longest path that fits a socket's address on every system (unix(7): 108; 104 on macOS)."""


class NoServer(ConfigError):
    """Nobody listens at the path."""


@contextlib.contextmanager
def listening(path: Path, backlog: int) -> Iterator[trio.SocketListener]:
    """Listens at the path, in place of a server that was killed. Never takes the path from one that runs.

    Raises OSError with a sentence for the operator.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _clear(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        before = os.umask(0o177)  # nobody else may connect, from the first moment on
        try:
            with _address(path) as address:
                sock.bind(address)
        finally:
            os.umask(before)
        made = path.lstat()
        try:
            sock.listen(backlog)
            yield trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        finally:
            with contextlib.suppress(OSError):  # somebody removed it, or another server has taken the path since
                if os.path.samestat(made, path.lstat()):
                    path.unlink()


def connect(path: Path) -> trio.SocketStream:
    """A connection to the server at the path. Raises NoServer, or ConfigError if this user may not use the server."""
    try:
        owner = path.stat().st_uid
        if os.geteuid() not in (0, owner):
            raise ConfigError(
                f"The server at {path} runs as another user, {users.name_of(owner)}. Run the command as that user or "
                "as root, for example with sudo."
            )
        return trio.SocketStream(trio.socket.from_stdlib_socket(_connected(path)))
    except PermissionError:
        raise ConfigError(
            f"This user has no access to {path}. Run the command as root, for example with sudo."
        ) from None
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise NoServer(
            f"No server runs here: nothing listens at {path}. If it runs with other settings, give them to this "
            "command as well (SFU_DATA_DIR, or --env-file FILE). If it runs as another user, use sudo."
        ) from None
    except BlockingIOError:
        raise ConfigError(f"The server at {path} hangs: it accepts no more connections.") from None
    except OSError as error:
        raise ConfigError(f"The server at {path} cannot be reached: {error}.") from None


def _connected(path: Path) -> socket.socket:
    """A connection. Raises OSError; BlockingIOError if so many wait that the system lets nobody else wait."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with _address(path) as address:
            sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _clear(path: Path) -> None:
    """Removes the socket of a server that was killed. Raises OSError if one listens there, or if it is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(f"{path} is in the way. It is no socket: remove it")
    try:
        _connected(path).close()
    except ConnectionRefusedError:
        path.unlink()
        return
    except BlockingIOError:
        pass
    raise FileExistsError("another server uses this folder. Give each server its own SFU_DATA_DIR")


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """An address of the socket at `path`. A path that is longer than an address holds leads through an open folder."""
    if len(os.fsencode(path)) <= PATH_BYTES:
        yield str(path)
        return
    if sys.platform != "linux":
        raise OSError(f"the path is longer than {PATH_BYTES} bytes. Use a shorter SFU_DATA_DIR")
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
