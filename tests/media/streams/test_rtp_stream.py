from __future__ import annotations

import asyncio
import struct

import pytest
from aiortc.rtp import (
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRtpfbPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
    RtpPacket,
)
from support.media_client import Client, LocalControl, clients, local_worker, rtp_packet, run, until

from sfu import bridge
from sfu.media.rtp import headers, rtcp
from sfu.media.rtp.keyframe import HOLD_MS
from sfu.media.streams.retransmission import FREE_BYTES, HISTORY_BYTES
from sfu.media.streams.rtp_stream import RtpStream
from sfu.media.transport.transport import RTX_BURST, RTX_PER_S


def track(control: LocalControl, peer: str, source: str = "camera") -> RtpStream:
    return control.worker.peers[peer].published[source].layer_streams[0]


async def reached(control: LocalControl, packets_in: int) -> None:
    """Waits until the worker has seen this many media packets."""
    await until(lambda: control.worker.counters["packets_in"] == packets_in, f"{packets_in}: {control.worker.counters}")


async def quiet(control: LocalControl, *publishers: Client) -> None:
    """Each answers the request for a keyframe that those who joined made."""
    for client in publishers:
        await client.send_rtp("camera", 1, keyframe(0))
        camera = track(control, client.id)
        await until(lambda: not camera._keyframes.wanted, "no keyframe is wanted")  # noqa: B023


async def nack(client: Client, ssrc: int, *lost: int) -> None:
    await client.send(bytes(RtcpRtpfbPacket(fmt=1, ssrc=1, media_ssrc=ssrc, lost=list(lost))))


def lose(client: Client, seq16: int) -> None:
    """The next media packet under this number gets lost on its way to the client."""
    assert client.ice is not None
    lost = client.ice.lost

    def picks(data: bytes) -> bool:
        return not lost and not rtcp.is_rtcp(data[1]) and 128 <= data[0] < 192 and headers.seq16_of(data) == seq16

    client.ice.lose = picks


def keyframe(n: int) -> bytes:
    """The first packet of a VP8 keyframe."""
    return bytes([0x10, 0x00]) + bytes(8) + b"%d" % n


def delta(n: int) -> bytes:
    return bytes([0x10, 0x01]) + bytes(8) + b"%d" % n


async def pli(client: Client, ssrc: int) -> None:
    await client.send(bytes(RtcpPsfbPacket(fmt=1, ssrc=1, media_ssrc=ssrc)))


# --- media ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["microphone", "camera"])
@pytest.mark.parametrize("seq16", [0, 1, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF])
def test_only_the_ssrc_changes(source: str, seq16: int) -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b", "c", first=seq16 - 1) as (a, b, c):
            for step in range(3):
                await a.send_rtp(source, seq16 + step, b"payload %d" % step, timestamp=0xFFFFFFFF)
                sent = rtp_packet(
                    seq16 + step,
                    track(control, "a", source).ssrc,
                    b"payload %d" % step,
                    pt=111 if source == "microphone" else 96,
                    timestamp=0xFFFFFFFF,
                )
                for client in (b, c):
                    assert client.ssrc_of("a", source) == track(control, "a", source).ssrc
                    assert await client.raw_rtp() == sent

    run(test)


def test_everyone_hears_everyone_else() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b", "c") as made:
            for client in made:
                await client.send_rtp("microphone", 5, client.id.encode())
            for client in made:
                heard = [await client.rtp() for _ in range(2)]
                assert {(p.payload.decode(), p.ssrc) for p in heard} == {
                    (other.id, track(control, other.id, "microphone").ssrc) for other in made if other is not client
                }

    run(test)


