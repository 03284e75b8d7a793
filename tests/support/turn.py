"""A coturn as an operator runs it: Debian's, with the file that `sfu coturn-config` prints."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from support.debian import environment, program
from support.namespaces import Machine
from support.process import sfu
from support.proxies import listens

TEST = """
userdb={folder}/turndb
log-file={folder}/turn.log
simple-log
"""
"""What only a test needs: the machine's files are not touched."""
LOOPBACK = """
listening-ip=127.0.0.1
allow-loopback-peers
"""


@contextmanager
def coturn(env: dict[str, str], port: int, folder: Path, machine: Machine | None = None) -> Iterator[None]:
    """Runs for a server with this environment, whose SFU_TURN_URLS have this port: on a machine of its own, or on this
    one's loopback. Skips the test where there is no coturn."""
    executable = program("turnserver")
    printed = sfu("coturn-config", env=env)
    assert printed.returncode == 0, printed.stderr
    file, log = folder / "turnserver.conf", folder / "stdout"
    file.write_text(
        printed.stdout.replace("\nsyslog\n", "\n") + TEST.format(folder=folder) + ("" if machine else LOOPBACK)
    )
    with log.open("wb") as output:
        command = [*(machine.command if machine else ()), executable, "-c", str(file), "--pidfile="]
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, env=environment())
    try:
        with machine.within() if machine else nullcontext():
            listens(port, process, log)
        yield
    finally:
        process.terminate()
        process.wait()
