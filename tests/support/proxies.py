"""The proxies that docs/operating.md tells operators to use, as real processes with the files of `deploy`."""

from __future__ import annotations

import getpass
import grp
import os
import re
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from sfu.web.tls import self_signed
from support import wheels
from support.debian import environment, program
from support.process import ROOT, free_port

START_S = 30.0
BELOW = re.compile(r"^([ \t]*)(?:\S.*)?# below: (.*)$", re.MULTILINE)
"""In the files of `deploy`: a line, and what replaces it if the rooms are below a path."""
PATH = "/meet"
NGINX = """
daemon off; user {user}; pid {folder}/nginx.pid; error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {site}
}}
"""
CADDY = """
{{
    admin off
    skip_install_trust
    auto_https disable_redirects
    http_port {http}
}}
{site}
"""
HAPROXY_HERE = {"user haproxy": "user {user}", "group haproxy": "group {group}", "log /dev/log": "log stderr"}


@dataclass(frozen=True)
class Proxy:
    """A program, its file in `deploy`, what that file says that is otherwise on this machine, and what is around it.
    `more` are further files."""

    file: str
    command: str
    options: tuple[str, ...]
    here: dict[str, str]
    around: str = "{site}"
    finds: Callable[[str], str] = program
    more: tuple[str, ...] = ()


PROXIES = {
    "nginx": Proxy(
        "nginx.conf",
        "nginx",
        ("-c", "{file}"),
        {
            "listen 80;": "listen 127.0.0.1:{http};",
            "listen 443 ssl;": "listen 127.0.0.1:{port} ssl;",
            "    listen [::]:80;\n": "",
            "    listen [::]:443 ssl;\n": "",
            "/etc/letsencrypt/live/meet.example.org/fullchain.pem": "{folder}/cert.pem",
            "/etc/letsencrypt/live/meet.example.org/privkey.pem": "{folder}/key.pem",
        },
        NGINX,
    ),
    "caddy": Proxy(
        "Caddyfile",
        "caddy",
        ("run", "--adapter", "caddyfile", "--config", "{file}"),
        {
            "meet.example.org {": "https://127.0.0.1:{port}, https://localhost:{port} {\n"
            "tls {folder}/cert.pem {folder}/key.pem"
        },
        CADDY,
    ),
    "traefik": Proxy(
        "traefik-site.yml",
        "traefik",
        ("--configFile={folder}/traefik.yml",),
        {"Host(`meet.example.org`)": "Host(`127.0.0.1`)", "certResolver: letsencrypt": "options: default"},
        finds=wheels.program,
        more=("traefik.yml",),
    ),
    "haproxy": Proxy(
        "haproxy.cfg",
        "haproxy",
        ("-db", "-f", "{file}"),
        HAPROXY_HERE
        | {
            "bind :::80 v4v6": "bind 127.0.0.1:{http}",
            "bind :::443 v4v6": "bind 127.0.0.1:{port}",
            "/etc/haproxy/": "{folder}/",
        },
    ),
    "haproxy-tcp": Proxy(
        "haproxy-tcp.cfg",
        "haproxy",
        ("-db", "-f", "{file}"),
        HAPROXY_HERE | {"bind :::443 v4v6": "bind 127.0.0.1:{port}"},
    ),
}
TRAEFIK_HERE = {
    '":80"': '"127.0.0.1:{http}"',
    '":443"': '"127.0.0.1:{port}"',
    "/etc/traefik/sfu.yml": "{file}",
    "/var/lib/traefik/": "{folder}/",
}


@dataclass(frozen=True)
class Site:
    """A proxy, at the root or below a path, with edits of its file. `kept`: it passes the path on (SFU_BASE_PATH)."""

    proxy: Proxy
    path: str = ""
    kept: bool = False
    edits: dict[str, str] = field(default_factory=dict)


SITES = (
    {name: Site(one) for name, one in PROXIES.items() if name != "haproxy-tcp"}
    | {f"{name}-below": Site(one, PATH) for name, one in PROXIES.items() if name != "haproxy-tcp"}
    | {"nginx-kept": Site(PROXIES["nginx"], PATH, kept=True, edits={"8080/;": "8080;"})}
)


@asynccontextmanager
async def proxy(name: str, server: int, folder: Path, site: Site | None = None) -> AsyncIterator[int]:
    """As `running`, for tests of trio."""
    entered = running(name, server, folder, site)
    port = await trio.to_thread.run_sync(entered.__enter__)
    try:
        yield port
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(entered.__exit__, None, None, None)


@contextmanager
def running(name: str, server: int, folder: Path, site: Site | None = None, port: int = 0) -> Iterator[int]:
    """The port of a running proxy before the server at that port: one of SITES. It speaks https with a certificate of
    its own. Skips the test where there is no such program."""
    site, port = site or SITES[name], port or free_port()
    proxy = site.proxy
    executable = proxy.finds(proxy.command)
    certificate, key = self_signed(["127.0.0.1"])
    for file, content in (("cert.pem", certificate), ("key.pem", key), ("meet.pem", certificate + key)):
        (folder / file).write_bytes(content)
    values = {
        "folder": str(folder), "file": str(folder / proxy.file), "port": str(port), "http": str(free_port()),
        "user": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name,
    }  # fmt: skip
    text = edited(deployed(proxy.file, below=bool(site.path)), site.edits, {})
    text = edited(text, proxy.here | {"127.0.0.1:8080": f"127.0.0.1:{server}"}, values)
    Path(values["file"]).write_text(proxy.around.format(site=text, **values))
    for other in proxy.more:
        (folder / other).write_text(edited(deployed(other), TRAEFIK_HERE, values))
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        command = [executable, *(filled(option, values) for option in proxy.options)]
        env = environment() | {"HOME": str(folder)}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=env)
    try:
        listens(port, process, log)
        serves(f"https://127.0.0.1:{port}{site.path}/", process, log)
        yield port
    finally:
        process.terminate()
        process.wait()


def deployed(file: str, *, below: bool = False) -> str:
    """A file of `deploy`; with `below`, edited for rooms below a path as its text says."""
    text = (ROOT / "deploy" / file).read_text()
    return BELOW.sub(r"\1\2", text) if below else text


def edited(text: str, here: dict[str, str], values: dict[str, str]) -> str:
    for before, after in here.items():
        assert before in text, before
        text = text.replace(before, filled(after, values))
    return text


def filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def serves(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until it has read all its files: it may answer before, but with 404."""
    deadline, context = time.monotonic() + START_S, ssl._create_unverified_context()
    while True:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5, context=context).close()
            return
        except urllib.error.HTTPError as answer:
            answer.close()
            if answer.code != 404:
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


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
