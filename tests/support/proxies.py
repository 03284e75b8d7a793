"""The proxies that docs/operating.md tells operators to use, as real processes with the configuration it shows."""

from __future__ import annotations

import getpass
import os
import re
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from support.debian import program
from support.process import ROOT, free_port

START_S = 20.0
NGINX = """
daemon off; user {user}; pid {folder}/nginx.pid; error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}{ssl}; absolute_redirect off; {block} }}
}}
"""
SSL = " ssl; ssl_certificate {0}; ssl_certificate_key {1}"
CADDY = """
{{
    admin off
    auto_https off
}}
{block}
"""


@dataclass(frozen=True)
class Site:
    """How a proxy serves the rooms. `begins` finds the block in the documentation, `edits` are what its text says to
    change in the block, and `around` is the file around it."""

    command: str
    begins: str
    around: str
    options: tuple[str, ...]
    edits: tuple[tuple[str, str], ...] = ()
    path: str = ""


_NGINX = ("nginx", r"location / \{", NGINX, ("-c",))
_CADDY = (CADDY, ("run", "--adapter", "caddyfile", "--config"))
BELOW = ("location / ", "location /meet/ ")
SITES = {
    "nginx": Site(*_NGINX),
    "nginx-below": Site(*_NGINX, (BELOW, ("127.0.0.1:8080;", "127.0.0.1:8080/;")), "/meet"),
    "nginx-kept": Site(*_NGINX, (BELOW,), "/meet"),
    "caddy": Site("caddy", r"meet\.example\.org \{", *_CADDY),
    "caddy-below": Site("caddy", r"meet\.example\.org \{\n +redir /meet /meet/\?\{query\}", *_CADDY, path="/meet"),
}
"""At the root, below a path that the proxy removes, and below one that it passes on (SFU_BASE_PATH)."""


@asynccontextmanager
async def proxy(name: str, server: int, folder: Path) -> AsyncIterator[int]:
    """As `running`, for tests of trio."""
    entered = running(name, server, folder)
    port = await trio.to_thread.run_sync(entered.__enter__)
    try:
        yield port
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(entered.__exit__, None, None, None)


@contextmanager
def running(name: str, server: int, folder: Path, certificate: tuple[Path, Path] | None = None) -> Iterator[int]:
    """The port of a running proxy before the server at that port. Skips the test where there is no such proxy.

    nginx speaks https with the files of a certificate and its key.
    """
    site, port = SITES[name], free_port()
    executable = program(site.command)
    block = documented(site.begins)
    for before, after in site.edits:
        assert before in block
        block = block.replace(before, after)
    block = block.replace("127.0.0.1:8080", f"127.0.0.1:{server}")
    block = block.replace("meet.example.org", f"http://127.0.0.1:{port}")
    ssl = SSL.format(*certificate) if certificate else ""
    file, log = folder / f"{name}.conf", folder / f"{name}.log"
    file.write_text(site.around.format(user=getpass.getuser(), folder=folder, port=port, block=block, ssl=ssl))
    with log.open("wb") as output:
        command = [executable, *site.options, str(file)]
        process = subprocess.Popen(command, stderr=output, env=os.environ | {"HOME": str(folder)})
    try:
        listens(port, process, log)
        yield port
    finally:
        process.terminate()
        process.wait()


def documented(begins: str) -> str:
    """The block of docs/operating.md whose first line matches `begins`."""
    text = (ROOT / "docs" / "operating.md").read_text()
    found = re.search(rf"^( +){begins}\n.*?^\1\}}\n", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/operating.md has no block that begins with {begins}"
    return found[0]


def listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), START_S).close()
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        else:
            return
