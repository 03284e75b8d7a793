from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.media_client import Client, LocalControl, clients, local_worker, run, until

from sfu import bridge
from sfu.media.bandwidth.intake import BURST_S, CEILINGS, FORGIVEN_S, Intake
from sfu.media.worker import ALLOCATE_S, LAG_S

HEADER_BYTES = 20  # of RTP and of an extension


class Sender:
    """Sends evenly, and is looked at each `tick_s`; `passed` is what was forwarded of it."""

    def __init__(self, kind: str, tick_s: float = ALLOCATE_S) -> None:
        self.intake, self.tick_s = Intake(CEILINGS[kind]), tick_s
        self.now_s = 1000.0
        self.rest = self.passed = 0.0
        self.changes: list[bool] = []
        self.intake.judge(self.now_s)

    def send(self, seconds: float, bps: float, size: float) -> Sender:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s += self.tick_s
            self.come(self.tick_s, bps, size)
            self.passed += 0.0 if self.intake.over else bps * self.tick_s / 8
            if self.intake.judge(self.now_s):
                self.changes.append(self.intake.over)
        return self

    def come(self, seconds: float, bps: float, size: float) -> None:
        """What was sent for so long comes at once."""
        n_bytes = bps * seconds / 8 + self.rest
        packets = int(n_bytes / size)
        self.rest = n_bytes - packets * size
        self.intake.came(packets, int(packets * size))


@pytest.mark.parametrize(
    ("kind", "tracks", "kbps", "per_s", "stall_s"),
    [
        ("audio", 1, 32, 50, 10.0),
        ("audio", 1, 2 * 64, 50, 5.0),
        ("audio", 1, 510, 50, 4.0),
        ("audio", 1, 2 * 510, 100, 2.0),
        ("audio", 2, 2 * 510, 100, 0.8),
        ("audio", 4, 2 * 64, 50, 2.0),
        ("video", 1, 3150, 400, 2.0),
        ("video", 1, 20_000, 2500, 1.0),
        ("video", 4, 8_000, 1000, 0.5),
    ],
)
def test_what_is_real_is_never_too_much(kind: str, tracks: int, kbps: float, per_s: float, stall_s: float) -> None:
    """Also where the network stalls, and then brings at once what has waited."""
    sender = Sender(kind)
    bps = tracks * (kbps * 1e3 + per_s * HEADER_BYTES * 8)
    size = bps / 8 / (tracks * per_s)
    for _ in range(5):
        sender.send(30, bps, size).send(stall_s, 0.0, size)
        sender.come(stall_s, bps, size)
    assert not sender.changes


@pytest.mark.parametrize("tick_s", [ALLOCATE_S, LAG_S])
@pytest.mark.parametrize(
    ("kind", "bps", "size"),
    [
        ("audio", 9.6e6, 1200),
        ("audio", 100e6, 1200),
        ("audio", 9.6e6, 60),
        ("video", 200e6, 1200),
        ("video", 40e6, 60),
    ],
)
def test_about_a_second_of_a_flood_passes(kind: str, bps: float, size: float, tick_s: float) -> None:
    sender = Sender(kind, tick_s).send(3600, bps, size)
    assert sender.changes == [True]
    assert sender.passed / (bps / 8) <= 1.0 + tick_s
    sender.send(FORGIVEN_S + 2 * tick_s, 0.0, size)
    assert sender.changes == [True, False]


def test_a_little_too_much_passes_for_a_while_and_on_and_off() -> None:
    """It is the mean that is bounded."""
    sender = Sender("audio").send(600, 1.2 * CEILINGS["audio"].bps, 1200)
    assert len(sender.changes) == 1
    assert BURST_S < sender.passed * 8 / CEILINGS["audio"].bps <= BURST_S + 6


@given(st.lists(st.tuples(st.floats(0.01, 5), st.integers(0, 5000), st.integers(20, 1200)), max_size=50))
def test_what_is_forwarded_is_bounded(steps: list[tuple[float, int, int]]) -> None:
    """By the ceiling, a burst for each time that it was forgiven, and what comes between two looks."""
    intake, now_s, passed_s, largest_s, forgiven = Intake(CEILINGS["audio"]), 50.0, 0.0, 0.0, 0
    intake.judge(now_s)
    for wait_s, packets, size in steps:
        now_s += wait_s
        took_s = max(packets / CEILINGS["audio"].packets_per_s, packets * size * 8 / CEILINGS["audio"].bps)
        if not intake.over:
            passed_s, largest_s = passed_s + took_s, max(largest_s, took_s)
        intake.came(packets, packets * size)
        forgiven += intake.judge(now_s) and not intake.over
    assert passed_s <= now_s - 50 + (forgiven + 1) * (BURST_S + largest_s)


