"""A certificate authority that speaks ACME: Debian's pebble, with name servers where every name is this machine."""

from __future__ import annotations

import json
import os
import secrets
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sfu.web.tls import self_signed, temporary_context
from support.debian import program
from support.process import free_port
from support.proxies import listens

DOMAIN = "meet.example.org"
EXACT = {
    "PEBBLE_VA_NOSLEEP": "1",
    "PEBBLE_VA_ALWAYS_VALID": "0",
    "PEBBLE_WFE_NONCEREJECT": "0",
    "PEBBLE_AUTHZREUSE": "0",
}
"""It checks every domain of every order, at once, and pretends no trouble."""


class Authority:
    """The processes. `http` and `tls` are the ports at which a domain is checked, instead of 80 and 443."""

    def __init__(self, folder: Path) -> None:
        self.http, self.tls = free_port(), free_port()
        self._folder, self._port, self._management, self._names, self._dns = folder, *(free_port() for _ in range(4))
        self._running = ExitStack()
        cert, key = self_signed(["localhost", "127.0.0.1"])
        (folder / "pebble.pem").write_bytes(cert)
        (folder / "pebble.key").write_bytes(key)

    @property
    def settings(self) -> dict[str, str]:
        """Of a server that gets its certificate here."""
        return {
            "tls_domain": DOMAIN, "acme_directory": f"https://localhost:{self._port}/dir",
            "acme_ca_file": str(self._folder / "pebble.pem"),
        }  # fmt: skip

    def start(self) -> None:
        """Runs it, without a memory of earlier runs."""
        file = self._folder / "pebble.json"
        settings = {
            "listenAddress": f"127.0.0.1:{self._port}", "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(self._folder / "pebble.pem"), "privateKey": str(self._folder / "pebble.key"),
            "httpPort": self.http, "tlsPort": self.tls, "ocspResponderURL": "",
        }  # fmt: skip
        file.write_text(json.dumps({"pebble": settings}))
        names = ("-dns01", f"127.0.0.1:{self._dns}", "-management", f"127.0.0.1:{self._names}", "-defaultIPv6", "")
        usage = subprocess.run(
            [program("pebble-challtestsrv"), "-h"], capture_output=True, text=True, check=False
        ).stderr
        kinds = ["http01", "https01", "tlsalpn01"] + ["doh"] * (" -doh " in usage)  # newer ones have that, too
        none = [word for kind in kinds for word in (f"-{kind}", "")]
        self._run("pebble-challtestsrv", *names, *none, port=self._names)
        self._run("pebble", "-config", str(file), "-dnsserver", f"127.0.0.1:{self._dns}", port=self._port)

    def stop(self) -> None:
        self._running.close()

    @property
    def log(self) -> str:
        """What it did in all its runs."""
        return (self._folder / "pebble.log").read_text()

    @property
    def orders(self) -> int:
        """How often it was asked for a certificate."""
        return self.log.count("POST /order-plz")

    def trusting(self) -> ssl.SSLContext:
        """A client's context that trusts this run's certificates alone."""
        with urlopen(f"https://localhost:{self._management}/roots/0", context=unverified(), timeout=5) as answer:
            return ssl.create_default_context(cadata=answer.read().decode())

    def forget_names(self) -> None:
        """From now on no name has an address."""
        body = json.dumps({"ip": ""}).encode()
        with urlopen(Request(f"http://127.0.0.1:{self._names}/set-default-ipv4", body), timeout=5):
            pass

    def _run(self, name: str, *arguments: str, port: int) -> None:
        log = self._folder / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [program(name), *arguments], stdout=output, stderr=output, env=os.environ | EXACT, cwd=self._folder
            )
        self._running.callback(process.wait)
        self._running.callback(process.terminate)
        listens(port, process, log)


def certificate(names: list[str], begin: datetime, end: datetime) -> tuple[bytes, bytes]:
    """A key, and a certificate that an authority nobody knows made with these times, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateBuilder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")]), x509.Name([]))
    made = made.public_key(key.public_key()).serial_number(1).not_valid_before(begin).not_valid_after(end)
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
    made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    cert = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, plain), cert


class _Limited(BaseHTTPRequestHandler):
    """An authority that knows everybody, wants every certificate renewed, and refuses every order for 30 hours.
    (Debian's pebble has no limits and no wishes.)"""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        base = f"https://{self.headers['Host']}"
        if self.path.startswith("/renewalInfo/"):
            self._answer(200, {"suggestedWindow": {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}})
            return
        self._answer(200, {name: f"{base}/{name}" for name in ("newNonce", "newAccount", "newOrder", "renewalInfo")})

    def do_HEAD(self) -> None:
        self._answer(200, None)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/newAccount":
            self._answer(201, {"status": "valid"}, Location=f"https://{self.headers['Host']}/account/1")
            return
        self.server.orders += 1  # type: ignore[attr-defined]
        detail = "too many certificates already issued for this set of domains"
        problem = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": detail, "status": 429}
        self._answer(429, problem, **{"Retry-After": str(30 * 3600), "Content-Type": "application/problem+json"})

    def _answer(self, status: int, body: dict[str, Any] | None, **more: str) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        fields = {"Replay-Nonce": secrets.token_urlsafe(16), "Content-Type": "application/json"} | more
        for name, value in (fields | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def limited(folder: Path) -> Iterator[tuple[dict[str, str], Callable[[], int]]]:
    """An authority that says that a limit is reached: settings of a server, and how many orders came."""
    cert, key = self_signed(["localhost"])
    (folder / "limited.pem").write_bytes(cert)
    server = ThreadingHTTPServer(("127.0.0.1", free_port()), _Limited)
    server.orders = 0  # type: ignore[attr-defined]
    server.socket = temporary_context(cert, key).wrap_socket(server.socket, server_side=True)
    directory = f"https://localhost:{server.server_address[1]}/directory"
    settings = {"tls_domain": DOMAIN, "acme_directory": directory, "acme_ca_file": str(folder / "limited.pem")}
    with server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield settings, lambda: server.orders  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


def unverified() -> ssl.SSLContext:
    """The context of a client that trusts everybody."""
    return ssl._create_unverified_context()


def served(port: int, trusting: ssl.SSLContext, name: str = DOMAIN) -> dict[str, Any]:
    """The certificate that a client gets at a port of this machine, as one that it trusts for that name."""
    with (
        socket.create_connection(("127.0.0.1", port), 5) as sock,
        trusting.wrap_socket(sock, server_hostname=name) as tls,
    ):
        return dict(tls.getpeercert() or {})
