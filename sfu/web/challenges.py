"""Answers to a certificate authority that checks whether a domain leads here: HTTP-01 and TLS-ALPN-01.

HTTP-01 (RFC 8555 section 8.3) asks for a file over plain http. TLS-ALPN-01 (RFC 8737) asks for a certificate, in a
handshake that offers one protocol only. Answers are here while they are needed; another thread writes them.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
from datetime import datetime

import trio
from cryptography import x509

from sfu.web.tls import self_signed, temporary_context

PATH = "/.well-known/acme-challenge/"
PROTOCOL = "acme-tls/1"
IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
HELLO_BYTES = 16_384
"""Longest TLS record, and more than any authority's first message."""


class IssueFailed(Exception):
    """There is no certificate. `code` is the authority's (RFC 8555 section 6.7), or one of our own.

    `retry_at` is when the authority wants to be asked again, None if it did not say.
    """

    def __init__(self, code: str, detail: str, retry_at: datetime | None = None) -> None:
        super().__init__(detail)
        self.code, self.detail, self.retry_at = code, detail, retry_at


class Challenges:
    """`answers`: the content of files for HTTP-01, by token. Each change makes new dictionaries, since another thread
    makes them."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}  # for TLS-ALPN-01, by domain

    def publish(self, token: str, answer: str) -> None:
        """Has a file ready for HTTP-01."""
        self.answers = self.answers | {token: answer}

    def present(self, domain: str, answer: str) -> None:
        """Has a certificate ready for TLS-ALPN-01, with the digest of `answer` (RFC 8737 section 3)."""
        digest = hashlib.sha256(answer.encode()).digest()
        octets = bytes((0x04, len(digest))) + digest  # an OCTET STRING in DER
        extension = x509.UnrecognizedExtension(IDENTIFIER, octets)
        context = temporary_context(*self_signed([domain], extension))
        context.set_alpn_protocols([PROTOCOL])
        context.sni_callback = self._choose
        self._contexts = self._contexts | {domain: context}

    def clear(self) -> None:
        """Forgets all answers."""
        self.answers, self._contexts = {}, {}

    async def context(self, sock: trio.socket.SocketType) -> ssl.SSLContext | None:
        """The context for a client that offers PROTOCOL; None for all others. Consumes nothing that it sends.

        OpenSSL reads a copy of the client's first message, which may come in parts. Raises OSError.
        """
        context = next(iter(self._contexts.values()), None)
        if context is None:
            return None
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        copy, n_bytes = context.wrap_bio(incoming, outgoing, server_side=True), 0
        try:
            while not outgoing.pending:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, n_bytes + 1)
                await trio.lowlevel.wait_readable(sock)
                data = await sock.recv(HELLO_BYTES, socket.MSG_PEEK)
                if len(data) <= n_bytes:  # the client has ended the connection, or sends without an end
                    return None
                incoming.write(data[n_bytes:])
                n_bytes = len(data)
                try:
                    copy.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        except ssl.SSLError:
            return None  # its handshake fails with the certificate of others, too
        finally:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        return context if copy.selected_alpn_protocol() == PROTOCOL else None

    def _choose(self, client: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        client.context = self._contexts.get(name or "", context)
