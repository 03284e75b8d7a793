"""SRTP through libsrtp, in place on reused buffers.

pylibsrtp's Session copies each packet three times; its compiled binding works in place, which is what forwarding needs.
`pylibsrtp._binding` and `Session._srtp` are private: the version is pinned, and tests/media/transport/test_srtp.py
holds the seam. A libsrtp session belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress
from typing import Any

from pylibsrtp import Error
from pylibsrtp._binding import ffi, lib

protect, unprotect = lib.srtp_protect, lib.srtp_unprotect
"""(handle, pointer, length pointer) → 0, or an error: the packet is then worthless."""

BUFFER_BYTES = 2048
"""Room for a datagram of at most 1,500 bytes and libsrtp's trailer (SRTP_MAX_TRAILER_LEN, 144)."""
MAX_SSRCS = 128
"""SSRCs read of one peer. libsrtp keeps a stream for each and looks through them one by one; 8 tracks of 3 layers with
retransmissions are 48."""


class Packet:
    """A packet in memory that libsrtp can work on. `view` shows all of it; `n` bytes of it are in use."""

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
    """One direction of a peer's SRTP (dtls.py makes them). libsrtp keeps a stream for each SSRC; of those that come, at
    most MAX_SSRCS. Past that the oldest gives up its place that is not among `live`, the SSRCs that are in use. How
    often its numbers have wrapped is forgotten with it, so it should not come again."""

    __slots__ = ("_session", "_ssrcs", "handle", "live", "tag_bytes")

    def __init__(self, session: Any, tag_bytes: int = 16) -> None:
        self._session = session  # keeps the native session alive
        self.tag_bytes = tag_bytes
        self.handle = session._srtp[0]
        self.live: Container[int] = ()
        self._ssrcs: dict[int, None] = {}  # the last that was looked at last

    def unprotect(self, packet: Packet) -> bool:
        """Verifies and decrypts in place. False: forged, replayed, malformed or of one SSRC too many; the packet is
        then worthless."""
        if lib.srtp_unprotect(self.handle, packet._memory, packet._size) != 0:
            return False
        return self.admits(int.from_bytes(packet.view[8:12], "big"))

    def unprotect_rtcp(self, packet: Packet) -> bool:
        if lib.srtp_unprotect_rtcp(self.handle, packet._memory, packet._size) != 0:
            return False
        return self.admits(int.from_bytes(packet.view[4:8], "big"))

    def admits(self, ssrc: int) -> bool:
        """Whether an SSRC of which a packet just came may have a place."""
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
        """Nothing comes, or goes out, under this SSRC any more. One that went out must never be used again: its numbers
        would begin anew, and each stands for one packet only."""
        self._ssrcs.pop(ssrc, None)
        with suppress(Error):  # of which there was no packet
            self._session.remove_stream(ssrc)

    def protect(self, packet: Packet) -> bool:
        """Encrypts in place; the packet grows by the tag. One sequence number twice must be the same bytes twice."""
        return bool(lib.srtp_protect(self.handle, packet._memory, packet._size) == 0)

    def protect_rtcp(self, packet: Packet) -> bool:
        return bool(lib.srtp_protect_rtcp(self.handle, packet._memory, packet._size) == 0)
