"""What a subscriber gets while nothing changes is not worked out anew; it is what would come of that all the same."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import pytest
from support.media_client import run
from support.variants import variants

from sfu import bridge
from sfu.media.bandwidth.delays import Group
from sfu.media.bandwidth.estimator import BandwidthEstimator
from sfu.media.bandwidth.send_side import SendSideEstimator
from sfu.media.peer import subscriber
from sfu.media.peer.publication import Publication
from sfu.media.peer.subscriber import Subscriber, Tile
from sfu.media.rtp.rtcp import ReportBlock
from sfu.media.rtp.twcc import TransportFeedback
from sfu.media.streams.fanout import SendBuffers
from sfu.media.streams.rtp_stream import RtpStream
from sfu.media.streams.svc import LayerStream, ScalableStream
from sfu.media.worker import ALLOCATE_S

RIDS = ("q", "h", "f")
BPS = {"q": 150e3, "h": 500e3, "f": 2500e3, "": 700e3}

CHANGES = (
    "view", "view", "out", "mute", "remb", "loss", "trip", "layers", "layers", "sizes", "again", "rank", "silence"
)  # fmt: skip


class Clock:
    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


CLOCK = Clock()
"""Of what reads one by itself."""


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "time", CLOCK)


class Anew(Subscriber):
    """Chooses from the beginning each time."""

    def allocate(self, now_s: float) -> None:
        self._settled = []
        super().allocate(now_s)


class Unremembered(Publication):
    def offered(self, now_s: float) -> Any:
        self._offered_s = -1.0
        return super().offered(now_s)


class Counting(Subscriber):
    chosen = allocated = 0

    def allocate(self, now_s: float) -> None:
        self.allocated += 1
        super().allocate(now_s)

    def _choose(self, now_s: float) -> float:
        self.chosen += 1
        return super()._choose(now_s)


class Scene:
    """A subscriber `me` of four videos and a microphone, whose packets are counted and not sent."""

    def __init__(self, seed: int, watching: type[Subscriber], publication: type[Publication]) -> None:
        self.chance, self.now_s = random.Random(seed), 1000.0
        self.events: list[bridge.Event] = []
        self.asked = 0
        counters = Counter[str]()
        agent = SimpleNamespace(measure_rtt=self._ask, refused=0)
        self.me: Any = SimpleNamespace(id="me", rtx_bytes=0, agent=agent, ready=lambda: None)
        self.room: Any = SimpleNamespace(rank={})
        self.buffers = SendBuffers({})
        shared: Any = SimpleNamespace(emit=self.events.append, counters=counters, send_buffers=self.buffers)
        self.subscriber = self.me.subscriber = watching(self.me, self.room, shared, full=True)
        self.videos = []
        kinds = self.chance.choice([("",) * 4, ("s",) * 4, ("", "s", "s", ""), ("s", "s", "s", "s", "s")])
        for i, kind in enumerate(kinds):
            publisher: Any = SimpleNamespace(id=f"p{i}", downlink=lambda: None)
            source = self.chance.choice(["camera", "camera", "screen"])
            made = publication(publisher, source, "video", SendBuffers({}), RIDS if kind else ())  # type: ignore[arg-type]
            self.videos.append(made)
        host: Any = SimpleNamespace(id="p0")
        kind: Literal["audio"] = "audio"
        self.sound = Publication(host, "microphone", kind, SendBuffers({}))  # type: ignore[arg-type]
        self.room.rank = {p.video: i for i, p in enumerate(self.videos)}
        self.take()

    def _ask(self, now_s: float) -> None:
        self.asked += 1

    def take(self) -> None:
        CLOCK.now_s = self.now_s
        transceivers: Any = [SimpleNamespace(track=p, rtx_ssrc=7, repairs=True) for p in (*self.videos, self.sound)]
        self.subscriber.take(transceivers, flows=True)

    def flow(self) -> None:
        for p in self.videos:
            for rid, stream in p.streams.items():
                if p.simulcast and rid not in p.asked:
                    continue
                for part, track in enumerate((*stream.lower, stream)):
                    if self.chance.random() > 0.02:
                        track.bytes += int(BPS[rid] * ALLOCATE_S / 8 * self.chance.uniform(0.9, 1.1) / (3 - part))
                        track.packets, track.head = track.packets + 5, track.head + 5
                        track.last_s = self.now_s

    def keyframe(self, p: Publication) -> None:
        for track in p.layer_streams:
            moving = dict(track._coming)
            track._coming.clear()
            for name, down_track in moving.items():
                self.move(name, down_track.stream, track)
        for stream in p.received:
            assert isinstance(stream, ScalableStream)
            for name, (down_track, target) in list(stream._moving.items()):
                del stream._moving[name]
                self.move(name, down_track.stream, target)
        for track in p.layer_streams:
            for down_track in track.down_tracks.values():
                if down_track.waiting and not down_track.pauses:
                    down_track.resume(track.head, 0, self.now_s)

    @staticmethod
    def move(name: str, before: RtpStream, after: RtpStream) -> None:
        if before is not after:
            before.hand_over(name, after)

    def layers(self, p: Publication) -> None:
        """Others in one of its streams than before."""
        stream = self.chance.choice(p.received)
        assert isinstance(stream, ScalableStream)
        n = self.chance.choice([0, 0, 1, 2])
        ended, stream._lower = stream._lower, [LayerStream(stream, spatial, 0) for spatial in range(n)]
        stream._moving.clear()
        for track in ended:
            for name in list(track.down_tracks):
                self.move(name, track, stream)

    def change(self) -> None:
        """One of the things that can happen between two looks."""
        chance, mine, p = self.chance, self.subscriber, self.chance.choice(self.videos)
        match chance.choice(CHANGES):
            case "view":
                shown = [video for video in self.videos if chance.random() < 0.9]
                mine.view({video.video: Tile(chance.choice([90, 200, 400, 720, 1080])) for video in shown}, self.now_s)
            case "out":
                mine.leave_out(frozenset(video.video for video in self.videos if chance.random() < 0.2))
            case "mute":
                p.set_muted(not p.muted)
            case "remb":
                mine.estimated(chance.choice([300e3, 2e6, 20e6, 20e6]), self.now_s)
            case "loss":
                block = ReportBlock(p.ssrc, 0, chance.choice([0, 0, 9]), 0, 0, 0, 0)
                mine.reported(block, self.now_s)
            case "trip":
                mine.round_trip(chance.choice([0.02, 0.02, 0.3]), self.now_s - 0.1, self.now_s)
            case "layers":
                self.layers(p)
            case "sizes":
                for stream in [stream for video in self.videos for stream in video.received]:
                    stream.heights = chance.choice([(90, 180, 360), (360, 720, 1440)])  # type: ignore[attr-defined]
            case "again":
                p.remove_down_track(self.me)
                if chance.random() < 0.7:
                    self.take()
            case "rank":
                chance.shuffle(self.videos)
                self.room.rank = {video.video: i for i, video in enumerate(self.videos)}
            case "silence":
                self.now_s += 3

    def step(self) -> tuple[Any, ...]:
        """All that a subscriber and its publishers can see of it."""
        self.now_s += ALLOCATE_S
        self.flow()
        if self.chance.random() < 0.1:
            self.change()
        if self.chance.random() < 0.3:
            self.keyframe(self.chance.choice(self.videos))
        self.subscriber.allocate(self.now_s)
        for p in self.videos:
            p.measure(self.now_s)
            if p.simulcast:
                p.ask(self.now_s)
        return (
            self.asked, self.subscriber.limit_bps, list(self.events),
            self.subscriber.pacer.rate_bps, self.subscriber.pacer.probe_bps,
            [getattr(self.subscriber.down, name) for name in self.subscriber.down.__slots__ if name != "_trips"],
            sorted((p.video, p.asked, p._wanted.get("me"), self.state(p)) for p in self.videos),
        )  # fmt: skip

    def state(self, p: Publication) -> tuple[Any, ...]:
        down_track = p.down_tracks.get("me")
        if down_track is None:
            return ()
        expecting = [name for name, track in p.layers.items() if track.expects("me")]
        return (
            p.step_of("me"),
            [track is down_track.stream for track in p.layer_streams],
            sorted(down_track.pauses),
            down_track.waiting,
            expecting,
        )


@pytest.mark.parametrize("seed", [*range(10), *variants(*range(10, 40))])
def test_what_is_settled_is_what_would_be_chosen(seed: int) -> None:
    async def test() -> None:
        quick = Scene(seed, Subscriber, Publication)
        thorough = Scene(seed, Anew, Unremembered)
        for _ in range(250):
            assert quick.step() == thorough.step()

    run(test)


def test_mostly_nothing_is_chosen() -> None:
    async def test() -> None:
        scene = Scene(0, Counting, Publication)
        scene.change = lambda: None  # type: ignore[method-assign]
        for _ in range(100):
            scene.step()
        assert isinstance(scene.subscriber, Counting)
        settling, scene.subscriber.chosen = scene.subscriber.chosen, 0
        for _ in range(100):
            scene.step()
        assert settling > 0
        assert scene.subscriber.chosen < 10

    run(test)


def told(scene: Scene, sent_s: Sequence[float], delay_s: Callable[[float], float], number: int) -> bytes:
    """Its client's feedback about packets of 1,000 bytes of its first video, which are sent by this."""
    history, came = scene.buffers.history, TransportFeedback()
    for at_s in sent_s:
        seq16 = history.next & 0xFFFF
        history.bursts[seq16] = history.next, at_s, [1000]
        history.next += 1
        scene.videos[0].received[0].bytes += 1000
        came.arrived([seq16], at_s + delay_s(at_s))
    fci = bytearray(came.report())
    fci[7] = number & 0xFF
    return bytes(fci)


