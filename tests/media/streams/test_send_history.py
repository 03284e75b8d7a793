"""Transport-wide numbers of a worker's video packets, and what is remembered about each."""

from __future__ import annotations

import struct
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from sfu.media.rtp import codecs, headers
from sfu.media.rtp.twcc import TICK_S
from sfu.media.streams.send_history import ELEMENT, NO_NUMBER, NUMBERS, TOGETHER_TICKS, WORDS, SendHistory
from sfu.media.transport.rows import READ_BATCH

PAYLOAD = b"payload"


def video(block: bytes, profile: int = headers.ONE_BYTE_PROFILE, first: int = 0x90) -> bytearray:
    head = struct.pack("!BBHII", first, codecs.VP8.payload_type, 7, 8, 9)
    return bytearray(head + struct.pack("!HH", profile, len(block) // 4) + block + PAYLOAD)


def enter(history: SendHistory, lengths: list[int], now_s: float) -> list[int]:
    """As ingress.py does: the 16-bit numbers of a burst."""
    first = history.next
    history.next, number = first + len(lengths), first & 0xFFFF
    history.bursts[number] = first, now_s, lengths
    return [word >> 8 & 0xFFFF for word in WORDS[number : number + len(lengths)]]


def sent(history: SendHistory, seq16: int) -> tuple[float, int] | None:
    """When the packet with this number was sent, and its length."""
    return next(((sent_s, n_bytes) for sent_s, n_bytes, _, _ in history.match([seq16], [0])), None)


def number_of(packet: bytearray) -> int | None:
    found = {extension: packet[at : at + n] for extension, at, n in headers.extensions(packet, len(packet))}
    value = found.get(codecs.TRANSPORT_CC_ID)
    return None if value is None else int.from_bytes(value, "big")


@given(
    st.lists(st.lists(st.integers(60, 1400), min_size=1, max_size=READ_BATCH), max_size=40), st.integers(0, 2 * NUMBERS)
)
def test_each_of_the_last_numbers_tells_time_and_length_of_its_packet(bursts: list[list[int]], start: int) -> None:
    history = SendHistory()
    history.next = start
    given_out: list[tuple[int, float, int]] = []
    for at, lengths in enumerate(bursts):
        if len(lengths) == 1:
            packet = video(bytes(4))
            history.write(packet, float(at))
            number = number_of(packet)
            assert number is not None
            given_out.append((number, float(at), len(packet)))
        else:
            numbers = enter(history, lengths, float(at))
            given_out += [(number, float(at), length) for number, length in zip(numbers, lengths, strict=True)]
    assert [number for number, _, _ in given_out] == [(start + i) & 0xFFFF for i in range(len(given_out))]
    for number, sent_s, length in given_out:
        assert sent(history, number) == (sent_s, length)
    assert sent(history, start + len(given_out)) is None  # the next one, which nobody was sent
    assert sent(history, start - 1) is None


@given(
    st.lists(st.lists(st.integers(60, 1400), min_size=1, max_size=READ_BATCH), min_size=1, max_size=20),
    st.integers(0, 2 * NUMBERS),
    st.lists(st.tuples(st.booleans(), st.integers(-5, 40)), max_size=20 * READ_BATCH),
)
def test_what_arrived_together_is_one_group(
    bursts: list[list[int]], start: int, arrivals: list[tuple[bool, int]]
) -> None:
    """Every packet that arrived is counted once, with its own length, whichever are missing among them."""
    history = SendHistory()
    history.next = start
    packets = [
        (number, float(at), length)
        for at, lengths in enumerate(bursts)
        for number, length in zip(enter(history, lengths, float(at)), lengths, strict=True)
    ]
    ticks = list(accumulate(delta for _, delta in arrivals))
    came = [(i, tick) for i, ((there, _), tick) in enumerate(zip(arrivals, ticks, strict=True)) if there]
    came = [(i, tick) for i, tick in came if i < len(packets)]
    first = packets[0][0]
    groups = history.match([first + i for i, _ in came], [tick for _, tick in came])
    assert sum(n for _, _, n, _ in groups) == len(came)
    at = 0
    for sent_s, n_bytes, n, arrived_s in groups:
        own = [(*packets[i], tick) for i, tick in came[at : at + n]]
        assert {one[1] for one in own} == {sent_s}
        assert (n_bytes, arrived_s) == (sum(one[2] for one in own), own[0][3] * TICK_S)
        assert 0 <= own[-1][3] - own[0][3] <= TOGETHER_TICKS
        at += n


def test_what_a_round_of_numbers_ago_was_sent_is_forgotten() -> None:
    """Bursts begin elsewhere in the next round, so what is left of the last one lies between them."""
    history = SendHistory()
    for round_s, size in ((1.0, READ_BATCH), (2.0, READ_BATCH - 1)):
        for _ in range(NUMBERS // size + 1):
            numbers = enter(history, [size] * size, round_s)
            assert [sent(history, number) for number in numbers] == [(round_s, size)] * size
    assert {sent(history, number) for number in range(NUMBERS)} == {(2.0, READ_BATCH - 1)}


def test_a_number_replaces_another_one_or_padding_and_nothing_else() -> None:
    history = SendHistory()
    history.next = 0x1234
    taken = video(bytes([ELEMENT, 1, 2, 0]))
    history.write(taken, 1.0)
    assert number_of(taken) == 0x1234
    beside = video(bytes([ELEMENT, 1, 2, 0x10, 0x55, 0, 0, 0]))
    history.write(beside, 1.0)
    assert number_of(beside) == 0x1235
    assert beside[20:].endswith(PAYLOAD)
    assert [(extension, n) for extension, _, n in headers.extensions(beside, len(beside))] == [(5, 2), (1, 1)]
    for kept in (
        video(bytes([0x10, 0x55, 0, 0])),
        video(bytes(4), profile=0x1000),
        video(b""),
        video(bytes(4), first=0x91),
        video(bytes(4), first=0x80),
        bytearray(video(bytes(4))[:16]),
    ):
        before = bytes(kept)
        history.write(kept, 1.0)
        assert kept == before
    assert history.next == 0x1236


def test_sound_has_padding_in_place_of_numbers() -> None:
    assert [*WORDS[NO_NUMBER : NO_NUMBER + READ_BATCH]] == [0] * READ_BATCH
    assert len(WORDS) == NO_NUMBER + READ_BATCH
