"""What one peer's RTCP costs everybody else, whatever it holds."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.media_client import Client, clients, local_worker, run, until

from sfu import bridge
from sfu.media.peer.rtcp_reader import BYTES_BURST, BYTES_PER_S
from sfu.media.rtp import rtcp
from sfu.media.rtp.keyframe import HOLD_MS
from sfu.media.streams.rtp_stream import REPORT_S
from sfu.media.transport.transport import RTX_BURST, RTX_PER_S

DATAGRAM_BYTES = 1344


def packet(kind: int, form: int, body: bytes) -> bytes:
    return struct.pack("!BBH", 0x80 | form, kind, len(body) // 4) + body


def sender_report(ssrc: int, ntp: int = 0xE0000000_12345678) -> bytes:
    return packet(rtcp.RTCP_SR, 0, struct.pack("!IQIII", ssrc, ntp, 90_000, 10, 1000))


def compound(item: bytes) -> bytes:
    """A datagram full of it."""
    return item * (DATAGRAM_BYTES // len(item))


async def reports(client: Client, until_ssrc: int) -> list[int]:
    """The SSRCs of the sender reports that come until one of this."""
    found: list[int] = []
    while until_ssrc not in found:
        found.append(int.from_bytes((await client.rtcp(rtcp.RTCP_SR)).body[:4], "big"))
    return found


# --- sender reports ---------------------------------------------------------------------------------------------------


def test_a_datagram_of_sender_reports_is_passed_on_as_one() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b", "c") as (a, b, c):
            await a.send(compound(sender_report(a.ssrcs["camera"])))
            await a.send(sender_report(a.ssrcs["microphone"]))
            for client in (b, c):
                sound = client.ssrc_of("a", "microphone")
                assert await reports(client, sound) == [client.ssrc_of("a", "camera"), sound]
            assert control.worker.counters["sender_reports_spared"] == DATAGRAM_BYTES // 28 - 1

    run(test)


def test_one_sender_report_a_second_goes_on() -> None:
    """The first at once; those after it as soon as it is their time."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            assert b.dtls is not None
            loop, sent, came_s = asyncio.get_running_loop(), 0, list[float]()
            while len(came_s) < 3:
                sent += 1
                await a.send(sender_report(a.ssrcs["camera"], sent << 32))
                await until(
                    lambda: (
                        control.worker.counters["sender_reports_spared"] + len(came_s) == sent  # noqa: B023
                        or not b.dtls.rtcp.empty()
                    ),
                    "it was read",
                )
                while not b.dtls.rtcp.empty():
                    if b.dtls.rtcp.get_nowait().type == rtcp.RTCP_SR:
                        came_s.append(loop.time())
            assert came_s[2] - came_s[0] > REPORT_S
            assert sent > 3

    run(test)


def test_who_comes_later_is_told_the_times_at_once() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await a.send(sender_report(a.ssrcs["camera"], 7 << 32))
            await b.rtcp(rtcp.RTCP_SR)
            c = await Client(control, "c").start()
            told = await c.rtcp(rtcp.RTCP_SR)
            assert told.body[:12] == struct.pack("!IQ", c.ssrc_of("a", "camera"), 7 << 32)
            await c.aclose()

    run(test)


def test_but_not_those_of_numbers_that_are_over() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await a.send(sender_report(a.ssrcs["camera"]))
            await b.rtcp(rtcp.RTCP_SR)
            for muted in (True, False):
                await control.send(bridge.Mute("a", "camera", muted))
            c = await Client(control, "c").start()
            await c.takes_from("a", "b")
            published = control.worker.peers["a"].published
            await until(lambda: all("c" in published[source].down_tracks for source in published), "c attached")
            await a.send(sender_report(a.ssrcs["microphone"]))
            sound = c.ssrc_of("a", "microphone")
            assert await reports(c, sound) == [sound]
            await c.aclose()

    run(test)


# --- all of it --------------------------------------------------------------------------------------------------------


def block(ssrc: int) -> bytes:
    return rtcp.report_block(ssrc, 255, -1, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)


