"""Video allocation: what a subscriber gets of each video within its downlink's bitrate. Pure.

Sound is always sent and comes first; the bitrate allowed here is for video alone. A video comes in *steps*: its
layers and, on a narrow downlink, also layers with fewer pictures a second (temporal layers).

Videos rise in rounds, one step each. In a round the most important video comes first, then the speaker's, then videos
that have this step already, then the rest in order of importance. So a scarce bitrate is shared, and it does not change
hands when somebody merely becomes a little more important.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

LARGER = 1.15
"""A step up requires this much more than the step's bitrate, so that a small fall does not undo it."""
KEPT = 1.03
"""Nobody has to fall while the present steps take no more than this share of what is allowed: the sum of many videos
varies by more than one of their steps takes."""
ENOUGH = 0.6
"""A layer is large enough if its size is this share of the tile's: nobody sees the difference."""
ALL = 8
"""Stands for the highest temporal layer: VP8 has up to 4 of them (RFC 7741 section 4.2), AV1 and VP9 up to 8."""


class Step(NamedTuple):
    """A layer by its rid, up to this temporal layer; None: with all of its pictures."""

    rid: str
    temporal: int | None = None


class Layer(NamedTuple):
    """`height` in pixels, 0 if unknown (then it is the only layer); likewise `width`, 0 if it does not matter. `bps` is
    the mean of the last seconds, as a layer that takes more for a moment is not given up; `most_bps` is the highest
    recent bitrate, as an encoder that starts a layer takes seconds to fill it."""

    rid: str
    height: int
    bps: float
    most_bps: float = 0.0
    width: int = 0


class Wish(NamedTuple):
    """A video as the page shows it: `height` of the tile in device pixels; the layers, the smallest first;
    `now`, the present step, None while the video is paused; `width` of the tile. `speaks`: the publisher is the current
    speaker. `shares`: if temporal layers count, the share of each layer's bitrate up to each of its temporal layers."""

    height: int
    layers: Sequence[Layer]
    now: Step | None = None
    width: int = 0
    speaks: bool = False
    shares: Sequence[Sequence[float]] = ()

    def best(self) -> int:
        """Index of the smallest layer that is large enough, the best one of that size; of the largest layer if none
        is."""
        enough = next((layer.height for layer in self.layers if self._shows(layer)), None)
        return max(i for i, layer in enumerate(self.layers) if enough in (None, layer.height))

    def _shows(self, layer: Layer) -> bool:
        high = layer.height >= self.height * ENOUGH
        return high and (not layer.width or layer.width >= self.width * ENOUGH)


class Allocation(NamedTuple):
    """The step of each wish, None if none fits; the total bitrate at which the next step up would fit, 0 if nothing
    more is wanted; and whether what the videos have now takes more than is allowed."""

    chosen: list[Step | None]
    next_bps: float
    over: bool


class _Rung(NamedTuple):
    """A step, its order among the steps of its video, and its bitrate: to keep it, and to rise to it."""

    order: tuple[int, int]
    step: Step
    keep_bps: float
    rise_bps: float


class _Ladder:
    """The steps of one video, the smallest first, up to the one that is enough. `at` is the index of the step reached,
    `had` of the present one; -1 is none."""

    __slots__ = ("at", "had", "rungs", "speaks")

    def __init__(self, wish: Wish) -> None:
        self.at, self.speaks = -1, wish.speaks
        best = wish.best() if wish.layers else -1
        self.rungs = [
            _Rung((place, temporal), step, share * layer.bps, share * max(layer.bps, layer.most_bps) * LARGER)
            for place, layer in enumerate(wish.layers[: best + 1])
            for temporal, step, share in _steps(layer.rid, wish.shares[place] if wish.shares else (1.0,), place)
        ]
        self.had = -1
        now = wish.now
        place = next((i for i, layer in enumerate(wish.layers) if now is not None and layer.rid == now.rid), -1)
        if now is not None and place >= 0:
            temporal = ALL if now.temporal is None else now.temporal
            self.had += sum(rung.order <= (place, temporal) for rung in self.rungs)

    @property
    def smallest(self) -> int:
        """The number of steps that are of the smallest layer."""
        return sum(rung.order[0] == 0 for rung in self.rungs)

    def cost(self, at: int) -> float:
        """The bitrate to reserve for a step, with a margin if it is larger than the present one; 0 for none."""
        if at < 0:
            return 0.0
        return self.rungs[at].keep_bps if at <= self.had else self.rungs[at].rise_bps


def _steps(rid: str, shares: Sequence[float], place: int) -> Iterable[tuple[int, Step, float]]:
    """The temporal steps of a layer, and their shares of its bitrate. Half of a larger layer's pictures are better than
    all of the next smaller one's; a quarter of them is not."""
    last = len(shares) - 1
    for temporal, share in enumerate(shares):
        if temporal == last:
            yield ALL, Step(rid), 1.0
        elif not place or temporal == last - 1:
            yield temporal, Step(rid, temporal), share


def allocate(wishes: Iterable[Wish], allowed_bps: float) -> Allocation:
    """`wishes` are in order of importance. The first gets its smallest layer whole before any other gets anything."""
    ladders = [_Ladder(wish) for wish in wishes]
    spent = next_bps = 0.0

    def rise(ladder: _Ladder, at: int) -> None:
        nonlocal spent, next_bps
        if ladder.at != at - 1 or at >= len(ladder.rungs):
            return
        more = ladder.cost(at) - ladder.cost(at - 1)
        if spent + more <= allowed_bps * (KEPT if at <= ladder.had else 1.0):
            spent, ladder.at = spent + more, at
        elif not next_bps:
            next_bps = spent + more

    for ladder in ladders[:1]:
        for at in range(ladder.smallest):
            rise(ladder, at)
    first, others = ladders[:1], ladders[1:]
    for at in range(max((len(ladder.rungs) for ladder in ladders), default=0)):
        others = [ladder for ladder in others if ladder.at == at - 1]
        for ladder in (*first, *sorted(others, key=lambda one: (not one.speaks, one.had < at))):
            rise(ladder, at)
    had_bps = sum(ladder.cost(ladder.had) for ladder in ladders)
    chosen = [ladder.rungs[ladder.at].step if ladder.at >= 0 else None for ladder in ladders]
    return Allocation(chosen, next_bps, had_bps > allowed_bps * KEPT)
