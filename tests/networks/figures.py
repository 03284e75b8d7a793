"""What a recording says about a call: a number for each thing that people would notice, and curves over time.

Sources: W3C webrtc-stats for what was decoded, frozen, made up (concealed) and buffered; the times at which pictures
were shown (requestVideoFrameCallback) for gaps and heights; the emulator's log for the link.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from networks.cases import CUT_S, SETTLED_S, STEP_S, WIDE_S, Case
from networks.emulator import Traffic
from networks.trial import Recording

Figures = dict[str, float | None]
"""None: it did not happen."""
Span = tuple[float, float]

GAP_S = 0.4
"""A pause between two pictures that people notice, at 15 a second."""
STILL_S = 1.0
"""A picture that stands this long, and no word about it, is untold."""
SLICE_S = 0.2
ENOUGH = 0.6
"""A layer with this share of the tile's lines is large enough, for the server as well."""
NEVER_S = 99.0


def measured(recording: Recording) -> Figures:
    """All figures of the case."""
    return _MEASURES[recording.case.measure](recording)


class Watched:
    """What one person saw and heard, with times in seconds since the case began."""

    def __init__(self, seen: dict[str, Any], began_s: float) -> None:
        self.name: str = seen["name"]
        self._began_s = began_s
        self.frames: dict[str, list[tuple[float, int]]] = {
            name: [(at - began_s, height) for at, height in frames] for name, frames in seen["frames"].items()
        }
        self.samples = [(at - began_s, {one["id"]: one for one in found}) for at, found in seen["samples"]]
        self.events = [(at - began_s, what, detail) for at, what, detail in seen["events"]]

    def grown(self, kind: str, key: str, span: Span) -> float:
        """How much a counter grew, all streams of a kind together. A counter that fell began anew."""
        total = 0.0
        inside = [found for at, found in self.samples if span[0] <= at <= span[1]]
        for before, after in pairwise(inside):
            for name, stream in after.items():
                if stream.get("kind") == kind and key in stream:
                    grown = stream[key] - before.get(name, {}).get(key, 0)
                    total += grown if grown >= 0 else stream[key]
        return total

    def seconds(self, span: Span) -> float:
        """Between the first and the last sample of a span."""
        times = [at for at, _ in self.samples if span[0] <= at <= span[1]]
        return max(times[-1] - times[0], 1e-3) if times else span[1] - span[0]

    def paused(self, name: str, span: Span) -> list[Span]:
        """When it was told that the other's camera is paused for want of bandwidth."""
        found, since = [], None
        for at, what, detail in self.events:
            if what == "paused" and detail[:2] == [name, "camera"]:
                if detail[2] == "bandwidth":
                    since = at if since is None else since
                elif since is not None:
                    found.append((since, at))
                    since = None
        return list(_cut([*found, *([(since, span[1])] if since is not None else [])], span))

    def gaps(self, span: Span, least_s: float, name: str | None = None) -> list[Span]:
        """Times without a new picture of this length or longer, the one that lasts to the end too."""
        found = []
        for other, frames in self.frames.items():
            if name in (None, other):
                times = [span[0], *(at for at, _ in frames if span[0] < at < span[1]), span[1]]
                found += [(a, b) for a, b in pairwise(times) if b - a >= least_s]
        return found

    def heights(self, span: Span, name: str | None = None) -> list[tuple[float, int]]:
        """Of all pictures: each change, with its time; the first is that at the span's beginning."""
        found: list[tuple[float, int]] = []
        for other, frames in self.frames.items():
            if name in (None, other):
                before = [height for at, height in frames if at < span[0]]
                inside = [(at, height) for at, height in frames if span[0] <= at < span[1]]
                shown = [*((span[0], height) for height in before[-1:]), *inside]
                found += shown[:1] + [after for one, after in pairwise(shown) if one[1] != after[1]]
        return found

    def height(self, span: Span, name: str | None = None) -> int:
        """What most pictures have."""
        shown = [
            height
            for other, frames in self.frames.items()
            if name in (None, other)
            for at, height in frames
            if span[0] <= at <= span[1]
        ]
        return statistics.mode(shown) if shown else 0

    def picture(self, span: Span) -> Figures:
        """What everybody would say about picture and sound."""
        seconds = self.seconds(span)
        paused = [one for name in self.frames for one in self.paused(name, span)]
        still = [gap for gap in self.gaps(span, STILL_S) if gap[1] >= span[1]]  # which counts as frozen when it ends
        frozen = self.grown("video", "totalFreezesDuration", span) / seconds
        frozen += _length(_without(still, paused)) / (span[1] - span[0])
        heights = [height for _, height in self.heights(span)]
        return {
            "height": self.height(span),
            "fps": self.grown("video", "framesDecoded", span) / seconds,
            "kbps": self.grown("video", "bytesReceived", span) * 8e-3 / seconds,
            "frozen_pct": 100 * frozen,
            "gaps_s": _length(self.gaps(span, GAP_S)),
            "gap_s": max((b - a for a, b in self.gaps(span, GAP_S)), default=0.0),
            "changes": max(0, len(heights) - len(self.frames)),
            "alarms": sum(b < a for a, b in pairwise(heights)) if len(self.frames) == 1 else None,
            "made_up_pct": self.made_up_pct(span),
            "paused_pct": 100 * _length(paused) / (span[1] - span[0]) / max(1, len(self.frames)),
            "untold_pct": max((self.untold_pct(name, span) for name in self.frames), default=100.0),
            "lag_ms": self.lag_ms(span),
        }

    def made_up_pct(self, span: Span) -> float:
        """Of the sound that was played."""
        played = self.grown("audio", "totalSamplesReceived", span)
        return 100 * self.grown("audio", "concealedSamples", span) / played if played else 100.0

    def untold_pct(self, name: str, span: Span) -> float:
        """Of the time: no picture moved, and the page was not told why."""
        still = self.gaps(span, STILL_S, name)
        return 100 * _length(_without(still, self.paused(name, span))) / (span[1] - span[0])

    def late_ms(self, span: Span) -> float:
        """How long sound waits to be played."""
        played = self.grown("audio", "jitterBufferEmittedCount", span)
        return 1e3 * self.grown("audio", "jitterBufferDelay", span) / played if played else NEVER_S * 1e3

    def lag_ms(self, span: Span) -> float | None:
        """From the camera to the screen, by the publisher's clock, which is this machine's (median)."""
        lags = [
            1e3 * (self._began_s + at) - _epoch_ms(stream["estimatedPlayoutTimestamp"])
            for at, found in self.samples
            for stream in found.values()
            if span[0] <= at <= span[1] and stream.get("kind") == "video" and stream.get("estimatedPlayoutTimestamp")
        ]
        return statistics.median(lags) if lags else None


