"""STUN messages (RFC 8489) of connectivity checks, and of the question what our address looks like. Read no further
than necessary. Pure.

Anyone may send any number of them, of any content: a general parser takes two milliseconds for some. A ufrag begins
with the mark of its worker, so whoever receives a check knows which worker to pass it to.
"""

from __future__ import annotations

import hmac
import string
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

LOOKED_AT = 8
"""Attributes read at most to find a check's USERNAME; browsers send it first."""
ATTRIBUTES = 16
"""Attributes read at most in all; browsers send up to nine."""

MARK_CHARS = 2
_CHARS = string.ascii_letters + string.digits

_HEAD = 20
_BINDING_REQUEST, _BINDING_RESPONSE = b"\x00\x01", b"\x01\x01"
_COOKIE = b"\x21\x12\xa4\x42"
_USERNAME, _INTEGRITY, _XOR_MAPPED, _USE_CANDIDATE = 0x0006, 0x0008, 0x0020, 0x0025
_ADDRESS_BYTES = {1: 4, 2: 16}
"""Length of an address by its family (RFC 8489 section 14.1)."""
_INTEGRITY_BYTES = 20


def mark(index: int) -> str:
    """The prefix of a worker's ufrags, in ice-chars."""
    return _CHARS[index // len(_CHARS)] + _CHARS[index % len(_CHARS)]


class Signed(NamedTuple):
    """A message up to its MESSAGE-INTEGRITY; nothing in it is trusted before `verify`. `ufrag` is the first half of
    USERNAME, None without one."""

    transaction_id: bytes
    ufrag: str | None
    nominates: bool
    covered: bytes
    integrity: bytes

    def verify(self, pwd: str) -> bool:
        """Whether its sender knows the password (RFC 8489 section 14.5)."""
        length = len(self.covered) - _HEAD + 4 + _INTEGRITY_BYTES
        covered = self.covered[:2] + length.to_bytes(2, "big") + self.covered[4:]
        return hmac.compare_digest(hmac.digest(pwd.encode(), covered, "sha1"), self.integrity)


def named(data: bytes) -> str | None:
    """The server's ufrag that a binding request names; None for any other message."""
    if not _is(data, _BINDING_REQUEST):
        return None
    for kind, at, length in _attributes(data, LOOKED_AT):
        if kind == _USERNAME:
            return _ufrag(data[at : at + length])
    return None


def is_response(data: bytes) -> bool:
    """Whether this may be the response to a check."""
    return _is(data, _BINDING_RESPONSE)


def parse_check(data: bytes) -> Signed | None:
    """A binding request with USERNAME and MESSAGE-INTEGRITY, or None for anything else."""
    found = _signed(data) if _is(data, _BINDING_REQUEST) else None
    return found if found is not None and found.ufrag is not None else None


def answers(data: bytes, transaction_id: bytes, pwd: str) -> bool:
    """Whether this is the success response to the check with this transaction ID, from a client that knows the
    password."""
    if not is_response(data) or data[8:_HEAD] != transaction_id:
        return False
    found = _signed(data)
    return found is not None and found.verify(pwd)


def question(transaction_id: bytes) -> bytes:
    """A binding request that asks a STUN server from which address it came (RFC 8489 section 6.1)."""
    return _BINDING_REQUEST + bytes(2) + _COOKIE + transaction_id


def mapped_address(data: bytes) -> tuple[str, int] | None:
    """The address and port in the response to a `question` (RFC 8489 section 14.2), None in any other message. Its
    transaction ID is not looked at."""
    if not is_response(data) or int.from_bytes(data[2:4], "big") != len(data) - _HEAD:
        return None
    for kind, at, length in _attributes(data, ATTRIBUTES):
        if kind == _XOR_MAPPED:
            value = data[at : at + length]
            if length < 4 or len(value) != length or length != 4 + _ADDRESS_BYTES.get(value[1], 0):
                return None
            port = int.from_bytes(_xor(value[2:4], _COOKIE), "big")
            return str(ip_address(_xor(value[4:], data[4:_HEAD]))), port
    return None


def _xor(data: bytes, key: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, key, strict=False))


def _is(data: bytes, kind: bytes) -> bool:
    return len(data) >= _HEAD and data[:2] == kind and data[4:8] == _COOKIE


def _ufrag(username: bytes) -> str:
    return username.partition(b":")[0].decode("latin-1")


def _signed(data: bytes) -> Signed | None:
    """The message, if it has a MESSAGE-INTEGRITY and the length it claims. What follows is not authenticated."""
    if int.from_bytes(data[2:4], "big") != len(data) - _HEAD:
        return None
    ufrag, nominates = None, False
    for kind, at, length in _attributes(data, ATTRIBUTES):
        if kind == _USERNAME:
            ufrag = _ufrag(data[at : at + length])
        elif kind == _USE_CANDIDATE:
            nominates = True
        elif kind == _INTEGRITY:
            integrity = data[at : at + length]
            return Signed(data[8:_HEAD], ufrag, nominates, data[: at - 4], integrity)
    return None


def _attributes(data: bytes, most: int) -> Iterator[tuple[int, int, int]]:
    """Type, position and length of the first attributes, each followed by padding to 4 bytes."""
    at = _HEAD
    for _ in range(most):
        if at + 4 > len(data):
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield int.from_bytes(data[at : at + 2], "big"), at + 4, length
        at += 4 + (length + 3 & ~3)
