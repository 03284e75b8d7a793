"""A subscriber whose downlink is narrow: who gets how much, who is paused, and how often a publisher is disturbed."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from support.media_client import run

from sfu import bridge
from sfu.media.bandwidth.allocation import Step
from sfu.media.peer import subscriber
from sfu.media.peer.publication import Publication
from sfu.media.peer.subscriber import BANDWIDTH, Subscriber, Tile
from sfu.media.streams.fanout import SendBuffers
from sfu.media.streams.rtp_stream import RtpStream
from sfu.media.worker import ALLOCATE_S

BPS = {"q": 150e3, "h": 400e3, "f": 1700e3}
SIZES = [
    bridge.LayerSize("q", 320, 180, 150_000),
    bridge.LayerSize("h", 640, 360, 400_000),
    bridge.LayerSize("f", 1280, 720, 1_700_000),
]


class Known:
    """A downlink of which all is known; in place of an estimator."""

    speaks, jammed, probe_bps = True, False, 0.0

    def __init__(self, allowed_bps: float) -> None:
        self.allowed_bps, self.limited, self.next_bps = allowed_bps, True, 0.0

    @property
    def estimate_bps(self) -> float:
        return self.allowed_bps

    def sent(self, *args: object) -> None: ...
    def refused(self, *args: object) -> None: ...
    def asks(self, now_s: float) -> bool:
        return False

    def want(self, next_bps: float, now_s: float, *, can_probe: bool = True) -> None:
        self.next_bps = next_bps


class Scene:
    """Narrow subscribers of so many cameras, each of which sends what is asked for. Keyframes come a moment after they
    were requested; `keyframes` are the requests of each camera."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, people: int, *allowed_bps: float) -> None:
        self.chance, self.now_s = random.Random(people), 1000.0
        monkeypatch.setattr(subscriber, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr(RtpStream, "request_keyframe", lambda stream: self.requested.add(stream))
        monkeypatch.setattr(RtpStream, "temporal_shares", (0.4, 0.6, 1.0))
        self.requested: set[RtpStream] = set()
        self.keyframes = dict.fromkeys(range(people), 0)
        self.events: list[bridge.Event] = []
        buffers = SendBuffers({})
        shared: Any = SimpleNamespace(emit=self.events.append, counters={"packets_probe": 0}, send_buffers=buffers)
        self.room: Any = SimpleNamespace(rank={})
        self.cameras = []
        for i in range(people):
            publisher: Any = SimpleNamespace(id=f"p{i}")
            self.cameras.append(Publication(publisher, "camera", "video", SendBuffers({}), ("q", "h", "f")))
            self.cameras[-1].tell_sizes(SIZES)
        self.rank(range(people))
        self.subscribers = []
        for i, bps in enumerate(allowed_bps):
            agent = SimpleNamespace(measure_rtt=None, refused=0)
            me: Any = SimpleNamespace(id=f"me{i}", rtx_bytes=0, agent=agent)
            one = me.subscriber = Subscriber(me, self.room, shared, full=True)
            one.down = Known(bps)  # type: ignore[assignment]
            transceivers: Any = [SimpleNamespace(track=p, rtx_ssrc=7, repairs=True) for p in self.cameras]
            one.take(transceivers, flows=True)
            self.subscribers.append(one)

    def rank(self, order: Any) -> None:
        self.room.rank = {self.cameras[i].video: place for place, i in enumerate(order)}

    def view(self, *heights: int) -> None:
        for one in self.subscribers:
            shown = zip(self.cameras, heights, strict=True)
            one.view({p.video: Tile(height, height * 16 // 9) for p, height in shown if height}, self.now_s)

    def step(self) -> None:
        self.now_s += ALLOCATE_S
        for i, p in enumerate(self.cameras):
            asked = set(p.asked)
            self.keyframes[i] += bool(self.requested & set(p.received))
            for rid, stream in p.streams.items():
                if rid in asked:
                    stream.remote_ssrc = 1
                    stream.bytes += int(BPS[rid] * self.chance.uniform(0.7, 1.3) * ALLOCATE_S / 8)
                    stream.packets, stream.head, stream.last_s = stream.packets + 5, stream.head + 5, self.now_s
                    if stream in self.requested:
                        self.begin(stream)
        self.requested = {
            stream
            for stream in self.requested
            if stream.watched and (stream._coming or any(one.waiting for one in stream.down_tracks.values()))
        }
        for one in self.subscribers:
            one.allocate(self.now_s)
        for p in self.cameras:
            p.measure(self.now_s)
            p.ask(self.now_s)

    def begin(self, stream: RtpStream) -> None:
        """A keyframe of this stream comes."""
        coming, stream._coming = stream._coming, {}
        for name, down_track in coming.items():
            down_track.stream.hand_over(name, stream)
        for down_track in stream.down_tracks.values():
            if down_track.waiting and not down_track.pauses:
                down_track.resume(stream.head, 0, self.now_s)

    def settle(self, seconds: float = 12.0) -> list[Step | None]:
        for _ in range(int(seconds / ALLOCATE_S)):
            self.step()
        return self.has()

    def has(self, who: int = 0) -> list[Step | None]:
        """What a subscriber gets of each camera; None if it is paused."""
        name = f"me{who}"
        return [None if p.down_tracks[name].pauses else p.step_of(name) for p in self.cameras]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda people, *allowed_bps: Scene(monkeypatch, people, *allowed_bps)


def quiet(test: Any) -> None:
    async def inside() -> None:
        test()

    run(inside)


def test_one_video_gets_smaller_step_by_step_and_comes_back(scene: Any) -> None:
    def test() -> None:
        one = scene(1, 5e6)
        one.view(720)
        found = []
        for bps in (5e6, 1.25e6, 500e3, 260e3, 170e3, 110e3, 75e3, 40e3):
            one.subscribers[0].down.allowed_bps = bps
            found.append(one.settle()[0])
        assert found == [Step("f"), Step("f", 1), Step("h"), Step("h", 1), Step("q"), Step("q", 1), Step("q", 0), None]
        assert one.subscribers[0].down.next_bps > 60e3, "the estimator is told what to look for"
        assert one.events[-1] == bridge.Paused("me0", "p0", "camera", BANDWIDTH)
        one.subscribers[0].down.allowed_bps = 5e6
        assert one.settle()[0] == Step("f")
        assert one.cameras[0].down_tracks["me0"].temporal is None
        assert one.events[-1] == bridge.Paused("me0", "p0", "camera", "")

    quiet(test)


def test_videos_pause_one_by_one_and_the_speaker_last(scene: Any) -> None:
    def test() -> None:
        one = scene(6, 5e6)
        one.view(*[360] * 6)
        one.settle()
        shown = []
        for bps in (1.2e6, 600e3, 400e3, 300e3, 240e3, 100e3):
            one.subscribers[0].down.allowed_bps = bps
            has = one.settle()
            shown.append(sum(step is not None for step in has))
            assert has[0] is not None
        assert shown == sorted(shown, reverse=True)
        assert shown[0] == 6
        assert shown[-1] == 1
        one.rank([5, 0, 1, 2, 3, 4])
        assert [step is not None for step in one.settle()] == [False] * 5 + [True], "another one speaks"

    quiet(test)


def test_a_narrow_subscriber_of_many_does_not_flap(scene: Any) -> None:
    """Bitrates vary by a third; a grid of 25 on 2 Mbit/s."""

    def test() -> None:
        one = scene(25, 2e6)
        one.view(*[180] * 25)
        before, changes = one.settle(20), 0
        for _ in range(300):
            one.step()
            now = one.has()
            changes += now != before
            before = now
        assert changes <= 6, "one in ten seconds"
        assert None not in before

    quiet(test)


def test_many_narrow_subscribers_disturb_a_publisher_little(scene: Any) -> None:
    """Their bandwidths go up and down all the time."""

    def test() -> None:
        many = scene(1, *[300e3] * 20)
        many.view(720)
        many.settle()
        many.keyframes[0] = 0
        for _ in range(30):
            for one in many.subscribers:
                one.down.allowed_bps = many.chance.choice([300e3, 600e3, 2.2e6])
            for _ in range(10):
                many.step()
        assert many.keyframes[0] > 0
        assert many.keyframes[0] <= 150, "300 looks, 60 s"

    quiet(test)


def test_what_is_too_much_is_left_at_once(scene: Any) -> None:
    def test() -> None:
        one = scene(1, 5e6)
        one.view(720)
        assert one.settle() == [Step("f")]
        down_track, camera = one.cameras[0].down_tracks["me0"], one.cameras[0]
        one.subscribers[0].down.allowed_bps = 200e3
        one.subscribers[0].allocate(one.now_s + 0.01)
        assert down_track.stream is camera.streams["q"], "it waits for a keyframe of the smaller layer"
        assert down_track.waiting
        one.settle(1)
        assert not down_track.waiting

    quiet(test)
