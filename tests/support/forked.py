"""Processes as `python -m sfu` starts them, but forked from one that has imported it (forkserver.py)."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from support import forkserver

ROOT = Path(__file__).parents[2]
START_S = 60.0


class Forked:
    """A process, with as much of `subprocess.Popen` as tests need. It ends at the latest when this is forgotten."""

    def __init__(
        self, program: str, arguments: list[str], *, folder: Path, env: dict[str, str], files: dict[int, int]
    ) -> None:
        """`files` are this process's by the numbers that they shall have there."""
        self.returncode: int | None = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(server())
        request = forkserver.Request(program, arguments, env, str(folder), list(files))
        data = forkserver.encoded(request)
        sent = socket.send_fds(self._connection, [data], list(files.values()))
        self._connection.sendall(data[sent:])
        self.pid = self._number(START_S)

    def __del__(self) -> None:
        self._connection.close()

    def poll(self) -> int | None:
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = self._number(timeout)
            self._connection.close()
        return self.returncode

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _number(self, timeout: float | None) -> int:
        """The next that the server says."""
        self._connection.settimeout(timeout)
        try:
            said = self._connection.recv(forkserver.NUMBER_BYTES)
        except (TimeoutError, BlockingIOError):
            raise subprocess.TimeoutExpired(forkserver.__name__, timeout or 0.0) from None
        assert said, "the process that forks has ended"
        return int.from_bytes(said, sys.byteorder, signed=True)


def run(program: str, *arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A process to its end."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        files = {0: 0, 1: output.fileno(), 2: errors.fileno()}
        status = Forked(program, list(arguments), folder=ROOT, env=env, files=files).wait(START_S)
        for file in (output, errors):
            file.seek(0)
        return subprocess.CompletedProcess(
            [program, *arguments], status, output.read().decode(), errors.read().decode()
        )


@cache
def server() -> str:
    """The path of the socket of this process's own server, which the first call starts."""
    folder = tempfile.TemporaryDirectory(prefix="sfu-forks-")
    path = f"{folder.name}/socket"
    process = subprocess.Popen([sys.executable, forkserver.__file__, path], stdin=subprocess.PIPE, cwd=ROOT)
    atexit.register(folder.cleanup)
    atexit.register(process.communicate)  # which closes its input
    deadline = time.monotonic() + START_S
    while not os.path.exists(path):
        assert process.poll() is None, "the process that forks has ended"
        assert time.monotonic() < deadline, "the process that forks does not start"
        time.sleep(0.02)
    return path