def test_header_extensions_pass_but_for_our_own() -> None:
    """A subscriber would answer another transport's packet numbers as if they were ours."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            block = bytes.fromhex("72 010203 51 abcd 81 0506 0000")
            head = struct.pack("!BBHII", 0x92, 0x80 | 96, 7, 1000, a.ssrcs["camera"]) + bytes(range(8))
            await a.send(head + struct.pack("!HH", 0xBEDE, len(block) // 4) + block + b"payload")
            got = await b.raw_rtp()
            assert len(got) == len(head) + 4 + len(block) + 7
            assert [(i, got[at : at + n]) for i, at, n in headers.extensions(got, len(got))] == [
                (7, b"\x01\x02\x03"),
                (8, b"\x05\x06"),
            ]
            assert b"\xab\xcd" not in got
            assert (got[0], got[1], got[12:20], got[-7:]) == (0x92, 0x80 | 96, bytes(range(8)), b"payload")
            report = await a.rtcp(rtcp.RTCP_RTPFB, rtcp.RTPFB_TRANSPORT_CC)
            assert struct.unpack_from("!HH", report.body, 8) == (0xABCD, 1)
            assert rtcp.feedback_media_ssrc(report) == a.ssrcs["camera"]

    run(test)


@pytest.mark.parametrize(
    ("source", "pt", "counter"),
    [
        ("camera", 97, "packets_ignored"),
        ("camera", 100, "packets_ignored"),
        ("camera", 111, "packets_unknown"),
        ("microphone", 96, "packets_unknown"),
        ("unknown", 96, "packets_unknown"),
        ("unknown", 97, "packets_ignored"),
    ],
)
def test_what_no_track_sends_is_not_forwarded(source: str, pt: int, counter: str) -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            before = control.worker.counters[counter]
            await a.send(rtp_packet(1, a.ssrcs.get(source, 4242), b"wrong", pt=pt))
            await a.send_rtp("camera", 2, b"right")
            assert (await b.rtp()).payload == b"right"
            assert control.worker.counters[counter] == before + 1

    run(test)


def test_packets_that_leave_the_fast_path_are_counted() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await a.send_rtp("camera", 1)
            await b.rtp()
            counters = control.worker.counters
            came, before = counters["packets_in"], counters["packets_long_way"]
            for seq16, odd in ((2, 0), (3, 0), (5, 1), (4, 2), (6, 2)):  # 5 is not the next one, 4 comes late
                await a.send_rtp("camera", seq16)
                await b.rtp()
                assert counters["packets_long_way"] - before == odd, seq16
            assert counters["packets_in"] == came + 5

    run(test)


def test_cut_packets_are_counted_and_nothing_more() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            assert a.dtls is not None
            await a.send(struct.pack("!BBHI", 0x80, 200, 40, a.ssrcs["camera"]))  # says it is longer than it is
            await a.send(struct.pack("!BBHIIHH", 0x81, 205, 4, 1, 2, 3, 4))
            await a.send_rtp("camera", 2, b"right")
            assert (await b.rtp()).payload == b"right"
            assert control.worker.counters["rtp_malformed"] == 2

    run(test)


def test_forged_packets_are_counted_and_nothing_more() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            assert a.ice is not None
            a.ice.send(rtp_packet(1, a.ssrcs["camera"], bytes(40)))
            a.ice.send(rtcp.pli(1) + bytes(20))
            a.ice.send(b"\x80")
            await a.send_rtp("camera", 2, b"right")
            assert (await b.rtp()).payload == b"right"
            assert control.worker.counters["srtp_refused"] + control.worker.counters["srtcp_refused"] == 3

    run(test)


# --- mute -------------------------------------------------------------------------------------------------------------


async def silently(control: LocalControl, client: Client, source: str, *seqs: int) -> None:
    """Mutes the source, sends these packets, and unmutes it once the worker has seen them."""
    await control.send(bridge.Mute(client.id, source, True))
    seen = control.worker.counters["packets_in"]
    for seq16 in seqs:
        await client.send_rtp(source, seq16, b"muted")
    await reached(control, seen + len(seqs))
    await control.send(bridge.Mute(client.id, source, False))


@pytest.mark.parametrize("source", ["microphone", "camera"])
def test_a_muted_track_is_not_forwarded(source: str) -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await a.send_rtp(source, 1, b"before")
            assert (await b.rtp()).payload == b"before"
            await silently(control, a, source, 2, 3)
            await a.send_rtp(source, 4, b"after")
            assert (await b.rtp()).payload == b"after"

    run(test)


def test_mute_before_the_track_begins() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "b") as (b,):
            a = await Client(control, "a").join()
            await control.send(bridge.Mute("a", "camera", True))
            await a.negotiate()
            await a.connect()
            await a.begin()
            await until(
                lambda: len(track(control, "a").down_tracks) == len(track(control, "a", "microphone").down_tracks) == 1,
                "b",
            )
            assert track(control, "a").muted
            await a.send_rtp("camera", 1, b"muted")
            await a.send_rtp("microphone", 1, b"heard")
            assert (await b.rtp()).payload == b"heard"
            await a.aclose()

    run(test)


@pytest.mark.parametrize("seq16", [10, 0x7FF0, 0xFFFD])
@pytest.mark.parametrize("packets", [1, 1000, 32768, 50_000, 65_530, 65_536, 65_540, 200_000])
def test_a_mute_leaves_a_gap_of_one(seq16: int, packets: int) -> None:
    """However long it was: past 32,768 SRTP takes a gap for a step back and refuses it, and 65,536 packets later it
    would encrypt new packets under the old ones' numbers."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b", first=seq16 - 1) as (a, b):
            for step in range(3):
                await a.send_rtp("camera", seq16 + step, b"before")
                assert (await b.rtp()).payload == b"before"
            last = seq16 + 2
            await silently(control, a, "camera", *range(last + 1, last + packets, 20_000), last + packets)
            lose(b, (last + 3) & 0xFFFF)
            for step in range(1, 4):
                await a.send_rtp("camera", last + packets + step, b"after")
            got = [await b.rtp() for _ in range(2)]
            await nack(b, b.ssrc_of("a", "camera"), (last + 3) & 0xFFFF)
            got.append(await b.rtp())
            assert [(p.payload, p.sequence_number) for p in got] == [
                (b"after", (last + step) & 0xFFFF) for step in (2, 4, 3)
            ]

    run(test)


