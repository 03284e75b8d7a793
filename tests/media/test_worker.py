from __future__ import annotations

import asyncio
import gc
import socket
import struct
import subprocess
import sys
import threading
from fractions import Fraction

import psutil
import pytest
from aiortc import RTCPeerConnection, RTCRtpReceiver, RTCRtpSender
from aiortc.mediastreams import AudioStreamTrack, MediaStreamTrack, VideoStreamTrack
from aiortc.rtp import RtcpSenderInfo, RtcpSrPacket
from av import VideoFrame
from support.media_client import (
    DEADLINE_S,
    Client,
    FullClient,
    ProcessControl,
    Relay,
    check,
    clients,
    configure,
    local_worker,
    loopback_candidates,
    passes,
    rtp_packet,
    run,
    until,
    worker_process,
)

from sfu import bridge
from sfu.media import worker
from sfu.media.rtp import headers, rtcp
from sfu.media.worker import serve


async def ready(control: ProcessControl) -> bridge.Ready:
    return await control.event(bridge.Ready)


async def exited(process: subprocess.Popen[bytes]) -> int:
    return await asyncio.to_thread(process.wait, DEADLINE_S)


def stderr(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    return process.stderr.read().decode()


# --- the process ------------------------------------------------------------------------------------------------------


def test_ready_says_where_it_listens() -> None:
    async def test() -> None:
        async with worker_process(advertise=("203.0.113.7",)) as control:
            event = await ready(control)
            assert event.port > 0
            assert event.addresses == ("127.0.0.1",)
            assert event.advertised == ("203.0.113.7",)
            a = await Client(control, "a").join()
            offer = await a.next_offer()
            assert f" 203.0.113.7 {event.port} typ host" in offer.sdp
            assert "127.0.0.1 " not in offer.sdp.split("m=", 1)[1]

    run(test)


def test_it_ends_with_the_bridge() -> None:
    async def test() -> None:
        async with worker_process() as control:
            await ready(control)
            async with clients(control, "a", "b") as (a, b):
                await passes(a, b, 1)
                await control.channel.aclose()
                assert await exited(control.process) == 0
            assert "Traceback" not in stderr(control.process)

    run(test)


@pytest.mark.parametrize("commands", [1, 5000])
def test_it_ends_quietly_when_the_control_plane_was_killed(commands: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing, or with more events than the socket holds, on their way."""
    monkeypatch.setattr(worker.gc, "freeze", lambda: None)

    async def test() -> None:
        ours, theirs = socket.socketpair()
        channel = await bridge.Channel.open(ours, bridge.EVENTS)
        serving = asyncio.ensure_future(serve(theirs))
        await channel.send(configure())
        await channel.send(bridge.Join("a", "room", True, True, True))
        for _ in range(commands):
            await channel.send(bridge.Answer("a", "nonsense"))
        await channel.aclose()
        await asyncio.wait_for(serving, DEADLINE_S)

    run(test)


@pytest.mark.parametrize("command", [b'["Leave","a"]\n', b""])
def test_it_ends_when_the_first_command_is_no_configure(command: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "sfu.media.worker", str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        ours.sendall(command)
        ours.shutdown(socket.SHUT_WR)
        try:
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
            process.wait()


def test_a_taken_port_is_fatal_and_named() -> None:
    async def test() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            async with worker_process(port=port) as control:
                event = await control.event(bridge.Fatal)
                assert f"127.0.0.1 UDP port {port}: Address already in use" in event.message
                assert "SFU_PORT" in event.message
                assert await exited(control.process) == 0

    run(test)


def test_media_runs_in_one_thread_and_nothing_is_decoded() -> None:
    async def test() -> None:
        async with worker_process() as control:
            await ready(control)
            async with clients(control, "a", "b", "c") as (a, b, c):
                for number in range(0, 100, 10):
                    await passes(a, b, 1000 + number)
                    await passes(b, c, 1000 + number)
                assert psutil.Process(control.process.pid).num_threads() == 1

    run(test)


def test_no_sender_or_receiver_of_aiortc_runs() -> None:
    async def test() -> None:
        kinds = (RTCRtpSender, RTCRtpReceiver, RTCPeerConnection)
        gc.collect()
        before = sum(isinstance(thing, kinds) for thing in gc.get_objects())
        threads = threading.active_count()
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await passes(a, b, 1)
            assert sum(isinstance(thing, kinds) for thing in gc.get_objects()) == before
            assert threading.active_count() <= threads  # one of the last test's may end only now

    run(test)


def test_the_media_plane_loads_nothing_of_the_control_plane() -> None:
    program = "import sys, sfu.media.worker; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout.split()
    )
    assert "aiortc" in loaded
    assert not loaded & {
        "trio",
        "trio_websocket",
        "quart",
        "quart_trio",
        "hypercorn",
        "databases",
        "sfu.settings.config",
        "sfu.calls",
    }


# --- calls ------------------------------------------------------------------------------------------------------------


class Grey(VideoStreamTrack):
    """Small frames of one shade, by which a receiver knows whose they are."""

    def __init__(self, luma: int) -> None:
        super().__init__()
        self._luma = luma

    async def recv(self) -> VideoFrame:
        pts, time_base = await self.next_timestamp()
        frame = VideoFrame(64, 48, "yuv420p")
        for plane, value in zip(frame.planes, (self._luma, 128, 128), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts, frame.time_base = pts, Fraction(time_base)
        return frame


def calling(luma: int) -> list[MediaStreamTrack]:
    """What somebody in a call sends; the audio first, as the sections of an offer are."""
    return [AudioStreamTrack(), Grey(luma)]


def shade(client: FullClient, track: str) -> float:
    """Mean luma of the last frame decoded of a track."""
    frame = client.frames[track][-1].reformat(format="gray")
    data = bytes(frame.planes[0])
    return sum(data) / len(data)


def test_two_in_a_room_see_and_hear_each_other_and_a_third_elsewhere_nothing() -> None:
    async def test() -> None:
        with loopback_candidates():
            async with worker_process() as control:
                await ready(control)
                lumas = {"a": 60, "b": 180, "c": 120}
                made = {name: FullClient(control, name, calling(luma)) for name, luma in lumas.items()}
                try:
                    for name, client in made.items():
                        await client.start("two" if name != "c" else "alone")
                    for client, other in ((made["a"], "b"), (made["b"], "a")):
                        wanted = {f"{other}-microphone", f"{other}-camera"}
                        await until(lambda c=client, w=wanted: c.frames.keys() == w, f"{other}'s tracks")
                        for track in wanted:
                            await until(lambda c=client, t=track: len(c.frames[t]) > 15, f"{track} goes on")
                        assert abs(shade(client, f"{other}-camera") - lumas[other]) < 20
                    assert made["c"].frames == {}
                finally:
                    await asyncio.gather(*(client.aclose() for client in made.values()))

    run(test)


def test_a_lost_packet_is_sent_again() -> None:
    """Behind a relay that loses video packets of the worker's; aiortc's receiver asks for them."""

    async def test() -> None:
        with loopback_candidates():
            async with worker_process() as control:
                relay = await Relay((await ready(control)).port).open()
                seen: dict[int, int] = {}

                def lose(data: bytes) -> bool:
                    if 128 <= data[0] < 192 and data[1] & 0x7F == 96:
                        seq16 = headers.seq16_of(data)
                        seen[seq16] = seen.get(seq16, 0) + 1
                        return seen[seq16] == 1 and len(seen) % 10 == 5
                    return False

                relay.lose = lose
                a, b = FullClient(control, "a", calling(200)), FullClient(control, "b", [], relay)
                try:
                    await a.start()
                    await b.start()
                    await until(lambda: sum(n > 1 for n in seen.values()) >= 3, "packets sent again")
                    await until(lambda: len(b.frames.get("a-camera", [])) > 30, "video goes on")
                finally:
                    await asyncio.gather(a.aclose(), b.aclose())
                    relay.close()
                await control.counted(lambda stats: stats.get("nack_answered", 0) >= 3)

    run(test)


def test_a_client_whose_nat_changes_ports_keeps_its_call() -> None:
    async def test() -> None:
        with loopback_candidates():
            async with worker_process() as control:
                relay = await Relay((await ready(control)).port).open()
                a, b = FullClient(control, "a", calling(200)), FullClient(control, "b", calling(50), relay)
                try:
                    await a.start()
                    await b.start()
                    for client, track in ((a, "b-camera"), (b, "a-camera")):
                        await until(lambda c=client, t=track: len(c.frames.get(t, [])) > 5, f"{track} begins")
                    await relay.rebind()
                    before = len(a.frames["b-camera"]), len(b.frames["a-camera"])
                    nominating = asyncio.ensure_future(nominate(b))
                    # what was lost meanwhile aiortc's jitter buffer awaits until 128 packets later
                    await until(lambda: len(b.frames["a-camera"]) > before[1] + 10, "b receives again", 30)
                    await until(lambda: len(a.frames["b-camera"]) > before[0] + 10, "b is received again", 30)
                    nominating.cancel()
                    await asyncio.wait([nominating])
                finally:
                    await asyncio.gather(a.aclose(), b.aclose())
                    relay.close()

    async def nominate(client: FullClient) -> None:
        """As browsers do all the time; aioice checks every five seconds, and without USE-CANDIDATE."""
        ice = client.pc.getTransceivers()[0].sender.transport.transport._connection
        pair = ice._nominated[1]
        while True:
            request = ice.build_request(pair, nominate=True)
            request.add_message_integrity(ice.remote_password.encode())
            pair.protocol.send_stun(request, pair.remote_addr)
            await asyncio.sleep(0.5)

    run(test)


def test_rooms_are_apart() -> None:
    async def test() -> None:
        async with worker_process() as control:
            await ready(control)
            async with (
                clients(control, "a", "b", room="one") as (a, b),
                clients(control, "c", "d", room="two") as (c, d),
            ):
                foreign = b.ssrc_of("a", "camera")
                await c.send(struct.pack("!BBHIIHH", 0x81, 205, 3, 1, foreign, 1, 0))
                await passes(a, b, 1, b"one")
                await passes(c, d, 1, b"two")
                for client in (a, b, c, d):
                    assert client.dtls is not None
                    assert client.dtls.rtp.empty()
                stats = await control.counted(lambda stats: stats.get("packets_in") == 2 + 4 * 2)
                assert (stats["rooms"], stats["peers"], stats["tracks"]) == (2, 4, 8)
                assert stats["nack_received"] == 1
                assert "nack_answered" not in stats

    run(test)


def test_reports_mute_and_keyframes_through_the_process() -> None:
    async def test() -> None:
        async with worker_process() as control:
            await ready(control)
            async with clients(control, "a", "b") as (a, b):
                await passes(a, b, 1)
                info = RtcpSenderInfo(0xE0000000_12345678, 90_000, 10, 1000)
                await a.send(bytes(RtcpSrPacket(a.ssrcs["camera"], info, [])))
                report = await b.rtcp(rtcp.RTCP_SR)
                assert report.body == struct.pack("!I", b.ssrc_of("a", "camera")) + bytes(info)
                await b.send(rtcp.pli(b.ssrc_of("a", "camera")))
                for _ in range(2):  # one when b came, one now
                    asked = await a.rtcp(rtcp.RTCP_PSFB, rtcp.PSFB_PLI)
                    assert rtcp.feedback_media_ssrc(asked) == a.ssrcs["camera"]
                await control.send(bridge.Mute("a", "camera", True))
                await control.send(bridge.Publish("a", "next", "audio"))  # carried out in order: then the mute is done
                await until(lambda: a.offer and "next" in a.offer.send.values(), "the next offer")
                await a.send_rtp("camera", 500, b"muted")
                await a.send_rtp("microphone", 500, b"heard")
                assert (await b.rtp()).payload == b"heard"

    run(test)


# --- strangers and hostile peers --------------------------------------------------------------------------------------

NONSENSE = [
    b"",
    b"\0",
    b"\xff" * 1500,
    bytes(1501),
    struct.pack("!BHHIHH", 22, 0xFEFD, 0, 0, 1, 60) + bytes([1]) + bytes(59),  # ClientHello
    struct.pack("!BHHIHH", 21, 0xFEFD, 0, 0, 1, 2) + bytes([2, 40]),  # alert: handshake failure
    struct.pack("!BHHIHH", 21, 0xFEFD, 0, 0, 1, 2) + bytes([1, 0]),  # alert: close notify
    rtp_packet(1, 7),
    rtcp.pli(7),
    bytes(check("nobody00", "x" * 24)),
    struct.pack("!HHI12s", 1, 8, 0x2112A442, b"transaction!") + struct.pack("!HH", 0x8029, 3) + b"abcd",
    struct.pack("!HHI12s", 1, 8, 0x2112A442, b"transaction!") + struct.pack("!HH", 6, 4) + b"\xff\xfe\xfd\xfc",
    struct.pack("!HHI12s", 1, 0xFFFF, 0x2112A442, b"transaction!"),
    struct.pack("!HHI12s", 0x0FFF, 0, 0x2112A442, b"transaction!"),
]


def test_a_flood_of_strangers_does_nothing() -> None:
    async def test() -> None:
        async with worker_process() as control:
            port = (await ready(control)).port
            async with clients(control, "a", "b") as (a, b):
                assert a.ice is not None
                signed = bytes(check(a.ice.ufrag, "x" * 24))
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                    stranger.connect(("127.0.0.1", port))
                    for i in range(100):
                        for _ in range(12):
                            for data in (*NONSENSE, signed):
                                stranger.send(data)
                        await passes(a, b, 300 * i, b"round %d" % i)
                counters = ("gate_length", "gate_stranger", "gate_stun_malformed", "gate_stun_refused")
                await control.counted(lambda stats: all(stats.get(counter, 0) for counter in counters))
                await control.counted(lambda stats: stats.get("gate_flood", 0) > 5000)
                assert control.process.poll() is None
                for client in (a, b):
                    assert client.dtls is not None
                    assert client.dtls.state == "connected"
                    assert control.pending(bridge.Failed, client.id) == []

    run(test)


def test_strangers_cannot_disturb_a_handshake() -> None:
    async def test() -> None:
        async with worker_process() as control:
            port = (await ready(control)).port
            a = await Client(control, "a").join()
            offer = await a.next_offer()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.connect(("127.0.0.1", port))

                def interfere() -> None:
                    for data in NONSENSE:
                        stranger.send(data)

                interfere()
                await control.send(bridge.Answer("a", a.answer(offer)))
                interfere()
                await a.check()
                interfere()
                assert (await a.handshake()).state == "connected"
                interfere()
                await control.event(bridge.Connected, "a")
            await a.aclose()

    run(test)


def test_a_hostile_peer_cannot_stop_the_worker() -> None:
    """Everything a member of a room can send: packet numbers that make the longest feedback, SSRCs without end, cut and
    senseless RTP and RTCP. The others go on."""

    async def test() -> None:
        async with worker_process() as control:
            await ready(control)
            async with clients(control, "a", "b", "x") as (a, b, x):
                await passes(a, b, 1)
                own = x.ssrcs["camera"]
                for i in range(0, 60, 4):
                    head = struct.pack("!BBHI", 0x80 | i % 32, 200 + i % 7, i // 4, own)
                    await x.send(head + bytes(i))
                    await x.send(bytes([0x9F]) + rtp_packet(i, own, bytes(80))[1:])
                await passes(a, b, 1000, b"cut")
                for seq16, twcc in enumerate([20_000, *range(22_000, 18_000, -1)], 100):
                    await x.send_rtp("camera", seq16, b"", twcc=twcc)
                await passes(a, b, 2000, b"numbers")
                for ssrc in range(1, 3000):
                    await x.send(rtp_packet(1, ssrc, pt=97))
                await passes(a, b, 3000, b"sources")
                stats = await control.counted(lambda stats: stats.get("packets_ignored", 0) > 2900)
                assert stats["peers"] == 3
                assert stats["rtp_malformed"] > 5
                assert control.process.poll() is None

    run(test)


# --- inside -----------------------------------------------------------------------------------------------------------


def test_stats_count_and_come_every_second() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await passes(a, b, 1)
            first = await control.counted(lambda stats: stats["peers"] == 2)
            second = await control.counted(lambda stats: stats is not first)
            assert (first["peers"], first["rooms"], first["tracks"]) == (2, 1, 4)
            assert first["packets_in"] == 1 + 2 * 2  # each began with its two tracks
            assert first["packets_out"] == 1
            assert 0.9 < second["uptime_seconds"] - first["uptime_seconds"] < 10
            assert first["cpu_seconds"] <= second["cpu_seconds"]
            assert "loop_lag_us_max" in second

    run(test)


def test_new_addresses_are_trickled() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a") as (a,):
            await control.send(bridge.Listen(("127.0.0.1", "127.0.0.2", "192.0.2.1"), ()))
            event = await control.event(bridge.Candidate, "a")
            assert event.mid == "0"
            told = await control.event(bridge.Ready)
            assert told.addresses == told.advertised == ("127.0.0.1", "127.0.0.2")
            for held in (True, False):  # it may have been lost
                await control.send(bridge.Hold("a", held))
            assert await control.event(bridge.Candidate, "a") == event
            assert f" 127.0.0.2 {control.worker.udp.port} typ host" in event.candidate
            assert a.ice is not None
            a.ice.server = ("127.0.0.2", control.worker.udp.port)
            await a.ice.check()
            b = await Client(control, "b").join()
            assert event.candidate in (await b.next_offer()).sdp

    run(test)


def test_only_bound_addresses_of_this_machine_are_advertised() -> None:
    async def test() -> None:
        async with local_worker() as control:
            advertise = ("203.0.113.9", "192.0.2.1", "127.0.0.2")
            await control.send(bridge.Listen(("127.0.0.1", "127.0.0.2", "192.0.2.1"), advertise))
            assert (await control.event(bridge.Ready)).advertised == ("203.0.113.9", "127.0.0.2")
            await control.send(bridge.Listen(("127.0.0.1", "127.0.0.2", "192.0.2.1"), advertise))
            assert not control.pending(bridge.Ready), "nothing has changed"

    run(test)


@pytest.mark.parametrize(
    "then",
    [
        bridge.Listen(("127.0.0.2",), ("127.0.0.2", "203.0.113.9")),  # the address of the path is gone
        bridge.Listen(("127.0.0.1", "127.0.0.2"), ("127.0.0.1", "203.0.113.10")),  # a NAT has another address
    ],
)
def test_a_path_that_may_have_ended_is_looked_for_again(then: bridge.Listen) -> None:
    async def test() -> None:
        places = {"hosts": ("127.0.0.1", "127.0.0.2"), "advertise": ("127.0.0.1", "203.0.113.9")}
        async with local_worker(**places) as control, clients(control, "a") as (a,):
            before = a.server()
            await control.send(then)
            await until(lambda: a.server() != before, "new credentials are offered")

    run(test)


def test_commands_for_peers_that_are_gone_are_ignored() -> None:
    async def test() -> None:
        async with local_worker() as control:
            for command in (
                bridge.Answer("x", ""),
                bridge.Publish("x", "screen", "video"),
                bridge.Unpublish("x", "screen"),
                bridge.Mute("x", "camera", True),
                bridge.Leave("x"),
            ):
                await control.send(command)
            assert control.worker.outbox.get_nowait() == bridge.Gone("x")
            assert control.worker.outbox.empty()
            with pytest.raises(TypeError, match="configured twice"):
                await control.send(configure())

    run(test)


@pytest.mark.parametrize("how", ["command", "feedback", "liveness"])
def test_a_mistake_of_ours_ends_one_peer_only(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """A peer whose state is broken, which must not happen, is told to come back; the others notice nothing."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b", "c") as (a, b, _):
            broken = control.worker.peers["c"]
            part, name = {
                "command": (broken.negotiation, "sections"),
                "feedback": (broken.demuxer, "feedback"),
                "liveness": (broken, "agent"),
            }[how]
            broken.demuxer.feedback_ssrc = 1  # it numbers packets
            setattr(part, name, None)
            ticking = asyncio.ensure_future(control.worker.tick())
            if how == "command":
                await control.send(bridge.Publish("c", "screen", "video"))
            failed = await control.event(bridge.Failed, "c")
            assert failed.code == "internal"
            assert set(control.worker.peers) == {"a", "b"}
            await passes(a, b, 1)
            assert not ticking.done()
            ticking.cancel()
            await asyncio.wait([ticking])
        assert sum("peer_failed peer=c" in record.message for record in caplog.records) == 1

    run(test)


def test_rooms_end_with_their_last_peer() -> None:
    async def test() -> None:
        async with local_worker() as control:
            for name, room in (("a", "one"), ("b", "one"), ("c", "two")):
                await Client(control, name).join(room)
            assert set(control.worker.rooms) == {"one", "two"}
            await control.send(bridge.Leave("a"))
            assert set(control.worker.rooms) == {"one", "two"}
            await control.send(bridge.Leave("b"))
            assert set(control.worker.rooms) == {"two"}
            await control.send(bridge.Leave("c"))
            assert control.worker.rooms == {}

    run(test)


def test_a_control_plane_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are bounded: past the bound the worker ends, to be started again."""
    monkeypatch.setattr(worker, "EVENT_QUEUE", 50)
    monkeypatch.setattr(worker.gc, "freeze", lambda: None)

    async def test() -> None:
        ours, theirs = socket.socketpair()
        channel = await bridge.Channel.open(ours, bridge.EVENTS)
        serving = asyncio.ensure_future(serve(theirs))
        await channel.send(configure())
        await channel.send(bridge.Join("a", "room", True, True, True))
        sending = asyncio.ensure_future(send_without_reading(channel))
        await asyncio.wait([serving], timeout=DEADLINE_S)
        assert serving.done()
        error = serving.exception()
        assert isinstance(error, ExceptionGroup)
        assert error.subgroup(asyncio.QueueFull)
        sending.cancel()
        await asyncio.wait([sending])
        await channel.aclose()

    async def send_without_reading(channel: bridge.Channel) -> None:
        while True:
            await channel.send(bridge.Answer("a", "nonsense"))

    run(test)
