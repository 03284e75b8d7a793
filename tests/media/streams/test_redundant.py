from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator

import pytest
from aiortc.rtp import RtcpRtpfbPacket, RtcpSenderInfo, RtcpSrPacket, RtpPacket
from support.media_client import Client, LocalControl, local_worker, rtp_packet, run, settled, until

from sfu import bridge
from sfu.media.rtp import rtcp
from sfu.media.streams.down_track import DownTrack

BEFORE, NOW = b"what was said before", b"what is said now"
OLDER = bytes([0x80 | 111]) + (960 << 10 | len(BEFORE)).to_bytes(3, "big")
REDUNDANT = OLDER + bytes([111]) + BEFORE + NOW
TWICE = OLDER + OLDER + bytes([111]) + BEFORE + BEFORE + NOW
ALONE = bytes([111]) + NOW
"""What Chromium sends when there was nothing before."""


@contextlib.asynccontextmanager
async def room(control: LocalControl) -> AsyncIterator[tuple[Client, Client, Client]]:
    """Alice sends RED, Bob takes it, Carol knows nothing of it."""
    made = [Client(control, name, ("microphone",)) for name in ("alice", "bob", "carol")]
    made[0].redundant = made[1].redundant = True
    try:
        for client in made:
            await client.start()
        for client in made:
            await client.takes_from(*({"alice", "bob", "carol"} - {client.id}))
        await settled(control, made)
        yield made[0], made[1], made[2]
    finally:
        for client in made:
            await client.aclose()


def down_track(control: LocalControl, subscriber: str) -> DownTrack:
    return control.worker.peers["alice"].published["microphone"].down_tracks[subscriber]


async def heard(client: Client) -> tuple[int, bytes, int]:
    packet = RtpPacket.parse(await client.raw_rtp())
    return packet.payload_type, packet.payload, packet.sequence_number


async def nack(client: Client, seq16: int) -> None:
    asked = RtcpRtpfbPacket(fmt=1, ssrc=1, media_ssrc=client.ssrc_of("alice", "microphone"), lost=[seq16])
    await client.send(bytes(asked))


@pytest.mark.parametrize("seq16", [0, 7, 0xFFFE])
@pytest.mark.parametrize("payload", [REDUNDANT, TWICE, ALONE])
def test_who_takes_it_gets_it_as_it_came_and_others_plain_opus(seq16: int, payload: bytes) -> None:
    async def test() -> None:
        async with local_worker() as control, room(control) as (alice, bob, carol):
            ssrc = bob.ssrc_of("alice", "microphone")
            assert carol.ssrc_of("alice", "microphone") == ssrc
            for step in range(3):
                number, fields = seq16 + step, {"timestamp": 960 * step}
                await alice.send_rtp("microphone", number, payload, pt=63 | 0x80 * (step == 1), **fields)
                as_it_came = rtp_packet(number, ssrc, payload, pt=63 | 0x80 * (step == 1), **fields)
                plain = rtp_packet(number, ssrc, NOW, pt=111 | 0x80 * (step == 1), **fields)
                assert await bob.raw_rtp() == as_it_came
                assert await carol.raw_rtp() == plain
            assert down_track(control, "bob").sent_bytes == 3 * len(as_it_came)
            assert down_track(control, "carol").sent_bytes == 3 * len(plain)

    run(test)


def test_each_is_sent_again_the_very_bytes_that_it_was_sent() -> None:
    async def test() -> None:
        async with local_worker() as control, room(control) as (alice, bob, carol):
            sent: dict[str, list[bytes]] = {}
            for client in (bob, carol):
                assert client.ice is not None
                kept = sent[client.id] = []
                client.ice.lose = lambda data, kept=kept: not rtcp.is_rtcp(data[1]) and kept.append(data) is None
            await alice.send_rtp("microphone", 7, REDUNDANT, pt=63)
            await until(lambda: all(len(kept) == 1 for kept in sent.values()), "both were sent it")
            for client, payload_type, payload in ((bob, 63, REDUNDANT), (carol, 111, NOW)):
                assert client.ice is not None
                client.ice.lose = lambda data, kept=sent[client.id]: kept.append(data) is not None
                await nack(client, 7)
                assert await heard(client) == (payload_type, payload, 7)
                assert len(set(sent[client.id])) == 1, "to the encrypted byte"

    run(test)


def test_header_extensions_sources_and_padding_stay_with_the_plain_form() -> None:
    async def test() -> None:
        async with local_worker() as control, room(control) as (alice, bob, carol):
            head = struct.pack("!BBHII", 0xB2, 0x80 | 63, 7, 1000, alice.ssrcs["microphone"]) + bytes(range(8))
            head += struct.pack("!HH", 0xBEDE, 2) + bytes.fromhex("72 010203 10 9f 00 00")
            await alice.send(head + REDUNDANT + b"\0\0\3")
            for client, payload_type, payload in ((bob, 63, REDUNDANT), (carol, 111, NOW)):
                got = await client.raw_rtp()
                parsed = RtpPacket.parse(got)
                assert (parsed.payload_type, parsed.payload, parsed.marker) == (payload_type, payload, 1)
                assert (got[12:20], got[24:28], got[-3:]) == (bytes(range(8)), bytes.fromhex("72 010203"), b"\0\0\3")
            assert control.worker.peers["alice"].published["microphone"].take_level() == -0x1F

    run(test)


