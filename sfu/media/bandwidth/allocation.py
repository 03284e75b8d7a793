"""Video allocation: which layer of each video a subscriber gets within its downlink's bitrate. Pure.

Audio is not counted: it is always sent. First each video gets its smallest layer, in order of importance, until no more
fit. Then, in the same order, videos get larger layers, as far as the page shows them large.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LARGER = 1.15
"""A step up requires this much more than the layer's bitrate, so that a small fall does not undo it."""
ENOUGH = 0.6
"""A layer is large enough if its height is this share of the tile's: nobody sees the difference."""


class Layer(NamedTuple):
    """`height` in pixels, 0 if unknown (then it is the only layer); `most_bps` is its highest recent bitrate: an
    encoder that starts a layer takes seconds to fill it."""

    rid: str
    height: int
    bps: float
    most_bps: float = 0.0


@dataclass(frozen=True, slots=True)
class Wish:
    """A video as the page shows it: `height` of the tile in device pixels; the layers, the smallest first; `now`, the
    rid of the present layer, None while the video is paused."""

    height: int
    layers: Sequence[Layer]
    now: str | None = None

    def best(self) -> int:
        """Index of the smallest layer that is large enough, the best one of that size; of the largest layer if none
        is."""
        enough = next((layer.height for layer in self.layers if layer.height >= self.height * ENOUGH), None)
        return max(i for i, layer in enumerate(self.layers) if enough in (None, layer.height))

    def cost(self, at: int) -> float:
        """The bitrate to reserve for a layer, with a margin if it is larger than the present one."""
        now = next((i for i, layer in enumerate(self.layers) if layer.rid == self.now), -1)
        layer = self.layers[at]
        return layer.bps if at <= now else max(layer.bps, layer.most_bps) * LARGER


class Allocation(NamedTuple):
    """The rid of a layer for each wish, None if none fits; and the total bitrate at which the next step up would fit, 0
    if nothing more is wanted."""

    chosen: list[str | None]
    next_bps: float


def allocate(wishes: Iterable[Wish], allowed_bps: float) -> Allocation:
    """`wishes` are in order of importance."""
    wishes = list(wishes)
    at: list[int] = []
    spent = next_bps = 0.0
    for wish in wishes:
        cost = wish.cost(0) if wish.layers else 0.0
        if not wish.layers or spent + cost > allowed_bps:
            at.append(-1)
            next_bps = next_bps or (spent + cost if wish.layers else 0.0)
        else:
            at.append(0)
            spent += cost
    for i, wish in enumerate(wishes):
        if at[i] < 0:
            continue
        for larger in range(1, wish.best() + 1):
            cost = wish.cost(larger) - wish.cost(at[i])
            if spent + cost > allowed_bps:
                next_bps = next_bps or spent + cost
                break
            spent += cost
            at[i] = larger
    return Allocation([wish.layers[k].rid if k >= 0 else None for k, wish in zip(at, wishes, strict=True)], next_bps)
