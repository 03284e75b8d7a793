from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Callable

import pytest
from aiortc.rtp import (
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
    RtpPacket,
    unpack_header_extensions,
)
from hypothesis import given
from hypothesis import strategies as st
from support.variants import variants

from sfu.media.rtp import headers, rtcp, vp8

u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
WRAPS = [0, 1, 2, 15, 16, 17, 18, 0x7FFF, 0x8000, 0xFFEE, 0xFFEF, 0xFFF0, 0xFFFE, 0xFFFF]
TWO_BYTE = 0x1000


def header(*, csrcs: int = 0, extension: bool = False, seq16: int = 7, ssrc: int = 0x01020304) -> bytes:
    first = 0x80 | csrcs | (0x10 if extension else 0)
    return struct.pack("!BBHII", first, 96, seq16, 1000, ssrc) + bytes(range(1, 1 + 4 * csrcs))


def packet(elements: list[tuple[int, bytes, int]], payload: bytes, *, profile: int, csrcs: int = 0) -> bytes:
    """A packet with header extensions: each element is an id, a value, and how many bytes of padding follow it."""
    block = b""
    for identity, value, padding in elements:
        if profile == headers.ONE_BYTE_PROFILE:
            block += bytes([identity << 4 | len(value) - 1]) + value
        else:
            block += bytes([identity, len(value)]) + value
        block += bytes(padding)
    block += bytes(-len(block) % 4)
    head = header(csrcs=csrcs, extension=True) + struct.pack("!HH", profile, len(block) // 4)
    return head + block + payload


one_byte_elements = st.lists(
    st.tuples(st.integers(1, 14), st.binary(min_size=1, max_size=16), st.integers(0, 5)), min_size=1, max_size=8
)
two_byte_elements = st.lists(
    st.tuples(st.integers(1, 255), st.binary(max_size=255), st.integers(0, 5)), min_size=1, max_size=5
)
extended = st.one_of(
    st.builds(
        lambda elements, payload, csrcs: (
            elements,
            packet(elements, payload, profile=headers.ONE_BYTE_PROFILE, csrcs=csrcs),
        ),
        one_byte_elements,
        st.binary(max_size=40),
        st.integers(0, 15),
    ),
    st.builds(
        lambda elements, payload, csrcs, appbits: (
            elements,
            packet(elements, payload, profile=TWO_BYTE | appbits, csrcs=csrcs),
        ),
        two_byte_elements,
        st.binary(max_size=40),
        st.integers(0, 15),
        st.integers(0, 15),
    ),
)


def read(data: bytes | bytearray) -> list[tuple[int, bytes]]:
    return [(identity, bytes(data[at : at + n])) for identity, at, n in headers.extensions(data, len(data))]


# --- header -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (header(), 12),
        (header() + b"payload", 12),
        (header(csrcs=1), 16),
        (header(csrcs=15) + b"x", 72),
        (header(extension=True) + b"\xbe\xde\x00\x00", 16),
        (header(extension=True) + b"\xbe\xde\x00\x02" + bytes(8) + b"x", 24),
        (header(csrcs=2, extension=True) + b"\x12\x34\x00\x01" + bytes(4), 28),
    ],
)
def test_payload_offset(data: bytes, offset: int) -> None:
    assert headers.payload_offset(data, len(data)) == offset
    with pytest.raises(ValueError, match=r"cut|short"):
        headers.payload_offset(data, offset - 1)


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_a_reader_never_looks_past_n(data: bytes, beyond: bytes) -> None:
    def result(read: Callable[[bytes, int], object], buffer: bytes) -> object:
        try:
            return read(buffer, len(data))
        except ValueError:
            return ValueError

    for read in (headers.payload_offset, lambda buffer, n: list(headers.extensions(buffer, n))):
        assert result(read, data) == result(read, data + beyond)


@given(st.binary(max_size=300))
def test_whatever_arrives_only_value_error(data: bytes) -> None:
    packets = [rtcp.Rtcp(205, 1, data)]
    with contextlib.suppress(ValueError):
        packets.extend(rtcp.rtcp_packets(data))
    readers: list[Callable[[rtcp.Rtcp], object]] = [
        rtcp.feedback_media_ssrc,
        rtcp.fir_ssrcs,
        lambda p: list(rtcp.nacked(p)),
        lambda p: rtcp.sender_report(p, 1, "cname"),
        lambda p: list(rtcp.report_blocks(p._replace(type=rtcp.RTCP_RR, format=31))),
    ]
    for packet, read in itertools.product(packets, readers):
        with contextlib.suppress(ValueError):
            read(packet)
    with contextlib.suppress(ValueError):
        list(headers.extensions(data, len(data)))
        headers.payload_offset(data, len(data))


