"""A server that did not run for a while, alone or with its media, ends nothing of what goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable

import psutil
import trio
from support.process import Server, workers
from support.wire import joined

from sfu.workers.workers import SILENCE_S

SHORT = {"ping_s": "1", "pong_s": "3", "hold_s": "2.5", "answer_s": "3", "ice_s": "3"}
"""Shorter than the pauses here, but longer than what of a pause counts."""


async def pause(seconds: float, *processes: psutil.Process) -> None:
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        await trio.sleep(seconds)  # what is tested is how long they are stopped
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGCONT)


async def test_a_pause_of_the_control_plane_ends_no_call(start_server: Callable[..., Server]) -> None:
    """Longer than media workers may be silent, a client may leave pings unanswered, and a peer is held."""
    server = start_server(**SHORT | {"answer_s": "60"})
    before = [worker.pid for worker in workers(server.pid)]
    async with joined(server.url) as alice:
        await pause(SILENCE_S + 2, psutil.Process(server.pid))
        await alice.talks("still here")
    assert [worker.pid for worker in workers(server.pid)] == before
    assert "worker_died" not in server.output
    assert "held " not in server.output


async def test_a_pause_of_the_machine_ends_no_call(start_server: Callable[..., Server]) -> None:
    """An offer is in flight meanwhile, for longer than it may be; nobody could have answered it."""
    server = start_server(**SHORT)
    async with joined(server.url) as alice:
        await pause(6, psutil.Process(server.pid), *workers(server.pid))
        await alice.talks("still here")
        with trio.fail_after(10):
            while '"answer_timeout"' not in await alice.ws.get_message():
                pass  # once it has been overdue in time that counts
    assert "worker_died" not in server.output
