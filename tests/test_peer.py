from __future__ import annotations

import asyncio
import re
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiortc.sdp import SessionDescription
from media_client import (
    LOOPBACKS,
    Client,
    Ice,
    LocalControl,
    beside,
    check,
    clients,
    local_worker,
    rtp_packet,
    settled,
    until,
)

from sfu import bridge
from sfu.media import rtp
from sfu.media.peer import SILENT_S
from sfu.media.reception import TRIES
from sfu.media.udp import Route

BOTH = {"microphone", "camera"}


def routes(control: LocalControl) -> list[Route]:
    return [route for endpoint in control.worker.udp.endpoints.values() for route in endpoint.routes.values()]


def run(test: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(test(), 20))


def directions(offer: bridge.Offer) -> list[tuple[str, str]]:
    return [(media.kind, media.direction) for media in SessionDescription.parse(offer.sdp).media]


def origin(offer: bridge.Offer) -> tuple[int, int]:
    """Session id and version of the o-line."""
    found = re.search(r"^o=- ([0-9]+) ([0-9]+) ", offer.sdp, re.MULTILINE)
    assert found is not None
    return int(found[1]), int(found[2])


def received(offer: bridge.Offer) -> set[tuple[str, str]]:
    return {(peer, source) for peer, source in offer.receive.values()}