def _settled(recording: Recording) -> Figures:
    span = (SETTLED_S, recording.case.seconds)
    (watched,) = _watched(recording)
    late = [watched.late_ms((a, a + 5)) for a in range(int(span[0]), int(span[1]) - 4, 5)]
    first = (0.5, SETTLED_S)
    return {
        **watched.picture(span),
        **_link(recording, span),
        "late_ms": watched.late_ms(span),
        "latest_ms": max(late, default=None),
        "first_gap_s": max((b - a for a, b in watched.gaps(first, GAP_S)), default=0.0),
        "first_made_up_pct": watched.made_up_pct(first),
    }


def _clean(recording: Recording) -> Figures:
    span = (0.0, recording.case.seconds)
    (watched,) = _watched(recording)
    return {**watched.picture(span), **_link(recording, span)}


def _step(recording: Recording) -> Figures:
    (watched,) = _watched(recording)
    narrow, first, wide = (STEP_S, WIDE_S), (STEP_S, STEP_S + 10), (WIDE_S, recording.case.seconds)
    narrowed = _changed_rate(recording.case, STEP_S)
    before = _offered_bps(recording, (STEP_S - 10, STEP_S))
    full = watched.height((0, STEP_S))
    up_s = next((at for at, height in watched.heights(wide) if height >= full), None)
    after = [height for at, height in watched.heights(wide) if up_s is not None and at >= up_s]
    peak = max(_offered_bps(recording, (at, at + 1)) for at in _steps(STEP_S, STEP_S + 9))
    return {
        **watched.picture(narrow),
        **_link(recording, (STEP_S + 10, WIDE_S), narrowed),
        "peak_ratio": peak / before if before else None,
        "peak_kbps": peak / 1e3,
        "below_s": next(
            (at - STEP_S for at in _steps(*narrow) if _offered_bps(recording, (at, at + 2)) <= 1.05 * narrowed), NEVER_S
        ),
        "made_up_first_pct": watched.made_up_pct(first),
        "up_s": NEVER_S if up_s is None else up_s - WIDE_S,
        "steps_back": sum(b < a for a, b in pairwise(after)),
    }


