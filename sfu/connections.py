"""What the control plane tells a media worker of a TCP connection that it passes on, beside the bridge."""

from __future__ import annotations

import msgspec


class MediaConnection(msgspec.Struct, frozen=True, array_like=True):
    """A TCP connection with media: the connectivity check that was read from it, and its client's address and port,
    which are not the socket's if a proxy opened it. A datagram of msgpack, with the socket's file (SCM_RIGHTS)."""

    check: bytes
    address: str
    port: int

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> MediaConnection:
        return msgspec.msgpack.decode(data, type=cls)


MEDIA_CONNECTION_BYTES = 1600
"""Longest of these: a check of a datagram's length, and an address."""
