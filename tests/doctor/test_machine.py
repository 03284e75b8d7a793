"""The doctor's checks of the machine, each as it passes here and as it fails for real."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
from support.doctors import doctor, run_doctor
from support.process import Server, environment

from sfu.doctor import machine
from sfu.doctor.finding import Context
from sfu.settings.config import Config


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "sfu", str(tmp_path)], check=False)
    if mounted.returncode:
        pytest.skip("this test needs the right to mount")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_machine_that_is_fit(tmp_path: Path) -> None:
    status, found = run_doctor(
        "--only", "python,disk,offload,steal,clock", env=environment(data_dir=str(tmp_path / "new"))
    )
    assert status == int("failed" in [one[0] for one in found.values()])
    assert found["python"] == ("ok", ".".join(map(str, sys.version_info[:3])), "")
    assert found["disk"][0] in ("ok", "note")
    assert found["disk"][1].endswith(f"free for {tmp_path}/new, which does not exist yet.")
    assert found["offload"][0] in ("ok", "note")
    assert "%" in found["steal"][1]
    assert found["clock"][0] in ("ok", "note", "skipped")
    assert bool(found["clock"][2]) == (found["clock"][0] == "note")


async def test_an_untested_python_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TESTED", ((3, 98), (3, 99)))
    assert (await doctor("python"))[2] == "Use Python 3.98 to 3.99."


async def test_a_full_disk_fails_and_names_the_folder(small_disk: Path) -> None:
    status, text, fix = await doctor("disk", data_dir=str(small_disk / "not" / "there" / "yet"))
    assert (status, text.partition(" free ")[0]) == ("failed", "42 MB of 42 MB")
    assert fix == f"Free space on the file system of {small_disk}, or move SFU_DATA_DIR."


def test_a_folder_that_cannot_be_written_fails(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    status, text, fix = trio.run(partial(doctor, "disk", data_dir=str(small_disk)))
    assert (status, text) == ("failed", f"{small_disk} cannot be written: the server cannot make its files there.")
    assert "SFU_DATA_DIR" in fix


async def test_a_low_limit_on_files_fails_for_the_server_that_has_it(server: Server) -> None:
    assert (await doctor("files", env=server.env))[:2] == (
        "ok", f"the running server may open {resource.prlimit(server.pid, resource.RLIMIT_NOFILE)[0]:,}",
    )  # fmt: skip
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (512, 512))
    status, text, fix = await doctor("files", env=server.env)
    assert (status, text.split(";")[0]) == ("failed", "The running server may open 512 files")
    assert "LimitNOFILE=65536" in fix


async def test_without_a_server_the_limit_is_that_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2048, before[1]))
        status, text, _ = await doctor("files")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (status, text) == ("note", "A server of this shell may open 2,048 files; each connection takes one.")


async def test_buffers_are_what_sockets_really_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BUFFER_BYTES", 1 << 30)  # more than any system allows by default
    found = await machine.buffers(Context(Config(), {}))
    assert found.status == "note"
    assert "KB (rmem_max) and " in found.text
    assert "net.core.rmem_max=1073741824 net.core.wmem_max=1073741824" in found.fix
    monkeypatch.setattr(machine, "BUFFER_BYTES", 4096)
    assert (await machine.buffers(Context(Config(), {}))).status == "ok"


async def test_root_gets_large_buffers_in_spite_of_the_limit(
    monkeypatch: pytest.MonkeyPatch, start_server: Callable[..., Server]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("this test needs root")
    server = start_server()
    monkeypatch.setattr(machine, "BUFFER_BYTES", 1 << 30)
    assert (await doctor("buffers", env=server.env))[0] == "ok"
