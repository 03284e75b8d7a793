from __future__ import annotations

import asyncio
import contextlib
import struct
import time

import pytest
from aiortc.rtcdtlstransport import SRTP_PROFILES
from OpenSSL import SSL
from support.media_client import (
    LOOPBACKS,
    Client,
    Ice,
    LocalControl,
    beside,
    check,
    clients,
    failed,
    local_worker,
    open_udp,
    received,
    rtp_packet,
    run,
    settled,
    until,
)

from sfu import bridge
from sfu.media.peer import peer
from sfu.media.peer.peer import LOST_S, SILENT_S
from sfu.media.rtp import rtcp
from sfu.media.streams.reception import TRIES
from sfu.media.transport.gate import Route
from sfu.media.transport.ice import PROVE_S

BOTH = {"microphone", "camera"}


def routes(control: LocalControl) -> list[Route]:
    return [
        route
        for endpoint in control.worker.udp.endpoints.values()
        for route in control.worker.udp._routes[endpoint].values()
    ]


# --- deadlines and failures -------------------------------------------------------------------------------------------


def test_a_client_whose_checks_do_not_come() -> None:
    async def test() -> None:
        async with local_worker(ice_s=0.05) as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            told = await control.event(bridge.Unreached, "a")
            assert (told.heard, told.port) == (False, control.worker.udp.port)
            assert told.hosts == tuple(control.worker.udp.endpoints)
            await failed(control, "a", "ice_timeout")

    run(test)


def test_a_client_that_never_nominates() -> None:
    async def test() -> None:
        async with local_worker(ice_s=0.1) as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            await a.check(nominate=False)
            assert (await control.event(bridge.Unreached, "a")).heard
            await failed(control, "a", "ice_timeout")
            await a.aclose()

    run(test)


def test_a_client_without_a_path_is_told_of_before_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "UNREACHED_S", 0.05)

    async def test() -> None:
        async with local_worker(dtls_s=60.0) as control:
            a = await Client(control, "a").join()
            await a.negotiate()
            await a.check()
            assert (await control.event(bridge.Unreached, "a")).heard
            await a.handshake()
            await control.event(bridge.Connected, "a")
            assert not control.pending(bridge.Failed, "a")
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


def test_others_are_told_of_a_client_that_is_silent_and_of_its_return() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a"):
            peer = control.worker.peers["a"]
            seen_s = peer.agent.last_seen_s
            peer.check_liveness(seen_s + LOST_S)
            assert control.pending(bridge.Lost, "a") == []
            for silent_s in (LOST_S + 1, LOST_S + 2):
                peer.check_liveness(seen_s + silent_s)
            assert await control.event(bridge.Lost, "a") == bridge.Lost("a", True)
            peer.agent.last_seen_s = seen_s + LOST_S + 3
            peer.check_liveness(seen_s + LOST_S + 3)
            assert await control.event(bridge.Lost, "a") == bridge.Lost("a", False)
            assert control.pending(bridge.Lost, "a") == []

    run(test)


def test_a_pause_of_the_worker_is_no_silence_of_its_clients() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b"):
            now_s = time.monotonic()
            for name, silent_s in (("a", SILENT_S), ("b", 1.0)):
                control.worker.peers[name].agent.last_seen_s = now_s - silent_s
                control.worker.peers[name].slept(5.0)
            control.worker.peers["a"].check_liveness(now_s + 4)
            assert control.pending(bridge.Failed, "a") == []
            assert control.worker.peers["b"].agent.last_seen_s <= time.monotonic(), "heard now at the latest"

    run(test)


