"""Programs of Debian's packages, unpacked beside the virtual environment: an installed one would start at once, as a
service."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from support.process import ROOT

COTURN = (
    "coturn", "libevent-core-2.1-7", "libevent-extra-2.1-7", "libevent-openssl-2.1-7", "libevent-pthreads-2.1-7",
    "libhiredis0.14", "libmariadb3", "libpq5",
)  # fmt: skip
PACKAGES = {
    "nginx": ("nginx", "nginx-common"),
    "caddy": ("caddy",),
    "fish": ("fish", "fish-common", "libpcre2-32-0"),
    "zsh": ("zsh", "zsh-common"),
    "pebble": ("pebble",),
    "pebble-challtestsrv": ("pebble",),
    "haproxy": ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"),
    "promtool": ("prometheus",),
    "turnserver": COTURN,
    "turnutils_uclient": COTURN,
}
"""By program: the package that has it, and what that needs and a system may not have."""
UNPACKED = ROOT / ".venv" / "packages"
PATH = f"{UNPACKED}/usr/sbin:{UNPACKED}/usr/bin:{UNPACKED}/bin"


def program(command: str) -> str:
    """The executable: installed, or unpacked. Skips the test where there is none."""
    found = shutil.which(command) or shutil.which(command, path=PATH)
    if found is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        UNPACKED.mkdir(parents=True, exist_ok=True)
        with (UNPACKED / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with tempfile.TemporaryDirectory(dir=UNPACKED) as folder:
                download = ["apt-get", "-qq", "download", *PACKAGES[command]]
                if _run(folder, *download) and os.getuid() == 0:
                    _run(folder, "apt-get", "-qq", "update")
                    _run(folder, *download)
                for package in Path(folder).glob("*.deb"):
                    _run(folder, "dpkg-deb", "-x", str(package), str(UNPACKED))
        found = shutil.which(command, path=PATH)
    if found is None:
        pytest.skip(f"this test needs {command}; on Debian and Ubuntu: sudo apt install {PACKAGES[command][0]}")
    return found


def environment() -> dict[str, str]:
    """This process's environment, with the libraries of unpacked packages."""
    folders = ":".join(map(str, (UNPACKED / "usr" / "lib").glob("*-linux-gnu*")))
    return os.environ | ({"LD_LIBRARY_PATH": folders} if folders else {})


def _run(folder: str, *command: str) -> int:
    return subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode
