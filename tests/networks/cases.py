"""The networks that calls are tried in: what each does to the link of one participant, and what must be reached there.

A case begins after everybody sees everybody and the pictures have settled on a clean link with a round trip of 40 ms.
Cases of one `run` go on at once, each with a subscriber behind a link of its own; they share the publishers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SETTLED_S = 10.0
"""After this much of a case, what it is like counts."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on a figure of figures.py; with `least` it is the smallest good value, else the largest."""

    figure: str
    bound: float
    least: bool = False

    def met(self, value: float | None) -> bool:
        return value is not None and (value >= self.bound if self.least else value <= self.bound)

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.bound:g}"


def at_least(**bounds: float) -> tuple[Goal, ...]:
    return tuple(Goal(figure, bound, least=True) for figure, bound in bounds.items())


def at_most(**bounds: float) -> tuple[Goal, ...]:
    return tuple(Goal(figure, bound) for figure, bound in bounds.items())


@dataclass(frozen=True, slots=True)
class Change:
    """At `at_s` of the case, the link becomes otherwise (emulator.c says how), or `act` happens: `move` to another
    address, `kill` of the media worker that has the call, or a `download` over TCP that shares the link."""

    at_s: float
    way: str = "down"
    act: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Camera:
    lines: int
    loud: bool = True


@dataclass(frozen=True, slots=True)
class Case:
    """`livekit` is what LiveKit 1.13 did on this link, without and with its send-side estimator, where that was
    measured: for docs/networks.md. `uplink`: the changed link is the publisher's, and the case has a room of its own.
    `watchers` are on one link. `lines` is the height of the tiles."""

    name: str
    about: str
    run: str
    changes: tuple[Change, ...]
    goals: tuple[Goal, ...]
    measure: str = "settled"
    seconds: float = 60.0
    cameras: tuple[Camera, ...] = (Camera(720),)
    lines: int = 720
    uplink: bool = False
    watchers: int = 1
    today: str = ""
    livekit: str = ""
    long: bool = False

    @property
    def rate_bps(self) -> float | None:
        """Of the changed link, where it is limited all the time."""
        rates = [change.settings["rate"] for change in self.changes if "rate" in change.settings]
        return rates[0] if len(rates) == 1 else None


def link(at_s: float = 0.0, way: str = "down", **settings: Any) -> Change:
    return Change(at_s, way, settings=settings)


STEP_S, WIDE_S = 15.0, 45.0
"""When a link becomes narrow, and wide again, in the cases of steps."""
CUT_S = 5.0
"""When something happens in the cases of outages."""


def _step(queue_ms: int, today: str, livekit: str) -> Case:
    return Case(
        f"step-{queue_ms}",
        f"5 Mbps becomes 400 kbps for 30 s, with a queue of {queue_ms:,} ms",
        "step",
        (
            link(0, rate=5e6, queue=queue_ms),
            link(STEP_S, rate=4e5, queue=queue_ms),
            link(WIDE_S, rate=5e6, queue=queue_ms),
        ),
        (
            *at_most(below_s=1.5, gaps_s=1.5, made_up_first_pct=2, peak_ratio=1.3),
            *at_most(up_s=6, steps_back=0),
        ),
        measure="step",
        seconds=75,
        today=today,
        livekit=livekit,
    )


def _uplink(name: str, about: str, change: Change, goals: tuple[Goal, ...], today: str, livekit: str) -> Case:
    return Case(
        name, about, "uplink", (change,), (*goals, *at_most(late_ms=250, made_up_pct=1)), cameras=(Camera(540),),
        lines=540, uplink=True, today=today, livekit=livekit,
    )  # fmt: skip


def _outage(
    name: str, about: str, run: str, changes: tuple[Change, ...], back_s: float, today: str, livekit: str
) -> Case:
    return Case(
        name, about, run, changes, at_most(back_s=back_s), measure="back", seconds=45, cameras=(Camera(360),),
        lines=360, today=today, livekit=livekit,
    )  # fmt: skip


SIX = (Camera(360), *(Camera(360, loud=False) for _ in range(5)))