def test_media_alone_keeps_a_client_alive() -> None:
    """pion sends no checks while media flows."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a") as (a,):
            peer = control.worker.peers["a"]
            peer.agent.last_seen_s = time.monotonic() - SILENT_S - 1
            await until(lambda: control.worker.counters["packets_in"] == 2, "it began")
            await a.send_rtp("camera", 1)
            await until(lambda: control.worker.counters["packets_in"] == 3, "came")
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
            asked = await a.rtcp(rtcp.RTCP_RTPFB, rtcp.RTPFB_NACK)
            assert rtcp.feedback_media_ssrc(asked) == a.ssrcs["camera"]
            assert list(rtcp.nacked(asked)) == [start + 2 & 0xFFFF, start + 3 & 0xFFFF]
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
            asked = await a.rtcp(rtcp.RTCP_RTPFB, rtcp.RTPFB_NACK)
            assert rtcp.feedback_media_ssrc(asked) == a.ssrcs["microphone"]
            assert list(rtcp.nacked(asked)) == [11]
            await a.send_rtp("microphone", 11, b"sound 11")
            assert {(await b.rtp()).payload for _ in range(3)} == {b"sound 10", b"sound 11", b"sound 12"}

    run(test)


def test_what_never_comes_back_is_a_keyframe_asked_for() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await a.send_rtp("camera", 1)
            await b.rtp()
            await a.send_rtp("camera", 3)
            await until(lambda: control.worker.counters["nack_sent"] == TRIES["video"], "it was asked for to the end")
            before = control.worker.counters["pli_sent"]  # whoever joined may have asked for one meanwhile
            await until(lambda: control.worker.counters["pli_sent"] > before, "a keyframe is asked for")
            assert control.worker.counters["nack_sent"] == TRIES["video"]

    run(test)


def test_a_publisher_is_told_what_came() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await a.send(struct.pack("!BBHI", 0x80, rtcp.RTCP_SR, 6, a.ssrcs["microphone"]) + bytes(range(20)))
            for seq16 in (65533, 65534, 65535, 1):
                await a.send_rtp("microphone", seq16)
                await b.rtp()
            control.worker.peers["a"].publisher.send_reports()
            report = await a.rtcp(rtcp.RTCP_RR)
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
            head = struct.pack("!BBHI", 0x80, rtcp.RTCP_SR, 6, a.ssrcs["microphone"])
            await a.send(head + struct.pack("!QIII", 0x11112222_33334444, 0, 0, 0))
            await b.rtcp(rtcp.RTCP_SR)
            ssrc = b.ssrc_of("a", "microphone")
            delivery = control.worker.peers["a"].published["microphone"].down_tracks["b"].delivery
            for seq16, lost in ((65_532, 0), (65_540, 2)):
                for number in range(seq16, seq16 + 8):
                    await a.send_rtp("microphone", number & 0xFFFF, bytes(88))
                    await b.rtp()
                delivery.jitter_s = -1
                block = rtcp.report_block(ssrc, 99, lost, 7, 480, 0x22223333, 0)
                await b.send(rtcp.receiver_report([rtcp.report_block(4242, 255, 9, 9, 9, 9, 9), block]))
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
                delivery = control.worker.peers["a"].published["microphone"].down_tracks["b"].delivery
                delivery.jitter_s = -1
                block = rtcp.report_block(b.ssrc_of("a", "microphone"), 0, lost, end, 96, 0, 0)
                await b.send(rtcp.receiver_report([block]))
                await until(lambda: delivery.jitter_s >= 0, "b's report")

            await heard(1, 5, 0)
            await heard(5, 200, 39)
            said = {}
            while len(said) < 2:
                event = await control.event(bridge.Quality, "b" if "a" in said else "a")
                if event.cause is not None and event.bytes_up + event.bytes_down == 160 * 100:
                    said[event.peer] = event
            assert said["a"].up.loss == pytest.approx(0.2, abs=0.01)
            assert (said["a"].down, said["b"].up) == (None, None)
            assert said["b"].down.loss == 0
            assert said["b"].down.jitter_ms == 2
            assert said["a"].score < 3 < 4 < said["b"].score
            cause = bridge.Cause("upload_loss", "a", 20, "%")
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
            await until(lambda: control.worker.peers["b"].published["camera"].down_tracks, "attached")
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
            await until(lambda: control.worker.peers["b"].published["camera"].flows, "it began")
            a = await Client(control, "a").join()
            offer = await a.negotiate()
            assert received(offer) == {("b", source) for source in BOTH}
            track = control.worker.peers["b"].published["camera"]
            assert track.down_tracks == {}
            await a.connect()
            assert set(track.down_tracks) == {"a"}
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


@pytest.mark.parametrize("setup", ["active", "passive"])
def test_no_handshake_goes_where_nobody_answers(setup: str) -> None:
    """A peer that writes another's address on its first check, and on a DTLS hello, gets that address no flights."""

    async def test() -> None:
        async with local_worker(ice_s=1) as control:
            a = Client(control, "a")
            a.setup = setup
            await a.join()
            await a.negotiate()
            sent, came = [], []
            victim = await open_udp(lambda data, _: came.append(data))
            server, ufrag, pwd = a.server()
            for data in (bytes(check(ufrag, pwd)), hello(a), bytes(check(ufrag, pwd, nominate=False))):
                sent.append(data)
                victim.sendto(data, server)
                await asyncio.sleep(PROVE_S)  # so that all checks of the server's that may come do
            await failed(control, "a", "ice_timeout")
            assert {data[0] for data in came} <= {0, 1}, "STUN only"
            assert 0 < sum(map(len, came)) <= 3 * sum(map(len, sent))
            victim.close()

    run(test)


