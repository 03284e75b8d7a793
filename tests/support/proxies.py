"""The proxies that docs/operating.md tells operators to use, as real processes with the configuration it shows."""

from __future__ import annotations

import fcntl
import getpass
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from support.process import ROOT, free_port

START_S = 20.0
NGINX = """
daemon off; user {user}; pid {folder}/nginx.pid; error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; {block} }}
}}
"""
CADDY = """
{{
    admin off
    auto_https off
}}
{block}
"""
PACKAGES = {"nginx": ("nginx", "nginx-common"), "caddy": ("caddy",)}
UNPACKED = ROOT / ".venv" / "packages"
PROXIES = {
    "nginx": (r"location / \{", NGINX, ("-c",)),
    "caddy": (r"meet\.example\.org \{", CADDY, ("run", "--adapter", "caddyfile", "--config")),
}
"""By command: how its block in the documentation begins, the file around it, and the arguments before that file."""


@asynccontextmanager
async def proxy(command: str, server: int, folder: Path) -> AsyncIterator[int]:
    """The port of a running proxy before the server at that port. Skips the test where there is no such proxy."""
    program = await trio.to_thread.run_sync(_program, command)
    begins, around, arguments = PROXIES[command]
    port = free_port()
    block = documented(begins).replace("127.0.0.1:8080", f"127.0.0.1:{server}")
    block = block.replace("meet.example.org", f"http://127.0.0.1:{port}")
    file = folder / f"{command}.conf"
    file.write_text(around.format(user=getpass.getuser(), folder=folder, port=port, block=block))
    log, environment = trio.Path(folder / f"{command}.log"), os.environ | {"HOME": str(folder)}
    async with await log.open("wb") as output:
        process = await trio.lowlevel.open_process([program, *arguments, file], stderr=output.fileno(), env=environment)
    try:
        await _listens(port, process, log)
        yield port
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


def _program(command: str) -> str:
    """The proxy's executable: installed, or unpacked from Debian's package. An installed one would start at once, as a
    service on port 80."""
    found = shutil.which(command) or shutil.which(command, path=f"{UNPACKED}/usr/sbin:{UNPACKED}/usr/bin")
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
        found = shutil.which(command, path=f"{UNPACKED}/usr/sbin:{UNPACKED}/usr/bin")
    if found is None:
        pytest.skip(f"this test needs {command}; on Debian and Ubuntu: sudo apt install {command}")
    return found


def _run(folder: str, *command: str) -> int:
    return subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode


def documented(begins: str) -> str:
    """The block of docs/operating.md whose first line matches `begins`."""
    text = (ROOT / "docs" / "operating.md").read_text()
    found = re.search(rf"^( +){begins}\n.*?^\1\}}\n", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/operating.md has no block that begins with {begins}"
    return found[0]


async def _listens(port: int, process: trio.Process, log: trio.Path) -> None:
    with trio.fail_after(START_S):
        while True:
            assert process.poll() is None, await log.read_text()
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.02)
            else:
                await stream.aclose()
                return