def test_what_was_on_its_way_during_a_mute_stays_out() -> None:
    """Its number is another packet's by now."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await a.send_rtp("camera", 100, b"before")
            await b.rtp()
            await silently(control, a, "camera", 101, 102, 105)
            await a.send_rtp("camera", 106, b"after")
            await a.send_rtp("camera", 103, b"late")
            await a.send_rtp("camera", 104, b"late")
            await a.send_rtp("camera", 108, b"after")
            await a.send_rtp("camera", 107, b"after")  # out of order, but of now
            got = [await b.rtp() for _ in range(3)]
            assert [(p.payload, p.sequence_number) for p in got] == [(b"after", 102), (b"after", 104), (b"after", 103)]

    run(test)


def test_a_long_stream_after_a_mute() -> None:
    """The number where it began is forgotten once half the numbers have passed."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await a.send_rtp("camera", 0, b"x")
            await b.rtp()
            await silently(control, a, "camera", 1)
            for ext in range(2, 200_000, 16_000):
                await a.send_rtp("camera", ext, b"x")
                assert (await b.rtp()).sequence_number == ext & 0xFFFF

    run(test)


# --- retransmission ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seq16", [100, 0xFFFE])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_what_is_sent_again_is_what_was_sent(seq16: int, step: int) -> None:
    """To the encrypted byte, so that one number never stands for two packets."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b", "c") as (a, b, c):
            number = (seq16 + step) & 0xFFFF
            lose(b, number)
            for i in range(4):
                await a.send_rtp("camera", seq16 + i, b"packet %d" % i, twcc=i)
            for _ in range(3):
                assert (await b.rtp()).sequence_number != number
            arrived = [await c.raw_rtp() for _ in range(4)]
            again: list[bytes] = []
            assert b.ice is not None
            b.ice.lose = lambda data: again.append(data) is not None
            await nack(b, b.ssrc_of("a", "camera"), number)
            assert await b.raw_rtp() == arrived[step]
            assert again == b.ice.lost
            assert c.dtls is not None
            assert c.dtls.rtp.empty()

    run(test)


def test_who_joined_later_gets_what_was_before() -> None:
    """Harmless, and what makes a keyframe whole whose start came while the answer was on its way."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a") as (a,):
            await a.send_rtp("camera", 100, b"early")
            await reached(control, 3)
            b = await Client(control, "b").start()
            await b.takes_from("a")
            await until(lambda: track(control, "a").down_tracks, "b attached")
            await a.send_rtp("camera", 101, b"live")
            assert (await b.rtp()).payload == b"live"
            await nack(b, b.ssrc_of("a", "camera"), 100)
            assert (await b.rtp()).payload == b"early"
            await b.aclose()

    run(test)


