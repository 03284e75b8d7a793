"""Answering NACKs: what was sent lately, and how much of it one subscriber may have again. Pure."""

from __future__ import annotations

HISTORY = 256
"""Packets a video track remembers: 0.85 s at 300 packets/s, 0.3 MB at most."""
RESEND_PER_S = 500.0
RESEND_BURST = 250.0
"""What one subscriber may ask for of one track, so that NACKs multiply neither traffic nor work."""


class History:
    """The last packets of a track by seq16. A slot holds one packet, so an older one with the same low bits is gone."""

    __slots__ = ("_packets", "_seqs")

    def __init__(self, size: int = HISTORY) -> None:
        if size & (size - 1):
            raise ValueError("size must be a power of two, so that slots survive the wrap of seq16")
        self._seqs = [-1] * size
        self._packets = [b""] * size

    def store(self, seq16: int, packet: bytes) -> None:
        slot = seq16 & (len(self._seqs) - 1)
        self._seqs[slot] = seq16
        self._packets[slot] = packet

    def find(self, seq16: int) -> bytes | None:
        slot = seq16 & (len(self._seqs) - 1)
        return self._packets[slot] if self._seqs[slot] == seq16 else None


class Budget:
    """A token bucket: `take` is true `per_s` times a second on average, `burst` times at once."""

    __slots__ = ("_at_s", "_burst", "_left", "_per_s")

    def __init__(self, per_s: float = RESEND_PER_S, burst: float = RESEND_BURST) -> None:
        self._per_s, self._burst = per_s, burst
        self._left, self._at_s = burst, 0.0

    def take(self, now_s: float) -> bool:
        if self._at_s:
            self._left = min(self._burst, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True
