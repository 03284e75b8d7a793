"""A coturn as an operator runs it: Debian's, with the file that `sfu coturn-config` prints."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.debian import environment, program
from support.process import sfu
from support.proxies import listens

TEST = """
listening-ip=127.0.0.1
allow-loopback-peers
userdb={folder}/turndb
log-file={folder}/turn.log
simple-log
"""
"""What only a test needs: everything is on loopback here, and the machine's files are not touched."""


@contextmanager
def coturn(env: dict[str, str], port: int, folder: Path) -> Iterator[None]:
    """Runs for a server with this environment, whose SFU_TURN_URLS have this port. Skips the test where there is no
    coturn."""
    executable = program("turnserver")
    printed = sfu("coturn-config", env=env)
    assert printed.returncode == 0, printed.stderr
    file, log = folder / "turnserver.conf", folder / "stdout"
    file.write_text(printed.stdout.replace("\nsyslog\n", "\n") + TEST.format(folder=folder))
    with log.open("wb") as output:
        command = [executable, "-c", str(file), "--pidfile="]
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, env=environment())
    try:
        listens(port, process, log)
        yield
    finally:
        process.terminate()
        process.wait()
