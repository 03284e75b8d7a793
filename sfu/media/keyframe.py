"""When to ask a publisher for a keyframe. Pure: the clock is an argument.

Any number of subscribers may ask; the publisher hears it at most once per HOLD_MS (RFC 4585 section 3.6.2 leaves the
rate to the application). What is asked during the hold is asked once at its end.
"""

from __future__ import annotations

HOLD_MS = 500.0
"""A keyframe of 720p is about 20 packets: two a second from each publisher is what a call can bear."""


class KeyframeRequests:
    """One per video track."""

    __slots__ = ("_asked_ms", "_wanted")

    def __init__(self) -> None:
        self._asked_ms = float("-inf")
        self._wanted = False

    def request(self, now_ms: float) -> float:
        """Somebody needs a keyframe. Returns ms until `due` must be called: 0 at once, negative when already
        arranged."""
        if self._wanted:
            return -1.0
        self._wanted = True
        return max(0.0, self._asked_ms + HOLD_MS - now_ms)

    def due(self, now_ms: float) -> bool:
        """True if a request must go out now; it then counts as sent."""
        if not self._wanted or now_ms < self._asked_ms + HOLD_MS:
            return False
        self._wanted = False
        self._asked_ms = now_ms
        return True
