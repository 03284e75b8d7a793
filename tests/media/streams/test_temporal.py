"""Temporal layers, with a model of a decoder that knows what each picture refers to."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sfu.media.rtp.vp8 import Picture
from sfu.media.streams.temporal import TOP, TemporalFilter

L1T3 = [(0, False), (2, True), (1, True), (2, False), (0, False), (2, False), (1, False), (2, False)]
"""Temporal layer and sync bit of libvpx's pictures with three layers (its TemporalLayers pattern)."""
L1T2 = [(0, False), (1, True), (0, False), (1, False)]


def picture(layer: int, *, sync: bool = False) -> Picture:
    return Picture(0, True, 0, 1, 0, layer, sync)


class Decoder:
    """Holds the last decodable picture of each layer. A picture needs that of its own layer and of each below, as
    libwebrtc's RtpVp8RefFinder assumes; with the sync bit only that of the lowest."""

    def __init__(self) -> None:
        self.sent = [-1] * (TOP + 1)  # last picture that the encoder made, by layer
        self.have = [-1] * (TOP + 1)  # last one decoded

    def encoded(self, n: int, layer: int, *, sync: bool, key: bool, passes: bool) -> None:
        needs = [] if key else [0] if sync or layer == 0 else range(layer + 1)
        if passes:
            missing = [at for at in needs if self.have[at] != self.sent[at]]
            assert not missing, f"picture {n} of layer {layer} refers to one of {missing} that was left out"
            self.have[layer] = n
        self.sent[layer] = n
        if key:
            self.sent = [n] * (TOP + 1)
            self.have = [n] * (TOP + 1)


def test_all_pictures_pass_until_fewer_are_wanted() -> None:
    layers = TemporalFilter()
    assert all(layers.passes(picture(layer, sync=sync), key=False, most=TOP) for layer, sync in L1T3)
    assert layers.whole


def test_a_codec_without_layers_passes() -> None:
    layers = TemporalFilter()
    assert layers.passes(None, key=False, most=0)


def test_a_layer_comes_back_at_a_picture_that_refers_to_the_lowest() -> None:
    layers = TemporalFilter()
    low = [layers.passes(picture(layer, sync=sync), key=False, most=0) for layer, sync in L1T3]
    assert low == [True, False, False, False, True, False, False, False]
    assert not layers.whole
    again = [layers.passes(picture(layer, sync=sync), key=False, most=TOP) for layer, sync in L1T3[4:] + L1T3 + L1T3]
    # T2 alone at its first sync picture, all from the one after T1 came back
    assert again[:8] == [True, False, False, False, True, True, True, False]
    assert again[8:12] == [True, False, True, False]
    assert all(again[12:])
    assert layers.whole


def test_all_layers_come_back_at_a_keyframe() -> None:
    layers = TemporalFilter()
    layers.passes(picture(0), key=False, most=0)
    assert not layers.passes(picture(2), key=False, most=TOP)
    assert layers.passes(picture(0), key=True, most=TOP)
    assert layers.whole
    assert layers.passes(picture(2), key=False, most=TOP)


@settings(max_examples=200)
@given(
    st.sampled_from([L1T3, L1T2]),
    st.lists(st.tuples(st.integers(0, TOP), st.integers(1, 12), st.booleans()), max_size=20),
)
def test_every_picture_that_passes_can_be_decoded(
    pattern: list[tuple[int, bool]], wishes: list[tuple[int, int, bool]]
) -> None:
    """Whatever is wanted and when; and two rounds of the pattern after the last wish, all of it is there."""
    layers, decoder, n, at = TemporalFilter(), Decoder(), 0, 0
    top = max(layer for layer, _ in pattern)

    def step(most: int, *, key: bool) -> tuple[int, bool]:
        nonlocal n, at
        at = 0 if key else at
        (layer, sync), n = pattern[at % len(pattern)], n + 1
        at += 1
        passes = layers.passes(picture(layer, sync=sync), key=key, most=most)
        assert not passes or layer <= most, "more than is wanted"
        assert passes or layer > 0, "the lowest layer is left out"
        decoder.encoded(n, layer, sync=sync, key=key, passes=passes)
        return layer, passes

    step(TOP, key=True)
    for most, pictures, key in wishes:
        for i in range(pictures):
            step(most, key=key and i == 0)
    for _ in range(3 * len(pattern)):
        step(top, key=False)
    assert all(step(top, key=False)[1] for _ in range(2 * len(pattern))), "a layer stays away"
    step(TOP, key=False)
