"""What a certificate authority is shown by TLS-ALPN-01 (RFC 8737), while everybody else gets what they always get."""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from cryptography import x509
from support.authority import certificate
from support.serving import LAST, Server, local, read_all, send_parts, serving, statuses

from sfu.web.challenges import IDENTIFIER, PROTOCOL, Challenges
from sfu.web.tls import Tls

DOMAINS = ("meet.example.org", "rooms.example.org")
ANSWER = "token.thumbprint"


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    now = datetime.now(UTC)
    made = certificate(["localhost"], now - timedelta(days=1), now + timedelta(days=1))
    for name, content in zip(("key", "cert"), made, strict=True):
        (tmp_path / f"{name}.pem").write_bytes(content)
    return Tls.of_files(tmp_path / "cert.pem", tmp_path / "key.pem")


def presented() -> Challenges:
    challenges = Challenges()
    for domain in DOMAINS:
        challenges.present(domain, f"{ANSWER}.{domain}")
    return challenges


def offering(*protocols: str) -> ssl.SSLContext:
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(list(protocols))
    return context


async def shown(server: Server, name: str, *protocols: str) -> tuple[x509.Certificate, str | None]:
    """The certificate that a client gets who asks for a name, and the protocol that was chosen. The server closes
    after the handshake for an authority; others are served."""
    stream = trio.SSLStream(
        await trio.open_tcp_stream("127.0.0.1", server.port), offering(*protocols), server_hostname=name,
        https_compatible=True,
    )  # fmt: skip
    async with stream:
        await stream.do_handshake()
        cert = x509.load_der_x509_certificate(stream.getpeercert(binary_form=True))
        if (chosen := stream.selected_alpn_protocol()) != PROTOCOL:
            await stream.send_all(LAST)
        answer = await read_all(stream)
    assert statuses(answer) == ([] if chosen == PROTOCOL else [503])
    return cert, chosen


async def test_an_authority_is_shown_the_answer_and_others_the_certificate(tls: Tls) -> None:
    challenges = presented()
    async with serving(certificate=tls, challenges=challenges) as server:
        for domain in DOMAINS:
            cert, chosen = await shown(server, domain, PROTOCOL)
            assert chosen == PROTOCOL
            names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.DNSName) == [domain]
            extension = cert.extensions.get_extension_for_oid(IDENTIFIER)
            assert extension.critical
            assert isinstance(extension.value, x509.UnrecognizedExtension)
            assert extension.value.value == b"\x04\x20" + hashlib.sha256(f"{ANSWER}.{domain}".encode()).digest()
        for protocols in (("h2", "http/1.1"), ("http/1.1",)):
            assert await shown(server, DOMAINS[0], *protocols) == (tls.leaf, "http/1.1")
        challenges.clear()
        assert (await shown(server, DOMAINS[0], "http/1.1", PROTOCOL))[0] == tls.leaf
        assert server.failures("tls") == 0


async def test_a_first_message_may_come_in_parts(tls: Tls) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = offering(PROTOCOL).wrap_bio(incoming, outgoing, server_hostname=DOMAINS[0])
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    parts = (hello[:1], hello[1:4], hello[4:100], hello[100:-1], hello[-1:])
    async with (
        serving(certificate=tls, challenges=presented()) as server,
        await trio.open_tcp_stream("127.0.0.1", server.port) as stream,
    ):
        await send_parts(stream, parts)
        incoming.write(await stream.receive_some(65536))
        client.do_handshake()
        assert client.selected_alpn_protocol() == PROTOCOL


@pytest.mark.parametrize(
    "data", [b"\x16", b"\x16\x03\x01\x02\0", b"\x16" + bytes(40), b"\x16\x03\x01\xff\xff" + bytes(20_000)]
)
async def test_what_is_no_first_message_ends_itself(tls: Tls, data: bytes) -> None:
    async with serving(local(head_s=0.5), certificate=tls, challenges=presented()) as server:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(data)
            await read_all(stream)
        assert server.failures("tls") == 1
        assert await server.alive()
