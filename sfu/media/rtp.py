"""RTP and RTCP headers, read and written in place. Pure: bytes in, bytes and numbers out.

Every reader takes a buffer and its length `n` and never looks past it. Sequence numbers wrap at 16 bits (`seq16`),
timestamps at 32 (RFC 3550 section 5.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import NamedTuple

RTP_HEADER = 12
RTCP_SR, RTCP_RR, RTCP_SDES, RTCP_BYE, RTCP_RTPFB, RTCP_PSFB = 200, 201, 202, 203, 205, 206
RTPFB_NACK, RTPFB_TRANSPORT_CC = 1, 15
PSFB_PLI, PSFB_FIR, PSFB_ALFB = 1, 4, 15
ONE_BYTE_PROFILE = 0xBEDE
SENDER_SSRC = 1
"""Our own SSRC in feedback: the server sends no media of its own."""

_u16 = Struct("!H")
_u32 = Struct("!I")
_feedback = Struct("!BBHII")
_nack = Struct("!HH")
_block = Struct("!IIIIII")

Buffer = bytes | bytearray | memoryview


class Rtcp(NamedTuple):
    """One packet of a compound. `format` is the count of reports or the feedback message type, `body` what follows the
    4-byte header, padding included."""

    type: int
    format: int
    body: bytes


class ReportBlock(NamedTuple):
    """What a receiver says of one source (RFC 3550 section 6.4.1)."""

    ssrc: int
    fraction: int  # of 256 lost since its last report
    lost: int  # since it began; signed, 24 bits
    highest: int  # extended number
    jitter: int  # in the media's clock
    last_sr: int  # the middle 32 bits of the NTP time of the last sender report it got; 0 for none
    delay: int  # since that came, in 1/65,536 s


def is_rtcp(second_byte: int) -> bool:
    """RFC 5761 section 4: with RTP and RTCP on one port, 192 to 223 is RTCP."""
    return 192 <= second_byte <= 223


def second_bytes(types: Iterable[int]) -> list[bool]:
    """By the second byte of an RTP packet, with or without marker: whether it has one of these payload types."""
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
    """Bytes before the payload: fixed header, CSRCs and extension. Raises ValueError when the packet is cut short."""
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

    Ends without a word where the block is malformed: what was read up to there is valid. Raises ValueError when the
    packet is cut short.
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


def primary_block(packet: Buffer, n: int, payload_type: int) -> tuple[int, int]:
    """Where the payload of a packet of redundant sound begins, and where in it the newest block, the packet's own
    (RFC 2198 section 3). Raises ValueError unless every block is of this payload type and inside the packet, and the
    newest one not empty."""
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


class Picture(NamedTuple):
    """Where a VP8 packet has the numbers of its picture, and which they are (RFC 7741 section 4.2)."""

    at: int
    wide: bool  # 15 bits, else 7
    number: int
    tl0_at: int  # 0 where there is none
    tl0: int  # 8 bits, of the pictures of the lowest temporal layer


def vp8_picture(packet: Buffer, n: int) -> Picture | None:
    """None where the descriptor has no picture id, or is cut short."""
    try:
        at = payload_offset(packet, n)
    except ValueError:
        return None
    if n < at + 6 or packet[at] & 0x80 == 0 or packet[at + 1] & 0x80 == 0:  # X, I
        return None
    has_tl0, at = bool(packet[at + 1] & 0x40), at + 2
    wide = bool(packet[at] & 0x80)
    number = (packet[at] & 0x7F) << 8 | packet[at + 1] if wide else packet[at]
    tl0_at = at + 1 + wide if has_tl0 else 0
    return Picture(at, wide, number, tl0_at, packet[tl0_at] if has_tl0 else 0)


def shift_picture(packet: bytearray | memoryview, n: int, shift: int, shift_tl0: int) -> None:
    """Adds to the numbers of a VP8 packet's picture; does nothing to a packet that has none."""
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


# --- RTCP ------------------------------------------------------------------------------------------------------------


def rtcp_packets(data: bytes) -> Iterator[Rtcp]:
    """The packets of a compound (RFC 3550 section 6.1) or reduced-size one (RFC 5506). Raises ValueError where it is
    cut."""
    at = 0
    while at < len(data):
        if len(data) - at < 4 or data[at] >> 6 != 2:
            raise ValueError("not RTCP")
        end = at + 4 + 4 * int(_u16.unpack_from(data, at + 2)[0])
        if end > len(data):
            raise ValueError("cut RTCP")
        yield Rtcp(data[at + 1], data[at] & 0x1F, data[at + 4 : end])
        at = end


def feedback_media_ssrc(packet: Rtcp) -> int:
    """The media source of a transport or payload feedback packet (RFC 4585 section 6.1). Raises ValueError if cut."""
    if len(packet.body) < 8:
        raise ValueError("cut feedback")
    return int(_u32.unpack_from(packet.body, 4)[0])


def fir_ssrcs(packet: Rtcp) -> list[int]:
    """The media sources a Full Intra Request asks of; in FIR they stand in the FCI (RFC 5104 section 4.3.1)."""
    return [int(_u32.unpack_from(packet.body, at)[0]) for at in range(8, len(packet.body) - 7, 8)]


def nacked(packet: Rtcp) -> Iterator[int]:
    """The seq16 a generic NACK asks for, in its order (RFC 4585 section 6.2.1). Lazy: a datagram can ask for 6,000."""
    for at in range(8, len(packet.body) - 3, 4):
        first, mask = _nack.unpack_from(packet.body, at)
        yield first
        for bit in range(16):
            if mask >> bit & 1:
                yield (first + 1 + bit) & 0xFFFF


