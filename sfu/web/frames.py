"""Counts WebSocket frames (RFC 6455 section 5.2) in a stream of bytes. Pure."""

from __future__ import annotations

_MASK_BYTES = 4
_LENGTH_BYTES = {126: 2, 127: 8}


class FrameCounter:
    """The frames of one client. Their heads may be split anywhere. `skip`: the bytes before the first frame."""

    def __init__(self, skip: int = 0) -> None:
        self._head = b""  # the beginning of a head
        self._payload = skip  # bytes of the current payload still to come

    def count(self, data: bytes) -> int:
        """The number of heads that end in `data`. `data` follows what was counted before."""
        data, self._head, count, at = self._head + data, b"", 0, 0
        while True:
            skipped = min(self._payload, len(data) - at)
            self._payload -= skipped
            at += skipped
            size = _head_bytes(data, at)
            if len(data) - at < size:
                self._head = data[at:]
                return count
            count += 1
            self._payload = _payload_bytes(data, at)
            at += size


def _head_bytes(data: bytes, at: int) -> int:
    """At least 2; exact once the second byte is there."""
    if len(data) < at + 2:
        return 2
    second = data[at + 1]
    return 2 + _LENGTH_BYTES.get(second & 0x7F, 0) + (_MASK_BYTES if second & 0x80 else 0)


def _payload_bytes(data: bytes, at: int) -> int:
    length = data[at + 1] & 0x7F
    more = _LENGTH_BYTES.get(length, 0)
    return int.from_bytes(data[at + 2 : at + 2 + more], "big") if more else length
