"""What systemd is told, by a real server over a real datagram socket."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from support.process import Server, workers
from support.waiting import eventually
from support.wire import joined

from sfu.process.systemd import Notifier, extend, reloading, status


class Manager:
    """The end of the socket that systemd reads. `told` are the lines so far."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.messages: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.setblocking(False)

    @property
    def told(self) -> list[str]:
        with suppress(BlockingIOError):
            while True:
                self.messages.append(self._socket.recv(65536).decode())
        return [line for message in self.messages for line in message.split("\n")]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@sfu-test-{os.getpid()}")
    yield made
    made.close()


def test_the_environment_names_the_socket_and_the_watchdog() -> None:
    env = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    assert Notifier.from_env(env).watchdog_s == 30
    assert env == {"HOME": "/"}, "no child is to have them"
    assert Notifier.from_env({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).watchdog_s == 0
    assert Notifier.from_env({"WATCHDOG_USEC": "soon"}).watchdog_s == 0


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative"])
def test_without_a_socket_nothing_is_told(address: str) -> None:
    with Notifier.from_env({"NOTIFY_SOCKET": address}) as notifier:
        notifier.tell("READY=1")


def test_a_manager_that_is_gone_or_does_not_read_delays_nobody(manager: Manager) -> None:
    with Notifier(manager.address) as notifier:
        for _ in range(5_000):
            notifier.tell("STATUS=" + "x" * 1000)
        manager.close()
        notifier.tell("READY=1")


def test_what_the_lines_say() -> None:
    before = time.monotonic_ns() // 1000
    line, at = reloading()
    assert line == "RELOADING=1"
    assert before <= int(at.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert (extend(1.5), status("Fine")) == ("EXTEND_TIMEOUT_USEC=1500000", "STATUS=Fine")


async def test_a_server_tells_its_life(tmp_path: Path) -> None:
    manager, server = Manager(str(tmp_path / "notify")), Server(drain_s="600")
    try:
        server.env |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "600000"}
        server.start()
        eventually(lambda: "READY=1" in manager.told, "it is ready")
        eventually(lambda: "STATUS=0 people in 0 rooms" in manager.told, "it says what goes on")
        async with joined(server.url, "alice"):
            eventually(lambda: "STATUS=1 person in 1 room" in manager.told, "alice is counted")
            os.kill(server.pid, signal.SIGHUP)
            eventually(lambda: manager.told.count("READY=1") == 2, "the reload is over")
            assert manager.told.index("RELOADING=1") + 1 == manager.told.index(
                next(line for line in manager.told if line.startswith("MONOTONIC_USEC="))
            )
            server.send(signal.SIGTERM)
            eventually(lambda: "STOPPING=1" in manager.told, "it drains")
            began = len(manager.told)
            eventually(lambda: "EXTEND_TIMEOUT_USEC=30000000" in manager.told[began:], "it asks for time again")
            assert any(": 1 person in 1 room" in line for line in manager.told[began:])
            assert "STATUS=Stopping" not in manager.told
            os.kill(server.pid, signal.SIGHUP)
            eventually(lambda: server.output.count("settings_kept") == 2, "it reloads")
            assert manager.told.count("READY=1") == 2, "but is not what systemd calls ready"
        assert server.stop() == 0
        assert "STATUS=Stopping" in manager.told
    finally:
        server.close()
        manager.close()


def test_the_watchdog_is_fed_while_a_media_worker_answers(tmp_path: Path) -> None:
    """At each turn it is told what goes on, and then fed."""
    manager, server = Manager(str(tmp_path / "notify")), Server()

    def goes_hungry() -> bool:
        return any(one == other == "STATUS=0 people in 0 rooms" for one, other in pairwise(manager.told))

    try:
        server.env |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "300000"}
        server.start()
        eventually(lambda: manager.told.count("WATCHDOG=1") > 2, "it is fed")
        assert not goes_hungry()
        (worker,) = workers(server.pid)
        worker.suspend()
        eventually(goes_hungry, "the worker hangs")
        eventually(lambda: "worker_died" in server.output, "it is killed")
        fed = manager.told.count("WATCHDOG=1")
        eventually(lambda: manager.told.count("WATCHDOG=1") > fed, "its successor answers")
        assert server.stop() == 0
    finally:
        server.close()
        manager.close()
