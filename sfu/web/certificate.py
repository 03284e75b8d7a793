"""The certificate that a TLS context presents to new connections, wherever it came from."""

from __future__ import annotations

import ssl

from cryptography import x509


def presented(context: ssl.SSLContext) -> x509.Certificate | None:
    """The certificate, from a handshake in memory; None if there is no handshake without the client's certificate."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(down, up)
    server = context.wrap_bio(up, down, server_side=True)
    for end in (client, server, client):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            return None
    found = client.getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(found) if found else None


def names_of(certificate: x509.Certificate) -> list[str]:
    """The DNS names that the certificate is for, as they can stand in a URL: no wildcards."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    names = found.value.get_values_for_type(x509.DNSName)
    return [name for name in names if "*" not in name and name != "localhost"]
