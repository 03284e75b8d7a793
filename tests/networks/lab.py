"""A server and its clients, each a machine of its own (a network namespace), and emulated links between them.

server ─── emulator ─┬─ client 1
                     └─ client 2 ...
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from people import launch
from playwright.sync_api import Browser, Playwright
from support.namespaces import Machine, ServerOn

from networks import clips
from networks.emulator import Emulator

SERVER = "10.77.0.1"
PORT = 27_080
DELAY_MS = 20
"""Of each direction, unless a case says otherwise."""
_FLAGS = (
    "--use-fake-device-for-media-stream",
    "--disable-renderer-backgrounding",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
)


class Lab:
    """Clients count from 1. `close` removes everything, but ends no browser."""

    def __init__(self, clients: int) -> None:
        self._kept = contextlib.ExitStack()
        self.folder = Path(self._kept.enter_context(tempfile.TemporaryDirectory(prefix="sfu-networks-")))
        try:
            self._wires = self._machine("wires")
            self.server = self._machine("server")
            self.clients = {k: self._machine(f"client{k}") for k in range(1, clients + 1)}
            self.emulator = Emulator(self._wires, clients, self.folder / "traffic")
            self._kept.callback(self.emulator.close)
            self._connect()
        except BaseException:
            self.close()
            raise

    def _machine(self, name: str) -> Machine:
        made = Machine(name)
        self._kept.callback(made.close)
        return made

    def _connect(self) -> None:
        self._give(self.server, "s0", f"{SERVER}/32")
        for network in ("10.77.0.0/16", "10.78.0.0/16"):
            self.server.ip(f"route add {network} dev s0")
        for k, machine in self.clients.items():
            self._give(machine, f"c{k}a", f"10.77.{k}.2/24")
            machine.ip(f"route add default dev c{k}a")
            self._give(machine, f"c{k}b", f"10.78.{k}.2/24")
            machine.ip(f"link set c{k}b down")
        self.emulator.set("*", "both", delay=DELAY_MS)

    def _give(self, machine: Machine, device: str, address: str) -> None:
        self._wires.ip(f"link set {device} netns {machine.namespace}")
        machine.address(device, address)

    def move(self, client: int) -> None:
        """The client is at once on its other link, with another address; the first one is dead."""
        machine = self.clients[client]
        machine.ip(f"link set c{client}b up")
        machine.ip(f"route replace default dev c{client}b")
        machine.ip(f"link set c{client}a down")

    def browser(self, playwright: Playwright, client: int, lines: int, *, loud: bool = True) -> Browser:
        """A browser on a client's machine, with a camera of so many lines."""
        machine = self.clients[client]
        devices = (
            f"--use-file-for-fake-video-capture={clips.camera(lines)}",
            f"--use-file-for-fake-audio-capture={clips.voice(loud=loud)}",
        )
        return launch(playwright, *_FLAGS, *devices, machine=lambda found: machine.program(found, self.folder))

    @contextlib.contextmanager
    def serving(self) -> Iterator[ServerOn]:
        """The server with its default settings, but for those that say where it is."""
        server = ServerOn(self.server, "--self-signed", port=PORT, host="*", workers="2")
        try:
            yield server.start()
        finally:
            server.close()

    def close(self) -> None:
        self._kept.close()
