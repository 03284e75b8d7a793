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

COMMON_NAME_CHARACTERS = 64
"""The longest common name (RFC 5280, ub-common-name)."""


@dataclass(slots=True)
class Tls:
    """What TLS offers new connections; open connections keep what they have.

    `files` are the PEM files of the certificate with its chain, and of its key. `leaf` is the certificate in them; None
    while a self-signed one is used. `loaded` is the state of the files when they were last read.
    """

    context: ssl.SSLContext
    files: tuple[Path, Path] | None = None
    leaf: x509.Certificate | None = None
    loaded: tuple[object, ...] = ()

    @classmethod
    def of_files(cls, cert: Path, key: Path) -> Tls:
        """The certificate in these files. Raises ConfigError if they cannot be used."""
        tls = cls(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), (cert, key))
        tls.reload()
        return tls

    def reload(self) -> None:
        """Loads the files again. A self-signed certificate without files is kept: browsers were told to trust it.

        Raises ConfigError if the files cannot be used; the current certificate then stays in use.
        """
        if self.files is None:
            return
        self.loaded = self.state()  # before they are read, so that what is written meanwhile counts as changed
        context, leaf = server_context(*self.files), leaf_of(self.files[0])
        if self.leaf is not None and _expired(leaf) and not _expired(self.leaf):
            raise ConfigError(f"The certificate in {self.files[0]} has expired, and the current one has not.")
        self.context, self.leaf = context, leaf

    def state(self) -> tuple[object, ...]:
        """What changes whenever a file is written or replaced, also behind a link; None for a missing file."""
        return tuple(map(_state, self.files or ()))

    @property
    def of_authority(self) -> bool:
        """Whether an authority signed the certificate, so that browsers may be told to insist on https."""
        return self.leaf is not None and self.leaf.issuer != self.leaf.subject


def names_of(leaf: x509.Certificate) -> list[str]:
    """The host names and addresses that a certificate is for."""
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _expired(leaf: x509.Certificate) -> bool:
    return leaf.not_valid_after_utc < datetime.now(UTC)


def _state(file: Path) -> object:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def leaf_of(file: Path) -> x509.Certificate:
    """The first certificate of a PEM file that OpenSSL accepts. Raises ConfigError."""
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise ConfigError(f"The certificate in {file} cannot be read: {error}") from None


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
    """A context with a new self-signed certificate for `hosts`."""
    return temporary_context(*self_signed(hosts))


def temporary_context(cert: bytes, key: bytes) -> ssl.SSLContext:
    """A context with this certificate and key (PEM), which are on disk only during this call."""
    with tempfile.TemporaryDirectory(prefix="sfu-") as folder:  # mode 0700
        paths = Path(folder, "cert.pem"), Path(folder, "key.pem")
        for path, content in zip(paths, (cert, key), strict=True):
            path.write_bytes(content)
        return server_context(*paths)


def self_signed(hosts: Sequence[str], *critical: x509.ExtensionType) -> tuple[bytes, bytes]:
    """A new certificate and key (PEM) for host names and IP addresses. The first becomes the common name.

    `critical` are more extensions, which whoever checks the certificate must understand.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:COMMON_NAME_CHARACTERS])])
    now = datetime.now(UTC)
    builder = (
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
    )
    for extension in critical:
        builder = builder.add_extension(extension, critical=True)
    cert = builder.sign(key, hashes.SHA256())
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return cert.public_bytes(serialization.Encoding.PEM), key.private_bytes(serialization.Encoding.PEM, pkcs8, plain)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