async def none_follows(control: LocalControl, peer: str) -> None:
    """All that the worker does of its own accord is done, and no offer came of it."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert control.pending(bridge.Offer, peer) == []


async def refused(control: LocalControl, command: bridge.Command, code: str) -> str:
    await control.send(command)
    event = await control.event(bridge.Refused, command.peer)  # type: ignore[union-attr]
    assert event.code == code
    return event.message


async def failed(control: LocalControl, peer: str, code: str) -> None:
    event = await control.event(bridge.Failed, peer)
    assert event.code == code
    assert event.message
    assert peer not in control.worker.peers


# --- offers -----------------------------------------------------------------------------------------------------------


def test_the_first_offer_asks_for_a_microphone_and_a_camera() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            offer = await a.next_offer()
            assert directions(offer) == [("audio", "recvonly"), ("video", "recvonly")]
            assert offer.send == {"0": "microphone", "1": "camera"}
            assert offer.receive == {}
            assert "a=ice-lite" in offer.sdp
            assert re.search(rf"a=candidate:1 1 udp [0-9]+ 127\.0\.0\.1 {control.worker.udp.port} typ host", offer.sdp)

    run(test)


def test_the_next_one_brings_what_others_publish() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a, b = await Client(control, "a").join(), await Client(control, "b").join()
            for client in (a, b):
                await client.negotiate()
            offer = await a.next_offer()
            assert directions(offer)[2:] == [("audio", "sendonly"), ("video", "sendonly")]
            assert offer.receive == {"2": ["b", "microphone"], "3": ["b", "camera"]}
            media = SessionDescription.parse(offer.sdp).media[2:]
            assert [m.msid for m in media] == ["b b-microphone", "b b-camera"]
            assert [m.ssrc[0].cname for m in media] == ["b", "b"]
            assert [m.ssrc[0].ssrc for m in media] == [
                control.worker.peers["b"].published[source].ssrc for source in ("microphone", "camera")
            ]

    run(test)


def test_events_tell_what_is_published() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a", ("camera",)).join()
            await a.negotiate()
            assert await control.event(bridge.Track, "a") == bridge.Track("a", "camera", "video")
            assert control.pending(bridge.Track, "a") == []
            await control.send(bridge.Publish("a", "camera", "video"))  # asks for another offer
            a.publishes = {"microphone"}
            await a.negotiate()
            assert await control.event(bridge.Track, "a") == bridge.Track("a", "microphone", "audio")
            assert await control.event(bridge.TrackEnded, "a") == bridge.TrackEnded("a", "camera")
            await none_follows(control, "a")
            assert control.pending(bridge.Track, "a") == []

    run(test)


def test_one_offer_is_in_flight_and_later_changes_are_in_the_next() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            first = await a.next_offer()
            others = [await Client(control, name).join() for name in "bcdef"]
            for other in others:
                await other.negotiate()
            await control.send(bridge.Publish("a", "screen", "video"))
            await others[-1].leave()
            await none_follows(control, "a")
            await control.send(bridge.Answer("a", a.answer(first)))
            second = await a.next_offer()
            assert received(second) == {(name, source) for name in "bcde" for source in BOTH}
            assert set(second.send.values()) == BOTH | {"screen"}
            assert origin(second) == (origin(first)[0], origin(first)[1] + 1)
            await control.send(bridge.Answer("a", a.answer(second)))
            await none_follows(control, "a")

    run(test)


def test_many_changes_in_a_row_make_one_offer() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            await none_follows(control, "a")
            for i in range(5):
                await control.send(bridge.Publish("a", f"screen-{i}", "video"))
            offer = await a.next_offer()
            assert len(offer.send) == 7
            await none_follows(control, "a")

    run(test)


def test_coming_and_going_does_not_grow_the_sdp() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            lengths, versions, ssrcs = set(), [], set()
            for i in range(50):
                b = await Client(control, f"b{i:02}").join()
                await b.negotiate()
                offer = await a.negotiate()
                assert offer.receive == {"2": [b.id, "microphone"], "3": [b.id, "camera"]}
                lengths.add(len(re.sub(r"[0-9]", "", offer.sdp)))
                versions.append(origin(offer)[1])
                ssrcs.add(a.ssrc_of(b.id, "camera"))
                await b.leave()
                offer = await a.negotiate()
                assert directions(offer)[2:] == [("audio", "inactive"), ("video", "inactive")]
                assert offer.receive == {}
            assert len(lengths) == 1
            assert len(ssrcs) == 50
            assert versions == list(range(versions[0], versions[0] + 100, 2))

    run(test)


def test_a_section_is_not_reused_before_an_answer_saw_it_inactive() -> None:
    """A browser would take the new track for the old one."""

    async def test() -> None:
        async with local_worker() as control:
            a, b = await Client(control, "a").join(), await Client(control, "b").join()
            await b.negotiate()
            await a.negotiate()
            offer = await a.next_offer()
            assert received(offer) == {("b", source) for source in BOTH}
            await b.leave()
            c = await Client(control, "c").join()
            await c.negotiate()
            await control.send(bridge.Answer("a", a.answer(offer)))
            offer = await a.negotiate()
            assert directions(offer)[2:4] == [("audio", "inactive"), ("video", "inactive")]
            assert offer.receive == {"4": ["c", "microphone"], "5": ["c", "camera"]}
            d = await Client(control, "d").join()
            await d.negotiate()
            offer = await a.negotiate()  # now it was seen
            assert offer.receive == {
                "2": ["d", "microphone"], "3": ["d", "camera"], "4": ["c", "microphone"], "5": ["c", "camera"],
            }  # fmt: skip

    run(test)


def test_a_section_given_back_while_inactive_is_in_flight() -> None:
    """The offer that says inactive is on its way when the section gets a new use: then it is settled when answered."""

    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            await control.send(bridge.Publish("a", "screen", "video"))
            a.publishes.add("screen")
            await a.negotiate()
            await control.send(bridge.Unpublish("a", "screen"))
            offer = await a.next_offer()
            assert directions(offer)[2] == ("video", "inactive")
            await control.send(bridge.Publish("a", "second-camera", "video"))
            await control.send(bridge.Answer("a", a.answer(offer)))
            offer = await a.negotiate()
            assert offer.send["3"] == "second-camera"
            assert directions(offer)[2] == ("video", "inactive")

    run(test)


@pytest.mark.parametrize(("publish", "subscribe"), [(True, False), (False, True)])
def test_rights(publish: bool, subscribe: bool) -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join(publish=publish, subscribe=subscribe)
            if publish:
                await a.negotiate()
            b = await Client(control, "b").join()
            await b.negotiate()
            if subscribe:
                offer = await a.negotiate()
                assert directions(offer) == [("audio", "sendonly"), ("video", "sendonly")]
                assert offer.send == {}
                await refused(control, bridge.Publish("a", "screen", "video"), "not_allowed")
            await none_follows(control, "a")
            assert set(control.worker.peers["a"].published) == (BOTH if publish else set())

    run(test)


def test_a_listener_in_an_empty_room_gets_no_offer() -> None:
    """One without sections could not be answered; the first track brings one, and its answer connects."""

    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join(publish=False)
            await none_follows(control, "a")
            async with clients(control, "b") as (b,):
                await a.negotiate()
                await a.connect()
                await until(lambda: control.worker.peers["b"].published["camera"].legs, "attached")
                await b.send_rtp("camera", 1, b"picture")
                assert (await a.rtp()).payload == b"picture"
            await a.aclose()

    run(test)


# --- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_without_an_offer_is_refused() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            await refused(control, bridge.Answer("a", "v=0\r\n"), "unexpected_answer")  # not even made yet
            offer = await a.negotiate()
            await none_follows(control, "a")
            await refused(control, bridge.Answer("a", a.answer(offer)), "unexpected_answer")

    run(test)


def test_after_a_bad_answer_the_offer_still_waits() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            offer = await a.next_offer()
            assert "sections" in await refused(control, bridge.Answer("a", "v=0\r\n"), "bad_answer")
            assert control.worker.peers["a"].published == {}
            await control.send(bridge.Answer("a", a.answer(offer)))
            await a.connect()
            assert set(control.worker.peers["a"].published) == BOTH
            await a.aclose()

    run(test)


def test_the_fingerprint_may_not_change() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a") as (a,):
            assert a._following is not None
            a._following.cancel()
            await control.send(bridge.Publish("a", "screen", "video"))
            offer = await a.next_offer()
            other = a.answer(offer, fingerprint=":".join(["AB"] * 32))
            assert "fingerprint" in await refused(control, bridge.Answer("a", other), "bad_answer")
            await control.send(bridge.Answer("a", a.answer(offer)))
            await none_follows(control, "a")
            assert control.pending(bridge.Refused, "a") == []

    run(test)


def test_a_client_that_stops_taking_a_track_gets_none_of_it() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b", "c") as (a, b, c):
            b.takes = False
            await control.send(bridge.Publish("b", "screen", "video"))  # anything that makes an offer
            tracks = control.worker.peers["a"].published
            await until(lambda: set(tracks["camera"].legs) == {"c"}, "b is no subscriber")
            await a.send_rtp("camera", 1, b"not for b")
            await a.send_rtp("microphone", 1, b"not for b")
            b.takes = True
            await control.send(bridge.Publish("b", "screen-2", "video"))
            await until(lambda: set(tracks["camera"].legs) == {"b", "c"}, "b is one again")
            await a.send_rtp("camera", 2, b"for both")
            assert [(await c.rtp()).payload for _ in range(3)][-1] == b"for both"
            assert (await b.rtp()).payload == b"for both"

    run(test)


def test_another_ssrc_is_another_track() -> None:
    """Its numbers start anywhere, and would be encrypted a second time under one outgoing SSRC."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            old = b.ssrc_of("a", "camera")
            await a.send_rtp("camera", 100, b"old")
            assert (await b.rtp()).ssrc == old
            a.ssrcs["camera"] = 4242
            await control.send(bridge.Publish("a", "screen", "video"))
            assert await control.event(bridge.TrackEnded, "a") == bridge.TrackEnded("a", "camera")
            await until(lambda: b.sources() and b.ssrc_of("a", "camera") != old, "offered anew")
            track = control.worker.peers["a"].published["camera"]
            await until(lambda: track.legs, "attached")
            await a.send_rtp("camera", 100, b"new")
            got = await b.rtp()
            assert (got.payload, got.ssrc) == (b"new", b.ssrc_of("a", "camera"))

    run(test)