def test_what_is_gone_or_not_theirs_is_not_sent_again() -> None:
    async def test() -> None:
        async with (
            local_worker() as control,
            clients(control, "a", "b") as (a, b),
            clients(control, "x", room="2") as (x,),
        ):
            last = HISTORY_BYTES // 1000
            for seq16 in range(last + 1):
                await a.send_rtp("camera", seq16, bytes(1000))
                await b.rtp()
            await nack(b, b.ssrc_of("a", "camera"), 0, last + 1)  # too long ago, never sent
            await until(lambda: control.worker.counters["nack_missed"] == 2, "missed")
            await nack(b, 4242, last)
            await nack(x, b.ssrc_of("a", "camera"), last)  # of another room
            await nack(a, b.ssrc_of("a", "camera"), last)  # its own
            await until(lambda: control.worker.counters["nack_received"] == 4, "received")
            assert control.worker.counters["nack_answered"] == 0
            for client in (a, b, x):
                assert client.dtls is not None
                assert client.dtls.rtp.empty()

    run(test)


@pytest.mark.parametrize("source", ["microphone", "camera"])
def test_nacks_do_not_multiply_traffic(source: str) -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await a.send_rtp(source, 1, bytes(1000))
            await b.rtp()
            track(control, "a", source).down_tracks["b"].delivery.round_trip_s = 0.0
            began_s = asyncio.get_running_loop().time()
            body = struct.pack("!II", 1, b.ssrc_of("a", source)) + struct.pack("!HH", 1, 0) * 250
            for _ in range(20):
                await b.send(struct.pack("!BBH", 0x81, 205, len(body) // 4) + body)
            await until(lambda: control.worker.counters["nack_received"] == 20, "all came")
            passed_s = asyncio.get_running_loop().time() - began_s
            answered = control.worker.counters["nack_answered"]
            if source == "camera":
                assert FREE_BYTES * 0.9 < answered * 1000 <= FREE_BYTES
            else:
                assert RTX_BURST <= answered <= RTX_BURST + RTX_PER_S * passed_s

    run(test)


@pytest.mark.parametrize("source", ["microphone", "camera"])
def test_nothing_is_sent_again_twice_within_a_round_trip(source: str) -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            down_track = track(control, "a", source).down_tracks["b"]
            down_track.delivery.round_trip_s = 60.0
            for seq16 in (100, 101):
                await a.send_rtp(source, seq16, b"packet %d" % seq16)
                await b.rtp()
            for _ in range(3):
                await nack(b, b.ssrc_of("a", source), 100)
            await until(lambda: control.worker.counters["nack_repeated"] == 2, "two are not answered")
            await nack(b, b.ssrc_of("a", source), 101)
            await until(lambda: control.worker.counters["nack_answered"] == 2, "one of each")
            down_track.delivery.round_trip_s = 0.0
            await nack(b, b.ssrc_of("a", source), 100)
            await until(lambda: control.worker.counters["nack_answered"] == 3, "again, after a round trip")

    run(test)


def test_nacks_for_what_never_was_cost_little() -> None:
    """One datagram can ask for 6,000 packets; looking for them all took 5 ms."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (_, b):
            began_s = asyncio.get_running_loop().time()
            body = struct.pack("!II", 1, b.ssrc_of("a", "camera")) + struct.pack("!HH", 1, 0xFFFF) * 330
            for _ in range(20):
                await b.send(struct.pack("!BBH", 0x81, 205, len(body) // 4) + body)
            await until(lambda: control.worker.counters["nack_received"] == 20, "all came")
            passed_s = asyncio.get_running_loop().time() - began_s
            missed = control.worker.counters["nack_missed"]
            assert RTX_BURST <= missed <= RTX_BURST + RTX_PER_S * passed_s

    run(test)


# --- keyframes --------------------------------------------------------------------------------------------------------


async def asked(client: Client) -> int:
    """The SSRC of which the client's next keyframe is wanted."""
    return rtcp.feedback_media_ssrc(await client.rtcp(rtcp.RTCP_PSFB, rtcp.PSFB_PLI))


def test_a_new_subscriber_asks_for_a_keyframe() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a") as (a,):
            b = await Client(control, "b").start()
            assert await asked(a) == a.ssrcs["camera"]
            await b.aclose()

    run(test)


@pytest.mark.parametrize("kind", ["pli", "fir"])
def test_a_subscribers_request_reaches_the_publisher(kind: str) -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            assert await asked(a) == a.ssrcs["camera"]
            ssrc = b.ssrc_of("a", "camera")
            if kind == "pli":
                await pli(b, ssrc)
            else:
                await b.send(bytes(RtcpPsfbPacket(fmt=4, ssrc=1, media_ssrc=0, fci=struct.pack("!IBxxx", ssrc, 1))))
            assert await asked(a) == a.ssrcs["camera"]

    run(test)


def test_many_requests_are_one() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b", "c") as (a, b, c):
            await quiet(control, a)
            before = control.worker.counters["pli_sent"]
            received = control.worker.counters["pli_received"]
            began_s = asyncio.get_running_loop().time()
            for _ in range(20):
                await pli(b, b.ssrc_of("a", "camera"))
                await pli(c, c.ssrc_of("a", "camera"))
            await until(lambda: control.worker.counters["pli_received"] == received + 40, "all came")
            await until(lambda: control.worker.counters["pli_sent"] > before, "served")
            passed_ms = (asyncio.get_running_loop().time() - began_s) * 1e3
            assert 1 <= control.worker.counters["pli_sent"] - before <= 2 + passed_ms / HOLD_MS  # the last may be late
            assert await asked(a) == a.ssrcs["camera"]

    run(test)


def test_requests_that_ask_nothing() -> None:
    """Of audio, of what one does not receive, of a muted track."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await quiet(control, a)
            before = control.worker.counters["pli_sent"]
            await control.send(bridge.Mute("a", "camera", True))
            await pli(b, b.ssrc_of("a", "camera"))
            await pli(b, b.ssrc_of("a", "microphone"))
            await pli(b, 4242)
            await pli(a, b.ssrc_of("a", "camera"))
            await until(lambda: control.worker.counters["pli_received"] == 4, "all came")
            assert not track(control, "a")._keyframes.wanted
            assert control.worker.counters["pli_sent"] == before

    run(test)


@pytest.mark.parametrize("lost", ["request", "requests", "answer"])
def test_a_request_is_repeated_until_a_keyframe_comes(lost: str) -> None:
    """Of a shared screen that does not change nothing else flows."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await quiet(control, a, b)
            assert a.ice is not None
            before, lose = control.worker.counters["pli_sent"], {"request": 1, "requests": 2, "answer": 0}[lost]
            a.ice.lose = lambda data: rtcp.is_rtcp(data[1]) and control.worker.counters["pli_sent"] <= before + lose
            assert a.dtls is not None
            while not a.dtls.rtcp.empty():
                a.dtls.rtcp.get_nowait()
            await pli(b, b.ssrc_of("a", "camera"))
            assert await asked(a) == a.ssrcs["camera"]
            if lost == "answer":  # another one comes
                assert await asked(a) == a.ssrcs["camera"]
            await a.send_rtp("camera", 2, delta(1))
            assert track(control, "a")._keyframes.wanted
            await a.send_rtp("camera", 3, keyframe(2))
            await until(lambda: not track(control, "a")._keyframes.wanted, "answered")
            assert control.worker.counters["pli_sent"] == before + max(lose + 1, 1 + (lost == "answer"))

    run(test)


def test_nobody_is_asked_again_for_what_nobody_gets() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            assert await asked(a) == a.ssrcs["camera"]
            camera = track(control, "a")
            await b.leave()
            sent = control.worker.counters["pli_sent"]
            await until(lambda: not camera._keyframes.wanted, "given up")
            assert control.worker.counters["pli_sent"] == sent

    run(test)


def test_unmuting_asks_for_a_keyframe() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, _):
            assert await asked(a) == a.ssrcs["camera"]
            await silently(control, a, "camera")
            assert await asked(a) == a.ssrcs["camera"]
            await silently(control, a, "microphone")
            assert not track(control, "a", "microphone")._keyframes.wanted

    run(test)


def test_who_has_the_picture_asks_for_none_when_others_leave() -> None:
    """Every leave renegotiates with everyone; a keyframe from everyone each time would flood the room."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b", "c") as (a, b, c):
            peers = control.worker.peers
            await quiet(control, a, b, c)
            before = control.worker.counters["pli_sent"]
            await c.leave()
            await a.takes_from("b")
            await b.takes_from("a")
            assert not any(track(control, p)._keyframes.wanted for p in "ab")
            assert control.worker.counters["pli_sent"] == before
            assert [len(track(control, p).down_tracks) for p in "ab"] == [1, 1]
            assert set(peers) == {"a", "b"}

    run(test)


def test_who_names_no_ssrc_is_brought_to_the_others_once_it_sends() -> None:
    """Its first packet is gone by then; so the keyframe is asked for."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "b") as (b,):
            a = Client(control, "a")
            a.names_ssrcs = False
            await a.start()
            a.ssrcs["camera"] = 555
            await a.send_rtp("camera", 1, b"first")
            await until(lambda: track(control, "a").down_tracks, "b attached")
            assert b.sources() == {"a"}
            assert await asked(a) == 555
            await a.send_rtp("camera", 2, b"second")
            assert (await b.rtp()).payload == b"second"
            await a.aclose()

    run(test)


def test_an_ssrc_no_answer_named_is_the_one_track_that_waits() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "b") as (b,):
            a = Client(control, "a")
            a.names_ssrcs = False
            await a.start()
            await a.send(rtp_packet(1, 555, b"gone", pt=96))
            await a.send(rtp_packet(1, 556, b"gone", pt=111))
            await until(
                lambda: track(control, "a").down_tracks and track(control, "a", "microphone").down_tracks, "b attached"
            )
            await a.send(rtp_packet(2, 555, b"video", pt=96))
            await a.send(rtp_packet(2, 556, b"audio", pt=111))
            await a.send(rtp_packet(1, 557, b"neither", pt=96))
            await a.send(rtp_packet(3, 555, b"video", pt=96))
            camera, microphone = b.ssrc_of("a", "camera"), b.ssrc_of("a", "microphone")
            got = sorted(
                (p.payload, p.ssrc) for p in [await b.rtp() for _ in range(3)]
            )  # sound may overtake the picture
            assert got == [(b"audio", microphone), (b"video", camera), (b"video", camera)]
            await a.aclose()

    run(test)


