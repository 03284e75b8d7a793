"""Connectivity checks as anybody may write them."""

from __future__ import annotations

import binascii
import struct

import pytest
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st
from support.media_client import check

from sfu.stun import ATTRIBUTES, LOOKED_AT, Signed, answers, mapped_address, named, parse_check, question

PWD = "passwordpasswordpassword"


@pytest.mark.parametrize("nominate", [False, True])
def test_a_check_is_read(nominate: bool) -> None:
    parsed = parse_check(bytes(check("ufrag", PWD, nominate=nominate)))
    assert parsed is not None
    assert (parsed.ufrag, parsed.nominates) == ("ufrag", nominate)
    assert parsed.verify(PWD)


@pytest.mark.parametrize("pwd", ["", "x", PWD[:-1], PWD + "x", PWD.upper()])
def test_another_password_is_refused(pwd: str) -> None:
    parsed = parse_check(bytes(check("ufrag", PWD)))
    assert parsed is not None
    assert not parsed.verify(pwd)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def message(*attributes: bytes, kind: int = 1, cookie: int = 0x2112A442, length: int | None = None) -> bytes:
    body = b"".join(attributes)
    return struct.pack("!HHI12s", kind, len(body) if length is None else length, cookie, b"transaction!") + body


USERNAME = attribute(0x0006, b"ufrag:client")
INTEGRITY = attribute(0x0008, bytes(20))


def fingerprint(data: bytes) -> bytes:
    data = data[:2] + struct.pack("!H", len(data) - 20 + 8) + data[4:]
    return attribute(0x8028, struct.pack("!I", (binascii.crc32(data) ^ 0x5354554E) ^ 1))


