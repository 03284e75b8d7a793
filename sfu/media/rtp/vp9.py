"""The VP9 payload descriptor: layer frame and scalability structure of a packet (RFC 9628 section 4.2). Pure.

Readers start at the payload descriptor, at offset `at`, and raise IndexError if the packet is truncated.
"""

from __future__ import annotations

from typing import NamedTuple

from sfu.media.rtp import headers

MOST_REFERENCES = 3


class Descriptor(NamedTuple):
    """The flags are P, B, E and V; `spatial` is SID, 0 without layer indices; `following` is the offset after those."""

    predicted: bool
    begins: bool
    ends: bool
    structured: bool
    spatial: int
    following: int

    @property
    def starts_picture(self) -> bool:
        """Whether a picture begins here, with a frame of the lowest spatial layer."""
        return self.begins and not self.spatial

    @property
    def starts_keyframe(self) -> bool:
        """Whether that picture is a keyframe, one not predicted from earlier pictures."""
        return self.starts_picture and not self.predicted


def read(packet: headers.Buffer, at: int) -> Descriptor:
    first, spatial = packet[at], 0
    at += 1
    if first & 0x80:  # I
        at += 2 if packet[at] & 0x80 else 1
    if first & 0x20:  # L
        spatial = packet[at] >> 1 & 0x07
        at += 1 if first & 0x10 else 2  # F: without TL0PICIDX
    return Descriptor(bool(first & 0x40), bool(first & 0x08), bool(first & 0x04), bool(first & 0x02), spatial, at)


def heights(packet: headers.Buffer, at: int, found: Descriptor) -> tuple[int, ...]:
    """Height in pixels of each spatial layer from the scalability structure, the lowest layer first; 0 where it has no
    sizes."""
    first, at = packet[at], found.following
    if first & 0x50 == 0x50:  # F and P: reference indices follow, the last one without the N bit
        for _ in range(MOST_REFERENCES):
            at += 1
            if not packet[at - 1] & 0x01:
                break
    structure = packet[at]
    count = (structure >> 5) + 1
    if not structure & 0x10:  # Y
        return (0,) * count
    return tuple(packet[at + 3 + 4 * k] << 8 | packet[at + 4 + 4 * k] for k in range(count))
