"""RTP and RTCP headers, read and written in place. Pure: bytes in, bytes and numbers out.

Every reader takes a buffer and its length `n` and never looks past it. Sequence numbers wrap at 16 bits (`seq16`),
timestamps at 32 (RFC 3550 section 5.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct

from sfu.media.rtp.rtcp import Rtcp

RTP_HEADER = 12
ONE_BYTE_PROFILE = 0xBEDE

_u16 = Struct("!H")
_u32 = Struct("!I")

Buffer = bytes | bytearray | memoryview


def second_bytes(types: Iterable[int]) -> list[bool]:
    """A table indexed by the second byte of an RTP packet (marker and payload type): whether the payload type is one of
    `types`."""
    wanted = set(types)
    return [second & 0x7F in wanted for second in range(256)]


def ssrc_of(packet: Buffer) -> int:
    return int(_u32.unpack_from(packet, 8)[0])


def set_ssrc(packet: bytearray | memoryview, ssrc: int) -> None:
    _u32.pack_into(packet, 8, ssrc)


def seq16_of(packet: Buffer) -> int:
    return int(_u16.unpack_from(packet, 2)[0])


def set_seq16(packet: bytearray | memoryview, seq16: int) -> None:
    _u16.pack_into(packet, 2, seq16)


def ts_of(packet: Buffer) -> int:
    return int(_u32.unpack_from(packet, 4)[0])


def payload_offset(packet: Buffer, n: int) -> int:
    """Bytes before the payload: fixed header, CSRCs and extension. Raises ValueError if the packet is truncated."""
    if n < RTP_HEADER:
        raise ValueError("shorter than an RTP header")
    offset = RTP_HEADER + 4 * (packet[0] & 0x0F)
    if packet[0] & 0x10:
        if n < offset + 4:
            raise ValueError("cut in the extension header")
        offset += 4 + 4 * int(_u16.unpack_from(packet, offset + 2)[0])
    if offset > n:
        raise ValueError("cut in the header")
    return offset


def extensions(packet: Buffer, n: int) -> Iterator[tuple[int, int, int]]:
    """(id, offset of the value, length) of each header extension, one- and two-byte forms (RFC 8285 section 4).

    Stops silently where the block is malformed; the elements before that are valid. Raises ValueError if the packet is
    truncated.
    """
    end = payload_offset(packet, n)
    if not packet[0] & 0x10:
        return
    start = RTP_HEADER + 4 * (packet[0] & 0x0F)
    profile = int(_u16.unpack_from(packet, start)[0])
    at = start + 4
    if profile == ONE_BYTE_PROFILE:
        while at < end:
            head = packet[at]
            if head == 0:
                at += 1
                continue
            length = (head & 0x0F) + 1
            if head >> 4 in (0, 15) or at + 1 + length > end:  # section 4.2: both ids end the block
                return
            yield head >> 4, at + 1, length
            at += 1 + length
    elif profile >> 4 == 0x100:
        while at < end:
            if packet[at] == 0:
                at += 1
                continue
            if at + 2 > end or at + 2 + packet[at + 1] > end:
                return
            yield packet[at], at + 2, packet[at + 1]
            at += 2 + packet[at + 1]


def erase_extension(packet: bytearray | memoryview, offset: int, length: int) -> None:
    """Turns one element found by `extensions` into padding (RFC 8285 section 4.1.1); no byte moves."""
    profile_at = RTP_HEADER + 4 * (packet[0] & 0x0F)
    head = 1 if int(_u16.unpack_from(packet, profile_at)[0]) == ONE_BYTE_PROFILE else 2
    packet[offset - head : offset + length] = bytes(head + length)


def erase_extensions(packet: bytearray | memoryview) -> None:
    """Turns the whole extension block, if there is one, into padding; no byte moves."""
    if packet[0] & 0x10:
        at = RTP_HEADER + 4 * (packet[0] & 0x0F) + 4
        n = 4 * int(_u16.unpack_from(packet, at - 2)[0])
        packet[at : at + n] = bytes(n)


def primary_block(packet: Buffer, n: int, payload_type: int) -> tuple[int, int]:
    """Offsets of the payload and of the primary (newest) block in a RED packet (RFC 2198 section 3). Raises ValueError
    unless every block has this payload type and lies inside the packet, and the primary block is not empty."""
    payload = at = payload_offset(packet, n)
    end = n - packet[n - 1] if packet[0] & 0x20 else n
    older = 0
    while at + 4 < end and packet[at] & 0x80:
        if packet[at] & 0x7F != payload_type:
            raise ValueError("a redundant block of another type")
        older += (packet[at + 2] & 0x03) << 8 | packet[at + 3]
        at += 4
    if at >= end or packet[at] != payload_type or at + 1 + older >= end:
        raise ValueError("cut in redundant blocks")
    return payload, at + 1 + older


# --- RTCP ------------------------------------------------------------------------------------------------------------


def ntp_of(report: Rtcp) -> int:
    """The 64-bit NTP time of a sender report (RFC 3550 section 6.4.1). Raises ValueError if the report is truncated."""
    if len(report.body) < 24:
        raise ValueError("cut sender report")
    return int.from_bytes(report.body[4:12], "big")


def retransmission(packet: Buffer, payload_type: int, ssrc: int, seq16: int) -> bytearray:
    """A packet in its RTX form (RFC 4588 section 4): the original sequence number precedes the payload. Raises
    ValueError if the packet is truncated."""
    at = payload_offset(packet, len(packet))
    again = bytearray(packet[:at]) + bytearray(packet[2:4]) + bytearray(packet[at:])
    again[1] = again[1] & 0x80 | payload_type
    set_seq16(again, seq16)
    set_ssrc(again, ssrc)
    return again


def blank(packet: Buffer) -> bytearray:
    """A packet with the same numbers that contains nothing: a byte of padding in place of the payload. Raises
    ValueError if the packet is truncated."""
    at = payload_offset(packet, len(packet))
    made = bytearray(packet[:at]) + b"\x01"
    made[0], made[1] = made[0] | 0x20, made[1] & 0x7F
    return made