def _six(recording: Recording) -> Figures:
    span = (SETTLED_S, recording.case.seconds)
    (watched,) = _watched(recording)
    shown = [at for at, _ in watched.frames.get("speaker", []) if span[0] <= at <= span[1]]
    return {
        **watched.picture(span),
        **_link(recording, span),
        "speaker_fps": len(shown) / (span[1] - span[0]),
        "speaker_height": watched.height(span, "speaker"),
        "speaker_gap_s": max((b - a for a, b in watched.gaps(span, GAP_S, "speaker")), default=0.0),
    }


def _shared(recording: Recording) -> Figures:
    span = (SETTLED_S, recording.case.seconds)
    watched = _watched(recording)
    received = [
        sum(one.grown(kind, "bytesReceived", span) for kind in ("video", "audio")) * 8 / one.seconds(span)
        for one in watched
    ]
    each = [one.picture(span) for one in watched]
    worst = {name: max(one[name] or 0.0 for one in each) for name in ("frozen_pct", "made_up_pct", "gap_s")}
    sharers = 2  # two calls, or a call and a download
    return {
        **each[0],
        **worst,
        **_link(recording, span),
        "fair_ratio": min(received) / max(received) if max(received) else 0.0,
        "share_pct": 100 * min(received) / ((recording.case.rate_bps or 1.0) / sharers),
    }


def _back(recording: Recording) -> Figures:
    """`back_s` is from when the way is open again to a picture after which none is missing."""
    (watched,) = _watched(recording)
    blocks = [change.at_s for change in recording.case.changes if change.settings.get("block") == 0]
    mended = blocks[0] if blocks else CUT_S
    end = recording.case.seconds
    gaps = [gap for gap in _joined(watched.gaps((CUT_S - 2, end), GAP_S)) if gap[1] > mended]
    caused = [b for a, b in gaps if a < mended + 3]
    back = NEVER_S if any(b >= end for _, b in gaps) else max(caused, default=mended) - mended
    return {
        "back_s": back,
        "gap_s": max((b - a for a, b in gaps), default=0.0),
        "gaps_s": _length(gaps),
        "joins": sum(1 for _, what, detail in watched.events if what == "state" and detail[0] == "joining"),
    }


_MEASURES: dict[str, Callable[[Recording], Figures]] = {
    "settled": _settled, "clean": _clean, "step": _step, "six": _six, "shared": _shared, "back": _back,
}  # fmt: skip


def curves(recording: Recording) -> dict[str, list[list[float]]]:
    """Over the seconds of the case: `offered`, `delivered` and `rate` of the link in kbps (the last as far as it is
    limited), `queue` in ms, and for each picture its changes of height, its frames a second, and when it was paused or
    stood still."""
    case, ways = recording.case, {"up"} if recording.case.uplink else {"down"}
    seconds: dict[int, list[Traffic]] = {}
    for one in recording.traffic:
        if one.way in ways and 0 <= one.at_s - recording.began_s < case.seconds:
            seconds.setdefault(int(one.at_s - recording.began_s), []).append(one)
    watched = _watched(recording)[0]
    found: dict[str, list[list[float]]] = {
        "offered": [
            [at, sum(one.offered_bytes for one in seconds.get(at, [])) * 8e-3] for at in range(int(case.seconds))
        ],
        "delivered": [
            [at, sum(one.delivered_bytes for one in seconds.get(at, [])) * 8e-3] for at in range(int(case.seconds))
        ],
        "queue": [[at, _wait_ms(seconds.get(at, []))] for at in range(int(case.seconds))],
        "rate": [[change.at_s, change.settings["rate"] / 1e3] for change in case.changes if "rate" in change.settings],
    }
    for name in watched.frames:
        whole = (0.0, case.seconds)
        found[f"height {name}"] = [[at, height] for at, height in watched.heights(whole, name)]
        times = [int(at) for at, _ in watched.frames[name] if 0 <= at < case.seconds]
        found[f"fps {name}"] = [[at, times.count(at)] for at in range(int(case.seconds))]
        found[f"paused {name}"] = [list(one) for one in watched.paused(name, whole)]
        found[f"still {name}"] = [list(one) for one in watched.gaps(whole, STILL_S, name)]
    return found


