"""The server as a person runs it: a `sfu serve` process on a free port of this machine."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from support import forked
from support.waiting import eventually

ROOT = Path(__file__).parents[2]
START_S = 60.0
STOP_S = 15.0
PORTS = 1_500


def free_port() -> int:
    """A port that is free for TCP and UDP on 127.0.0.1, below those that systems hand out by themselves, so that it is
    still free when a server is started on it again."""
    first = 20_000 + PORTS * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8)  # parallel runs share none
    for _ in range(100):
        port = random.randrange(first, first + PORTS)
        with socket.socket(type=socket.SOCK_STREAM) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


_data = tempfile.TemporaryDirectory(prefix="sfu-data-", ignore_cleanup_errors=True)
"""Of all servers here that are given no folder of their own."""


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with these SFU_* settings and no others, no checks switched off, and data that are
    not the machine's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SFU_")}
    return kept | {"STATE_DIRECTORY": _data.name} | {f"SFU_{name.upper()}": value for name, value in settings.items()}


def run(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """This Python with these arguments, to its end."""
    env = env or environment()
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=START_S
    )


def sfu(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command that is expected to end by itself."""
    return forked.run("sfu", *arguments, env=env or environment())


def workers(server_pid: int) -> list[psutil.Process]:
    """The media workers of a server; it may have other children for a moment while Python's modules are loaded. Those
    of a server that was forked are, too, and others stand in for them."""
    found = []
    for child in psutil.Process(server_pid).children():
        with suppress(psutil.NoSuchProcess):
            command = child.cmdline()
            if "sfu.media.worker" in command:
                found.append(child)
            elif "media_worker" in command:
                found += [one for one in psutil.process_iter(["name"]) if one.info["name"] == f"for {child.pid}"]
    return found


class Server:
    """A server process on 127.0.0.1, on the same port from start to start. `settings` are SFU_* names in lower case,
    `program` is what is run, in `folder`; without one, the process is forked (forked.py)."""

    def __init__(
        self,
        *options: str,
        program: tuple[str, ...] = (),
        folder: Path = ROOT,
        **settings: str,
    ) -> None:
        self.port = int(settings.get("port", 0)) or free_port()
        secure = "--self-signed" in options or {"tls_cert", "tls_domain"} & settings.keys()
        self.scheme = "https" if secure else "http"
        self.url = f"{self.scheme}://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | forked.Forked | None = None
        self._program, self._options, self._folder = program, ["serve", *options], folder
        self.data = tempfile.TemporaryDirectory(prefix="sfu-data-")  # lives as long as this, too
        usual = {"host": "127.0.0.1", "port": str(self.port), "workers": "1", "data_dir": self.data.name}
        usual["drain_s"] = "0"  # whoever is still in a call when a test stops its server does not delay that
        self.env = environment(**usual | settings)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as this; close() ends it

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def company(self, name: str) -> str:
        """Makes a company; returns its API key."""
        made = sfu("company", "create", name, env=self.env)
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    @property
    def output(self) -> str:
        """What every process so far printed and logged."""
        self._output.seek(0)
        return self._output.read().decode()

    @property
    def output_stream(self) -> str:
        """The JOURNAL_STREAM that systemd would set if the output were its journal."""
        stat = os.fstat(self._output.fileno())
        return f"{stat.st_dev}:{stat.st_ino}"

    def start(self) -> Server:
        assert self.process is None
        self._output.seek(0, os.SEEK_END)
        output = self._output.fileno()
        if self._program:
            command = [*self._program, *self._options]
            self.process = subprocess.Popen(command, cwd=self._folder, env=self.env, stdout=output, stderr=output)
        else:
            files = {0: 0, 1: output, 2: output}
            self.process = forked.Forked("sfu", self._options, folder=self._folder, env=self.env, files=files)
        eventually(self.ready, "the server's health is ok", START_S)
        return self

    def ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the server ended with status {self.process.returncode}\n{self.output}"
        try:
            return bool(self.get("/health")["status"] == "ok")
        except urllib.error.HTTPError as refused:
            refused.close()
            return False
        except OSError:
            return False

    def get(self, path: str) -> Any:
        """The JSON that a GET is answered with."""
        request = urllib.request.Request(self.url + path, headers={"Accept": "application/json"})
        with urllib.request.urlopen(request, timeout=5, context=ssl._create_unverified_context()) as response:
            return json.load(response)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Asks the process to end and returns its exit status."""
        self.send(signum)
        return self.ended()

    def send(self, signum: int) -> None:
        """Sends the process a signal."""
        assert self.process is not None
        self.process.send_signal(signum)

    def kill(self) -> None:
        """Ends the process as a crash or the kernel would; its workers notice by themselves."""
        self.stop(signal.SIGKILL)

    def close(self) -> None:
        """Whatever state the test left: no process, no open file."""
        if self.process is not None:
            self.process.kill()
            self.ended()
        self._output.close()
        self.data.cleanup()

    def ended(self) -> int:
        """The exit status of a process that is about to end."""
        assert self.process is not None
        try:
            return self.process.wait(STOP_S)
        finally:
            if self.process.returncode is not None:
                self.process = None