def hello(client: Client) -> bytes:
    """The first flight of a client's DTLS."""
    ssl = SSL.Connection(client.certificate._create_ssl_context(SRTP_PROFILES))
    ssl.set_connect_state()
    with contextlib.suppress(SSL.WantReadError):
        ssl.do_handshake()
    return bytes(ssl.bio_read(2000))


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
                assert all(track.down_tracks == {} for track in control.worker.peers["a"].published.values())
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


def test_media_after_the_end_is_dropped_and_no_strangers() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await control.send(bridge.Leave("b"))
            before = control.worker.counters["gate_former"]
            assert b.ice is not None
            b.ice.send(rtp_packet(1, b.ssrcs["camera"]))
            await until(lambda: control.worker.counters["gate_former"] == before + 1, "dropped")
            seen = control.worker.counters["packets_in"]
            await a.send_rtp("camera", 1)
            await until(lambda: control.worker.counters["packets_in"] == seen + 1, "came")
            assert control.worker.counters["packets_out"] == 0

    run(test)


# --- who speaks -------------------------------------------------------------------------------------------------------


def test_the_room_hears_of_who_speaks_and_that_a_muted_one_does_not() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b), beside(a.talk(), b.talk(80)):
            assert await control.event(bridge.Speakers) == bridge.Speakers("room", "a", ("a",))
            await control.send(bridge.Mute("a", "microphone", True))
            assert await control.event(bridge.Speakers) == bridge.Speakers("room", None, ())
            seen = control.worker.counters["packets_in"]
            await until(lambda: control.worker.counters["packets_in"] > seen + 50, "a talks on")
            assert control.pending(bridge.Speakers) == []
            await control.send(bridge.Mute("a", "microphone", False))
            assert await control.event(bridge.Speakers) == bridge.Speakers("room", "a", ("a",))

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
                assert await control.event(bridge.Speakers) == bridge.Speakers("room", "b", ("b",))

    run(test)


def test_other_sound_than_the_microphone_is_nobodys_voice() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            a.publishes.add("screen-sound")
            await control.send(bridge.Publish("a", "screen-sound", "audio"))
            await until(lambda: "screen-sound" in a.ssrcs, "the answer that sends it")
            (sound,) = control.worker.peers["a"].published["screen-sound"].layer_streams
            for step in range(20):
                data = rtp_packet(step, a.ssrcs["screen-sound"], pt=111, twcc=step, level=10)
                await a.send(data)
            await until(lambda: sound.levels == 20, "its levels came")
            async with beside(b.talk()):
                assert await control.event(bridge.Speakers) == bridge.Speakers("room", "b", ("b",))

    run(test)


# --- the last speakers' videos ----------------------------------------------------------------------------------------


KEYFRAME = b"\x10\x00" + bytes(20)


def forwarded(control: LocalControl, subscriber: str) -> set[str]:
    """Whose cameras a subscriber is not left out of."""
    published = {
        peer.id: peer.published["camera"] for peer in control.worker.peers.values() if "camera" in peer.published
    }
    return {
        name for name, track in published.items() if subscriber in track.down_tracks and not track.paused(subscriber)
    }


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
        async with local_worker(last_n=1) as control, clients(control, "a", "b", "c") as (_, b, c):
            (camera,) = control.worker.peers["b"].published["camera"].layer_streams
            await b.send_rtp("camera", 1, bytes([0x10, 0]) + bytes(9))  # a keyframe, which a had asked for
            await until(lambda: not camera._keyframes.wanted, "what was asked for is done")
            asked = control.worker.counters["pli_received"]
            await c.send(rtcp.pli(c.ssrc_of("b", "camera")))
            await until(lambda: control.worker.counters["pli_received"] == asked + 1, "the request came")
            assert not camera._keyframes.wanted

    run(test)