# --- through a worker -------------------------------------------------------------------------------------------------

WARNING = "publisher_sends_too_much"
PAYLOAD_TYPES = {"microphone": 111, "screen_sound": 111, "camera": 96}
_numbers: dict[int, Iterator[int]] = {}
"""Of each SSRC its own: SRTP refuses a number that is half the circle ahead of the stream's last."""


async def send(client: Client, source: str, payload: bytes) -> None:
    numbers = _numbers.setdefault(client.ssrcs[source], itertools.count(100))
    await client.send_rtp(source, next(numbers), payload, pt=PAYLOAD_TYPES[source])


async def flood(control: LocalControl, client: Client, source: str, chunks: int = 20) -> None:
    """Three seconds of what is allowed of sound, as fast as a socket's buffer takes it."""
    for _ in range(chunks):
        before = control.worker.counters["packets_in"]
        for _ in range(50):
            await send(client, source, bytes(1000))
        await until(lambda: control.worker.counters["packets_in"] >= before + 50, "all came")  # noqa: B023


async def heard(sender: Client, receiver: Client, source: str) -> None:
    """Sends until something of it comes."""
    ssrc, waiting = receiver.ssrc_of(sender.id, source), asyncio.ensure_future(receiver.rtp())
    while True:
        await send(sender, source, b"on we go")
        await asyncio.wait([waiting], timeout=0.05)
        while waiting.done():
            packet = await waiting
            if (packet.ssrc, packet.payload) == (ssrc, b"on we go"):
                return
            waiting = asyncio.ensure_future(receiver.rtp())
            await asyncio.sleep(0)


def test_who_floods_is_not_forwarded_until_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    """All its sound, whichever track it was; its pictures and everybody else go on."""

    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            a.publishes.add("screen_sound")
            await control.send(bridge.Publish("a", "screen_sound", "audio"))
            await until(lambda: "screen_sound" in control.worker.peers["a"].published, "published")
            await until(lambda: b.offer and ["a", "screen_sound"] in map(list, b.offer.receive.values()), "offered")
            published = control.worker.peers["a"].published
            for _ in range(2):
                while not published["microphone"].muted:
                    await flood(control, a, "microphone", chunks=1)
                assert published["screen_sound"].muted
                assert not published["camera"].muted
                await flood(control, a, "screen_sound", chunks=1)
                await until(lambda: control.worker.counters["packets_over_limit"], "it was counted")
                await heard(a, b, "camera")
                await heard(b, a, "microphone")
                await heard(a, b, "microphone")
                await heard(a, b, "screen_sound")
            assert caplog.text.count(WARNING) == 1
            assert f"{WARNING} peer=a kind=audio" in caplog.text

    run(test)


def test_what_came_of_a_source_counts_when_it_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            await flood(control, a, "microphone")
            await control.send(bridge.Unpublish("a", "microphone"))
            await until(lambda: WARNING in caplog.text, "it was noticed")
            await heard(b, a, "microphone")

    run(test)


def test_a_mute_of_the_peers_own_outlasts_a_flood() -> None:
    async def test() -> None:
        async with local_worker() as control, clients(control, "a", "b") as (a, b):
            microphone = control.worker.peers["a"].published["microphone"]
            await control.send(bridge.Mute("a", "microphone", True))
            await flood(control, a, "microphone")
            refused = control.worker.counters["packets_over_limit"]
            await heard(a, b, "camera")
            assert microphone.muted
            await control.send(bridge.Mute("a", "microphone", False))
            await heard(a, b, "microphone")
            assert control.worker.counters["packets_over_limit"] >= refused

    run(test)


def test_without_limits_everything_goes() -> None:
    async def test() -> None:
        async with local_worker(limits=False) as control, clients(control, "a", "b") as (a, b):
            await flood(control, a, "microphone")
            before = dict(control.stats)
            await control.counted(lambda stats: stats.get("uptime_seconds", 0) > before.get("uptime_seconds", 0) + 1.5)
            assert not control.worker.peers["a"].published["microphone"].muted
            assert "packets_over_limit" not in control.worker.counters
            await heard(a, b, "microphone")

    run(test)