def psfb(form: int, own: int, fci: bytes) -> bytes:
    return packet(rtcp.RTCP_PSFB, form, struct.pack("!II", own, 0) + fci)


def rtpfb(form: int, own: int, ssrc: int, fci: bytes) -> bytes:
    return packet(rtcp.RTCP_RTPFB, form, struct.pack("!II", own, ssrc) + fci)


ITEMS: dict[str, Callable[[int, int], bytes]] = {
    "sender report": lambda own, _: sender_report(own),
    "sender report of another's": lambda _, brought: sender_report(brought),
    "sender report with blocks": lambda own, brought: packet(
        rtcp.RTCP_SR, 31, sender_report(own)[4:] + 31 * block(brought)
    ),
    "receiver report": lambda own, brought: packet(rtcp.RTCP_RR, 31, struct.pack("!I", own) + 31 * block(brought)),
    "receiver report of its own": lambda own, _: packet(rtcp.RTCP_RR, 31, struct.pack("!I", own) + 31 * block(own)),
    "description": lambda own, _: packet(rtcp.RTCP_SDES, 1, struct.pack("!IBB", own, 1, 1) + b"x\0"),
    "goodbye": lambda own, _: packet(rtcp.RTCP_BYE, 1, struct.pack("!I", own)),
    "goodbye of another's": lambda _, brought: packet(rtcp.RTCP_BYE, 1, struct.pack("!I", brought)),
    "application": lambda own, _: packet(204, 0, struct.pack("!I4s", own, b"name")),
    "extended report": lambda own, _: packet(207, 0, struct.pack("!IBBH", own, 4, 0, 2) + bytes(8)),
    "NACK": lambda own, brought: rtpfb(1, own, brought, struct.pack("!HH", 1, 0xFFFF)),
    "NACK of many": lambda own, brought: rtpfb(
        1, own, brought, b"".join(struct.pack("!HH", n * 17, 0xFFFF) for n in range(330))
    ),
    "NACK of its own": lambda own, _: rtpfb(1, own, own, struct.pack("!HH", 1, 0xFFFF)),
    "transport feedback": lambda own, brought: rtpfb(15, own, brought, struct.pack("!HHI", 1, 0xFFFF, 0)),
    "PLI": lambda _, brought: rtcp.pli(brought),
    "FIR": lambda own, brought: psfb(4, own, struct.pack("!II", brought, 0) * 160),
    "REMB": lambda own, brought: psfb(15, own, b"REMB" + bytes([1, 0xFF, 0xFF, 0xFF]) + struct.pack("!I", brought)),
    "REMB of nothing": lambda own, _: psfb(15, own, b"REMB" + bytes(4)),
    "empty ones": lambda _own, _brought: b"".join(
        packet(kind, form, b"") for kind in range(192, 224) for form in (0, 1, 4, 15, 31)
    ),
}


def others(client: Client) -> Counter[int]:
    """The types of RTCP that have come to a client since the last look, but for what it is told each second."""
    assert client.dtls is not None
    came = Counter[int]()
    while not client.dtls.rtcp.empty():
        came[client.dtls.rtcp.get_nowait().type] += 1
    del came[rtcp.RTCP_RR], came[rtcp.RTCP_SDES]
    return came


