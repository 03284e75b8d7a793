"""SRTP through libsrtp, in place on reused buffers.

pylibsrtp's Session copies each packet three times; its compiled binding works in place, which is what forwarding needs.
`pylibsrtp._binding` and `Session._srtp` are private: the version is pinned, and tests/media/transport/test_srtp.py
covers them. A libsrtp session belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress
from typing import Any

from pylibsrtp import Error
from pylibsrtp._binding import ffi, lib

protect, unprotect = lib.srtp_protect, lib.srtp_unprotect
"""(handle, packet pointer, length pointer) → 0, or an error, after which the packet is unusable."""

BUFFER_BYTES = 2048
"""Room for a datagram of at most 1,500 bytes and libsrtp's trailer (SRTP_MAX_TRAILER_LEN, 144)."""
MAX_SSRCS = 128
"""SSRCs accepted from one peer. libsrtp keeps a stream for each and searches them one by one; 8 sources with 3 layers
and their RTX are 48."""


class Packet:
    """A packet in memory that libsrtp can work on. `view` is the whole buffer; `n` bytes of it are in use."""

    __slots__ = ("_memory", "_size", "view")

    def __init__(self) -> None:
        self._memory = ffi.new("char[]", BUFFER_BYTES)
        self._size = ffi.new("int *")
        self.view = memoryview(ffi.buffer(self._memory)).cast("B")

    @property
    def n(self) -> int:
        return int(self._size[0])

    @n.setter
    def n(self, value: int) -> None:
        self._size[0] = value

    def load(self, data: bytes | memoryview, n: int) -> None:
        self.view[:n] = data
        self._size[0] = n


class Context:
    """One direction of a peer's SRTP (made by dtls.py). libsrtp keeps a stream for each SSRC; incoming ones are limited
    to MAX_SSRCS. Past that the oldest one that is not in `live`, the SSRCs in use, is dropped. Its rollover counter is
    lost with it, so that SSRC should not come again."""

    __slots__ = ("_session", "_ssrcs", "handle", "live", "tag_bytes")

    def __init__(self, session: Any, tag_bytes: int = 16) -> None:
        self._session = session  # keeps the native session alive
        self.tag_bytes = tag_bytes
        self.handle = session._srtp[0]
        self.live: Container[int] = ()
        self._ssrcs: dict[int, None] = {}  # in the order of their last `admits`

    def unprotect(self, packet: Packet) -> bool:
        """Verifies and decrypts in place. False if the packet is forged, replayed, malformed or of one SSRC too many;
        it is then unusable."""
        if lib.srtp_unprotect(self.handle, packet._memory, packet._size) != 0:
            return False
        return self.admits(int.from_bytes(packet.view[8:12], "big"))

    def unprotect_rtcp(self, packet: Packet) -> bool:
        if lib.srtp_unprotect_rtcp(self.handle, packet._memory, packet._size) != 0:
            return False
        return self.admits(int.from_bytes(packet.view[4:8], "big"))

    def admits(self, ssrc: int) -> bool:
        """Whether to accept this SSRC, of which a packet has just been decrypted."""
        if ssrc not in self._ssrcs and len(self._ssrcs) >= MAX_SSRCS:
            old = next((one for one in self._ssrcs if one not in self.live), None)
            if old is None:
                self._session.remove_stream(ssrc)
                return False
            self.forget(old)
        self._ssrcs.pop(ssrc, None)
        self._ssrcs[ssrc] = None
        return True

    def forget(self, ssrc: int) -> None:
        """Packets of this SSRC are no longer received or sent. An SSRC that was sent must never be used again: its
        packet indices would begin anew, and each may encrypt only one packet."""
        self._ssrcs.pop(ssrc, None)
        with suppress(Error):  # libsrtp has no stream before the first packet
            self._session.remove_stream(ssrc)

    def protect(self, packet: Packet) -> bool:
        """Encrypts in place; the packet grows by the tag. A sequence number may be encrypted twice only for the very
        same bytes."""
        return bool(lib.srtp_protect(self.handle, packet._memory, packet._size) == 0)

    def protect_rtcp(self, packet: Packet) -> bool:
        return bool(lib.srtp_protect_rtcp(self.handle, packet._memory, packet._size) == 0)
