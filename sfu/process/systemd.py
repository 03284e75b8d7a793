"""Tells systemd what a service of Type=notify does (sd_notify(3)): a datagram of NAME=VALUE lines.

Outside such a service every call does nothing. A manager that does not read loses messages and delays nobody.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from types import TracebackType
from typing import Self

READY, STOPPING, WATCHDOG = "READY=1", "STOPPING=1", "WATCHDOG=1"


class Notifier:
    """`address` is that of the manager's socket, empty for none. `watchdog_s` is how often it wants a sign of life; 0:
    never."""

    def __init__(self, address: str, watchdog_s: float = 0.0) -> None:
        self.watchdog_s = watchdog_s
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None

    @classmethod
    def from_env(cls, env: MutableMapping[str, str]) -> Notifier:
        """Takes the variables out of the environment: they are not for child processes."""
        address, pid = env.pop("NOTIFY_SOCKET", ""), env.pop("WATCHDOG_PID", "")
        usec = env.pop("WATCHDOG_USEC", "")
        ours = usec.isdecimal() and pid in ("", str(os.getpid()))
        return cls(address if address.startswith(("/", "@")) else "", int(usec) / 1e6 if ours else 0.0)

    def __enter__(self) -> Self:
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def tell(self, *lines: str) -> None:
        """Sends one message."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)


def reloading() -> tuple[str, str]:
    """The lines that announce a reload, which READY ends. Type=notify-reload needs the time in them."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def extend(seconds: float) -> str:
    """The line that keeps systemd from killing a service that stops: it is to wait that much longer from now on."""
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}"


def status(text: str) -> str:
    """The line that `systemctl status` shows."""
    return f"STATUS={text}"