def test_one_ssrc_named_for_two_tracks_harms_nobody_else() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = Client(control, "a")
            a.ssrcs = {"microphone": 7, "camera": 7}
            await a.start()
            await control.send(bridge.Publish("a", "screen", "video"))
            await a.takes_from()
            a.publishes = {"camera", "screen"}
            await control.send(bridge.Publish("a", "other", "video"))
            ended = await control.event(bridge.TrackEnded, "a")
            assert ended.source == "microphone"
            peer = control.worker.peers["a"]
            assert peer.publisher.by_ssrc[7] in peer.published["camera"].tracks
            await a.aclose()

    run(test)


# --- publish ----------------------------------------------------------------------------------------------------------


def test_publish_and_unpublish() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            a.publishes.add("screen")
            await control.send(bridge.Publish("a", "screen", "video"))
            await until(lambda: b.offer and ("a", "screen") in received(b.offer), "b is offered the screen")
            tracks = control.worker.peers["a"].published
            await until(lambda: tracks["screen"].legs, "attached")
            await a.send_rtp("screen", 1, b"screen")
            await a.send_rtp("camera", 1, b"camera")
            got = [await b.rtp() for _ in range(2)]
            assert {(p.ssrc, p.payload) for p in got} == {
                (b.ssrc_of("a", "screen"), b"screen"),
                (b.ssrc_of("a", "camera"), b"camera"),
            }
            await control.send(bridge.Unpublish("a", "screen"))
            assert await control.event(bridge.TrackEnded, "a") == bridge.TrackEnded("a", "screen")
            await until(lambda: b.offer and ("a", "screen") not in received(b.offer), "b is offered it no more")
            await a.send_rtp("screen", 2, b"gone")
            await a.send_rtp("camera", 2, b"camera")
            assert (await b.rtp()).payload == b"camera"

    run(test)


def test_published_sections_are_reused() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            for i in range(20):
                source = f"screen-{i}"
                a.publishes.add(source)
                await control.send(bridge.Publish("a", source, "video"))
                offer = await a.negotiate()
                assert offer.send == {"0": "microphone", "1": "camera", "2": source}
                await control.send(bridge.Unpublish("a", source))
                offer = await a.negotiate()
                assert offer.send == {"0": "microphone", "1": "camera"}
                assert directions(offer) == [("audio", "recvonly"), ("video", "recvonly"), ("video", "inactive")]

    run(test)


def test_microphone_and_camera_keep_their_sections() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            await control.send(bridge.Unpublish("a", "camera"))
            assert await control.event(bridge.TrackEnded, "a") == bridge.TrackEnded("a", "camera")
            a.publishes.remove("camera")
            offer = await a.negotiate()
            assert offer.send == {"0": "microphone", "1": "camera"}
            await control.send(bridge.Publish("a", "camera", "video"))
            a.publishes.add("camera")
            offer = await a.negotiate()
            assert offer.send == {"0": "microphone", "1": "camera"}
            assert set(control.worker.peers["a"].published) == BOTH

    run(test)


def test_a_source_has_one_kind() -> None:
    async def test() -> None:
        async with local_worker() as control:
            await Client(control, "a").join()
            await refused(control, bridge.Publish("a", "camera", "audio"), "bad_source")
            await refused(control, bridge.Unpublish("a", "screen"), "bad_source")

    run(test)


def test_tracks_are_bounded() -> None:
    async def test() -> None:
        async with local_worker(max_tracks=4) as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            for source in ("one", "two"):
                await control.send(bridge.Publish("a", source, "video"))
            assert "4" in await refused(control, bridge.Publish("a", "three", "video"), "too_many_tracks")
            await control.send(bridge.Unpublish("a", "one"))
            await control.send(bridge.Publish("a", "three", "video"))
            assert control.pending(bridge.Refused, "a") == []
            await a.negotiate()
            assert set((await a.negotiate()).send.values()) == BOTH | {"two", "three"}

    run(test)


# --- deadlines and failures -------------------------------------------------------------------------------------------


def test_an_offer_that_nobody_answers() -> None:
    async def test() -> None:
        async with local_worker(answer_s=0.05) as control:
            await Client(control, "a").join()
            await failed(control, "a", "answer_timeout")
            assert control.worker.rooms == {}

    run(test)


def test_an_answer_in_time_stops_the_clock() -> None:
    async def test() -> None:
        async with local_worker(answer_s=0.05) as control, clients(control, "a") as (a,):
            await control.send(bridge.Publish("a", "screen", "video"))
            loop = asyncio.get_running_loop()
            overdue = asyncio.Event()
            loop.call_later(0.15, overdue.set)
            await overdue.wait()
            assert control.pending(bridge.Failed, "a") == []
            assert a._following is not None
            a._following.cancel()
            await control.send(bridge.Publish("a", "screen-2", "video"))
            await failed(control, "a", "answer_timeout")

    run(test)