def pli(media_ssrc: int) -> bytes:
    """Picture Loss Indication (RFC 4585 section 6.3.1)."""
    return _feedback.pack(0x80 | PSFB_PLI, RTCP_PSFB, 2, SENDER_SSRC, media_ssrc)


def transport_feedback(fci: bytes, media_ssrc: int) -> bytes:
    """A transport-wide feedback packet around its FCI, whose length must be a multiple of 4."""
    return _feedback.pack(0x80 | RTPFB_TRANSPORT_CC, RTCP_RTPFB, 2 + len(fci) // 4, SENDER_SSRC, media_ssrc) + fci


def nack(media_ssrc: int, seqs: Iterable[int]) -> bytes:
    """A generic NACK for these seq16, in their order (RFC 4585 section 6.2.1)."""
    fci: list[list[int]] = []
    for seq16 in seqs:
        ahead = (seq16 - fci[-1][0] - 1) & 0xFFFF if fci else 0xFFFF
        if ahead < 16:
            fci[-1][1] |= 1 << ahead
        else:
            fci.append([seq16, 0])
    head = _feedback.pack(0x80 | RTPFB_NACK, RTCP_RTPFB, 2 + len(fci), SENDER_SSRC, media_ssrc)
    return head + b"".join(_nack.pack(first, mask) for first, mask in fci)


def receiver_report(blocks: Sequence[bytes]) -> bytes:
    """Up to 31 report blocks, with the CNAME a compound needs (RFC 3550 section 6.4.2)."""
    report = _u32.pack(0x80 << 24 | len(blocks) << 24 | RTCP_RR << 16 | 1 + 6 * len(blocks)) + _u32.pack(SENDER_SSRC)
    return report + b"".join(blocks) + _description(SENDER_SSRC, "sfu")


def report_block(ssrc: int, fraction: int, lost: int, highest: int, jitter: int, last_sr: int, delay: int) -> bytes:
    """RFC 3550 section 6.4.1. `lost` is signed, 24 bits; `highest` an extended number; `jitter` in the media's clock;
    the last two in 1/65,536 s."""
    return _block.pack(ssrc, fraction << 24 | lost & 0xFFFFFF, highest & 0xFFFFFFFF, jitter, last_sr, delay)


def report_blocks(packet: Rtcp) -> Iterator[ReportBlock]:
    """The report blocks of a sender or receiver report; none of any other packet. Ends where the report is cut."""
    start = {RTCP_SR: 24, RTCP_RR: 4}.get(packet.type, len(packet.body))
    for at in range(start, min(start + 24 * packet.format, len(packet.body) - 23), 24):
        ssrc, losses, highest, jitter, last_sr, delay = _block.unpack_from(packet.body, at)
        lost = ((losses & 0xFFFFFF) ^ 0x800000) - 0x800000
        yield ReportBlock(ssrc, losses >> 24, lost, highest, jitter, last_sr, delay)


def _description(ssrc: int, cname: str) -> bytes:
    item = bytes([1, len(cname)]) + cname.encode()
    chunk = _u32.pack(ssrc) + item + bytes(4 - len(item) % 4)
    return _u32.pack(0x81 << 24 | RTCP_SDES << 16 | len(chunk) // 4) + chunk


def sender_report(packet: Rtcp, ssrc: int, cname: str, shift_ts: int = 0) -> bytes:
    """The sender information of a report under another SSRC, with the CNAME a compound needs (RFC 3550 section 6.4.1).

    Report blocks are left out: they speak of streams between the publisher and us. NTP and RTP time stay, which is what
    keeps audio and video in step; `shift_ts` is what the timestamps of packets are shifted by, too. Raises ValueError
    if the report is cut.
    """
    if len(packet.body) < 24:
        raise ValueError("cut sender report")
    report = _u32.pack(0x80 << 24 | RTCP_SR << 16 | 6) + _u32.pack(ssrc) + packet.body[4:24]
    if shift_ts:
        ts = (int(_u32.unpack_from(packet.body, 12)[0]) + shift_ts) & 0xFFFFFFFF
        report = report[:16] + _u32.pack(ts) + report[20:]
    return report + _description(ssrc, cname)


def ntp_of(report: Rtcp) -> int:
    """The 64-bit NTP time of a sender report (RFC 3550 section 6.4.1). Raises ValueError if that is cut."""
    if len(report.body) < 24:
        raise ValueError("cut sender report")
    return int.from_bytes(report.body[4:12], "big")


def remb(packet: Rtcp) -> int | None:
    """The bitrate of a REMB message (draft-alvestrand-rmcat-remb-03 section 2.2) in bps; None for any other packet."""
    body = packet.body
    if packet.type != RTCP_PSFB or packet.format != PSFB_ALFB or len(body) < 16 or body[8:12] != b"REMB":
        return None
    return (int.from_bytes(body[13:16], "big") & 0x3FFFF) << (body[13] >> 2)


def retransmission(packet: Buffer, payload_type: int, ssrc: int, seq16: int) -> bytearray:
    """A packet as its retransmission (RFC 4588 section 4): its number before its payload. Raises ValueError where the
    packet is cut short."""
    at = payload_offset(packet, len(packet))
    again = bytearray(packet[:at]) + bytearray(packet[2:4]) + bytearray(packet[at:])
    again[1] = again[1] & 0x80 | payload_type
    set_seq16(again, seq16)
    set_ssrc(again, ssrc)
    return again
