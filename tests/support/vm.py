"""A Debian as on a new virtual machine, in a folder: with its systemd (systemd-nspawn), or only its files.
It shares this machine's network."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from support.debian import UNPACKED
from support.waiting import eventually

USER = "admin"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "ca-certificates", "sudo")
"""What an image of a cloud has beyond a minimal Debian, and is needed here."""
BOOT_S, COMMAND_S = 120.0, 900.0
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Machine:
    """A Debian in `folder`; `enters` are the command and its options that lead to it."""

    def __init__(self, folder: Path, *enters: str) -> None:
        self.folder, self._enters = folder, enters

    def run(
        self, *command: str, user: str = "root", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, with the streams of both outputs together."""
        return subprocess.run(
            self._as(user, env, command),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip

    def does(self, command: str, user: str = USER, folder: str = "/") -> str:
        """Runs a line as somebody types it; returns what it prints. Fails if it fails."""
        done = self.run("sh", "-c", f"cd {folder} && {command}", user=user)
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return done.stdout

    @contextmanager
    def started(self, *command: str, user: str, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        """A process that runs meanwhile."""
        process = subprocess.Popen(self._as(user, env, command))
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _as(self, user: str, env: dict[str, str] | None, command: tuple[str, ...]) -> list[str]:
        values = {"PATH": PATH, "LANG": "C.UTF-8", **(env or {})}
        variables = [f"{name}={value}" for name, value in values.items()]
        return [*self._enters, "setpriv", *_ids(self.folder, user), "env", "-i", *variables, *command]


def _ids(folder: Path, user: str) -> list[str]:
    if user[0].isdigit():
        uid, gid = user.split(":")
        return [f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    lines = (folder / "etc/passwd").read_text().splitlines()
    (uid, gid) = next(line.split(":")[2:4] for line in lines if line.startswith(f"{user}:"))
    return [f"--reuid={uid}", f"--regid={gid}", "--init-groups"]


def image(suite: str) -> Path:
    """A new Debian of this suite, which nothing has run in. Skips the test where none can be made."""
    for needed in ("debootstrap", "systemd-nspawn", "nsenter"):
        if os.getuid() != 0 or shutil.which(needed) is None:
            pytest.skip(f"this test needs root and {needed}; on Debian: apt install debootstrap systemd-container")
    folder = UNPACKED / f"debian-{suite}"
    UNPACKED.mkdir(parents=True, exist_ok=True)
    with (UNPACKED / f"lock-{suite}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            half = folder.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            made = subprocess.run(
                ["debootstrap", "--variant=minbase", "--include=" + ",".join(PACKAGES), suite, str(half)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if made.returncode != 0:
                pytest.skip(f"debootstrap cannot make Debian's {suite}: {made.stdout[-500:]}")
            half.rename(folder)
    return folder


@contextmanager
def chroot(suite: str, folder: Path) -> Iterator[Machine]:
    """A copy in `folder`, without processes of its own."""
    _copy(suite, folder)
    mounts = [folder / "proc", folder / "dev"]
    for path in mounts:
        subprocess.run(["mount", "--rbind", "--make-rslave", f"/{path.name}", str(path)], check=True)
    try:
        yield Machine(folder, "chroot", str(folder))
    finally:
        for path in mounts:
            subprocess.run(["umount", "--lazy", "--recursive", str(path)], check=True)
        shutil.rmtree(folder)


@contextmanager
def machine(suite: str, folder: Path) -> Iterator[Machine]:
    """A copy in `folder`, started, with a user who may use sudo."""
    _copy(suite, folder)
    subprocess.run(["chroot", str(folder), "useradd", "-m", "-G", "sudo", USER], check=True)
    (folder / "etc/sudoers.d/all").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")
    log = folder.with_suffix(".log")
    command = ["systemd-nspawn", "--quiet", "--boot", f"--directory={folder}", f"--machine=sfu-{suite}-{os.getpid()}"]
    command += ["--register=no", "--keep-unit", "--resolv-conf=off", "--console=read-only"]
    env = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    with log.open("wb") as output:
        nspawn = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env)
    try:
        eventually(lambda: nspawn.poll() is not None or psutil.Process(nspawn.pid).children(), "it starts", BOOT_S)
        assert nspawn.poll() is None, log.read_text()
        init = psutil.Process(nspawn.pid).children()[0].pid
        found = Machine(folder, "nsenter", f"--target={init}", "--all", f"--wd={folder}")
        eventually(lambda: "running" in found.run("systemctl", "is-system-running").stdout, "it has started", BOOT_S)
        yield found
    finally:
        nspawn.send_signal(signal.SIGTERM)
        try:
            nspawn.wait(30)
        except subprocess.TimeoutExpired:
            nspawn.kill()
            nspawn.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _copy(suite: str, folder: Path) -> None:
    """A new Debian, with this machine's way to names and Python packages."""
    subprocess.run(["cp", "-a", str(image(suite)), str(folder)], check=True)
    options = _pip()
    (folder / "etc/pip.conf").write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in options.items()))
    for path in (CERTIFICATES, *_folders(options)):
        _take(Path(path), folder)
    (folder / "etc/hosts").write_text(f"127.0.0.1 localhost {(folder / 'etc/hostname').read_text()}")
    (folder / "etc/resolv.conf").unlink(missing_ok=True)
    shutil.copy("/etc/resolv.conf", folder / "etc/resolv.conf")


def _take(path: Path, folder: Path) -> None:
    target = folder / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, target, dirs_exist_ok=True)
    elif path.exists():
        shutil.copy(path, target)


def _pip() -> dict[str, str]:
    """The settings of this machine's pip."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    pairs = (line.partition("=") for line in listed.stdout.splitlines())
    return {name.rpartition(".")[2]: value.strip("'") for name, _, value in pairs}


def _folders(options: dict[str, str]) -> list[str]:
    return [options["find-links"]] if options.get("find-links", "").startswith("/") else []
