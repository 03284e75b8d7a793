"""TLS: the operator's certificate, or a self-signed one for trying the server from a phone."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sfu.errors import ConfigError

SELF_SIGNED_DAYS = 397
"""Apple's systems reject server certificates that are valid for more than 398 days, whoever signed them."""


@dataclass(slots=True)
class Tls:
    """The TLS context of new connections; open connections keep theirs. `files`: the operator's certificate and key."""

    context: ssl.SSLContext
    files: tuple[Path, Path] | None = None

    def reload(self) -> None:
        """Loads the operator's renewed certificate. A self-signed one is kept, since browsers were told to trust it.

        Raises ConfigError if the files cannot be used; the current certificate then stays in use.
        """
        if self.files is not None:
            self.context = server_context(*self.files)


def server_context(cert: Path, key: Path) -> ssl.SSLContext:
    """A TLS context for PEM files. Raises ConfigError if they cannot be used.

    HTTP/2 is not offered: browsers would open WebSockets as its streams (RFC 8441), past the hand-over in edge.py.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password=lambda: "")  # an encrypted key fails instead of prompting
    except (ssl.SSLError, OSError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) and error.reason else error.strerror or "unreadable"
        raise ConfigError(
            f"SFU_TLS_CERT={str(cert)!r} and SFU_TLS_KEY={str(key)!r} are not accepted: they must be PEM files of a "
            f"certificate and its key without a passphrase ({reason.lower().replace('_', ' ')})."
        ) from None
    return context


def self_signed_context(hosts: Sequence[str]) -> ssl.SSLContext:
    """A context with a new self-signed certificate for `hosts`. Its key is on disk only during this call."""
    cert, key = self_signed(hosts)
    with tempfile.TemporaryDirectory(prefix="sfu-") as folder:  # mode 0700
        paths = Path(folder, "cert.pem"), Path(folder, "key.pem")
        for path, content in zip(paths, (cert, key), strict=True):
            path.write_bytes(content)
        return server_context(*paths)


def self_signed(hosts: Sequence[str]) -> tuple[bytes, bytes]:
    """A new certificate and key (PEM) for host names and IP addresses. The first becomes the common name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # for devices whose clock is slow
        .not_valid_after(now + timedelta(days=SELF_SIGNED_DAYS - 1))
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return cert.public_bytes(serialization.Encoding.PEM), key.private_bytes(serialization.Encoding.PEM, pkcs8, plain)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
