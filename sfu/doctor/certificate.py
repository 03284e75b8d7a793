"""Checks of the certificate: as a browser does, by a TLS handshake with the running server or with its files."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trio
from cryptography import x509

from sfu.doctor.finding import Context, Finding, failed, note, ok
from sfu.errors import ConfigError
from sfu.web.tls import server_context

RENEW_DAYS = 14
"""Let's Encrypt's certificates are renewed 30 days before they end: with fewer left, something does not work."""
NO_ISSUER, SELF_SIGNED, CHAIN_SELF_SIGNED, HOST_MISMATCH, IP_MISMATCH = 20, 18, 19, 62, 64
"""Codes of OpenSSL (X509_V_ERR_…) for what has its own advice."""


async def certificate(context: Context) -> Finding:
    """Names, days, chain, and whether the key fits."""
    try:
        found = await _found(context)
    except ConfigError as error:
        return failed(str(error), "Name the certificate and its own key, and restart or reload the server.")
    if found is None:
        return _without(context)
    cert, refused = found
    if context.running is not None and (fault := _fault(context)):
        until = f"{cert.not_valid_after_utc:%Y-%m-%d}"
        return failed(
            f"The running server keeps the certificate it has, until {until}, since its files cannot be used: {fault}",
            "Name the certificate and its own key; the running server takes them up by itself.",
        )
    days = (cert.not_valid_after_utc - datetime.now(UTC)) / timedelta(days=1)
    names = ", ".join(_names(cert)) or "no name"
    if days < 0:
        return failed(f"The certificate of {names} expired {-days:.0f} days ago.", "Renew it, and reload the server.")
    if refused is not None:
        return _refused(cert, names, refused, context)
    text = f"{names}, {int(days)} days left, a chain that this machine trusts"
    return (
        note(f"{text}.", "Renewal is late: look at the log of certbot or of the server.")
        if days < RENEW_DAYS
        else ok(text)
    )


def _fault(context: Context) -> str:
    """Why the running server could not load its files again; empty if it could, or if this user may not read them."""
    files = [context.env.get(name) for name in ("SFU_TLS_CERT", "SFU_TLS_KEY")]
    if not all(file and os.access(file, os.R_OK) for file in files):
        return ""
    try:
        _of_files(context)
    except ConfigError as error:
        return str(error)
    return ""


def _without(context: Context) -> Finding:
    if context.config.trusted_proxies:
        return ok("none here: the proxy has it")
    return note(
        "The server speaks http only, and browsers give camera and microphone to https pages and localhost only.",
        "Set SFU_TLS_DOMAIN, or SFU_TLS_CERT and SFU_TLS_KEY, or put a proxy with a certificate before the server.",
    )


def _refused(cert: x509.Certificate, names: str, error: ssl.SSLCertVerificationError, context: Context) -> Finding:
    own = cert.issuer == cert.subject
    if own and context.config.tls_domain:
        return failed(
            f"There is no certificate for {', '.join(context.config.tls_domain)} yet: browsers warn.",
            "The line certificate_failed in the server's log says why; `systemctl reload sfu` tries again at once.",
        )
    if own or error.verify_code in (SELF_SIGNED, CHAIN_SELF_SIGNED):
        return note(f"The certificate of {names} is self-signed: browsers warn.", "Get one from a public authority.")
    if error.verify_code == NO_ISSUER:
        by_itself = "This machine does not know the authority of SFU_ACME_DIRECTORY; devices must trust it."
        chain = "SFU_TLS_CERT needs the certificate followed by the intermediate ones: certbot's fullchain.pem."
        return failed(
            f"The chain of the certificate of {names} is not complete, or its authority is not known.",
            by_itself if context.config.tls_domain else chain,
        )
    if error.verify_code in (HOST_MISMATCH, IP_MISMATCH):
        return failed(f"The certificate is for {names}, not for {context.domain}.", f"Get one for {context.domain}.")
    return failed(f"Browsers refuse the certificate of {names}: {error.verify_message}.", "Get another one.")


async def domains(context: Context) -> list[str]:
    """The names at which people open the server, as far as they are known."""
    if named := [context.domain] if context.domain else list(context.config.tls_domain):
        return named
    try:
        found = await _found(context)
    except (ConfigError, OSError):
        return []
    return [name for name in _dns_names(found[0]) if "." in name and not name.startswith("*.")] if found else []


Found = tuple[x509.Certificate, ssl.SSLCertVerificationError | None]
"""A certificate, and why a browser refuses it, if it does."""


async def _found(context: Context) -> Found | None:
    """The certificate that browsers get. None if there is none. Raises ConfigError for files that cannot be used."""
    if context.running is not None:
        if not context.running.secure:
            return None
        return await trio.to_thread.run_sync(_served, context, abandon_on_cancel=True)
    return _of_files(context)


def _of_files(context: Context) -> Found | None:
    """What the server would offer with its files; None without any. Raises ConfigError if they cannot be used."""
    cert, key = (Path(context.env.get(name) or os.devnull) for name in ("SFU_TLS_CERT", "SFU_TLS_KEY"))
    if Path(os.devnull) in (cert, key):
        if cert != key:
            raise ConfigError("Of SFU_TLS_CERT and SFU_TLS_KEY only one is set, so `sfu serve` does not start.")
        return None
    for path in (cert, key):
        if not os.access(path, os.R_OK):
            raise ConfigError(f"{path} is not there, or this user may not read it.")
    return _offered(server_context(cert, key), context.domain)


def _served(context: Context) -> Found:
    """The certificate of the running server."""
    address = local_address(context)
    blind, seeing = _clients()
    with socket.create_connection(address, 5) as sock, blind.wrap_socket(sock, server_hostname=_sni(context)) as tls:
        cert = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    name = context.domain or next(iter(_names(cert)), "")
    try:
        with socket.create_connection(address, 5) as sock, seeing.wrap_socket(sock, server_hostname=_certain(name)):
            return cert, None
    except ssl.SSLCertVerificationError as error:
        return cert, error


def _sni(context: Context) -> str | None:
    return context.domain or None


def _certain(name: str) -> str:
    """A name that a certificate for `name` covers."""
    return name.replace("*", "www", 1) or "localhost"


def _offered(server: ssl.SSLContext, domain: str) -> Found:
    """What a client gets from this context, in memory."""
    blind, seeing = _clients()
    cert = x509.load_der_x509_certificate(
        _handshake(server, blind, domain or None).getpeercert(binary_form=True) or b""
    )
    try:
        _handshake(server, seeing, _certain(domain or next(iter(_names(cert)), "")))
    except ssl.SSLCertVerificationError as error:
        return cert, error
    return cert, None


def _clients() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """One that looks at any certificate, and one that judges as browsers do."""
    blind = ssl.create_default_context()
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    return blind, ssl.create_default_context()


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> ssl.SSLObject:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    done = [False, False]
    while not all(done):
        for i, side in enumerate(sides):
            try:
                side.do_handshake()
                done[i] = True
            except ssl.SSLWantReadError:
                pass
    return sides[0]


def local_address(context: Context) -> tuple[str, int]:
    """Where this machine reaches the server."""
    host = context.config.host
    return ("127.0.0.1" if host in ("*", "0.0.0.0") else "::1" if host == "::" else host), context.config.port


def _names(cert: x509.Certificate) -> list[str]:
    """What the certificate is for: DNS names and addresses."""
    try:
        found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*_dns_names(cert), *map(str, found.get_values_for_type(x509.IPAddress))]


def _dns_names(cert: x509.Certificate) -> list[str]:
    try:
        found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    names: Iterable[str] = found.get_values_for_type(x509.DNSName)
    return list(names)