CASES = (
    Case("clean", "a clean link", "rates", (), at_most(alarms=0, made_up_pct=0.5), measure="clean",
         today="1 false alarm a minute", livekit="1 gap of 1.1 s; 0 alarms"),
    Case("1500k", "1.5 Mbps, a queue of 300 ms", "rates", (link(rate=1.5e6, queue=300),),
         (*at_least(used_pct=75), *at_most(frozen_pct=0.5, queue_ms=60)),
         today="46 % used, 3 % frozen", livekit="20 % frozen; 720p at 4.5 fps, 1 % frozen"),
    Case("600k", "600 kbps", "rates", (link(rate=6e5, queue=300),),
         (*at_least(used_pct=75), *at_most(frozen_pct=1)),
         today="47 % used, 0 % frozen", livekit="19 % frozen; 360p at 13.2 fps, 4 % frozen"),
    Case("250k", "250 kbps", "narrow", (link(rate=2.5e5, queue=300),),
         (*at_least(fps=7), *at_most(frozen_pct=5, made_up_pct=0.5)),
         today="1.4 fps, 69 % frozen, sound 3.1 %", livekit="21 % frozen; 4.4 fps, 0 % frozen"),
    Case("100k", "100 kbps", "narrow", (link(rate=1e5, queue=300),),
         (*at_least(paused_pct=80), *at_most(untold_pct=10, made_up_pct=1)),
         today="no picture, not told, sound 33 %", livekit="no picture, sound 25 %; 26 %"),
    Case("400k-1s", "400 kbps with a queue of 1 s", "narrow", (link(rate=4e5, queue=1000),),
         (*at_least(used_pct=75), *at_most(queue_ms=60)),
         today="65 % used, queue 29 ms", livekit="queue 318 ms"),
    _step(100, "below the link after 10 s, 9 s of gaps", "2.6 s, 11.7 s of gaps; 3.7 s without a picture"),
    _step(300, "below the link after 7 s, 6.8 s of gaps", "3.4 s, 7.9 s of gaps; 3.3 s without a picture"),
    _step(1000, "below the link after 2.5 s, 2.6 s of gaps", "5.4 s, 10.7 s of gaps; 3.3 s without a picture"),
    Case("loss-10", "10 % random loss", "loss", (link(loss=0.1),),
         (*at_least(height=720), *at_most(frozen_pct=3, made_up_pct=1)),
         today="180p, 3 % frozen", livekit="720p, 36 % frozen, sound 2.2 %"),
    Case("loss-20", "20 % random loss", "loss", (link(loss=0.2),),
         (*at_least(height=720), *at_most(frozen_pct=6, made_up_pct=1)),
         today="180p, 7 % frozen, sound 1.3 %", livekit="720p, 66 % frozen, sound 5.2 %"),
    Case("burst-5", "5 % loss in bursts of four packets", "far", (link(burst="0.0132,0.2,0.8"),),
         (*at_least(height=720), *at_most(frozen_pct=1, made_up_pct=1)),
         today="360p, 1 % frozen", livekit="720p, 5 % frozen, sound 3.1 %"),
    Case("far", "a round trip of 300 ms, 2 % loss", "far", (link(delay=150, loss=0.02), link(way="up", delay=150)),
         (*at_least(fps=14), *at_most(frozen_pct=4)),
         today="9.9 fps, 27 % frozen", livekit="13.3 fps, 11 % frozen"),
    Case("six", "six cameras on 800 kbps", "six", (link(rate=8e5, queue=300),),
         (*at_least(speaker_fps=12), *at_most(untold_pct=10, made_up_pct=1)),
         measure="six", seconds=70, cameras=SIX, lines=240,
         today="0.4 of 90 fps, sound 10.3 %", livekit="1.3 of 90 fps, sound 16.3 %"),
    _uplink("up-300k", "300 kbps up", link(way="up", rate=3e5, queue=300), at_most(frozen_pct=1),
            "1.6 s late", "180p, 0.2–0.4 s late"),
    _uplink("up-loss-5", "5 % loss up", link(way="up", loss=0.05),
            (*at_least(fps=14), *at_most(frozen_pct=3)), "14.2 fps, 2.9 % frozen", "12 fps, 22 % frozen"),
    _uplink("up-loss-20", "20 % loss up", link(way="up", loss=0.2),
            (*at_least(fps=12), *at_most(frozen_pct=10)), "11.6 fps, 18 % frozen, 1 s late",
            "7.5 fps, 47 % frozen, sound 2.2 %"),
    Case("shared", "two subscribers share one link of 1 Mbps", "shared", (link(rate=1e6, queue=300),),
         (*at_least(fair_ratio=0.7), *at_most(made_up_pct=1)), measure="shared", seconds=70, watchers=2),
    Case("download", "1 Mbps, which a TCP download shares", "shared",
         (link(rate=1e6, queue=300), Change(0.5, act="download")),
         (*at_least(share_pct=40), *at_most(made_up_pct=1)), measure="shared", seconds=70),
    _outage("address", "the client gets another address", "moves", (Change(CUT_S, act="move"),), 3.0,
            "back after 7 s", "15.6 s"),
    _outage("outage-3", "nothing gets through for 3 s", "moves",
            (link(CUT_S, "both", block=1), link(CUT_S + 3, "both", block=0)), 0.3, "0.3 s", "0.2 s"),
    _outage("outage-20", "nothing gets through for 20 s", "moves",
            (link(CUT_S, "both", block=1), link(CUT_S + 20, "both", block=0)), 1.5, "2.0 s", "1.3 s"),
    _outage("worker", "the server's media worker is killed", "worker", (Change(CUT_S, act="kill"),), 1.0, "1.0 s",
            "2.7 s"),
    Case("clean-10-min", "a clean link, ten minutes", "long", (), at_most(alarms=0, made_up_pct=0.5), measure="clean",
         seconds=600, long=True, today="1 false alarm a minute", livekit="1 gap of 1.1 s; 0 alarms"),
)  # fmt: skip
"""`long` ones run only where they are named, and for `--write`."""