def test_a_client_whose_checks_do_not_come() -> None:
    async def test() -> None:
        async with local_worker(ice_s=0.05) as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            await failed(control, "a", "ice_timeout")

    run(test)


def test_a_client_that_never_nominates() -> None:
    async def test() -> None:
        async with local_worker(ice_s=0.1) as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            await a.check(nominate=False)
            await failed(control, "a", "ice_timeout")
            await a.aclose()

    run(test)


def test_a_client_that_does_not_start_dtls() -> None:
    async def test() -> None:
        async with local_worker(dtls_s=0.05) as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            await a.check()
            await failed(control, "a", "dtls_failed")
            await a.aclose()

    run(test)


def test_a_client_with_another_certificate() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            offer = await a.next_offer()
            await control.send(bridge.Answer("a", a.answer(offer, fingerprint=":".join(["AB"] * 32))))
            await a.check()
            await a.handshake()
            await failed(control, "a", "dtls_failed")
            assert control.pending(bridge.Connected, "a") == []
            await a.aclose()

    run(test)


def test_nonsense_instead_of_dtls() -> None:
    async def test() -> None:
        async with local_worker(dtls_s=0.2) as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            ice = await a.check()
            for first in (20, 21, 22, 23, 63):
                for size in (0, 1, 12, 13, 100, 1400):
                    ice.send(bytes([first, 0xFE, 0xFD]) + bytes(size))
            await a.handshake()  # still possible
            assert a.dtls is not None
            assert a.dtls.state == "connected"
            assert (await control.event(bridge.Connected, "a")).address == "127.0.0.1"
            await a.aclose()

    run(test)


def test_a_client_that_says_goodbye_in_dtls() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a") as (a,):
            assert a.dtls is not None
            await a.dtls.stop()
            await failed(control, "a", "media_lost")

    run(test)


def test_a_client_that_went_silent() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a"):
            peer = control.worker.peers["a"]
            seen_s = peer.agent.last_seen_s
            peer.check_liveness(seen_s + SILENT_S)
            assert control.pending(bridge.Failed, "a") == []
            peer.check_liveness(seen_s + SILENT_S + 1)
            await failed(control, "a", "media_lost")

    run(test)


