"""The payload descriptor of VP8 (RFC 7741), read and rewritten in place. Pure."""

from __future__ import annotations

from typing import NamedTuple

from sfu.media.rtp.codecs import VP8
from sfu.media.rtp.headers import Buffer, payload_offset

TEMPORAL_LAYERS = 4
"""The most that a stream can have, since TID has two bits."""


class Picture(NamedTuple):
    """The picture ID and TL0PICIDX of a VP8 packet with their offsets, and its temporal layer (RFC 7741 section
    4.2)."""

    at: int
    wide: bool  # whether the picture ID has 15 bits, else 7
    number: int
    tl0_at: int  # 0 if there is none
    tl0: int  # 8 bits; numbers the pictures of the lowest temporal layer
    temporal: int  # TID; 0 if the stream names none
    sync: bool  # Y: the picture refers to the lowest temporal layer only


def vp8_picture(packet: Buffer, n: int) -> Picture | None:
    """None if the descriptor has no picture ID, or is truncated."""
    try:
        at = payload_offset(packet, n)
    except ValueError:
        return None
    if n < at + 6 or packet[at] & 0x80 == 0 or packet[at + 1] & 0x80 == 0:  # X, I
        return None
    shows, at = packet[at + 1], at + 2
    wide = bool(packet[at] & 0x80)
    number = (packet[at] & 0x7F) << 8 | packet[at + 1] if wide else packet[at]
    after = at + 1 + wide
    tl0_at = after if shows & 0x40 else 0  # L
    layer = packet[after + bool(tl0_at)] if shows & 0x20 else 0  # T
    return Picture(at, wide, number, tl0_at, packet[tl0_at] if tl0_at else 0, layer >> 6, bool(layer & 0x20))


def picture_of(packet: Buffer) -> Picture | None:
    """Of a whole packet of any codec."""
    return vp8_picture(packet, len(packet)) if packet[1] & 0x7F == VP8.payload_type else None


def shift_picture(packet: bytearray | memoryview, n: int, shift: int, shift_tl0: int) -> None:
    """Shifts the picture ID and TL0PICIDX of a VP8 packet; does nothing if the packet has no picture ID."""
    found = vp8_picture(packet, n)
    if found is None:
        return
    if found.wide:
        number = (found.number + shift) & 0x7FFF
        packet[found.at], packet[found.at + 1] = 0x80 | number >> 8, number & 0xFF
    else:
        packet[found.at] = (found.number + shift) & 0x7F
    if found.tl0_at:
        packet[found.tl0_at] = (found.tl0 + shift_tl0) & 0xFF


def starts_vp8_keyframe(packet: Buffer) -> bool:
    """Whether a whole VP8 packet is the first of a keyframe (RFC 7741 sections 4.2 and 4.3)."""
    n = len(packet)
    try:
        at = payload_offset(packet, n)
    except ValueError:
        return False
    if n < at + 8 or packet[at] & 0x17 != 0x10:  # only the start of partition 0
        return False
    if packet[at] & 0x80:
        extended, at = packet[at + 1], at + 1
        if extended & 0x80:
            at += 2 if packet[at + 1] & 0x80 else 1
        at += bool(extended & 0x40) + bool(extended & 0x30)
    return n > at + 1 and not packet[at + 1] & 1