MALFORMED = {
    "empty": b"",
    "one byte": b"\0",
    "cut header": message()[:19],
    "length too great": message(USERNAME, INTEGRITY, length=4),
    "length beyond the end": message(USERNAME, INTEGRITY, length=0xFFFF),
    "length not a multiple of 4": message(USERNAME, INTEGRITY, length=41),
    "other cookie": message(USERNAME, INTEGRITY, cookie=0),
    "no attributes": message(),
    "no username": message(INTEGRITY),
    "no integrity": message(USERNAME),
    "username after integrity": message(INTEGRITY, USERNAME),
    "username not UTF-8": message(attribute(0x0006, b"\xff\xfe\xbe"), INTEGRITY),
    "username cut": message(struct.pack("!HH", 0x0006, 500) + b"ufrag", INTEGRITY)[:30],
    "attribute header cut": message(USERNAME, INTEGRITY) + b"\0\x25",
    "wrong fingerprint": message(USERNAME, INTEGRITY, fingerprint(message(USERNAME, INTEGRITY))),
    "fingerprint of 2 bytes": message(USERNAME, INTEGRITY, attribute(0x8028, b"ab")),
    "error code of 3 bytes": message(USERNAME, attribute(0x0009, b"abc"), INTEGRITY),
    "error reason not UTF-8": message(USERNAME, attribute(0x0009, b"\0\0\4\0\xff"), INTEGRITY),
    "software not UTF-8": message(USERNAME, attribute(0x8022, b"\xff"), INTEGRITY),
    "realm not UTF-8": message(USERNAME, attribute(0x0014, b"\xff"), INTEGRITY),
    "channel of 1 byte": message(USERNAME, attribute(0x000C, b"a"), INTEGRITY),
    "lifetime empty": message(USERNAME, attribute(0x000D, b""), INTEGRITY),
    "change request of 5 bytes": message(USERNAME, attribute(0x0003, b"abcde"), INTEGRITY),
    "unknown method": message(USERNAME, INTEGRITY, kind=0x0FFF),
    "indication": message(USERNAME, INTEGRITY, kind=0x0011),
    "response": message(USERNAME, INTEGRITY, kind=0x0101),
    "error response": message(USERNAME, INTEGRITY, kind=0x0111),
    "allocate": message(USERNAME, INTEGRITY, kind=0x0003),
    **{
        f"{name} of {size} bytes": message(USERNAME, attribute(kind, bytes(size)), INTEGRITY)
        for name, kind, sizes in [
            ("priority", 0x0024, (0, 3, 5)),
            ("controlling", 0x802A, (0, 4, 7, 9)),
            ("controlled", 0x8029, (0, 4, 7, 9)),
            ("mapped address", 0x0001, (0, 3, 4, 8, 20)),
            ("xor mapped address", 0x0020, (0, 3, 4, 8, 20)),
            ("xor peer address", 0x0012, (0, 5)),
            ("response origin", 0x802B, (0, 7)),
        ]
        for size in sizes
    },
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed_messages_are_nobodys_check(data: bytes) -> None:
    parsed = parse_check(data)
    assert parsed is None or not parsed.verify(PWD)


@pytest.mark.parametrize("size", [0, 1, 19, 21, 255])
def test_integrity_of_another_size_is_refused(size: int) -> None:
    parsed = parse_check(message(USERNAME, attribute(0x0008, bytes(size))))
    assert parsed is None or not parsed.verify(PWD)


@given(st.lists(st.tuples(st.sampled_from([0x0024, 0x7777]), st.binary(max_size=9)), max_size=LOOKED_AT + 2))
def test_a_name_is_found_as_far_as_it_is_looked_for(before: list[tuple[int, bytes]]) -> None:
    data = message(*(attribute(kind, value) for kind, value in before), USERNAME, INTEGRITY)
    assert named(data) == ("ufrag" if len(before) < LOOKED_AT else None)


@given(st.binary(max_size=100))
def test_a_name_is_the_parsers(data: bytes) -> None:
    for tried in (data, b"\0\1" + data[2:4] + b"\x21\x12\xa4\x42" + data[8:], message(data), message(USERNAME + data)):
        name, parsed = named(tried), parse_check(tried)
        assert parsed is None or name is not None


def test_use_candidate_after_integrity_does_not_count() -> None:
    """RFC 8489 section 9: it is not authenticated."""
    signed = bytes(check("ufrag", PWD, nominate=False))[:-8]  # without the fingerprint
    data = signed + attribute(0x0025, b"")
    data = data[:2] + struct.pack("!H", len(data) - 20) + data[4:]
    parsed = parse_check(data)
    assert parsed is not None
    assert not parsed.nominates
    assert parsed.verify(PWD)


@pytest.mark.parametrize("before", [0, ATTRIBUTES - 2, ATTRIBUTES - 1, 300])
def test_a_check_of_many_attributes_is_not_read_to_its_end(before: int) -> None:
    unsigned = message(USERNAME, *[attribute(0x0020, b"\0\1" + bytes(6))] * before)
    parsed = parse_check(unsigned[:2] + struct.pack("!H", len(unsigned) + 4) + unsigned[4:] + INTEGRITY)
    assert (parsed is not None) == (before <= ATTRIBUTES - 2)
    assert parsed is None or not parsed.verify(PWD)


def read(data: bytes) -> Signed | None:
    parsed = parse_check(data)
    assert parsed is None or isinstance(parsed.ufrag, str)
    return parsed


@given(st.binary(max_size=1500))
def test_bytes_never_raise(data: bytes) -> None:
    read(data)
    read(b"\0\1" + data[2:4] + b"\x21\x12\xa4\x42" + data[8:])


@given(st.lists(st.tuples(st.sampled_from([*stun.ATTRIBUTES_BY_TYPE, 0x7777]), st.binary(max_size=40)), max_size=12))
def test_any_attributes_never_raise(attributes: list[tuple[int, bytes]]) -> None:
    read(message(*(attribute(kind, value) for kind, value in attributes)))
    read(message(USERNAME, INTEGRITY, *(attribute(kind, value) for kind, value in attributes)))


@given(st.binary(max_size=200))
def test_responses_of_any_bytes_never_raise(data: bytes) -> None:
    assert not answers(data, bytes(12), PWD)
    assert not answers(b"\1\1" + data[2:4] + b"\x21\x12\xa4\x42" + bytes(12) + data, bytes(12), PWD)


@given(st.data())
def test_a_changed_check_is_not_believed(choose: st.DataObject) -> None:
    """Any change up to and including the integrity makes it void; only the two lengths around it are not covered."""
    data = bytearray(bytes(check("ufrag", PWD))[:-8])
    at = choose.draw(st.sampled_from([i for i in range(len(data)) if i not in (2, 3, len(data) - 22, len(data) - 21)]))
    data[at] ^= choose.draw(st.integers(1, 255))
    data[2:4] = struct.pack("!H", len(data) - 20)  # or nothing would be parsed at all
    parsed = read(bytes(data))
    assert parsed is None or not parsed.verify(PWD)


@given(st.integers(0, 200), st.integers(0, 200))
def test_cut_checks_never_raise(start: int, end: int) -> None:
    read(bytes(check("ufrag", PWD))[start:end])


# --- what a STUN server saw -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [("203.0.113.9", 8080), ("2001:db8::9", 65535)])
def test_the_address_that_a_server_saw(address: tuple[str, int]) -> None:
    request = stun.parse_message(question(b"transaction!"))
    assert (request.message_method, request.message_class) == (stun.Method.BINDING, stun.Class.REQUEST)
    response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
    response.attributes["SOFTWARE"] = "a server"
    response.attributes["XOR-MAPPED-ADDRESS"] = address
    assert mapped_address(bytes(response)) == address
    assert mapped_address(bytes(response)[:-1]) is None
    assert mapped_address(bytes(request)) is None


@pytest.mark.parametrize(
    "value", [b"", b"\0\1", b"\0\1\0\0", b"\0\3" + bytes(6), b"\0\1" + bytes(18), b"\0\2" + bytes(6), bytes(8)]
)
def test_an_address_that_is_none(value: bytes) -> None:
    assert mapped_address(message(attribute(0x20, value), kind=0x101)) is None


@given(st.binary(max_size=60))
def test_anything_for_an_answer(data: bytes) -> None:
    found = mapped_address(b"\x01\x01" + len(data).to_bytes(2) + b"\x21\x12\xa4\x42" + b"transaction!" + data)
    assert found is None or 0 <= found[1] < 65536