def test_a_probe_ends_with_the_last_video() -> None:
    """Nothing would end it later, and its timer would run two hundred times a second."""

    async def test() -> None:
        scene = Scene(0, Counting, Publication)
        mine = scene.subscriber
        mine.pacer.probe_bps = 100e3
        for publication in list(mine.subscriptions.values()):
            mine.forget(publication)
        mine.allocate(scene.now_s)
        assert mine.pacer.probe_bps == 0
        mine.pacer.close()

    run(test)


def test_feedback_of_a_queue_that_grows_lowers_what_is_allowed_at_once() -> None:
    async def test() -> None:
        scene = Scene(0, Counting, Publication)
        mine = scene.subscriber
        assert isinstance(mine, Counting)
        mine.view({video.video: Tile(720) for video in scene.videos}, scene.now_s)
        assert isinstance(mine.down, BandwidthEstimator)
        start_s, before = scene.now_s, 0
        for n in range(40):
            times = [scene.now_s + k / 100 for k in range(10)]
            queue_s = lambda at_s: 0.05 + max(0.0, at_s - start_s - 2)  # noqa: E731
            fci = told(scene, times, queue_s, n)
            scene.now_s += 0.1
            before = mine.allocated
            mine.feedback(fci, scene.now_s)
            if mine.down.limited:
                break
            mine.allocate(scene.now_s)
        assert isinstance(mine.down, SendSideEstimator)
        assert mine.down.limited
        assert mine.down.jammed
        assert 2 < scene.now_s - start_s < 3
        assert mine.allocated == before + 1
        assert mine.down.estimate_bps < 600e3
        assert mine.pacer.rate_bps == mine.down.estimate_bps
        assert all(p.down_tracks["me"].pacer is mine.pacer for p in scene.videos)
        assert scene.sound.down_tracks["me"].pacer is None, "sound waits for nothing"

    run(test)


class Noting(SendSideEstimator):
    whole: ClassVar[list[bool]] = []

    def acknowledged(self, groups: Sequence[Group], now_s: float, *, whole: bool = True) -> bool:
        self.whole.append(whole)
        return super().acknowledged(groups, now_s, whole=whole)


def test_feedback_that_was_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "SendSideEstimator", Noting)

    async def test() -> None:
        scene = Scene(0, Counting, Publication)
        Noting.whole.clear()
        for number in (254, 255, 0, 2, 3):
            fci = told(scene, [scene.now_s], lambda _: 0.05, number)
            scene.now_s += 0.1
            scene.subscriber.feedback(fci, scene.now_s)
        assert Noting.whole[1:] == [True, True, False, True]

    run(test)


def test_cut_feedback_is_refused() -> None:
    async def test() -> None:
        scene = Scene(0, Counting, Publication)
        with pytest.raises(ValueError, match="cut"):
            scene.subscriber.feedback(b"1234567", scene.now_s)

    run(test)
