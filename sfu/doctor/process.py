"""Runs a media client of sfu/media/probe as a process of its own, and reads its lines of JSON."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator

import trio

LINE_BYTES = 1 << 20


@contextlib.asynccontextmanager
async def lines(module: str, *arguments: str, stdin: bytes = b"") -> AsyncIterator[AsyncIterator[bytes]]:
    """The lines that the module prints. The process is killed at the end of the block. It inherits no settings.

    Raises RuntimeError at the end of its lines if it failed.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith("SFU_")}
    command = [sys.executable, "-m", f"sfu.media.probe.{module}", *arguments]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    assert process.stdin is not None
    try:
        await process.stdin.send_all(stdin)
        await process.stdin.aclose()
        yield _lines(process)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                await pipe.aclose()


async def _lines(process: trio.Process) -> AsyncIterator[bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    buffer = b""
    async for part in process.stdout:
        *whole, buffer = (buffer + part).split(b"\n")
        if len(buffer) > LINE_BYTES:
            raise RuntimeError("the process prints too long a line")
        for line in whole:
            yield line
    status = await process.wait()
    if status:
        said = (await process.stderr.receive_some(65536)).decode(errors="replace").strip().splitlines()
        raise RuntimeError(said[-1] if said else f"the process ended with status {status}")
