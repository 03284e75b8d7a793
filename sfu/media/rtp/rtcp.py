"""RTCP packets (RFC 3550 section 6, RFC 4585), read and written. Pure: bytes in, bytes and numbers out.

Readers take what a peer sent and raise ValueError if it is truncated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct
from typing import NamedTuple

_u16 = Struct("!H")
_u32 = Struct("!I")
RTCP_SR, RTCP_RR, RTCP_SDES, RTCP_BYE, RTCP_RTPFB, RTCP_PSFB = 200, 201, 202, 203, 205, 206
RTPFB_NACK, RTPFB_TRANSPORT_CC = 1, 15
PSFB_PLI, PSFB_FIR, PSFB_ALFB = 1, 4, 15
SENDER_SSRC = 1
"""Our own SSRC in feedback: the server sends no media of its own."""
_feedback = Struct("!BBHII")
_nack = Struct("!HH")
_block = Struct("!IIIIII")


class Rtcp(NamedTuple):
    """One packet of a compound. `format` is the count of reports or the feedback message type, `body` what follows the
    4-byte header, padding included."""

    type: int
    format: int
    body: bytes


class ReportBlock(NamedTuple):
    """What a receiver reports about one source (RFC 3550 section 6.4.1)."""

    ssrc: int
    fraction: int  # lost since its last report, in 1/256
    lost: int  # since the source began; signed, 24 bits
    highest: int  # extended sequence number
    jitter: int  # in units of the media's clock
    last_sr: int  # the middle 32 bits of the NTP time of the last sender report it got; 0 for none
    delay: int  # since that report came, in 1/65,536 s


def is_rtcp(second_byte: int) -> bool:
    """Whether a packet is RTCP: on a port shared with RTP, a second byte of 192 to 223 means RTCP (RFC 5761 section
    4)."""
    return 192 <= second_byte <= 223


def rtcp_packets(data: bytes) -> Iterator[Rtcp]:
    """The packets of a compound (RFC 3550 section 6.1) or reduced-size one (RFC 5506). Raises ValueError if it is
    truncated."""
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
    """The media source of a transport or payload feedback packet (RFC 4585 section 6.1). Raises ValueError if
    truncated."""
    if len(packet.body) < 8:
        raise ValueError("cut feedback")
    return int(_u32.unpack_from(packet.body, 4)[0])


def fir_ssrcs(packet: Rtcp) -> list[int]:
    """The media sources that a Full Intra Request names; FIR has them in the FCI (RFC 5104 section 4.3.1)."""
    return [int(_u32.unpack_from(packet.body, at)[0]) for at in range(8, len(packet.body) - 7, 8)]


def nacked(packet: Rtcp) -> Iterator[int]:
    """The 16-bit sequence numbers that a generic NACK requests, in its order (RFC 4585 section 6.2.1). Lazy: a datagram
    can request 6,000."""
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
    """RFC 3550 section 6.4.1. `lost` is signed, 24 bits; `highest` an extended number; `jitter` in units of the media's
    clock; the last two in 1/65,536 s."""
    return _block.pack(ssrc, fraction << 24 | lost & 0xFFFFFF, highest & 0xFFFFFFFF, jitter, last_sr, delay)


def report_blocks(packet: Rtcp) -> Iterator[ReportBlock]:
    """The report blocks of a sender or receiver report; none of any other packet. Ends where the report is
    truncated."""
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
    """The sender information of a report under another SSRC, with the CNAME that a compound needs (RFC 3550 section
    6.4.1).

    Report blocks are left out: they are about streams between the publisher and the server. NTP and RTP timestamps are
    kept, since they synchronize audio and video; `shift_ts` is the offset that packets' timestamps are shifted by, too.
    Raises ValueError if the report is truncated.
    """
    if len(packet.body) < 24:
        raise ValueError("cut sender report")
    report = _u32.pack(0x80 << 24 | RTCP_SR << 16 | 6) + _u32.pack(ssrc) + packet.body[4:24]
    if shift_ts:
        ts = (int(_u32.unpack_from(packet.body, 12)[0]) + shift_ts) & 0xFFFFFFFF
        report = report[:16] + _u32.pack(ts) + report[20:]
    return report + _description(ssrc, cname)


def remb(packet: Rtcp) -> int | None:
    """The bitrate of a REMB message (draft-alvestrand-rmcat-remb-03 section 2.2) in bps; None for any other packet."""
    body = packet.body
    if packet.type != RTCP_PSFB or packet.format != PSFB_ALFB or len(body) < 16 or body[8:12] != b"REMB":
        return None
    return (int.from_bytes(body[13:16], "big") & 0x3FFFF) << (body[13] >> 2)
