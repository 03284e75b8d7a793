"""When the certificate expires that a TLS context presents."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from sfu.web.certificate import names_of, presented
from sfu.web.tls import self_signed, self_signed_context, server_context


def test_it_is_that_of_the_files(tmp_path: Path) -> None:
    cert, key = self_signed(["meet.example.org"])
    (tmp_path / "cert.pem").write_bytes(cert)
    (tmp_path / "key.pem").write_bytes(key)
    assert presented(server_context(tmp_path / "cert.pem", tmp_path / "key.pem")) == x509.load_pem_x509_certificate(
        cert
    )


def test_it_is_that_of_a_certificate_in_memory() -> None:
    found = presented(self_signed_context(["localhost", "meet.example.org", "*.example.org", "192.0.2.7"]))
    assert found is not None
    assert 390 < (found.not_valid_after_utc - datetime.now(UTC)).days < 398
    assert names_of(found) == ["meet.example.org"]


def test_without_a_certificate_there_is_none() -> None:
    assert presented(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) is None