@pytest.mark.parametrize(
    ("second", "expected"),
    [(96, False), (239, False), (191, False), (192, True), (200, True), (206, True), (223, True), (224, False)],
)
def test_is_rtcp(second: int, expected: bool) -> None:
    assert rtcp.is_rtcp(second) is expected


@given(u32, u16)
def test_fields_in_place(ssrc: int, seq16: int) -> None:
    data = bytearray(header(seq16=seq16) + b"payload")
    headers.set_ssrc(memoryview(data), ssrc)
    parsed = RtpPacket.parse(bytes(data))
    assert (parsed.ssrc, parsed.sequence_number, parsed.payload) == (ssrc, seq16, b"payload")
    assert (headers.ssrc_of(data), headers.seq16_of(data)) == (ssrc, seq16)


# --- header extensions ------------------------------------------------------------------------------------------------


@given(extended)
def test_extensions_are_those_written(case: tuple[list[tuple[int, bytes, int]], bytes]) -> None:
    elements, data = case
    assert read(data) == [(identity, value) for identity, value, _ in elements]


@given(extended)
def test_extensions_agree_with_aiortc(case: tuple[list[tuple[int, bytes, int]], bytes]) -> None:
    _, data = case
    start = 12 + 4 * (data[0] & 15)
    profile, words = struct.unpack_from("!HH", data, start)
    if profile in (headers.ONE_BYTE_PROFILE, TWO_BYTE):  # aiortc knows appbits 0 only
        assert read(data) == unpack_header_extensions(profile, data[start + 4 : start + 4 + 4 * words])


@given(extended, st.data())
def test_erasing_touches_one_element_only(
    case: tuple[list[tuple[int, bytes, int]], bytes], choose: st.DataObject
) -> None:
    elements, data = case
    index = choose.draw(st.integers(0, len(elements) - 1))
    changed = bytearray(data)
    _, at, length = list(headers.extensions(changed, len(changed)))[index]
    headers.erase_extension(memoryview(changed), at, length)
    rest = [(identity, value) for identity, value, _ in elements[:index] + elements[index + 1 :]]
    offset = headers.payload_offset(data, len(data))
    assert len(changed) == len(data)
    assert changed[:12] == data[:12]
    assert changed[offset:] == data[offset:]
    assert read(changed) == rest


