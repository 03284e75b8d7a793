from __future__ import annotations

import asyncio
import re

import pytest
from aiortc.sdp import SessionDescription
from support.media_client import Client, LocalControl, clients, failed, local_worker, received, rtp_packet, run, until

from sfu import bridge

BOTH = {"microphone", "camera"}


def directions(offer: bridge.Offer) -> list[tuple[str, str]]:
    return [(media.kind, media.direction) for media in SessionDescription.parse(offer.sdp).media]


def origin(offer: bridge.Offer) -> tuple[int, int]:
    """Session id and version of the o-line."""
    found = re.search(r"^o=- ([0-9]+) ([0-9]+) ", offer.sdp, re.MULTILINE)
    assert found is not None
    return int(found[1]), int(found[2])


async def none_follows(control: LocalControl, peer: str) -> None:
    """All that the worker does of its own accord is done, and no offer came of it."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert control.pending(bridge.Offer, peer) == []


async def brought(client: Client, *tracks: tuple[str, str]) -> bridge.Offer:
    """Answers offers until one brings exactly these: two sources of a peer need not begin in one moment."""
    while received(offer := await client.negotiate()) != set(tracks):
        pass
    return offer


def of(*peers: str) -> list[tuple[str, str]]:
    """Their microphones and cameras."""
    return [(peer, source) for peer in peers for source in ("microphone", "camera")]


async def refused(control: LocalControl, command: bridge.Command, code: str) -> str:
    await control.send(command)
    event = await control.event(bridge.Refused, command.peer)  # type: ignore[union-attr]
    assert event.code == code
    return event.message


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
            a, b = await Client(control, "a").join(), await Client(control, "b").start()
            offer = await brought(a, *of("b"))
            assert directions(offer)[2:] == [("audio", "sendonly"), ("video", "sendonly")]
            assert offer.receive == {"2": ("b", "microphone"), "3": ("b", "camera")}
            media = SessionDescription.parse(offer.sdp).media[2:]
            assert [m.msid for m in media] == ["b b-microphone", "b b-camera"]
            assert [m.ssrc[0].cname for m in media] == ["b", "b"]
            assert [m.ssrc[0].ssrc for m in media] == [
                control.worker.peers["b"].published[source].ssrc for source in ("microphone", "camera")
            ]
            await b.aclose()

    run(test)


def test_events_tell_what_is_published() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a", ("camera",)).start()
            assert await control.event(bridge.Track, "a") == bridge.Track("a", "camera", "video")
            assert control.pending(bridge.Track, "a") == []
            a.publishes = {"microphone"}
            await control.send(bridge.Publish("a", "camera", "video"))  # asks for another offer
            assert await control.event(bridge.TrackEnded, "a") == bridge.TrackEnded("a", "camera")
            assert await control.event(bridge.Track, "a") == bridge.Track("a", "microphone", "audio")
            await none_follows(control, "a")
            assert control.pending(bridge.Track, "a") == []
            await a.aclose()

    run(test)


def test_one_offer_is_in_flight_and_later_changes_are_in_the_next() -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join()
            first = await a.next_offer()
            others = [await Client(control, name).start() for name in "bcdef"]
            await others[0].takes_from(*"cdef")
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
            for other in others:
                await other.aclose()

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
            lengths, ssrcs = set(), set()
            for i in range(5):
                b = await Client(control, f"b{i:02}").start()
                offer = await brought(a, *of(b.id))
                assert sorted(offer.receive) == ["2", "3"]
                lengths.add(len(re.sub(r"[0-9]", "", offer.sdp)))
                ssrcs.add(a.ssrc_of(b.id, "camera"))
                await b.leave()
                offer = await brought(a)
                assert directions(offer)[2:] == [("audio", "inactive"), ("video", "inactive")]
            assert len(lengths) == 1
            assert len(ssrcs) == 5

    run(test)


def test_a_section_is_not_reused_before_an_answer_saw_it_inactive() -> None:
    """A browser would take the new track for the old one."""

    async def test() -> None:
        async with local_worker() as control:
            a, b = await Client(control, "a").join(), await Client(control, "b", ("camera",)).start()
            await a.negotiate()
            offer = await a.next_offer()
            assert offer.receive == {"2": ("b", "camera")}
            await b.leave()
            c = await Client(control, "c", ("camera",)).start()
            await control.event(bridge.Track, "c")
            await control.send(bridge.Answer("a", a.answer(offer)))
            offer = await a.negotiate()
            assert directions(offer)[2] == ("video", "inactive")
            assert offer.receive == {"3": ("c", "camera")}
            d = await Client(control, "d", ("camera",)).start()
            offer = await a.negotiate()  # now it was seen
            assert offer.receive == {"2": ("d", "camera"), "3": ("c", "camera")}
            for client in (c, d):
                await client.aclose()

    run(test)


def test_a_section_given_back_while_inactive_is_in_flight() -> None:
    """The offer that says inactive is on its way when another source is published: the section becomes its."""

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
            assert offer.send["2"] == "second-camera"
            assert len(directions(offer)) == 3

    run(test)


@pytest.mark.parametrize(("publish", "subscribe"), [(True, False), (False, True)])
def test_rights(publish: bool, subscribe: bool) -> None:
    async def test() -> None:
        async with local_worker() as control:
            a = await Client(control, "a").join(publish=publish, subscribe=subscribe)
            if publish:
                await a.negotiate()
            b = await Client(control, "b").start()
            await control.event(bridge.Track, "b")
            await control.event(bridge.Track, "b")
            if subscribe:
                offer = await brought(a, *of("b"))
                assert sorted(directions(offer)) == [("audio", "sendonly"), ("video", "sendonly")]
                assert offer.send == {}
                await refused(control, bridge.Publish("a", "screen", "video"), "not_allowed")
            await none_follows(control, "a")
            assert set(control.worker.peers["a"].published) == (BOTH if publish else set())
            await b.aclose()

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
                await until(lambda: control.worker.peers["b"].published["camera"].down_tracks, "attached")
                await b.send_rtp("camera", 1, b"picture")
                assert (await a.rtp()).payload == b"picture"
            await a.aclose()

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
            await a.connect()
            await a.begin()
            await b.takes_from("a")
            assert b.offer is not None
            assert "useinbandfec=1;sprop-stereo=1;usedtx=1\r\n" in b.offer.sdp
            a.opus = ""
            await control.send(bridge.Publish("a", "camera", "video"))
            await brought(a, *of("b"))
            assert "stereo" not in (await a.negotiate()).sdp
            await a.aclose()

    run(test)


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
            await until(lambda: set(tracks["camera"].down_tracks) == {"c"}, "b is no subscriber")
            await a.send_rtp("camera", 1, b"not for b")
            await a.send_rtp("microphone", 1, b"not for b")
            b.takes = True
            await control.send(bridge.Publish("b", "screen-2", "video"))
            await until(lambda: set(tracks["camera"].down_tracks) == {"b", "c"}, "b is one again")
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
            await until(
                lambda: b.offer and ("a", "camera") in received(b.offer) and b.ssrc_of("a", "camera") != old,
                "offered anew",
            )
            track = control.worker.peers["a"].published["camera"]
            await until(lambda: track.down_tracks, "attached")
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
            assert await control.event(bridge.Track, "a") == bridge.Track("a", "camera", "video")
            peer = control.worker.peers["a"]
            assert peer.publisher.by_ssrc[7] in peer.published["camera"].layer_streams
            a.ssrcs["microphone"] = 8
            await control.send(bridge.Publish("a", "screen", "video"))  # anything that makes an offer
            assert await control.event(bridge.Track, "a") == bridge.Track("a", "microphone", "audio")
            assert peer.publisher.by_ssrc[7] in peer.published["camera"].layer_streams
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
            await until(lambda: tracks["screen"].down_tracks, "attached")
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
            for i in range(5):
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
        async with local_worker() as control, clients(control, "a") as (a,):
            assert {(await control.event(bridge.Track, "a")).source for _ in range(2)} == BOTH
            a.publishes.remove("camera")
            await control.send(bridge.Unpublish("a", "camera"))
            assert await control.event(bridge.TrackEnded, "a") == bridge.TrackEnded("a", "camera")
            a.publishes.add("camera")
            await control.send(bridge.Publish("a", "camera", "video"))
            tracks = control.worker.peers["a"].published
            await until(lambda: set(tracks) == BOTH, "both again")
            assert a.offer is not None
            assert a.offer.send == {"0": "microphone", "1": "camera"}

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
