"""What SIGTERM and SIGINT do: the server drains, stops, or exits.

SIGTERM, from a service manager, drains while somebody is in a call. SIGINT, from the keyboard, stops without a drain. A
second signal ends a drain at once; people are still told. Any further one exits without a word.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable

import trio

from sfu.calls.entrance import Signaling
from sfu.process import systemd
from sfu.process.systemd import Notifier
from sfu.settings.config import Config

log = logging.getLogger("sfu")

HURRY_S = 2.0
"""How long the end of a drain by a second signal may take, until the process exits whatever is left."""
LOOK_S = 0.25
"""How often a drain looks whether the last call has ended."""
EXTEND_S = 30.0
"""The time that systemd is asked for, repeatedly: it must cover the stop after the drain."""


class Stopping:
    """`end` is called once, synchronously: it begins the stop."""

    def __init__(self, config: Config, signaling: Signaling, notifier: Notifier, end: Callable[[], None]) -> None:
        self._config, self._signaling, self._notifier, self._end = config, signaling, notifier, end
        self._life = signaling.calls.life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Acts on signals until cancelled. Media workers exit when the bridge closes."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async with trio.open_nursery() as nursery:
                async for received in signals:
                    self._receive(signal.Signals(received), nursery)

    def _receive(self, received: signal.Signals, nursery: trio.Nursery) -> None:
        busy = self._life.phase == "ready" and not self._signaling.calls.idle
        if self._life.phase == "stopping":
            _exit(received)
        elif self._life.draining:
            nursery.start_soon(_exit_soon, received)
            self._stop(received.name)
        elif received == signal.SIGTERM and busy and self._config.drain_s:
            self._begin_drain(self._config.drain_s)
            nursery.start_soon(self._drain)
        else:
            self._stop(received.name)

    def _begin_drain(self, seconds: float) -> None:
        self._life.drain(seconds)
        peers = len(self._signaling.calls.rooms.peers)
        log.info("draining signal=SIGTERM peers=%d seconds=%d", peers, self._life.seconds_left)
        self._signaling.drain()

    async def _drain(self) -> None:
        """Returns when the last call has ended, the time is over, or a signal ended it."""
        calls = self._signaling.calls
        while self._life.seconds_left and not calls.idle:
            text = f"Draining for {self._life.seconds_left} s at most: {calls.rooms.described()}"
            self._notifier.tell(systemd.STOPPING, systemd.extend(EXTEND_S), systemd.status(text))
            await trio.sleep(LOOK_S)
        if self._life.draining:
            self._stop("none")

    def _stop(self, why: str) -> None:
        log.info("stopping signal=%s", why)
        self._life.stop()
        self._notifier.tell(systemd.STOPPING, systemd.extend(EXTEND_S), systemd.status("Stopping"))
        self._end()


async def _exit_soon(received: signal.Signals) -> None:
    await trio.sleep(HURRY_S)
    _exit(received)


def _exit(received: signal.Signals) -> None:
    log.warning("stopping_at_once signal=%s", received.name)
    os._exit(128 + received)