@pytest.mark.parametrize(
    ("profile", "block", "expected"),
    [
        pytest.param(0xBEDE, "10aa 0000", [(1, "aa")], id="padding after"),
        pytest.param(0xBEDE, "0000 10aa", [(1, "aa")], id="padding before"),
        pytest.param(0xBEDE, "10aa f0bb 20cc 0000", [(1, "aa")], id="id 15 ends the block"),
        pytest.param(0xBEDE, "10aa 03bb bbbb bb20 cc00 0000", [(1, "aa")], id="id 0 with a length ends the block"),
        pytest.param(0xBEDE, "10aa 2fbb", [(1, "aa")], id="value cut"),
        pytest.param(0xBEDE, "10aa 1020", [(1, "aa"), (1, "20")], id="one id twice"),
        pytest.param(0xBEDE, "ffff ffff", [], id="all ones"),
        pytest.param(0x1000, "0100 02ff", [(1, "")], id="two-byte value cut"),
        pytest.param(0x1000, "0101 aa02", [(1, "aa")], id="two-byte length cut"),
        pytest.param(0x1000, "0f01 aa00", [(15, "aa")], id="two-byte id 15"),
        pytest.param(0x100F, "0f01 aa00", [(15, "aa")], id="appbits"),
        pytest.param(0x1010, "0f01 aa00", [], id="unknown profile"),
        pytest.param(0xBEDE, "", [], id="empty"),
    ],
)
def test_extension_blocks(profile: int, block: str, expected: list[tuple[int, str]]) -> None:
    body = bytes.fromhex(block)
    data = header(extension=True) + struct.pack("!HH", profile, len(body) // 4) + body + b"payload"
    assert read(data) == [(identity, bytes.fromhex(value)) for identity, value in expected]


# --- RTCP -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [*WRAPS[::4], *variants(*(one for one in WRAPS if one not in WRAPS[::4]))])
@given(offsets=st.lists(st.integers(0, 400), min_size=1, max_size=60))
def test_nack_agrees_with_aiortc(first: int, offsets: list[int]) -> None:
    entries = [((first + offset) & 0xFFFF, 0xAAAA >> offset % 16) for offset in offsets]
    body = struct.pack("!II", 9, 0xAABBCCDD) + b"".join(struct.pack("!HH", *entry) for entry in entries)
    data = struct.pack("!BBH", 0x81, 205, len(body) // 4) + body
    (parsed,) = rtcp.rtcp_packets(data)
    assert (parsed.type, parsed.format) == (rtcp.RTCP_RTPFB, rtcp.RTPFB_NACK)
    assert rtcp.feedback_media_ssrc(parsed) == 0xAABBCCDD
    (other,) = RtcpPacket.parse(data)
    assert isinstance(other, RtcpRtpfbPacket)
    assert list(rtcp.nacked(parsed)) == [seq & 0xFFFF for seq in other.lost]  # aiortc does not wrap


@given(first=u16, mask=u16)
def test_nack_bits(first: int, mask: int) -> None:
    """RFC 4585 section 6.2.1: bit i of the mask stands for first + i + 1, modulo 2^16."""
    body = struct.pack("!IIHH", 1, 2, first, mask)
    wanted = [first] + [(first + 1 + i) % 65536 for i in range(16) if mask & (1 << i)]
    assert list(rtcp.nacked(rtcp.Rtcp(205, 1, body))) == wanted


@given(u32)
def test_pli_agrees_with_aiortc(ssrc: int) -> None:
    (parsed,) = RtcpPacket.parse(rtcp.pli(ssrc))
    assert isinstance(parsed, RtcpPsfbPacket)
    assert (parsed.fmt, parsed.media_ssrc, parsed.ssrc, parsed.fci) == (1, ssrc, rtcp.SENDER_SSRC, b"")


@given(st.lists(u32, min_size=1, max_size=10))
def test_fir_names_its_sources_in_the_fci(ssrcs: list[int]) -> None:
    """RFC 5104 section 4.3.1.1: the media source of the header is 0, each entry has an SSRC and a sequence number."""
    fci = b"".join(struct.pack("!IBxxx", ssrc, i) for i, ssrc in enumerate(ssrcs))
    (parsed,) = rtcp.rtcp_packets(bytes(RtcpPsfbPacket(fmt=4, ssrc=9, media_ssrc=0, fci=fci)))
    assert (parsed.type, parsed.format) == (rtcp.RTCP_PSFB, rtcp.PSFB_FIR)
    assert rtcp.fir_ssrcs(parsed) == ssrcs


@given(
    info=st.builds(RtcpSenderInfo, st.integers(0, 2**64 - 1), u32, u32, u32),
    reports=st.integers(0, 31),
    ssrc=u32,
    cname=st.text("abcXYZ019-_", min_size=1, max_size=64),
)
def test_sender_report_keeps_times_and_changes_the_ssrc(
    info: RtcpSenderInfo, reports: int, ssrc: int, cname: str
) -> None:
    blocks = [RtcpReceiverInfo(1, 2, 3, 4, 5, 6, 7)] * reports
    (parsed,) = rtcp.rtcp_packets(bytes(RtcpSrPacket(ssrc=77, sender_info=info, reports=blocks)))
    assert parsed.format == reports
    report, description = RtcpPacket.parse(rtcp.sender_report(parsed, ssrc, cname))
    assert isinstance(report, RtcpSrPacket)
    assert (report.ssrc, report.sender_info, report.reports) == (ssrc, info, [])
    assert isinstance(description, RtcpSdesPacket)
    assert [(chunk.ssrc, chunk.items) for chunk in description.chunks] == [(ssrc, [(1, cname.encode())])]


def test_cut_sender_report() -> None:
    with pytest.raises(ValueError, match="cut"):
        rtcp.sender_report(rtcp.Rtcp(200, 0, bytes(23)), 1, "x")


blocks = st.builds(RtcpReceiverInfo, u32, st.integers(0, 255), st.integers(-0x800000, 0x7FFFFF), u32, u32, u32, u32)


@given(infos=st.lists(blocks, max_size=31), info=st.builds(RtcpSenderInfo, st.integers(0, 2**64 - 1), u32, u32, u32))
def test_report_blocks_agree_with_aiortc(infos: list[RtcpReceiverInfo], info: RtcpSenderInfo) -> None:
    for report in (RtcpRrPacket(ssrc=9, reports=infos), RtcpSrPacket(ssrc=9, sender_info=info, reports=infos)):
        (parsed,) = rtcp.rtcp_packets(bytes(report))
        assert list(rtcp.report_blocks(parsed)) == [
            rtcp.ReportBlock(*(getattr(one, name) for name in RtcpReceiverInfo.__dataclass_fields__)) for one in infos
        ]


def test_a_report_that_promises_more_blocks_than_it_has() -> None:
    body = bytes(4) + rtcp.report_block(1, 2, -3, 4, 5, 6, 7) + bytes(20)
    assert list(rtcp.report_blocks(rtcp.Rtcp(rtcp.RTCP_RR, 31, body))) == [rtcp.ReportBlock(1, 2, -3, 4, 5, 6, 7)]
    assert list(rtcp.report_blocks(rtcp.Rtcp(rtcp.RTCP_SDES, 1, body))) == []


@given(st.integers(0, 20).map(lambda words: bytes(range(4)) * words), u32)
def test_transport_feedback_header(fci: bytes, ssrc: int) -> None:
    (parsed,) = rtcp.rtcp_packets(rtcp.transport_feedback(fci, ssrc))
    assert (parsed.type, parsed.format) == (rtcp.RTCP_RTPFB, rtcp.RTPFB_TRANSPORT_CC)
    assert rtcp.feedback_media_ssrc(parsed) == ssrc
    assert parsed.body[8:] == fci


@given(st.lists(st.tuples(st.integers(192, 223), st.integers(0, 31), st.integers(0, 12)), max_size=8), st.data())
def test_compounds_come_apart(parts: list[tuple[int, int, int]], choose: st.DataObject) -> None:
    wanted = [rtcp.Rtcp(kind, form, bytes([kind]) * 4 * words) for kind, form, words in parts]
    pieces = [struct.pack("!BBH", 0x80 | p.format, p.type, len(p.body) // 4) + p.body for p in wanted]
    data = b"".join(pieces)
    assert list(rtcp.rtcp_packets(data)) == wanted
    ends = {0, *itertools.accumulate(map(len, pieces))}
    cut = choose.draw(st.integers(0, len(data)))
    if cut in ends:
        assert list(rtcp.rtcp_packets(data[:cut])) == [
            p for p, end in zip(wanted, itertools.accumulate(map(len, pieces)), strict=True) if end <= cut
        ]
    else:
        with pytest.raises(ValueError, match="RTCP"):
            list(rtcp.rtcp_packets(data[:cut]))


@pytest.mark.parametrize("first", [0x00, 0x40, 0xC0])
def test_another_version_is_no_rtcp(first: int) -> None:
    with pytest.raises(ValueError, match="RTCP"):
        list(rtcp.rtcp_packets(bytes([first, 200, 0, 0])))


# --- redundant sound --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "primary"),
    [
        ("6f 01", "01"),
        ("ef 0f00 02 6f aabb 01", "01"),  # 20 ms before
        ("ef 1e00 03 ef 0f00 02 6f ccddee aabb 0102", "0102"),
        ("ef 0f00 00 6f 01", "01"),
        ("ef 0fff ff 6f" + "aa" * 1023 + "01", "01"),
    ],
)
def test_the_newest_block_of_redundant_sound(payload: str, primary: str) -> None:
    for extension, padding in ((False, b""), (True, b""), (True, b"\0\0\3")):
        head = header(csrcs=1, extension=extension)
        head = bytes([head[0] | 0x20 * bool(padding)]) + head[1:] + bytes.fromhex("bede 0001 00000000") * extension
        data = head + bytes.fromhex(payload) + padding
        at, start = headers.primary_block(data, len(data), 111)
        assert at == len(head)
        assert data[start : len(data) - len(padding)] == bytes.fromhex(primary)


@pytest.mark.parametrize(
    "payload",
    ["", "6f", "60 01", "ef", "ef 0f00", "ef 0f00 02", "ef 0f00 02 6f aabb", "ef 0f00 02 6f aa", "e0 0f00 01 6f aa 01",
     "ef 0f00 01 60 aa 01", "ef" * 40, "ef 0000 00" * 40],
)  # fmt: skip
def test_cut_redundant_sound(payload: str) -> None:
    data = header() + bytes.fromhex(payload)
    with pytest.raises(ValueError, match=r"redundant|header"):
        headers.primary_block(data, len(data), 111)


@pytest.mark.parametrize("padding", ["0000 03", "09", "ff"])
def test_padding_is_no_sound(padding: str) -> None:
    data = b"\xa0" + header()[1:] + bytes.fromhex("ef 0f00 02 6f aabb" + padding)
    with pytest.raises(ValueError, match="redundant"):
        headers.primary_block(data, len(data), 111)


@given(st.binary(max_size=60), st.binary(max_size=8))
def test_whatever_redundant_sound_says_the_block_is_inside(data: bytes, beyond: bytes) -> None:
    try:
        at, start = headers.primary_block(data + beyond, len(data), 111)
    except ValueError:
        return
    assert 12 <= at < start < len(data)


# --- what a subscriber's stream is made of ----------------------------------------------------------------------------


def vp8_packet(descriptor: str) -> bytes:
    return rtp_bytes(96) + bytes.fromhex(descriptor) + b"\x01" + bytes(10)


def rtp_bytes(payload_type: int) -> bytes:
    return struct.pack("!BBHII", 0x80, payload_type, 500, 9000, 77)


@pytest.mark.parametrize(
    ("descriptor", "number", "tl0"),
    [
        ("90 c0 8005 07", 5, 7),
        ("90 c0 ffff ff", 0x7FFF, 255),
        ("90 80 05", 5, 0),
        ("90 80 7f", 127, 0),
        ("90 e0 8123 01 20", 0x123, 1),
    ],
)
def test_the_numbers_of_a_vp8_picture(descriptor: str, number: int, tl0: int) -> None:
    packet = vp8_packet(descriptor)
    found = vp8.vp8_picture(packet, len(packet))
    assert found is not None
    assert (found.number, found.tl0) == (number, tl0)


@pytest.mark.parametrize(
    ("descriptor", "temporal", "sync"),
    [
        ("90 c0 8005 07", 0, False),  # no T
        ("90 e0 8005 07 00", 0, False),
        ("90 e0 8005 07 60", 1, True),
        ("90 e0 8005 07 9f", 2, False),
        ("90 b0 05 ff", 3, True),  # a short picture ID, no TL0PICIDX, and the key index
    ],
)
def test_the_temporal_layer_of_a_vp8_picture(descriptor: str, temporal: int, sync: bool) -> None:
    packet = vp8_packet(descriptor)
    found = vp8.vp8_picture(packet, len(packet))
    assert found is not None
    assert (found.temporal, found.sync) == (temporal, sync)


@pytest.mark.parametrize("descriptor", ["10", "90 40 07", "90 20 20", "00"])
def test_a_picture_without_a_number_has_none(descriptor: str) -> None:
    packet = vp8_packet(descriptor)
    assert vp8.vp8_picture(packet, len(packet)) is None
    changed = bytearray(packet)
    vp8.shift_picture(changed, len(changed), 5, 5)
    assert changed == packet


@given(st.binary(max_size=60))
def test_nothing_that_is_no_picture_breaks_the_reader(data: bytes) -> None:
    vp8.vp8_picture(data, len(data))


@pytest.mark.parametrize(
    ("descriptor", "shift", "expected"),
    [
        ("90 c0 8005 07", 3, "90 c0 8008 0a"),
        ("90 c0 fffe fe", 3, "90 c0 8001 01"),
        ("90 80 7e", 3, "90 80 01"),
        ("90 c0 8005 07", -6, "90 c0 ffff 01"),
    ],
)
def test_pictures_go_on_where_others_stopped(descriptor: str, shift: int, expected: str) -> None:
    packet = bytearray(vp8_packet(descriptor))
    vp8.shift_picture(packet, len(packet), shift, shift)
    assert packet == vp8_packet(expected)


def test_a_retransmission_has_its_number_before_its_payload() -> None:
    """RFC 4588 section 4; marker, header extension and time stay."""
    head = struct.pack("!BBHIIHHI", 0x90, 0x80 | 96, 0xFFFE, 9000, 77, 0xBEDE, 1, 0x22010203)
    again = headers.retransmission(head + b"payload", 97, 78, 5)
    assert again == struct.pack("!BBHIIHHI", 0x90, 0x80 | 97, 5, 9000, 78, 0xBEDE, 1, 0x22010203) + b"\xff\xfepayload"
    with pytest.raises(ValueError, match="cut"):
        headers.retransmission(head[:14], 97, 78, 5)


def test_the_bitrate_of_a_remb() -> None:
    body = struct.pack("!II4sBBHI", 1, 0, b"REMB", 1, 5 << 2 | 2, 0x1234, 77)
    assert rtcp.remb(rtcp.Rtcp(rtcp.RTCP_PSFB, 15, body)) == 0x21234 << 5
    for other in (
        rtcp.Rtcp(rtcp.RTCP_PSFB, 1, body),
        rtcp.Rtcp(rtcp.RTCP_RTPFB, 15, body),
        rtcp.Rtcp(rtcp.RTCP_PSFB, 15, body[:15]),
        rtcp.Rtcp(rtcp.RTCP_PSFB, 15, body.replace(b"REMB", b"BMER")),
    ):
        assert rtcp.remb(other) is None