def test_all_videos_are_forwarded_where_there_is_no_limit() -> None:
    async def test() -> None:
        async with local_worker(last_n=0) as control, clients(control, "a", "b", "c", "d"):
            assert forwarded(control, "d") == {"a", "b", "c"}
            assert not [e for e in control.seen if isinstance(e, bridge.Paused)]

    run(test)


# --- permissions that change during the call --------------------------------------------------------------------------


def test_who_may_not_publish_any_more_is_not_forwarded_and_may_publish_again() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await control.send(bridge.Permit("a", publish=False, subscribe=True))
            assert control.worker.peers["a"].published == {}, "at once, whatever its client sends or answers"
            ended = {(e.peer, e.source) for e in control.seen if isinstance(e, bridge.TrackEnded)}
            ended |= {("a", (await control.event(bridge.TrackEnded, "a")).source) for _ in BOTH - {s for _, s in ended}}
            assert ended == {("a", source) for source in BOTH}
            before = control.worker.counters["packets_in"]
            await a.send_rtp("microphone", 7, b"still sending")
            await until(lambda: control.worker.counters["packets_in"] > before, "the packet came")
            assert control.worker.peers["a"].published == {}
            with_nothing = lambda: a.offer is not None and not a.offer.send  # noqa: E731
            await until(with_nothing, "it is offered nothing to send in")
            await control.send(bridge.Publish("a", "screen", "video"))
            assert (await control.event(bridge.Refused, "a")).code == "not_allowed"

            await control.send(bridge.Permit("a", publish=True, subscribe=True))
            await until(lambda: set(control.worker.peers["a"].published) == BOTH, "it answers that it sends again")
            await a.send_rtp("microphone", 8, b"heard again")
            await b.takes_from("a")

    run(test)


def test_what_was_muted_stays_muted_for_who_may_publish_again() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b"):
            for source in ("camera", "screen"):
                await control.send(bridge.Mute("a", source, True))
            await control.send(bridge.Permit("a", publish=False, subscribe=True))
            await control.send(bridge.Permit("a", publish=True, subscribe=True))
            await until(lambda: set(control.worker.peers["a"].published) == BOTH, "it sends again")
            assert control.worker.peers["a"].published["camera"].muted
            assert control.worker.peers["a"].publisher.muted == {"camera"}

    run(test)


def test_who_may_not_subscribe_any_more_gets_nothing_until_it_may_again() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (_, b):
            tracks = control.worker.peers["a"].published.values()
            assert all("b" in track.down_tracks for track in tracks)
            await control.send(bridge.Permit("b", publish=True, subscribe=False))
            assert not any("b" in track.down_tracks for track in tracks), "at once"
            await until(lambda: b.offer is not None and not b.offer.receive, "nothing is offered to it")
            assert not any("b" in track.down_tracks for track in tracks)
            await control.send(bridge.Permit("b", publish=True, subscribe=True))
            await b.takes_from("a")
            assert all("b" in track.down_tracks for track in tracks)

    run(test)


def test_who_came_to_listen_may_publish_later() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a"):
            guest = await Client(control, "guest").start(publish=False)
            await control.send(bridge.Permit("guest", publish=True, subscribe=True))
            await until(lambda: set(control.worker.peers["guest"].published) == BOTH, "the guest sends")
            await guest.aclose()

    run(test)


def test_the_one_in_the_spotlight_is_seen_by_all_whoever_speaks() -> None:
    async def test() -> None:
        async with local_worker(last_n=1) as control, clients(control, "a", "b", "c") as (_, b, _):
            await control.send(bridge.Spotlight("c", True))
            assert [forwarded(control, name) for name in "abc"] == [{"c"}, {"c"}, {"a"}]
            async with beside(b.talk()):
                await control.event(bridge.Speakers)
                assert [forwarded(control, name) for name in "abc"] == [{"c"}, {"c"}, {"b"}]
                await control.send(bridge.Spotlight("c", False))
                assert forwarded(control, "a") == {"b"}

    run(test)
