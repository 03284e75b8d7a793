"""A process that has imported the server and forks one that runs it wherever a test would start one: imports are most
of what a start costs. It ends, with all that it forked, when its standard input does.

`forkserver.py SOCKET` listens there. Whoever connects sends one request, with files, and reads the process's number,
then its exit status as `subprocess` has it; by closing the connection it kills the process.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import gc
import importlib
import marshal
import os
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

NUMBER_BYTES = 4
MOST_FILES = 64
HIGH_FD = 500
"""Above the numbers of all files that a process is given."""


MODULES = {"sfu": "sfu.__main__", "media_worker": "sfu.media.worker", "worker_child": "support.worker_child"}
"""What can be run, and the module whose `main` does."""
STAND_IN = Path(__file__).with_name("stand_in.py")


class Request(NamedTuple):
    """What to run, by a name of MODULES. `files` are the numbers that its open files have there."""

    program: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    files: list[int]


def encoded(request: Request) -> bytes:
    """With its length before it. `marshal` is built in, so that a process that imports nothing has it, too."""
    content = marshal.dumps(tuple(request))
    return len(content).to_bytes(NUMBER_BYTES, sys.byteorder) + content


def received(connection: socket.socket) -> tuple[Request, list[int]]:
    """The next request of a connection, and its files by the numbers that they have here."""
    data, files, _, _ = socket.recv_fds(connection, NUMBER_BYTES, MOST_FILES)
    size = int.from_bytes(data, sys.byteorder)
    content = bytearray()
    while len(content) < size and (more := connection.recv(size - len(content))):
        content += more
    return Request(*marshal.loads(bytes(content))), files


class ForkServer:
    def __init__(self, path: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path + ".new")
        self._listener.listen(64)
        os.rename(path + ".new", path)  # once it exists, it can be connected to
        self._woken, waker = os.pipe()
        os.set_blocking(waker, False)
        self._running: dict[int, socket.socket] = {}  # by the process's number
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for the tests, which then close the input

    def run(self) -> Request | None:
        """Returns a request in the process that is to fulfil it, and None here, at the end."""
        while True:
            ready, _, _ = select.select([0, self._listener, self._woken, *self._running.values()], [], [])
            if 0 in ready:
                for pid in self._running:
                    os.kill(pid, signal.SIGKILL)
                return None
            if self._woken in ready:
                os.read(self._woken, 1000)
                self._reap()
            for pid, connection in list(self._running.items()):
                if connection in ready:
                    os.kill(pid, signal.SIGKILL)
            if self._listener in ready and (request := self._fork()):
                return request

    def _fork(self) -> Request | None:
        connection, _ = self._listener.accept()
        request, files = received(connection)
        pid = os.fork()
        if not pid:
            _name_after(connection)
            connection.detach()  # else it would be closed later, and with it whatever has its number then
            self._become(request, files)
            return request
        for file in files:
            os.close(file)
        self._running[pid] = connection
        _say(connection, pid)
        return None

    def _reap(self) -> None:
        """Tells of the processes that ended."""
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self._running.pop(pid) as connection:
                _say(connection, os.waitstatus_to_exitcode(status))

    def _become(self, request: Request, files: list[int]) -> None:
        """Makes this new process one with the request's environment and files and no others."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        high = [fcntl.fcntl(file, fcntl.F_DUPFD, HIGH_FD) for file in files]
        self._listener.detach()
        for connection in self._running.values():
            connection.detach()
        os.closerange(3, HIGH_FD)
        for file, number in zip(high, request.files, strict=True):
            os.dup2(file, number)
        os.closerange(HIGH_FD, HIGH_FD + MOST_FILES)
        os.chdir(request.folder)
        os.environ.clear()
        os.environ.update(request.environment)
        os.setsid()


def _say(connection: socket.socket, number: int) -> None:
    try:
        connection.sendall(number.to_bytes(NUMBER_BYTES, sys.byteorder, signed=True))
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):  # whoever asked may be gone
            raise


def _name_after(connection: socket.socket) -> None:
    """Tells in the name of this process which one asked for it, so that tests find it."""
    if sys.platform == "linux":
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        Path("/proc/self/comm").write_text(f"for {pid}")


def main() -> NoReturn:
    tests = Path(__file__).parents[1]
    sys.path[:1] = [str(tests.parent), str(tests)]
    modules = {program: importlib.import_module(name) for program, name in MODULES.items()}
    importlib.import_module("sfu.server")  # which `sfu serve` imports when it runs
    modules["sfu.workers.workers"] = importlib.import_module("sfu.workers.workers")
    gc.freeze()
    request = ForkServer(sys.argv[1]).run()
    if request is None:
        os._exit(0)
    module = modules[request.program]
    if request.program == "sfu" and sys.platform == "linux":  # where workers() finds them
        stand_in = sys.executable, "-I", "-S", str(STAND_IN), sys.argv[1], "media_worker"
        modules["sfu.workers.workers"].COMMAND = stand_in  # type: ignore[attr-defined]
    sys.argv = [str(module.__file__), *request.arguments]
    _end(module.main)


def _end(program: Callable[[], int | None]) -> NoReturn:
    """Runs it and exits as Python does, but does not take all modules down, which needs longer than most commands."""
    try:
        status = program() or 0
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        status = end.code
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