def began_small(recording: Recording) -> int:
    """The lines of the pictures before the case began, if these are much less than the page shows, else 0: then the
    machine was busy, and the figures say little."""
    before = max(watched.height((-3.0, 0.0)) for watched in _watched(recording))
    return before if before < ENOUGH * recording.case.lines else 0


def cpu_limited(recording: Recording) -> bool:
    """Whether a publisher's browser sent less because the processor was too slow: such a run says nothing."""
    return any(
        stream.get("qualityLimitationReason") == "cpu" and at >= recording.began_s
        for person in recording.publishers
        for at, found in person["samples"]
        for stream in found
    )


def _watched(recording: Recording) -> list[Watched]:
    return [Watched(seen, recording.began_s) for seen in recording.watchers]


def _link(recording: Recording, span: Span, rate_bps: float | None = None) -> Figures:
    way = "up" if recording.case.uplink else "down"
    inside = _inside(recording, span, way)
    kbps = sum(one.delivered_bytes for one in inside) * 8e-3 / (span[1] - span[0])
    rate = rate_bps or recording.case.rate_bps
    offered = sum(one.offered for one in inside)
    return {
        "link_kbps": kbps,
        "used_pct": 100 * kbps * 1e3 / rate if rate else None,
        "queue_ms": _wait_ms(inside),
        "longest_queue_ms": max((one.longest_ms for one in inside), default=0.0),
        "dropped_pct": 100 * sum(one.overflowed for one in inside) / max(1, offered),
    }


def _wait_ms(traffic: list[Traffic]) -> float:
    """The mean over the packets that were queued."""
    queued = [(one.offered - one.overflowed - one.lost, one.wait_ms) for one in traffic]
    return sum(count * wait for count, wait in queued) / max(1, sum(count for count, _ in queued))


def _offered_bps(recording: Recording, span: Span) -> float:
    return sum(one.offered_bytes for one in _inside(recording, span, "down")) * 8 / (span[1] - span[0])


def _inside(recording: Recording, span: Span, way: str) -> list[Traffic]:
    began_s = recording.began_s
    return [one for one in recording.traffic if one.way == way and span[0] < one.at_s - began_s <= span[1]]


def _changed_rate(case: Case, at_s: float) -> float:
    return next(change.settings["rate"] for change in case.changes if change.at_s == at_s)


def _steps(a: float, b: float) -> Iterable[float]:
    return (a + i * SLICE_S for i in range(round((b - a) / SLICE_S)))


def _epoch_ms(ntp_ms: float) -> float:
    return ntp_ms - 2_208_988_800_000


def _length(spans: Iterable[Span]) -> float:
    return sum(b - a for a, b in spans)


def _cut(spans: Iterable[Span], within: Span) -> Iterable[Span]:
    for a, b in spans:
        if b > within[0] and a < within[1]:
            yield max(a, within[0]), min(b, within[1])


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Spans without what lies between two that touch: one picture alone, such as a decoder's last, is no call."""
    found: list[Span] = []
    for a, b in spans:
        if found and found[-1][1] == a:
            found[-1] = found[-1][0], b
        else:
            found.append((a, b))
    return found


def _without(spans: Iterable[Span], others: Iterable[Span]) -> list[Span]:
    left = list(spans)
    for a, b in others:
        left = [piece for x, y in left for piece in ((x, min(y, a)), (max(x, b), y)) if piece[1] > piece[0]]
    return left