# --- reports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["microphone", "camera"])
def test_sender_reports_pass_under_the_new_ssrc(source: str) -> None:
    """NTP and RTP time stay: they are what keeps sound and picture in step."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            info = RtcpSenderInfo(0xE0000000_12345678, 90_000, 10, 1000)
            report = RtcpSrPacket(a.ssrcs[source], info, [RtcpReceiverInfo(9, 1, 2, 3, 4, 5, 6)])
            await a.send(bytes(report))
            got = await b.rtcp(rtcp.RTCP_SR)
            assert got.body[:4] == struct.pack("!I", b.ssrc_of("a", source))
            assert RtcpSenderInfo.parse(got.body[4:24]) == info
            assert (got.format, len(got.body)) == (0, 24)
            description = await b.rtcp(rtcp.RTCP_SDES)
            assert description.body.startswith(struct.pack("!IBB", b.ssrc_of("a", source), 1, 1) + b"a")

    run(test)


def test_reports_of_unknown_streams_stay_here() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await a.send(bytes(RtcpSrPacket(4242, RtcpSenderInfo(1, 2, 3, 4), [])))
            await a.send(bytes(RtcpSrPacket(a.ssrcs["camera"], RtcpSenderInfo(5, 6, 7, 8), [])))
            assert RtcpSenderInfo.parse((await b.rtcp(rtcp.RTCP_SR)).body[4:24]) == RtcpSenderInfo(5, 6, 7, 8)

    run(test)


def test_media_parses_at_the_other_end() -> None:
    """What arrives is what aiortc's own parser reads, extension blocks turned to padding included."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await a.send_rtp("camera", 1, b"payload", twcc=9)
            assert RtpPacket.parse(await b.raw_rtp()).payload == b"payload"

    run(test)


@pytest.mark.parametrize("seq16", [100, 0xFFFE])
def test_who_waits_can_begin_with_what_comes_late(seq16: int) -> None:
    """The first packet of a keyframe was lost and came again: the next keyframe may be a second away."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b", "c") as (a, b, c):
            camera = track(control, "a")
            for step in range(2):
                await a.send_rtp("camera", seq16 + step, delta(step))
                assert (await b.rtp()).payload == delta(step)
            camera.pause("b", "test")
            await a.send_rtp("camera", seq16 + 2, delta(2))
            for _ in range(3):
                await c.rtp()
            camera.resume("b", "test")
            for step, payload in ((3, delta(3)), (5, delta(5)), (6, delta(6)), (4, keyframe(4)), (7, delta(7))):
                await a.send_rtp("camera", seq16 + step, payload)
            got = [await b.rtp() for _ in range(4)]
            expected = [keyframe(4), delta(5), delta(6), delta(7)]
            assert [p.payload for p in got] == expected
            assert [(p.sequence_number - seq16) & 0xFFFF for p in got] == [2, 3, 4, 5]
            assert camera.down_tracks["b"].packets == 2 + len(expected)

    run(test)
