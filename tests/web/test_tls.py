"""Certificates: what is made is what clients accept, what cannot be used is refused with the file's name."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sfu.errors import ConfigError
from sfu.web.tls import Tls, self_signed, self_signed_context, server_context

HOSTS = ["localhost", "127.0.0.1", "2001:db8::7", "meet.example.org"]


@pytest.fixture(scope="module")
def pem() -> tuple[bytes, bytes]:
    return self_signed(HOSTS)


@pytest.fixture
def files(pem: tuple[bytes, bytes], tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    for path, content in zip(paths, pem, strict=True):
        path.write_bytes(content)
    return paths


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """A TLS handshake in memory; returns the client's end."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up, server_hostname=name)
    for _ in range(4):
        for end in reversed(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[1]


def trusting(cert: bytes) -> ssl.SSLContext:
    client = ssl.create_default_context(cadata=cert.decode())
    client.set_alpn_protocols(["h2", "http/1.1"])
    return client


@pytest.mark.parametrize("name", HOSTS)
def test_a_client_that_trusts_the_certificate_connects_by_every_name(files: tuple[Path, Path], name: str) -> None:
    client = handshake(server_context(*files), trusting(files[0].read_bytes()), name)
    assert client.version() == "TLSv1.3"
    assert client.selected_alpn_protocol() == "http/1.1"


def test_a_client_finds_another_name_missing(files: tuple[Path, Path]) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"other\.example"):
        handshake(server_context(*files), trusting(files[0].read_bytes()), "other.example")


def test_the_certificate_is_one_that_phones_take(pem: tuple[bytes, bytes]) -> None:
    cert = x509.load_pem_x509_certificate(pem[0])
    assert cert.not_valid_after_utc - cert.not_valid_before_utc <= timedelta(days=398)
    assert cert.not_valid_before_utc < datetime.now(UTC) - timedelta(hours=23)
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "meet.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("127.0.0.1"), ip_address("2001:db8::7")]


def test_old_tls_is_refused(files: tuple[Path, Path]) -> None:
    assert server_context(*files).minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_self_signed_context_leaves_no_key_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert self_signed_context(["localhost"]).cert_store_stats()["x509"] == 0
    assert list(tmp_path.iterdir()) == []


def test_a_renewed_certificate_is_for_new_connections(files: tuple[Path, Path]) -> None:
    tls = Tls.of_files(*files)
    before, old = tls.context, trusting(files[0].read_bytes())
    cert, key = self_signed(HOSTS)
    files[0].write_bytes(cert)
    with pytest.raises(ConfigError, match="mismatch"):  # its key comes later
        tls.reload()
    assert tls.context is before
    assert handshake(tls.context, old, HOSTS[0]).version()
    files[1].write_bytes(key)
    tls.reload()
    assert handshake(tls.context, trusting(cert), HOSTS[0]).version()
    assert tls.leaf == x509.load_pem_x509_certificate(cert)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tls.context, old, HOSTS[0])


def test_a_certificate_made_at_start_stays() -> None:
    tls = Tls(context := self_signed_context(["localhost"]))
    tls.reload()
    assert tls.context is context


def test_files_that_cannot_be_used_are_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = files
    broken, other, locked = tmp_path / "broken.pem", tmp_path / "other.pem", tmp_path / "locked.pem"
    broken.write_text("not PEM")
    other.write_bytes(self_signed(["localhost"])[1])
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    for bad in ((broken, key), (cert, broken), (cert, other), (cert, locked), (cert, tmp_path)):
        with pytest.raises(ConfigError) as refusal:
            server_context(*bad)
        assert all(repr(str(path)) in str(refusal.value) for path in bad)