def test_media_alone_keeps_a_client_alive() -> None:
    """pion sends no checks while media flows."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a") as (a,):
            peer = control.worker.peers["a"]
            peer.agent.last_seen_s = time.monotonic() - SILENT_S - 1
            await a.send_rtp("camera", 1)
            await until(lambda: control.worker.counters["packets_in"] == 1, "came")
            peer.check_liveness(time.monotonic())
            assert control.pending(bridge.Failed, "a") == []

    run(test)


def retransmission(client: Client, seq16: int, original: int, payload: bytes, twcc: int | None = None) -> bytes:
    """RFC 4588 section 4: the number of what is repeated, then its payload."""
    return rtp_packet(seq16, client.ssrcs["camera"] + 1, struct.pack("!H", original) + payload, pt=97, twcc=twcc)


@pytest.mark.parametrize("start", [100, 0xFFFD])
def test_what_a_publisher_lost_is_asked_for_and_put_back(start: int) -> None:
    """Only what was asked for: publishers probe their way with retransmissions of anything, and with padding."""

    async def test() -> None:
        async with local_worker() as control:
            a, b = Client(control, "a"), Client(control, "b")
            a.repairs = True
            for client in (a, b):
                await client.start()
            await b.takes_from("a")
            await settled(control, [a, b])
            for i in (0, 1, 4):
                await a.send_rtp("camera", start + i, b"packet %d" % i, twcc=i)
            asked = await a.rtcp(rtp.RTCP_RTPFB, rtp.RTPFB_NACK)
            assert rtp.feedback_media_ssrc(asked) == a.ssrcs["camera"]
            assert list(rtp.nacked(asked)) == [start + 2 & 0xFFFF, start + 3 & 0xFFFF]
            await a.send(retransmission(a, 1, start + 1 & 0xFFFF, b"probe"))
            await a.send(retransmission(a, 2, start + 2 & 0xFFFF, b"packet 2", twcc=5))
            await a.send(retransmission(a, 3, start + 3 & 0xFFFF, b"packet 3"))
            await a.send(retransmission(a, 4, start + 3 & 0xFFFF, b"twice"))
            await a.send_rtp("camera", start + 2, b"after all")
            await a.send_rtp("camera", start + 5, b"packet 5")
            got = {}
            while len(got) < 6:
                packet = await b.rtp()
                assert packet.sequence_number not in got
                got[packet.sequence_number] = packet.payload
            first = min(got, key=lambda seq16: (seq16 - start) & 0xFFFF)
            assert got == {first + i & 0xFFFF: b"packet %d" % i for i in range(6)}
            assert control.worker.counters["packets_repaired"] == 2
            assert control.worker.counters["packets_ignored"] == 2
            assert control.worker.counters["packets_late"] == 1
            for client in (a, b):
                await client.aclose()

    run(test)


def test_lost_sound_is_asked_for_too() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            for seq16 in (10, 12):
                await a.send_rtp("microphone", seq16, b"sound %d" % seq16)
            asked = await a.rtcp(rtp.RTCP_RTPFB, rtp.RTPFB_NACK)
            assert rtp.feedback_media_ssrc(asked) == a.ssrcs["microphone"]
            assert list(rtp.nacked(asked)) == [11]
            await a.send_rtp("microphone", 11, b"sound 11")
            assert {(await b.rtp()).payload for _ in range(3)} == {b"sound 10", b"sound 11", b"sound 12"}

    run(test)


def test_what_never_comes_back_is_a_keyframe_asked_for() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await a.send_rtp("camera", 1)
            await b.rtp()
            before = control.worker.counters["pli_sent"]
            await a.send_rtp("camera", 3)
            await until(lambda: control.worker.counters["pli_sent"] > before, "a keyframe is asked for")
            assert control.worker.counters["nack_sent"] == TRIES["video"]

    run(test)


def test_a_publisher_is_told_what_came() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await a.send(struct.pack("!BBHI", 0x80, rtp.RTCP_SR, 6, a.ssrcs["microphone"]) + bytes(range(20)))
            for seq16 in (65533, 65534, 65535, 1):
                await a.send_rtp("microphone", seq16)
                await b.rtp()
            control.worker.peers["a"].publisher.send_reports()
            report = await a.rtcp(rtp.RTCP_RR)
            blocks = [report.body[at : at + 24] for at in range(4, len(report.body), 24)]
            ssrc, lost, highest, _, last_sr, _ = struct.unpack("!IIIIII", blocks[0])
            assert report.format == len(blocks) == 1
            assert ssrc == a.ssrcs["microphone"]
            assert lost == 51 << 24 | 1
            assert highest == 0x10001
            assert last_sr == 0x02030405

    run(test)


def test_a_subscriber_tells_what_came() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            head = struct.pack("!BBHI", 0x80, rtp.RTCP_SR, 6, a.ssrcs["microphone"])
            await a.send(head + struct.pack("!QIII", 0x11112222_33334444, 0, 0, 0))
            await b.rtcp(rtp.RTCP_SR)
            ssrc = b.ssrc_of("a", "microphone")
            delivery = control.worker.peers["a"].published["microphone"].legs["b"].delivery
            for seq16, lost in ((65_532, 0), (65_540, 2)):
                for number in range(seq16, seq16 + 8):
                    await a.send_rtp("microphone", number & 0xFFFF, bytes(88))
                    await b.rtp()
                delivery.jitter_s = -1
                block = rtp.report_block(ssrc, 99, lost, 7, 480, 0x22223333, 0)
                await b.send(rtp.receiver_report([rtp.report_block(4242, 255, 9, 9, 9, 9, 9), block]))
                await until(lambda: delivery.jitter_s >= 0, "b's report")
            assert (delivery.expected, delivery.loss, delivery.jitter_s) == (8, 0.25, 0.01)
            assert delivery.bitrate_bps > 0
            assert delivery.round_trip_s is not None
            assert 0 <= delivery.round_trip_s < 1

    run(test)


def test_who_loses_is_told_apart_though_both_miss_the_same_packets() -> None:
    """Every fifth packet of a's microphone never reaches the server, so b misses it, too, and says so."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):

            async def heard(first: int, end: int, lost: int) -> None:
                for seq16 in range(first, end):
                    if seq16 % 5:
                        await a.send_rtp("microphone", seq16, bytes(88))
                        await b.rtp()
                delivery = control.worker.peers["a"].published["microphone"].legs["b"].delivery
                delivery.jitter_s = -1
                block = rtp.report_block(b.ssrc_of("a", "microphone"), 0, lost, end, 96, 0, 0)
                await b.send(rtp.receiver_report([block]))
                await until(lambda: delivery.jitter_s >= 0, "b's report")

            await heard(1, 5, 0)
            await heard(5, 200, 39)
            said = {}
            while len(said) < 2:
                event = await control.event(bridge.Quality, "b" if "a" in said else "a")
                if event.cause is not None:
                    said[event.peer] = event
            assert said["a"].up["loss"] == pytest.approx(0.2, abs=0.01)
            assert (said["a"].down, said["b"].up) == (None, None)
            assert said["b"].down["loss"] == 0
            assert said["b"].down["jitter_ms"] == 2
            assert (said["a"].bytes_up, said["b"].bytes_down) == (160 * 100, 160 * 100)
            assert said["a"].score < 3 < 4 < said["b"].score
            cause = {"kind": "upload_loss", "peer": "a", "value": 20, "unit": "%"}
            assert said["a"].cause == said["b"].cause == cause

    run(test)


def test_others_go_on_when_one_fails() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b", "c") as (a, b, c):
            control.worker.peers["c"].check_liveness(time.monotonic() + 2 * SILENT_S)
            await failed(control, "c", "media_lost")
            await a.takes_from("b")
            await b.takes_from("a")
            await a.send_rtp("camera", 1, b"on we go")
            assert (await b.rtp()).payload == b"on we go"
            await control.send(bridge.Leave("c"))  # comes late, and finds nobody
            assert c.dtls is not None

    run(test)


# --- transport --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setup", ["active", "passive"])
def test_either_side_may_start_dtls(setup: str) -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "b") as (b,):
            a = Client(control, "a")
            a.setup = setup
            await a.start()
            await a.takes_from("b")
            await until(lambda: control.worker.peers["b"].published["camera"].legs, "attached")
            await b.send_rtp("camera", 1, b"picture")
            assert (await a.rtp()).payload == b"picture"
            assert a.dtls is not None
            assert a.dtls._ssl is not None
            if setup == "active":  # else the client chooses
                assert a.dtls._ssl.get_selected_srtp_profile() == b"SRTP_AEAD_AES_128_GCM"
            await a.aclose()

    run(test)


