"""Temporal layers of a VP8 stream: which pictures a subscriber gets that is to have fewer of them a second. Pure.

A picture refers to earlier ones of its own temporal layer and of lower ones (RFC 7741 section 4.2, TID and Y). So a
layer can be left out at any picture, and comes back at one that refers to the lowest layer only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from sfu.media.rtp.vp8 import TEMPORAL_LAYERS, Picture, picture_of

TOP = TEMPORAL_LAYERS - 1


class TemporalFilter:
    """The choice of pictures for one subscriber of one stream, which has had all pictures until now."""

    __slots__ = ("_level", "_seen")

    def __init__(self) -> None:
        self._level = TOP  # pictures up to this layer can be decoded
        self._seen = 0  # a bit for each layer that the stream showed

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return self._level == TOP

    def passes(self, picture: Picture | None, *, key: bool, most: int) -> bool:
        """Whether the subscriber, which is to have the layers up to `most`, gets the next picture. `key`: it is a
        keyframe. A picture of a codec without these layers is None."""
        if key:
            self._level = most
        if picture is None:
            return True
        layer = picture.temporal
        self._seen |= 1 << layer
        self._level = min(self._level, most)
        if self._level < layer <= most and picture.sync:
            # only layer by layer: a later picture of this layer may refer to layers between, too
            if not self._between(layer):
                self._level = layer
            passes = True
        else:
            passes = layer <= self._level
        if most == TOP and not self._seen >> self._level + 1:
            self._level = TOP
        return passes

    def decodes(self, picture: Picture | None) -> bool:
        """Whether a picture belongs to the layers that the subscriber gets at present."""
        return picture is None or picture.temporal <= self._level

    def _between(self, layer: int) -> int:
        """The layers seen above the present one and below `layer`."""
        return self._seen & (1 << layer) - 1 & ~((1 << self._level + 1) - 1)


def temporal_shares(runs: Iterable[Sequence[bytes]]) -> tuple[float, ...]:
    """The parts of a stream's bytes up to each of its temporal layers; (1.0,) if it has no layers. The packets of a run
    are of one picture, as a rule."""
    layers = [0] * TEMPORAL_LAYERS
    for packets in runs:
        picture = picture_of(packets[0])
        layers[0 if picture is None else picture.temporal] += sum(map(len, packets))
    total = sum(layers)
    top = max((layer for layer, n_bytes in enumerate(layers) if n_bytes), default=0)
    return tuple(n_bytes / total for n_bytes in accumulate(layers[: top + 1])) if total else (1.0,)