@pytest.mark.parametrize("name", ITEMS)
def test_whatever_a_peer_sends_others_get_next_to_nothing(name: str) -> None:
    """20 datagrams full of it: a sender report and a request for a keyframe a second, and to itself what it may have
    again."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b", "x") as (a, b, x):
            for seq16 in range(100):
                await a.send_rtp("camera", seq16, bytes(100))
            for _ in range(100):
                await x.raw_rtp()
                await b.raw_rtp()
            down_track = control.worker.peers["a"].published["camera"].down_tracks["x"]
            down_track.delivery.round_trip_s = 0.0  # as who lies about it would have it
            for client in (a, b, x):
                others(client)
            began_s = asyncio.get_running_loop().time()
            for _ in range(20):
                await x.send(compound(ITEMS[name](x.ssrcs["camera"], x.ssrc_of("a", "camera"))))
            await x.send_rtp("microphone", 1, b"on we go")
            assert (await a.rtp()).payload == (await b.rtp()).payload == b"on we go"
            passed_s = asyncio.get_running_loop().time() - began_s
            assert control.worker.counters["nack_answered"] <= RTX_BURST + RTX_PER_S * passed_s
            for client in (a, b):
                came = others(client)
                assert came.pop(rtcp.RTCP_SR, 0) <= 1 + passed_s / REPORT_S
                assert came.pop(rtcp.RTCP_PSFB, 0) <= 2 + passed_s * 1e3 / HOLD_MS  # one may have waited for its time
                assert not came
            assert "rtcp_over_budget" not in control.worker.counters
            assert set(control.worker.peers) == {"a", "b", "x"}

    run(test)


def test_of_one_peer_no_more_is_read_than_an_honest_one_sends() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            began_s, sent, read = time.monotonic(), 200, control.worker.counters["pli_received"]
            for _ in range(sent):
                await b.send(compound(rtcp.pli(4242)))
            await until(
                lambda: (
                    (control.worker.counters["pli_received"] - read) // (DATAGRAM_BYTES // 12)
                    + control.worker.counters["rtcp_over_budget"]
                    == sent
                ),
                "all came",
            )
            passed_s = time.monotonic() - began_s
            n_bytes = 12 * (control.worker.counters["pli_received"] - read)
            assert BYTES_BURST - DATAGRAM_BYTES < n_bytes <= BYTES_BURST + BYTES_PER_S * passed_s
            await a.send(sender_report(a.ssrcs["camera"]))  # others are read
            await b.rtcp(rtcp.RTCP_SR)

    run(test)


# --- anything ---------------------------------------------------------------------------------------------------------

EDGES = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
ANY_PACKET = st.tuples(
    st.sampled_from([*range(200, 208), 192, 195, 223]),
    st.sampled_from([0, 1, 2, 3, 4, 15, 31]),
    st.lists(st.sampled_from(["own", "brought", "sound", "REMB"]) | EDGES | st.integers(0, 0xFFFFFFFF), max_size=14),
)
CUT = st.sampled_from([0, 0, 0, 1, 2, 3, 4, 7])


def test_no_rtcp_is_our_mistake() -> None:
    """Whatever a member of a room sends: it is read or refused, and what is done with it each second goes on."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "x") as (a, x):
            for seq16 in range(50):
                await a.send_rtp("camera", seq16, bytes(20))
                await x.raw_rtp()
            peer = control.worker.peers["x"]
            words: dict[str | int, int] = {
                "own": x.ssrcs["camera"],
                "brought": x.ssrc_of("a", "camera"),
                "sound": x.ssrc_of("a", "microphone"),
                "REMB": int.from_bytes(b"REMB", "big"),
            }

            @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
            @given(st.lists(ANY_PACKET, max_size=4), CUT)
            def comes(packets: list[tuple[int, int, list[str | int]]], cut: int) -> None:
                data = b"".join(
                    packet(kind, form, b"".join(struct.pack("!I", words.get(word, word)) for word in body))
                    for kind, form, body in packets
                )
                with contextlib.suppress(ValueError):  # which its caller counts
                    peer.demuxer.on_rtcp(data[: len(data) - cut])
                now_s = time.monotonic()
                for each in control.worker.peers.values():
                    each.measure(now_s)
                    each.subscriber.allocate(now_s)
                    each.publisher.ask_layers(now_s)
                    each.publisher.send_reports()

            comes()
            assert "rtcp_over_budget" not in control.worker.counters
            assert set(control.worker.peers) == {"a", "x"}
            heard, seq16 = asyncio.ensure_future(a.rtp()), 0
            while not heard.done():  # what is in its socket's buffer leaves no room at first
                await x.send_rtp("microphone", seq16 := seq16 + 1, b"on we go")
                await asyncio.wait([heard], timeout=0.2)
            assert (await heard).payload == b"on we go"

    run(test)
