"""`sfu completion`: the words for each place of a command line, and the real shells that ask for them."""

from __future__ import annotations

import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import debian
from support.operating import Place, placed
from support.process import ROOT, Server, environment, sfu
from support.wire import joined

from sfu.__main__ import COMMANDS


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as found:
        yield found


WORDS: list[tuple[list[str], list[str]]] = [
    ([""], [command.NAME for command in COMMANDS]),
    (["st"], ["status"]),
    (["stats", ""], []),
    (["token", "r", "--role", ""], ["participant", "moderator", "viewer"]),
    (["token", "r", "--role", "mod"], ["moderator"]),
    (["token", "--ttl", "1h", "r", "--o"], ["--once"]),
    (["--env-file", "x", "company", "rot"], ["rotate-key", "rotate-secret"]),
    (["completion", "f"], ["fish"]),
    (["kick", "team", "Eve", ""], []),
    (["kick", ""], ["Acme/board room", "team"]),
    (["participants", "'Acme/bo"], ["Acme/board room"]),
    (["end", "Acme/board\\ "], ["Acme/board room"]),
    (["kick", "--no-ban", "Acme/board room", ""], ["Carol", "Zoë"]),
    (["kick", "nowhere", ""], []),
]


async def test_each_place_has_its_words(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    acme, room, found = await place.acme(), "board room", []
    async with place.joined(acme, room, "Zoë"), place.joined(acme, room, "Carol"), place.server.joined("team", "Eve"):
        for line, _ in WORDS:
            await place.run("completion", "words", "--", *line)
            found.append((line, capsys.readouterr().out.splitlines()))
    assert found == WORDS


def test_without_a_server_there_are_no_rooms_and_no_words_of_trouble(tmp_path: Path) -> None:
    done = sfu("completion", "words", "--", "kick", "", env=environment(data_dir=str(tmp_path)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def shell_environment(server: Server, tmp_path: Path) -> dict[str, str]:
    """With a program `sfu` and the settings of the running server."""
    program = tmp_path / "bin" / "sfu"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sfu "$@"\n')
    program.chmod(0o755)
    paths = {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    return server.env | {"LD_LIBRARY_PATH": debian.environment().get("LD_LIBRARY_PATH", "")} | paths


async def completed(shell: list[str], script: str, server: Server, env: dict[str, str]) -> list[str]:
    """What the shell prints while Eve is in the room `team`."""
    async with joined(server.url, "Eve"):
        done = subprocess.run([*shell, script], env=env, capture_output=True, text=True, timeout=120)  # noqa: ASYNC221
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


async def test_bash_completes_commands_rooms_and_people(server: Server, shell_environment: dict[str, str]) -> None:
    script = """
        source <(sfu completion bash)
        complete -p sfu >/dev/null
        try() { COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _sfu; printf '%s\\n' "${COMPREPLY[@]}"; }
        try sfu sta; try sfu kick te; try sfu kick team E; try sfu token team --role v
    """
    found = await completed(["bash", "--norc", "-c"], script, server, shell_environment)
    assert found == ["status", "team", "Eve", "viewer"]


@pytest.mark.soak
async def test_fish_completes_commands_rooms_and_people(server: Server, shell_environment: dict[str, str]) -> None:
    fish = debian.program("fish")
    shell_environment["LD_LIBRARY_PATH"] = debian.environment().get("LD_LIBRARY_PATH", "")
    script = """
        sfu completion fish | source
        for line in "sfu sta" "sfu kick te" "sfu kick team E" "sfu token team --role v"; complete -C $line; end
    """
    found = await completed([fish, "--no-config", "-c"], script, server, shell_environment)
    assert found == ["status", "team", "Eve", "viewer"]


@pytest.mark.soak
def test_zsh_completes_a_command(shell_environment: dict[str, str]) -> None:
    zsh = debian.program("zsh")
    functions = " ".join(str(path) for path in debian.UNPACKED.glob("usr/share/zsh/functions/**/") if path.is_dir())
    modules = " ".join(map(str, debian.UNPACKED.glob("usr/lib/*/zsh/*")))
    setup = (
        f"module_path+=({modules}); fpath+=({functions}); autoload -U compinit; compinit -u -D; "
        "source <(sfu completion zsh); print loa''ded\n"
    )
    with terminal([zsh, "-f", "-i"], shell_environment) as (write, wait):
        write(setup)
        wait("loaded")
        write("sfu sta\t")
        wait("sfu status")
        write("\n")
        wait("WORKER")


@contextmanager
def terminal(command: list[str], env: dict[str, str]) -> Iterator[tuple[Callable[[str], None], Callable[[str], None]]]:
    """A shell in a terminal: what types a text, and what waits for a text on its screen."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(command[0], command, env | {"TERM": "dumb"})
    seen = ""

    def wait(text: str) -> None:
        nonlocal seen
        deadline = time.monotonic() + 100
        while text not in seen:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"no {text!r} in {seen!r}"
            if select.select([fd], [], [], left_s)[0]:
                seen += os.read(fd, 4096).decode(errors="replace")
        seen = seen.partition(text)[2]

    try:
        yield lambda text: write_all(fd, text), wait
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)


def write_all(fd: int, text: str) -> None:
    os.write(fd, text.encode())
