"""The links between the server and its clients (emulator.c): built once, run in a network namespace."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.namespaces import Machine
from support.process import ROOT

KEPT = ROOT / ".venv" / "networks"
"""The program and the clips: made once."""
_SOURCE = Path(__file__).with_name("emulator.c")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a direction of a link carried in the fifth of a second that ended at `at_s`, in seconds since 1970. The wait
    in the queue is the mean over the packets that were queued."""

    at_s: float
    client: int
    link: str
    way: str
    offered_bytes: int
    offered: int
    delivered_bytes: int
    delivered: int
    overflowed: int
    lost: int
    wait_ms: float
    longest_ms: float


def built() -> Path:
    """The program. Skips the test where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("this test needs a C compiler: sudo apt install gcc libc6-dev")
    program = KEPT / f"emulator-{hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as folder:
            made = Path(folder) / "emulator"
            subprocess.run([compiler, "-std=gnu17", "-O2", "-o", str(made), str(_SOURCE)], check=True)
            made.rename(program)
    return program


class Emulator:
    """Runs on `machine`, which has all its devices until somebody moves them away."""

    def __init__(self, machine: Machine, clients: int, log: Path) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [*machine.command, str(built()), str(clients), str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n", "the emulator started"

    def set(self, client: int | str, way: str, **settings: float | str) -> None:
        """Changes both links of a client, or of all ("*"); `way` is up, down or both. The settings are emulator.c's."""
        assert self._process.stdin is not None
        words = " ".join(f"{name}={value}" for name, value in settings.items())
        self._process.stdin.write(f"set {client} * {way} {words}\n")
        self._process.stdin.flush()

    def traffic(self) -> list[Traffic]:
        """All of it so far."""
        lines = self._log.read_text().splitlines(keepends=True)
        return [_parsed(line) for line in lines if line.endswith("\n")]

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate()


def _parsed(line: str) -> Traffic:
    at_s, client, link, way, *counts, wait_ms, longest_ms = line.split()
    return Traffic(float(at_s), int(client), link, way, *map(int, counts), float(wait_ms), float(longest_ms))
