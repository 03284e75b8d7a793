"""Keyframes: when to request one from a publisher, and which packet starts one. Pure: the clock is an argument.

Any number of subscribers may request one; the publisher gets at most one request per HOLD_MS (RFC 4585 section 3.6.2
leaves the rate to the application). Requests during that time are combined into one at its end.

A request is repeated until a keyframe comes. It is a single datagram, and when no other packets flow, as from a shared
screen that does not change, nobody would notice that it or the keyframe was lost.
"""

from __future__ import annotations

from collections.abc import Callable

from sfu.media.rtp import codecs, headers, vp8, vp9

HOLD_MS = 1000.0
"""A keyframe of 720p is about 20 packets: a call can bear one per second and layer."""


REPEAT_MOST_MS = 16_000.0
"""An unanswered request is repeated after HOLD_MS, then at doubled intervals up to this one, for half a minute in all:
a publisher that is silent for that long is gone."""


class KeyframeRequests:
    """The keyframe requests for one video stream."""

    __slots__ = ("_asked_ms", "_due_ms", "_pause_ms")

    def __init__(self) -> None:
        self._asked_ms = float("-inf")
        self._due_ms = float("inf")
        self._pause_ms = HOLD_MS  # between the next request and the one after it

    @property
    def wanted(self) -> bool:
        """Whether a request is still to be sent, for the first time or again."""
        return self._due_ms < float("inf")

    def request(self, now_ms: float) -> float:
        """Somebody needs a keyframe. Returns the milliseconds until `due` must be called: 0 for at once, negative if
        that is already arranged."""
        self._pause_ms = HOLD_MS
        due_ms = max(now_ms, self._asked_ms + HOLD_MS)
        if due_ms >= self._due_ms:
            return -1.0
        self._due_ms = due_ms
        return due_ms - now_ms

    def due(self, now_ms: float) -> bool:
        """Whether to send a request now; True counts it as sent."""
        if now_ms < self._due_ms:
            return False
        if self._pause_ms > 2 * REPEAT_MOST_MS:
            self.answered()  # gives up
            return False
        self._asked_ms, self._due_ms = now_ms, now_ms + self._pause_ms
        self._pause_ms *= 2
        return True

    def wait_ms(self, now_ms: float) -> float:
        """Milliseconds until `due` must be called, while a request is `wanted`."""
        return max(0.0, self._due_ms - now_ms)

    def answered(self) -> None:
        """A keyframe came, or nobody needs it any more."""
        self._due_ms = float("inf")


def starts_keyframe(packet: headers.Buffer) -> bool:
    """Whether a whole RTP packet is the first of a keyframe, read by the codec of its payload type."""
    n = len(packet)
    if n < headers.RTP_HEADER:
        return False
    payload_type = packet[1] & 0x7F
    if payload_type == codecs.VP8.payload_type:
        return vp8.starts_vp8_keyframe(packet)
    starts = _STARTS.get(payload_type)
    try:
        return starts is not None and starts(packet, headers.payload_offset(packet, n), n)
    except (ValueError, IndexError):  # truncated
        return False


def _starts_vp9(packet: headers.Buffer, at: int, n: int) -> bool:
    found = vp9.read(packet, at)
    return found.starts_keyframe and n > found.following


def _starts_h264(packet: headers.Buffer, at: int, n: int) -> bool:
    """Whether the payload holds the beginning of a sequence parameter set (RFC 6184 sections 5.4 to 5.8). Browsers send
    one before each IDR picture, and no decoder can start without one."""
    kind = packet[at] & 0x1F
    if kind == _STAP_A:
        at += 1
        while at + 2 < n:
            if packet[at + 2] & 0x1F == _SPS:
                return True
            at += 2 + (packet[at] << 8 | packet[at + 1])
        return False
    if kind == _FU_A:
        return packet[at + 1] & 0x9F == 0x80 | _SPS
    return kind == _SPS and n > at + 1


def _starts_av1(packet: headers.Buffer, at: int, n: int) -> bool:
    """RTP Payload Format For AV1, section 4.4: N marks the first packet of a coded video sequence; Z, which marks the
    continuation of an OBU, must not be set."""
    return packet[at] & 0x88 == 0x08 and n > at + 1


_SPS, _STAP_A, _FU_A = 7, 24, 28
_STARTS: dict[int, Callable[[headers.Buffer, int, int], bool]] = {
    codecs.VP9.payload_type: _starts_vp9,
    codecs.H264.payload_type: _starts_h264,
    codecs.AV1.payload_type: _starts_av1,
}
