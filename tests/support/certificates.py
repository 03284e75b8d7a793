"""Certificates of an authority that only a test knows: a client trusts it by SSL_CERT_FILE."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Signed:
    """A certificate with its key and the names of its files."""

    cert: x509.Certificate
    key: Key


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def make(common: str, issuer: Signed | None = None, *, days: float = 60, names: tuple[str, ...] = ()) -> Signed:
    """An authority's certificate without `names`, a server's with them. Without an issuer it signs itself."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    signer = issuer.key if issuer else key
    signing = x509.SubjectKeyIdentifier.from_public_key(signer.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(common))
        .issuer_name(issuer.cert.subject if issuer else _name(common))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=90))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signing), critical=False)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
    return Signed(builder.sign(signer, hashes.SHA256()), key)


def pem(*chain: Signed) -> bytes:
    return b"".join(one.cert.public_bytes(serialization.Encoding.PEM) for one in chain)


def write(folder: Path, key: Key, *chain: Signed) -> dict[str, str]:
    """Writes fullchain.pem and privkey.pem; returns the settings that name them."""
    cert_file, key_file = folder / "fullchain.pem", folder / "privkey.pem"
    cert_file.write_bytes(pem(*chain))
    plain = serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return {"tls_cert": str(cert_file), "tls_key": str(key_file)}