@pytest.mark.parametrize("host", LOOPBACKS)
def test_a_call_over_every_family(host: str) -> None:
    async def test() -> None:
        async with local_worker(hosts=[host]) as control, clients(control, "a", "b") as (a, b):
            assert a.ice is not None
            assert a.ice.address[0] == host
            await a.send_rtp("camera", 1, b"picture")
            assert (await b.rtp()).payload == b"picture"

    run(test)


def test_checks_and_dtls_may_come_before_the_answer() -> None:
    """The answer goes through the WebSocket, the checks straight here."""

    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            offer = await a.next_offer()
            await a.check()
            handshake = asyncio.ensure_future(a.handshake())
            await until(lambda: not control.worker.peers["a"].agent._dtls.empty(), "its first flight waits")
            await control.send(bridge.Answer("a", a.answer(offer)))
            assert (await handshake).state == "connected"
            await control.event(bridge.Connected, "a")
            await a.aclose()

    run(test)


def test_a_track_answered_before_dtls_is_up_flows_once_it_is() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "b") as (b,):
            a = await Client(control, "a").join()
            offer = await a.negotiate()
            assert received(offer) == {("b", source) for source in BOTH}
            track = control.worker.peers["b"].published["camera"]
            assert track.legs == {}
            await a.connect()
            assert set(track.legs) == {"a"}
            await b.send_rtp("camera", 1, b"picture")
            assert (await a.rtp()).payload == b"picture"
            await a.aclose()

    run(test)


def test_media_follows_a_client_to_its_new_address() -> None:
    """A browser nominates again from the new address, as Chromium does when a network changes."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            assert b.ice is not None
            for number in range(1, 4):
                old, sent = b.ice.address, control.worker.counters["packets_out"]
                b.ice.close()
                await a.send_rtp("camera", 2 * number, b"lost")
                await until(lambda n=sent: control.worker.counters["packets_out"] == n + 1, "sent to the old address")
                await b.move()
                assert b.ice.address != old
                await a.send_rtp("camera", 2 * number + 1, b"found")
                assert (await b.rtp()).payload == b"found"
                await b.send_rtp("camera", number, b"and back")
                assert (await a.rtp()).payload == b"and back"

    run(test)


def test_media_goes_nowhere_that_does_not_answer() -> None:
    """Whoever knows a password can write any source address on a check: somebody else's gets no media for it."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            assert b.ice is not None
            agent = control.worker.peers["b"].agent
            before = agent.selected
            victim = Ice(b.ice.server, b.ice.ufrag, b.ice.pwd)
            victim.answers = False
            await victim.rebind()
            for number in range(1, 4):
                await victim.check()
                await a.send_rtp("camera", number, b"for b")
                assert (await b.rtp()).payload == b"for b"
            assert agent.selected == before
            assert victim._inbox.empty()
            victim.close()

    run(test)


def test_another_peers_password_moves_nobody() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            assert a.ice is not None
            assert b.ice is not None
            agent = control.worker.peers["b"].agent
            before = agent.selected
            refused_before = control.worker.counters["gate_stun_refused"]
            a.ice.send(bytes(check(b.ice.ufrag, a.ice.pwd)))
            await until(lambda: control.worker.counters["gate_stun_refused"] == refused_before + 1, "refused")
            assert agent.selected == before

    run(test)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_leaving_leaves_nothing_behind() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a") as (a,):
            tasks = len(asyncio.all_tasks())
            for stage in range(4):
                b = await Client(control, "b").join()
                if stage > 0:
                    await b.negotiate()
                if stage > 1:
                    await b.check()
                if stage > 2:
                    await b.handshake()
                    await control.event(bridge.Connected, "b")
                peer = control.worker.peers["b"]
                await b.leave()
                assert set(control.worker.peers) == {"a"}
                assert set(control.worker.rooms["room"].peers) == {"a"}
                assert control.worker.udp._agents.keys() == {control.worker.peers["a"].agent.ufrag}
                assert {route.agent for route in routes(control)} == {control.worker.peers["a"].agent}
                assert all(track.legs == {} for track in control.worker.peers["a"].published.values())
                await until(lambda p=peer: not p._tasks, "its tasks ended")
                await until(lambda: len(asyncio.all_tasks()) <= tasks, f"tasks ended: {asyncio.all_tasks()}")
                assert control.pending(bridge.Failed, "b") == []
            await a.takes_from()
            await a.leave()
            assert control.worker.peers == control.worker.rooms == {}
            assert control.worker.udp._agents == {}
            assert routes(control) == []

    run(test)


def test_a_goodbye_reaches_the_client() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a") as (a,):
            await control.send(bridge.Leave("a"))
            assert a.dtls is not None
            await until(lambda: a.dtls.state == "closed", "DTLS closed")  # type: ignore[union-attr]

    run(test)


def test_media_after_the_end_is_a_strangers() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await control.send(bridge.Leave("b"))
            before = control.worker.counters["gate_stranger"]
            assert b.ice is not None
            b.ice.send(rtp_packet(1, b.ssrcs["camera"]))
            await until(lambda: control.worker.counters["gate_stranger"] == before + 1, "dropped")
            await a.send_rtp("camera", 1)
            await until(lambda: control.worker.counters["packets_in"] == 1, "came")
            assert control.worker.counters["packets_out"] == 0

    run(test)


