"""Video allocation: which layer of each video a subscriber gets within its downlink's bitrate. Pure.

Sound is not counted: it always goes. Of the videos each first gets its smallest layer, the most important one first,
until no more fit; then the same order decides whose are made larger, as far as they are shown large.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LARGER = 1.15
"""To go up, this much more than the layer's bitrate must be there, so that a small fall does not take it back."""
ENOUGH = 0.6
"""A layer is large enough if its height is this share of the tile's: nobody sees the difference."""


class Layer(NamedTuple):
    """`height` in pixels, 0 where it is not known (the only layer there is); `most_bps` is what it took lately: an
    encoder that begins with a layer takes seconds to fill it."""

    rid: str
    height: int
    bps: float
    most_bps: float = 0.0


@dataclass(frozen=True, slots=True)
class Wish:
    """A video as it is shown: `height` in device pixels; its layers, the smallest first; the layer it has now, None
    while it is paused."""

    height: int
    layers: Sequence[Layer]
    now: str | None = None

    def best(self) -> int:
        """The layer that is large enough, of several of one size the best; the largest if none is."""
        enough = next((layer.height for layer in self.layers if layer.height >= self.height * ENOUGH), None)
        return max(i for i, layer in enumerate(self.layers) if enough in (None, layer.height))

    def cost(self, at: int) -> float:
        """Of a layer; more for one larger than now."""
        now = next((i for i, layer in enumerate(self.layers) if layer.rid == self.now), -1)
        layer = self.layers[at]
        return layer.bps if at <= now else max(layer.bps, layer.most_bps) * LARGER


class Allocation(NamedTuple):
    """A layer for each wish, None where it does not fit; and what all would take that is wanted next, 0 if all is
    there."""

    chosen: list[str | None]
    next_bps: float


def allocate(wishes: Iterable[Wish], allowed_bps: float) -> Allocation:
    """`wishes` in the order of their importance."""
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
