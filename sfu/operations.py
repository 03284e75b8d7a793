"""What the operator's commands ask of the running server, over the control socket.

The answers are JSON objects; docs/operating.md shows them as the commands print them with `--json`.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from sfu import __version__
from sfu.calls.registry import Calls
from sfu.config import Config
from sfu.control import Call, Control
from sfu.data import described, server_name
from sfu.web.certificate import expires_at


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of a command that takes none."""


class Operations:
    """`tls` returns the TLS context of new connections, None for http."""

    def __init__(self, config: Config, calls: Calls, tls: Callable[[], ssl.SSLContext | None]) -> None:
        self._config, self._calls, self._tls = config, calls, tls
        self._since = datetime.now(UTC)

    def register(self, control: Control) -> None:
        control.add("status", Nothing, self._status)

    async def _status(self, _asked: Nothing, _call: Call) -> dict[str, Any]:
        hub, context = self._calls, self._tls()
        store = hub.admission.store
        return {
            "version": __version__,
            "server": server_name(self._config),
            "process": os.getpid(),
            "since": self._since,
            "state": "ready" if hub.workers.ready else "starting",
            "database": {"state": store.database.state, "place": described(self._config)},
            "rooms": len(hub.rooms.rooms),
            "participants": len(hub.rooms.peers),
            "waiting": hub.lobby.count,
            "addresses": hub.workers.advertised,
            "udp_ports": list(self._config.udp_ports),
            "tcp_port": self._config.public_tcp_port or None,
            "certificate_until": context and expires_at(context),
            "max_load": self._config.max_load if self._config.limits else None,
            "workers": self._workers(),
        }

    def _workers(self) -> list[dict[str, Any]]:
        hub, found = self._calls, []
        for index in range(self._config.workers):
            rooms = [room for room in hub.rooms.rooms.values() if room.worker == index]
            found.append(
                {
                    "worker": index,
                    "ready": hub.workers.is_ready(index),
                    "load": round(hub.workers.load(index), 3),
                    "rooms": len(rooms),
                    "participants": sum(len(room.peers) for room in rooms),
                }
            )
        return found
