"""Machines in a network: each is a network namespace, and each cable a pair of virtual interfaces (ip-netns(8)).

Needs root, `ip` and `nft`. Nothing of the real machine's network is touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.process import Server

_CLONE_NEWNET = 0x40000000
_HERE = "/proc/thread-self/ns/net"
_numbers = itertools.count()


def skip_without_namespaces() -> None:
    """Skips a test where there can be no machines, with the reason."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("this test makes network namespaces, which takes root on Linux")
    for command, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(command) is None:
            pytest.skip(f"this test needs {command}: sudo apt install {package}")
    probe = Machine("probe")
    try:
        probe.ip("link add a0 type veth peer name a1")
    except RuntimeError as error:
        pytest.skip(f"this system has no virtual networks: {error}")
    finally:
        probe.close()


class Machine:
    """A host of its own, with nothing but loopback. `close` ends its processes' network, so end these first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.namespace = f"sfu{os.getpid()}-{next(_numbers)}-{name}"
        _run("ip", "netns", "add", self.namespace)
        self.ip("link set lo up")

    @property
    def command(self) -> tuple[str, ...]:
        """What runs the program that follows on this machine."""
        return ("ip", "netns", "exec", self.namespace)

    def run(self, *command: str) -> str:
        """Runs a program to its end; returns what it prints. Raises RuntimeError if it fails."""
        return _run(*self.command, *command)

    def ip(self, arguments: str) -> str:
        return _run("ip", "-n", self.namespace, *arguments.split())

    def address(self, interface: str, *addresses: str) -> None:
        """Gives the interface these addresses, with their prefixes, and switches it on."""
        for address in addresses:
            self.ip(f"addr add {address} dev {interface}" + (" nodad" if ":" in address else ""))
        self.ip(f"link set {interface} up")

    def keeps_secondaries(self) -> None:
        """An address of an interface can go without those that came after it."""
        self.run("sysctl", "-qw", "net.ipv4.conf.all.promote_secondaries=1")

    def forwards(self) -> None:
        """It is a router from now on."""
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")

    def rules(self, text: str) -> None:
        """Replaces all rules of its firewall (nft(8))."""
        done = subprocess.run(
            [*self.command, "nft", "-f", "-"], input=f"flush ruleset\n{text}\n", text=True, capture_output=True
        )
        if done.returncode:
            raise RuntimeError(f"nft: {done.stderr}\n{text}")

    @contextlib.contextmanager
    def within(self) -> Iterator[None]:
        """This thread is on the machine: sockets that it opens are, for good."""
        with open(_HERE) as home, open(f"/run/netns/{self.namespace}") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def program(self, executable: str, folder: Path) -> str:
        """A program in `folder` that runs the executable on this machine, for callers that take no arguments."""
        script = folder / f"{Path(executable).name}-{self.name}"
        script.write_text(f'#!/bin/sh\nexec {" ".join(self.command)} {executable} "$@"\n')
        script.chmod(0o755)
        return str(script)

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            _run("ip", "netns", "del", self.namespace)


def cable(one: Machine, interface: str, other: Machine, its: str) -> None:
    """Connects two machines: each gets an interface."""
    _run(
        "ip", "link", "add", interface, "netns", one.namespace, "type", "veth", "peer", "name", its, "netns",
        other.namespace,
    )  # fmt: skip


class ServerOn(Server):
    """A server process on a machine, where every port is free."""

    def __init__(self, machine: Machine, *options: str, port: int = 8080, **settings: str) -> None:
        program = (*machine.command, sys.executable, "-m", "sfu")
        super().__init__(*options, program=program, port=str(port), **settings)
        self._machine = machine

    def ready(self) -> bool:
        with self._machine.within():
            return super().ready()


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _run(*command: str) -> str:
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