def test_plain_opus_in_between_is_everybodys() -> None:
    async def test() -> None:
        async with local_worker() as control, room(control) as (alice, bob, carol):
            for seq16, (payload_type, payload) in enumerate([(63, REDUNDANT), (111, BEFORE), (63, ALONE)], 10):
                await alice.send_rtp("microphone", seq16, payload, pt=payload_type)
                assert await heard(bob) == (payload_type, payload, seq16)
                assert await heard(carol) == (111, BEFORE if payload_type == 111 else NOW, seq16)

    run(test)


def test_many_at_once_and_some_late() -> None:
    async def test() -> None:
        async with local_worker() as control, room(control) as (alice, bob, carol):
            order = [100, 101, 103, 102, 104, 106, 105, 107]
            for seq16 in order:
                longer = b"%d" % seq16 * (seq16 % 3)  # so that packets of a batch have other sizes
                await alice.send_rtp("microphone", seq16, REDUNDANT + longer, pt=63)
            for client, payload_type, payload in ((bob, 63, REDUNDANT), (carol, 111, NOW)):
                got = sorted([await heard(client) for _ in order], key=lambda one: one[2])
                assert got == [(payload_type, payload + b"%d" % n * (n % 3), n) for n in sorted(order)]

    run(test)


@pytest.mark.parametrize(
    "payload",
    [b"", OLDER, OLDER[:3], OLDER + ALONE[:1], REDUNDANT[: 5 + len(BEFORE)], bytes([0x80 | 111]) * 1000,
     bytes([96]) + NOW, bytes([0x80 | 63]) + REDUNDANT[1:]],
)  # fmt: skip
def test_what_is_malformed_is_counted_and_lost(payload: bytes) -> None:
    async def test() -> None:
        async with local_worker() as control, room(control) as (alice, bob, carol):
            for seq16, sent in enumerate([REDUNDANT, payload, REDUNDANT], 5):
                await alice.send_rtp("microphone", seq16, sent, pt=63)
            for client, payload_type in ((bob, 63), (carol, 111)):
                assert [(await heard(client))[::2] for _ in range(2)] == [(payload_type, 5), (payload_type, 7)]
            assert control.worker.counters["rtp_malformed"] == 1

    run(test)


def test_a_mute_leaves_both_with_a_gap() -> None:
    async def test() -> None:
        async with local_worker() as control, room(control) as (alice, bob, carol):
            await alice.send_rtp("microphone", 5, REDUNDANT, pt=63)
            for client in (bob, carol):
                assert (await heard(client))[2] == 5
            await control.send(bridge.Mute("alice", "microphone", True))
            seen = control.worker.counters["packets_in"]
            await alice.send_rtp("microphone", 6, REDUNDANT, pt=63)
            await until(lambda: control.worker.counters["packets_in"] == seen + 1, "it came")
            await control.send(bridge.Mute("alice", "microphone", False))
            await alice.send_rtp("microphone", 50, REDUNDANT, pt=63)
            for client in (bob, carol):
                assert (await heard(client))[2] == 7

    run(test)


def test_sender_reports_reach_both() -> None:
    async def test() -> None:
        async with local_worker() as control, room(control) as (alice, bob, carol):
            info = RtcpSenderInfo(ntp_timestamp=1 << 60, rtp_timestamp=960, packet_count=5, octet_count=500)
            await alice.send(bytes(RtcpSrPacket(ssrc=alice.ssrcs["microphone"], sender_info=info)))
            for client in (bob, carol):
                report = await client.rtcp(rtcp.RTCP_SR)
                assert int.from_bytes(report.body[:4], "big") == client.ssrc_of("alice", "microphone")
            assert control.worker.peers["alice"].published["microphone"].layer_streams[0].reception._sr is not None

    run(test)


def test_who_never_said_so_may_not_send_it() -> None:
    async def test() -> None:
        async with local_worker() as control, room(control) as (_, bob, carol):
            before = control.worker.counters["packets_unknown"]
            await carol.send_rtp("microphone", 5, REDUNDANT, pt=63)
            await carol.send_rtp("microphone", 6, NOW)
            assert (await bob.rtp()).payload == NOW
            assert control.worker.counters["packets_unknown"] == before + 1

    run(test)


def test_a_client_that_knows_only_offers_is_offered_none() -> None:
    async def test() -> None:
        async with local_worker() as control:
            for peer, full in (("page", True), ("bare", False)):
                await control.send(bridge.Join(peer, "room", full, True, True))
                offer = await control.event(bridge.Offer, peer)
                assert ("red/48000/2" in offer.sdp) == full

    run(test)


def test_a_subscriber_is_moved_to_plain_opus_and_back_within_its_numbers() -> None:
    """What it was sent before is resent as it was. Who cannot take RED stays."""

    async def test() -> None:
        async with local_worker() as control, room(control) as (alice, bob, carol):
            publication = control.worker.peers["alice"].published["microphone"]
            for seq16, plain in enumerate([False, True, True, False], 10):
                for client in (bob, carol):
                    publication.set_plain(client.id, plain)
                await alice.send_rtp("microphone", seq16, REDUNDANT, pt=63, timestamp=960 * seq16)
                for client, payload_type, payload in (
                    (bob, *((111, NOW) if plain else (63, REDUNDANT))),
                    (carol, 111, NOW),
                ):
                    packet = RtpPacket.parse(await client.raw_rtp())
                    assert (packet.payload_type, packet.payload) == (payload_type, payload)
                    assert (packet.sequence_number, packet.timestamp) == (seq16, 960 * seq16)
            assert down_track(control, "bob").packets == 4
            for seq16, payload_type, payload in ((10, 63, REDUNDANT), (12, 111, NOW)):
                found = down_track(control, "bob").find(seq16)
                assert found is not None
                assert (found[1] & 0x7F, found[12:]) == (payload_type, payload)

    run(test)
