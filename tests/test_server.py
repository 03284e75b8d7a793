"""The server process and its signals: what a SIGHUP renews, and that it ends nothing."""

from __future__ import annotations

import os
import pty
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable
from urllib.request import urlopen

import pytest
import trio
from support.process import ROOT, Server, environment, free_port, workers
from support.variants import variants
from support.waiting import eventually
from support.wire import joined


@pytest.mark.parametrize("options", [(), *variants((("--self-signed",),))])
async def test_a_hang_up_of_all_its_processes_ends_nothing(
    start_server: Callable[..., Server], options: tuple[str, ...]
) -> None:
    """As of `systemctl kill --signal=SIGHUP`."""
    context = ssl._create_unverified_context() if options else None
    server = start_server(*options)
    async with joined(server.url, "alice", context) as alice:
        processes = [server.pid, *(worker.pid for worker in workers(server.pid))]
        assert [os.getsid(pid) for pid in processes[1:]] == processes[1:], "no terminal of the server's is theirs"
        for pid in processes:
            os.kill(pid, signal.SIGHUP)
        await alice.talks("still here")
        async with joined(server.url, "bob", context):
            pass
    assert processes[1:] == [worker.pid for worker in workers(server.pid)]
    assert server.stop() == 0


def test_a_terminal_that_closes_ends_nothing() -> None:
    """As of an ssh session: the foreground group gets SIGHUP, and there is nothing left to write to."""
    port = free_port()
    env = environment(host="127.0.0.1", port=str(port), workers="1")
    ours, theirs = pty.openpty()
    script = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", script, sys.executable, "-m", "sfu", "serve"]

    async def hang_up() -> None:
        async with joined(f"http://127.0.0.1:{port}", "alice") as alice:
            os.close(ours)
            await alice.talks("still here")
            async with joined(f"http://127.0.0.1:{port}", "bob"):
                await alice.talks("and others come")

    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        try:
            os.close(theirs)
            text = b""
            while b"is ready" not in text:
                text += os.read(ours, 4096)
            before = [worker.pid for worker in workers(process.pid)]
            trio.run(hang_up)
            assert [worker.pid for worker in workers(process.pid)] == before
            process.terminate()
            assert process.wait(15) == 0
        finally:
            process.kill()


def test_a_reader_that_is_gone_before_the_addresses_are_told_ends_nothing() -> None:
    """As of a terminal that closes during the start, or `sfu serve | head -0`."""
    port = free_port()
    env = environment(host="127.0.0.1", port=str(port), workers="1")
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "sfu", "serve"]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=theirs, stderr=subprocess.DEVNULL) as process:
        try:
            os.close(theirs)
            eventually(lambda: answers(port), "it serves")
            process.terminate()
            assert process.wait(15) == 0
        finally:
            process.kill()


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