def test_a_publishers_opus_parameters_come_back_to_it_and_reach_the_others() -> None:
    """Browsers encode as the other side's description says, so the publisher hears its own wish from us."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "b") as (b,):
            a = Client(control, "a")
            a.opus = "useinbandfec=1;sprop-stereo=1;usedtx=1"
            await a.join()
            assert "stereo" not in (await a.negotiate()).sdp
            assert "useinbandfec=1;stereo=1;usedtx=1\r\n" in (await a.negotiate()).sdp
            await b.takes_from("a")
            assert b.offer is not None
            assert "useinbandfec=1;sprop-stereo=1;usedtx=1\r\n" in b.offer.sdp
            await none_follows(control, "a")
            a.opus = ""
            await control.send(bridge.Publish("a", "camera", "video"))
            await a.negotiate()
            assert "stereo" not in (await a.negotiate()).sdp

    run(test)


# --- who speaks -------------------------------------------------------------------------------------------------------


def test_the_room_hears_of_who_speaks_and_that_a_muted_one_does_not() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b), beside(a.talk(), b.talk(80)):
            assert await control.event(bridge.Speakers) == bridge.Speakers("room", "a", ["a"])
            await control.send(bridge.Mute("a", "microphone", True))
            assert await control.event(bridge.Speakers) == bridge.Speakers("room", None, [])
            seen = control.worker.counters["packets_in"]
            await until(lambda: control.worker.counters["packets_in"] > seen + 50, "a talks on")
            assert control.pending(bridge.Speakers) == []
            await control.send(bridge.Mute("a", "microphone", False))
            assert await control.event(bridge.Speakers) == bridge.Speakers("room", "a", ["a"])

    run(test)


def test_each_room_has_its_own_speakers() -> None:
    async def test() -> None:
        async with (
            local_worker() as control,
            clients(control, "a", "b") as (a, _),
            clients(control, "c", "d", room="other") as (c, _),
            beside(a.talk(), c.talk()),
        ):
            told = [await control.event(bridge.Speakers) for _ in range(2)]
            assert {(event.room, event.dominant) for event in told} == {("room", "a"), ("other", "c")}

    run(test)


def test_a_speaker_who_leaves_is_forgotten() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            async with beside(a.talk()):
                assert (await control.event(bridge.Speakers)).dominant == "a"
            await a.leave()
            async with beside(b.talk()):
                assert await control.event(bridge.Speakers) == bridge.Speakers("room", "b", ["b"])

    run(test)


def test_other_sound_than_the_microphone_is_nobodys_voice() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            a.publishes.add("screen-sound")
            await control.send(bridge.Publish("a", "screen-sound", "audio"))
            await until(lambda: "screen-sound" in a.ssrcs, "the answer that sends it")
            (sound,) = control.worker.peers["a"].published["screen-sound"].tracks
            for step in range(20):
                data = rtp_packet(step, a.ssrcs["screen-sound"], pt=111, twcc=step, level=10)
                await a.send(data)
            await until(lambda: sound.levels == 20, "its levels came")
            async with beside(b.talk()):
                assert await control.event(bridge.Speakers) == bridge.Speakers("room", "b", ["b"])

    run(test)


# --- the last speakers' videos ----------------------------------------------------------------------------------------


KEYFRAME = b"\x10\x00" + bytes(20)


def forwarded(control: LocalControl, subscriber: str) -> set[str]:
    """Whose cameras a subscriber is not left out of."""
    published = {
        peer.id: peer.published["camera"] for peer in control.worker.peers.values() if "camera" in peer.published
    }
    return {name for name, track in published.items() if subscriber in track.legs and not track.paused(subscriber)}


async def cameras_seen(control: LocalControl, made: list[Client], seq16: int) -> dict[str, set[str]]:
    """Whose cameras reach whom: everybody sends a keyframe, then a sound by which the receivers know that all came."""
    before = control.worker.counters["packets_in"]
    for client in made:
        while client.dtls is not None and not client.dtls.rtp.empty():
            client.dtls.rtp.get_nowait()
    for client in made:
        await client.send_rtp("camera", seq16, KEYFRAME + client.id.encode())
    await until(lambda: control.worker.counters["packets_in"] == before + len(made), "all videos came")
    for client in made:
        await client.send_rtp("microphone", seq16, b"end " + client.id.encode())
    seen: dict[str, set[str]] = {}
    for client in made:
        ends, seen[client.id] = 0, set()
        while ends < len(made) - 1:
            packet = await client.rtp()
            ends += packet.payload.startswith(b"end ")
            if packet.payload_type == 96:
                seen[client.id].add(packet.payload[len(KEYFRAME) :].decode())
    return seen


def test_twelve_peers_get_four_videos_each_and_the_speakers_among_them() -> None:
    names = [f"p{i:02}" for i in range(12)]

    async def test() -> None:
        async with local_worker(last_n=4) as control, clients(control, *names) as made:
            seen = await cameras_seen(control, made, 100)
            assert {name: len(got) for name, got in seen.items()} == dict.fromkeys(names, 4)
            assert seen["p11"] == {"p00", "p01", "p02", "p03"}, "nobody has spoken: who published first"
            paused = {(e.peer, e.publisher) for e in control.seen if isinstance(e, bridge.Paused) and e.reason}
            assert paused >= {(s, p) for s in names for p in set(names) - seen[s] - {s}}

            async with beside(made[7].talk()):
                assert (await control.event(bridge.Speakers)).dominant == "p07"
                assert all("p07" in forwarded(control, name) for name in names if name != "p07")
            seen = await cameras_seen(control, made, 10_000)
            assert {name: len(got) for name, got in seen.items()} == dict.fromkeys(names, 4)
            assert all("p07" in got for name, got in seen.items() if name != "p07")
            assert seen["p11"] == {"p07", "p00", "p01", "p02"}
            told = [e for e in control.seen if isinstance(e, bridge.Paused) and (e.peer, e.publisher) == ("p11", "p07")]
            assert [e.reason for e in told] == ["not_speaking", ""]

    run(test)


def test_a_muted_camera_makes_room_for_another_and_comes_back() -> None:
    async def test() -> None:
        async with local_worker(last_n=1) as control, clients(control, "a", "b", "c"):
            assert forwarded(control, "c") == {"a"}
            await control.send(bridge.Mute("a", "camera", True))
            assert forwarded(control, "c") == {"a", "b"}, "what is muted brings nothing and costs nothing"
            await control.send(bridge.Mute("a", "camera", False))
            assert forwarded(control, "c") == {"a"}
            assert forwarded(control, "a") == {"b"}

    run(test)


def test_who_leaves_makes_room_for_another() -> None:
    async def test() -> None:
        async with local_worker(last_n=1) as control, clients(control, "a", "b", "c") as (a, _, c):
            await a.leave()
            await c.takes_from("b")
            assert forwarded(control, "c") == {"b"}
            last = [e for e in control.seen if isinstance(e, bridge.Paused) and (e.peer, e.publisher) == ("c", "b")]
            assert [e.reason for e in last] == ["not_speaking", ""]

    run(test)


def test_who_only_watches_gets_no_more_than_others() -> None:
    async def test() -> None:
        async with local_worker(last_n=1) as control, clients(control, "a", "b", "c"):
            guest = await Client(control, "guest").start(publish=False)
            await until(lambda: forwarded(control, "guest") == {"a"}, "the guest gets the first of three videos")
            await guest.aclose()

    run(test)


def test_nobody_is_asked_for_a_keyframe_that_no_one_would_get() -> None:
    async def test() -> None:
        async with local_worker(last_n=1) as control, clients(control, "a", "b", "c") as (*_, c):
            (camera,) = control.worker.peers["b"].published["camera"].tracks
            await until(lambda: not camera._keyframes._wanted, "what was asked for is done")
            asked = control.worker.counters["pli_received"]
            await c.send(rtp.pli(c.ssrc_of("b", "camera")))
            await until(lambda: control.worker.counters["pli_received"] == asked + 1, "the request came")
            assert not camera._keyframes._wanted

    run(test)


def test_all_videos_are_forwarded_where_there_is_no_limit() -> None:
    async def test() -> None:
        async with local_worker(last_n=0) as control, clients(control, "a", "b", "c", "d"):
            assert forwarded(control, "d") == {"a", "b", "c"}
            assert not [e for e in control.seen if isinstance(e, bridge.Paused)]

    run(test)


# --- codecs -----------------------------------------------------------------------------------------------------------


def may_send(client: Client) -> str:
    """The payload types of the camera in the last offer, retransmissions left out."""
    assert client.offer is not None
    types = SessionDescription.parse(client.offer.sdp).media[1].fmt
    return " ".join(str(pt) for pt in types if pt not in (97, 99, 46, 103))


def test_the_others_may_send_what_everybody_can_show() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            assert may_send(a) == may_send(b) == "96 98 45 102"
            c = Client(control, "c")
            c.shows = "96 98"
            await c.start()
            await until(lambda: may_send(a) == may_send(b) == "96 98", "a and b are offered what c can show")
            d = Client(control, "d")
            d.shows = "102 96"
            await d.start()
            for client in (a, b, c, d):
                await until(lambda one=client: may_send(one) == "96", "nothing but VP8 is common to all")
            assert not [event for event in control.seen if isinstance(event, bridge.Refused)]
            await c.leave()
            await until(lambda: may_send(a) == may_send(b) == "96 102", "c is gone")
            await d.leave()
            await until(lambda: may_send(a) == may_send(b) == "96 98 45 102", "d is gone")

    run(test)


@pytest.mark.parametrize("shows", ["102", "98 45", "120"])
def test_who_cannot_show_vp8_is_told_and_the_call_goes_on(shows: str) -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            c = Client(control, "c")
            c.shows = shows
            await c.start()
            event = await control.event(bridge.Refused, "c")
            assert event.code == "no_common_codec"
            await until(lambda: may_send(a).startswith("96"), "VP8 is always offered")
            await a.send_rtp("microphone", 1, b"heard")
            assert (await c.rtp()).payload == b"heard"
            await none_follows(control, "c")
            assert control.pending(bridge.Refused, "c") == [], "once"
            await c.leave()
            await b.takes_from("a")

    run(test)


def test_a_video_of_any_codec_begins_with_its_keyframe() -> None:
    """After a pause a subscriber waits for it, whatever the payload type."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            camera = control.worker.peers["a"].published["camera"]
            seq16 = 0
            for pt, delta, key in (
                (98, "40 00ff", "08 00ff"), (45, "10 00ff", "18 00ff"), (102, "61 00ff", "67 00ff"),
                (96, "10 01ff000000000000", "10 00ff000000000000"),
            ):  # fmt: skip
                camera.pause("b", "test")
                camera.resume("b", "test")
                for payload in (delta, key, delta):
                    seq16 += 1
                    await a.send(rtp_packet(seq16, a.ssrcs["camera"], bytes.fromhex(payload), pt=pt))
                got = [await b.rtp() for _ in range(2)]
                assert [packet.payload for packet in got] == [bytes.fromhex(key), bytes.fromhex(delta)]
                assert {packet.payload_type for packet in got} == {pt}

    run(test)
