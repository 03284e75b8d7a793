"""Protects DTLS handshakes from forged records. Pure.

Until both ends have keys, records are plaintext in epoch 0, and whoever knows a peer's addresses can forge them.
OpenSSL believes them: an alert ends the handshake, a high sequence number makes all later records look like replays,
and half a record swallows the next datagram. So only what the handshake needs at this point is passed on, and
renumbered (RFC 6347 section 4.1.2.7: invalid records are discarded silently).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_record = struct.Struct("!BHHHIH")  # type, version, epoch, sequence number in two parts, length
_CHANGE_CIPHER_SPEC, _HANDSHAKE = 20, 22
_TYPES = range(20, 24)
_VERSIONS = (0xFEFF, 0xFEFD)
_MESSAGE_HEAD, _MESSAGE_BYTES = 12, 1 << 14

_FROM_CLIENT = {1: (0,), 11: (1,), 16: (2,), 15: (3,)}
"""Handshake messages of a client with a certificate, and the numbers they may have: ClientHello, Certificate,
ClientKeyExchange, CertificateVerify (RFC 6347 section 4.2.4)."""
_FROM_SERVER = {3: (0,), 2: (0, 1), 11: (1, 2), 12: (2, 3), 13: (3, 4), 14: (3, 4, 5)}
"""Likewise of a server: HelloVerifyRequest, after which the numbers are one higher, ServerHello, Certificate,
ServerKeyExchange, CertificateRequest, ServerHelloDone."""


class Records:
    """The records of one peer, which is the client or the server of the handshake."""

    def __init__(self, *, from_client: bool) -> None:
        self._known = _FROM_CLIENT if from_client else _FROM_SERVER
        self._hello, self._last = (1, 15) if from_client else (2, 14)
        self._seen: set[int] = set()  # types of messages that were passed on
        self._n = 0

    def admit(self, datagram: bytes) -> bytes:
        """The records of a datagram that may be passed to OpenSSL; empty if there are none."""
        return b"".join(self._admitted(datagram))

    def _admitted(self, datagram: bytes) -> Iterator[bytes]:
        at = 0
        while at + _record.size <= len(datagram):
            kind, version, epoch, _, _, length = _record.unpack_from(datagram, at)
            begin, at = at + _record.size, at + _record.size + length
            if at > len(datagram) or kind not in _TYPES or version not in _VERSIONS:
                return
            body = datagram[begin:at]
            if epoch:
                yield datagram[begin - _record.size : at]
            elif self._expected(kind, body):
                self._n += 1
                yield _record.pack(kind, version, 0, 0, self._n, length) + body

    def _expected(self, kind: int, body: bytes) -> bool:
        if kind == _CHANGE_CIPHER_SPEC:
            return body == b"\1" and self._last in self._seen
        if kind != _HANDSHAKE:
            return False
        types = list(_messages(body))
        if not types or not all(self._fits(*one) for one in types):
            return False
        self._seen.update(kind for kind, _ in types)
        return True

    def _fits(self, kind: int, number: int) -> bool:
        """Whether a message may come now: a handshake begins with a hello."""
        return number in self._known.get(kind, ()) and (self._hello in self._seen or number == 0)


def _messages(body: bytes) -> Iterator[tuple[int, int]]:
    """Type and number of each message, or part of one, in a record; (-1, -1) for what is none."""
    at = 0
    while at < len(body):
        head = body[at : at + _MESSAGE_HEAD]
        total, start, length = (int.from_bytes(head[i : i + 3], "big") for i in (1, 6, 9))
        at += _MESSAGE_HEAD + length
        if len(head) < _MESSAGE_HEAD or at > len(body) or start + length > total or total > _MESSAGE_BYTES:
            yield -1, -1
            return
        yield head[0], int.from_bytes(head[4:6], "big")
